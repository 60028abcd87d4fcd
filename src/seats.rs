//! The connections of administration, where it has an address of its own. **Whoever has shown who they are keeps their seat; the others
//! make room.**
//!
//! | when | what happens |
//! | --- | --- |
//! | all seats are taken, or all that one client can have | the oldest connection that has proved nothing is closed: of the client that connects, or of the one that has the most |
//! | none of those has proved nothing | the new connection is closed |
//!
//! So connections that ask nothing keep no operator out, however many addresses they come from: an operator needs a seat only from the
//! connection to the first request, which proves who asks. A seat is proved when a call that needs more than the role `check` is
//! admitted through it.
//!
//! A connection is closed by shutting down its socket, which is there twice for that: its own task then ends as if the client
//! had gone, in whatever it is, the TLS handshake too. So no connection at the public address pays anything.

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::net::{Shutdown, shutdown};
use tracing::warn;

use crate::connections::client_of;

/// Connections of administration at a time.
pub(crate) const SEATS: usize = 64;
/// Of those, the connections of one client.
const SEATS_OF_CLIENT: usize = SEATS / 4;
/// Closed connections for one line in the log.
const LOG_EACH: u64 = 1000;

/// All seats.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// In the order in which they came.
    all: Vec<Holder>,
    next: u64,
    closed: u64,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    client: IpAddr,
    has_proved: bool,
    /// Its connection, once more.
    connection: OwnedFd,
}

/// The seat of a connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
}

impl Seats {
    /// A seat for a connection from there, of which this is another handle; `None`: it is to be closed. A client of many, such as a
    /// trusted proxy, may have all seats.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        is_of_many: bool,
        connection: OwnedFd,
    ) -> Option<Seat> {
        let client = client_of(address);
        let mut taken = self.locked();
        let own = taken.all.iter().filter(|holder| holder.client == client).count();
        if own >= SEATS_OF_CLIENT && !is_of_many {
            taken.close_oldest_of(client)?;
        } else if taken.all.len() >= SEATS {
            let most = taken.client_with_most()?;
            taken.close_oldest_of(most)?;
        }
        let number = taken.next;
        taken.next += 1;
        taken.all.push(Holder { number, client, has_proved: false, connection });
        Some(Seat { seats: Arc::clone(self), number })
    }

    fn locked(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here is left half done by a panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn unproved(&self) -> impl DoubleEndedIterator<Item = &Holder> {
        self.all.iter().filter(|holder| !holder.has_proved)
    }

    /// Of those that have proved nothing, the client with the most connections; of several the one that came first.
    fn client_with_most(&self) -> Option<IpAddr> {
        let count = |client: IpAddr| self.unproved().filter(|holder| holder.client == client).count();
        let clients = self.unproved().map(|holder| holder.client);
        clients.rev().max_by_key(|client| count(*client))
    }

    /// Closes the oldest connection of a client that has proved nothing; `None`: each has.
    fn close_oldest_of(&mut self, client: IpAddr) -> Option<()> {
        let is_it = |holder: &Holder| holder.client == client && !holder.has_proved;
        let place = self.all.iter().position(is_it)?;
        let holder = self.all.remove(place);
        // An error: its client has just gone.
        let _ = shutdown(&holder.connection, Shutdown::Both);
        if self.closed.is_multiple_of(LOG_EACH) {
            let closed = self.closed + 1;
            warn!(
                %client,
                closed,
                "the address of administration has no seat left: connections that have shown no token make room"
            );
        }
        self.closed += 1;
        Some(())
    }
}

impl Seat {
    /// Whoever has it has shown who they are.
    pub(crate) fn prove(&self) {
        let mut taken = self.seats.locked();
        if let Some(holder) = taken.all.iter_mut().find(|holder| holder.number == self.number) {
            holder.has_proved = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.locked().all.retain(|holder| holder.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    use super::*;

    /// A connection from there: its seat, and the client's end.
    fn connect(seats: &Arc<Seats>, client: [u8; 4], is_of_many: bool) -> (Option<Seat>, UnixStream) {
        let (own, other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let seat = seats.enter(client.into(), is_of_many, own.as_fd().try_clone_to_owned().unwrap());
        (seat, other)
    }

    fn is_closed(client: &UnixStream) -> bool {
        let mut client = client;
        matches!(client.read(&mut [0]), Ok(0))
    }

    #[test]
    fn an_operator_gets_in_whoever_holds_seats_that_prove_nothing() {
        let seats = Arc::new(Seats::default());
        let idle: Vec<_> = (0..SEATS as u8).map(|n| connect(&seats, [192, 0, 2, n % 4], false)).collect();
        assert!(idle.iter().all(|(seat, client)| seat.is_some() && !is_closed(client)));
        let (seat, operator) = connect(&seats, [198, 51, 100, 1], false);
        let seat = seat.unwrap();
        assert!(
            is_closed(&idle[0].1) && idle[1..].iter().all(|(_, client)| !is_closed(client)),
            "the oldest"
        );
        seat.prove();
        // Whatever comes then.
        let more: Vec<_> = (0..100).map(|n| connect(&seats, [203, 0, 113, n], false)).collect();
        assert!(more.iter().all(|(seat, _)| seat.is_some()) && !is_closed(&operator));
        assert_eq!(seats.locked().all.len(), SEATS);
    }

    #[test]
    fn the_client_with_the_most_makes_room_for_the_others_and_for_itself() {
        let seats = Arc::new(Seats::default());
        let few: Vec<_> = (0..3).map(|n| connect(&seats, [198, 51, 100, n], false)).collect();
        let many: Vec<_> = (0..200).map(|_| connect(&seats, [192, 0, 2, 1], false)).collect();
        let open = many.iter().filter(|(_, client)| !is_closed(client)).count();
        assert_eq!(open, SEATS_OF_CLIENT, "its own oldest make room");
        let others: Vec<_> = (0..100).map(|n| connect(&seats, [203, 0, 113, n], false)).collect();
        assert!(
            few.iter().all(|(_, client)| is_closed(client)),
            "by then each has one, and these are the oldest"
        );
        assert!(others[99].0.is_some());
    }

    #[test]
    fn seats_that_were_proved_are_kept_and_given_back() {
        let seats = Arc::new(Seats::default());
        let mut proved: Vec<_> = (0..SEATS).map(|_| connect(&seats, [10, 0, 0, 1], true)).collect();
        proved.iter().for_each(|(seat, _)| seat.as_ref().unwrap().prove());
        assert!(connect(&seats, [10, 0, 0, 1], true).0.is_none(), "even of a proxy");
        assert!(connect(&seats, [192, 0, 2, 1], false).0.is_none());
        assert!(proved.iter().all(|(_, client)| !is_closed(client)));
        proved.pop();
        let (seat, client) = connect(&seats, [192, 0, 2, 1], false);
        assert!(seat.is_some() && !is_closed(&client));
        drop((proved, seat));
        assert!(seats.locked().all.is_empty());
    }

    #[test]
    fn a_seat_that_was_taken_away_is_given_back_once() {
        let seats = Arc::new(Seats::default());
        let mut all: Vec<_> =
            (0..=SEATS).map(|n| connect(&seats, [192, 0, (n >> 2) as u8, 1], false)).collect();
        assert!(is_closed(&all[0].1));
        let (gone, _) = all.remove(0);
        gone.as_ref().unwrap().prove();
        drop(gone);
        assert_eq!(seats.locked().all.len(), SEATS);
    }
}
