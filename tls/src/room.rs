//! Callers that have not proved themselves yet.
//!
//! They have room of their own: however many there are, no connection that has proved itself is refused for them. When the room
//! is full, the one that has been there longest has to go, not the one that comes: an honest caller is through in two round
//! trips, so that a flood keeps it out only if as many callers as there are places come within that time.

use tokio_util::sync::CancellationToken;

/// The room, as a ring: each caller takes the next place, from whoever has had it.
#[derive(Debug)]
pub struct Room {
    places: Vec<CancellationToken>,
    next: usize,
}

impl Room {
    /// With so many places, at least one.
    pub fn new(places: usize) -> Self {
        assert!(places > 0, "somebody must be able to call");
        Self { places: Vec::with_capacity(places), next: 0 }
    }

    /// Lets a caller in. What is returned is cancelled when its place is taken by another; it need not be given back: who has
    /// proved itself meanwhile, or is gone, does not look at it any more.
    pub fn enter(&mut self) -> CancellationToken {
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
        let mut room = Room::new(3);
        let mut all = Vec::new();
        for count in 1..=20usize {
            all.push(room.enter());
            let gone = all.iter().filter(|one| one.is_cancelled()).count();
            assert_eq!(gone, count.saturating_sub(3));
            assert!(all[gone..].iter().all(|one| !one.is_cancelled()), "the newest stay");
        }
    }
}
