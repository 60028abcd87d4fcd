//! The connections of administration, where it has an address of its own. **Whoever has shown who they are keeps their seat; the others
//! make room.**
//!
//! | when | what happens |
//! | --- | --- |
//! | all seats are taken, or all that one client can have | a connection that has proved nothing is closed, whichever chance says: of the client that connects, or of those that have the most |
//! | none of those has proved nothing | the new connection is closed |
//!
//! So connections that ask nothing keep no operator out, however many addresses they come from: an operator needs a seat only from the
//! connection to the first request, which proves who asks. A seat is proved when a call that needs more than the role `check` is
//! admitted through it. Chance decides because the oldest would be the operator's whenever others connect faster than a request comes:
//! with so many connections in that time as there are seats, one of three tries still gets through, and of the last one nobody knows
//! when to send more.
//!
//! A connection is closed by shutting down its socket, which is there twice for that: its own task then ends as if the client
//! had gone, in whatever it is, the TLS handshake too. So no connection at the public address pays anything.

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::net::{Shutdown, shutdown};
use smallvec::SmallVec;
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
            taken.close_one_of(|holder| holder == client)?;
        } else if taken.all.len() >= SEATS {
            let most = taken.clients_with_most();
            taken.close_one_of(|holder| most.contains(&holder))?;
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
    /// Of those that have proved nothing, the clients with the most connections.
    fn clients_with_most(&self) -> SmallVec<[IpAddr; SEATS]> {
        let unproved = || self.all.iter().filter(|holder| !holder.has_proved);
        let count = |client: IpAddr| unproved().filter(|holder| holder.client == client).count();
        let most = unproved().map(|holder| count(holder.client)).max().unwrap_or(0);
        unproved().map(|holder| holder.client).filter(|client| count(*client) == most).collect()
    }

    /// Closes some connection of such a client that has proved nothing; `None`: each has.
    fn close_one_of(&mut self, is_meant: impl Fn(IpAddr) -> bool) -> Option<()> {
        let places = self.all.iter().enumerate();
        let places = places.filter(|(_, holder)| !holder.has_proved && is_meant(holder.client));
        let places: SmallVec<[usize; SEATS]> = places.map(|(place, _)| place).collect();
        let place = *places.get(any_below(places.len())?)?;
        let holder = self.all.swap_remove(place);
        let client = holder.client;
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

/// A number that nobody can foresee; `None`: there is none below zero.
fn any_below(count: usize) -> Option<usize> {
    // A system that gives no random bytes takes the first one.
    (getrandom::u32().unwrap_or(0) as usize).checked_rem(count)
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
        assert_eq!(idle.iter().filter(|(_, client)| is_closed(client)).count(), 1);
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
        assert_eq!(open, SEATS_OF_CLIENT, "its own make room");
        let all_but_many = SEATS - SEATS_OF_CLIENT - few.len();
        let connect_others = |count: usize| -> Vec<_> {
            (0..count).map(|n| connect(&seats, [203, 0, 113, n as u8], false)).collect()
        };
        let others = connect_others(all_but_many + SEATS_OF_CLIENT - 1);
        assert!(few.iter().chain(&others).all(|(seat, client)| seat.is_some() && !is_closed(client)));
        assert_eq!(many.iter().filter(|(_, client)| !is_closed(client)).count(), 1, "each has one by then");
    }

    #[test]
    fn however_fast_others_connect_some_tries_of_an_operator_live_long_enough() {
        let seats = Arc::new(Seats::default());
        let (mut others, mut next) = (Vec::new(), 0x0a00_0000_u32);
        let mut connect_others = |count: usize| {
            for _ in 0..count {
                next += 1;
                others.push(connect(&seats, next.to_be_bytes(), false));
            }
            others.retain(|(_, client)| !is_closed(client));
        };
        connect_others(SEATS);
        let lived = (0..60).filter(|_| {
            let (seat, operator) = connect(&seats, [198, 51, 100, 1], false);
            // As many as there are seats, before the operator has asked.
            connect_others(SEATS);
            let lives = !is_closed(&operator);
            drop(seat);
            lives
        });
        let lived = lived.count();
        assert!((5..50).contains(&lived), "{lived} of 60, of which 22 are expected");
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
        let closed = all.iter().position(|(_, client)| is_closed(client)).unwrap();
        let (gone, _) = all.remove(closed);
        gone.as_ref().unwrap().prove();
        drop(gone);
        assert_eq!(seats.locked().all.len(), SEATS);
    }
}
