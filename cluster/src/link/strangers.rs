//! Callers of the peer port that have not proved themselves yet.
//!
//! They have room of their own: however many there are, no stream of a peer that has proved itself is refused for them. When
//! the room is full, the one that has been there longest has to go, not the one that comes: an honest caller is through in
//! two round trips, so that a flood keeps it out only if [`ROOM`] callers come within that time.

use tokio_util::sync::CancellationToken;

/// Callers that may be about to prove themselves at one time: as many as come in two seconds, the deadline of the handshake, at
/// 2,000 a second. So at that rate a caller has all of its time, and at 40,000 still a tenth of a second.
pub(crate) const ROOM: usize = 4096;

/// The room, as a ring: each caller takes the next place, from whoever has had it.
#[derive(Debug)]
pub(crate) struct Strangers {
    places: Vec<CancellationToken>,
    next: usize,
}

impl Strangers {
    pub(crate) fn new(room: usize) -> Self {
        assert!(room > 0, "somebody must be able to call");
        Self { places: Vec::with_capacity(room), next: 0 }
    }

    /// Lets a caller in. What is returned is cancelled when its place is taken by another; it need not be given back: who has
    /// proved itself meanwhile, or is gone, does not look at it any more.
    pub(crate) fn enter(&mut self) -> CancellationToken {
        let place = CancellationToken::new();
        if self.places.len() < self.places.capacity() {
            self.places.push(place.clone());
        } else {
            std::mem::replace(&mut self.places[self.next], place.clone()).cancel();
            self.next = (self.next + 1) % self.places.len();
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_been_there_longest_goes_and_there_are_never_more() {
        let mut strangers = Strangers::new(3);
        let mut all = Vec::new();
        for count in 1..=20usize {
            all.push(strangers.enter());
            let gone = all.iter().filter(|one| one.is_cancelled()).count();
            assert_eq!(gone, count.saturating_sub(3));
            assert!(all[gone..].iter().all(|one| !one.is_cancelled()), "the newest stay");
        }
    }
}
