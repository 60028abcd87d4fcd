//! The memory that all open transactions of a node share: what each may have, for all connections together, would be more than the
//! node has.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes of the commands in all transactions of a node.
pub(super) const MAX_BYTES_OF_ALL: usize = 32 << 20;
/// The least that a transaction takes.
const LEAST_BYTES: usize = 512;

/// The memory for transactions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// The commands of one transaction, in memory that counts.
#[derive(Debug, Default)]
pub(super) struct Queued {
    bytes: Vec<u8>,
    counted: usize,
    room: Room,
}

/// There is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Room {
    /// Of no commands yet.
    pub(super) fn queue(&self) -> Queued {
        Queued { bytes: Vec::new(), counted: 0, room: self.clone() }
    }

    fn take(&self, bytes: usize) -> Result<(), Full> {
        if self.0.fetch_add(bytes, Relaxed) + bytes <= MAX_BYTES_OF_ALL {
            return Ok(());
        }
        self.0.fetch_sub(bytes, Relaxed);
        Err(Full)
    }
}

impl Queued {
    /// Adds a command.
    pub(super) fn add(&mut self, command: &[u8]) -> Result<(), Full> {
        let length = self.bytes.len() + command.len();
        if length > self.counted {
            // By halves, so that many short ones are not copied each time.
            let wanted = length.max(self.counted * 3 / 2).max(LEAST_BYTES);
            self.room.take(wanted - self.counted)?;
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

impl Drop for Queued {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.counted, Relaxed);
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
        let counted = room.0.load(Relaxed);
        assert!(counted <= MAX_BYTES_OF_ALL && added * 1_000 <= counted);
        assert!(added * 1_000 > MAX_BYTES_OF_ALL / 2, "{added}");
        assert!(all.iter().all(|one| one.bytes.capacity() <= one.counted.max(LEAST_BYTES)));
        assert_eq!(room.queue().add(&[0; 256 << 10]), Err(Full));
        // The first ones have most of it.
        all.drain(..100);
        room.queue().add(&[0; 256 << 10]).unwrap();
        drop(all);
        assert_eq!(room.0.load(Relaxed), 0);
    }
}
