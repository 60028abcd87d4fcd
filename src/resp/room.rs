//! The memory that all open transactions of a node share: what each may have, for all connections together, would be more than the
//! node has. A client has a part of it, however many connections it has.

use std::{net::IpAddr, sync::Arc};

use crate::parts;

/// Bytes of the commands in all transactions of a node.
pub(super) const MAX_BYTES_OF_ALL: usize = 32 << 20;
/// Bytes of the commands in all transactions of one client.
pub(super) const MAX_BYTES_OF_CLIENT: usize = MAX_BYTES_OF_ALL / 8;
/// The least that a transaction takes.
const LEAST_BYTES: usize = 512;

/// The memory for the transactions of a client. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Room {
    all: Arc<parts::Room>,
    client: Option<IpAddr>,
}

/// The commands of one transaction, in memory that counts.
#[derive(Debug, Default)]
pub(super) struct Queued {
    bytes: Vec<u8>,
    counted: usize,
    part: parts::Part,
}

/// There is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// Of nobody who has a part.
impl Default for Room {
    fn default() -> Self {
        Self { all: parts::Room::new(MAX_BYTES_OF_ALL, MAX_BYTES_OF_CLIENT), client: None }
    }
}

impl Room {
    /// The same room, for this client.
    pub(super) fn of(&self, client: Option<IpAddr>) -> Self {
        Self { all: Arc::clone(&self.all), client }
    }

    /// Of no commands yet.
    pub(super) fn queue(&self) -> Queued {
        Queued { bytes: Vec::new(), counted: 0, part: self.all.part(self.client) }
    }
}

impl Queued {
    /// Adds a command.
    pub(super) fn add(&mut self, command: &[u8]) -> Result<(), Full> {
        let length = self.bytes.len() + command.len();
        if length > self.counted {
            // By halves, so that many short ones are not copied each time.
            let wanted = length.max(self.counted * 3 / 2).max(LEAST_BYTES);
            if !self.part.grow_to(wanted) {
                return Err(Full);
            }
            self.counted = wanted;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(command);
        Ok(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_transactions_share_one_room_and_give_back_what_they_had() {
        let room = Room::default();
        let mut all: Vec<Queued> = (0..200).map(|_| room.queue()).collect();
        let command = [b'x'; 1_000];
        let fits = all.iter_mut().map(|one| (0..300).take_while(|_| one.add(&command).is_ok()).count());
        let added: usize = fits.sum();
        let counted = room.all.taken();
        assert!(counted <= MAX_BYTES_OF_ALL && added * 1_000 <= counted);
        assert!(added * 1_000 > MAX_BYTES_OF_ALL / 2, "{added}");
        assert!(all.iter().all(|one| one.bytes.capacity() <= one.counted.max(LEAST_BYTES)));
        assert_eq!(room.queue().add(&[0; 256 << 10]), Err(Full));
        // The first ones have most of it.
        all.drain(..100);
        room.queue().add(&[0; 256 << 10]).unwrap();
        drop(all);
        assert_eq!(room.all.taken(), 0);
    }

    #[test]
    fn a_client_that_takes_its_part_leaves_the_rest_to_others() {
        let room = Room::default();
        let client = |n: u8| room.of(Some(IpAddr::from([192, 0, 2, n])));
        let mut all: Vec<Queued> = (0..128).map(|_| client(1).queue()).collect();
        let fit = all.iter_mut().filter_map(|one| one.add(&[0; 256 << 10]).ok()).count();
        assert_eq!(fit, MAX_BYTES_OF_CLIENT / (256 << 10));
        client(2).queue().add(&[0; 256 << 10]).unwrap();
        all.clear();
        client(1).queue().add(&[0; 256 << 10]).unwrap();
    }
}
