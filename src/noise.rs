//! What a client may send that asks for nothing: HTTP/2 frames of control and empty frames, empty commands of the Redis protocol.
//!
//! Each costs this node about as much as a small part of a check, and no limit on requests counts it. So a connection has an
//! allowance of it:
//!
//! | | units |
//! | --- | --- |
//! | to begin with, and at most | [`MOST`] |
//! | more for each request | [`FOR_A_REQUEST`] |
//! | more for each second | [`A_SECOND`] |
//!
//! A client that means well stays far below. The most frames that one request of gRPC brings along, its own among them: HEADERS and
//! CONTINUATION; DATA with the prefix, with the message and, empty, with the end; WINDOW_UPDATE of the stream and of the connection, each
//! when the answer comes and when it is read; a PING that measures the path; RST_STREAM: 11, of [`FOR_A_REQUEST`]. A connection has 256
//! requests at a time, so no more than 256 x 11 = 2,816 units are spent before those requests are seen, of [`MOST`]. Pings that keep a
//! connection alive come every 10 s or less often, of [`A_SECOND`] each second.

use std::time::Duration;

use tokio::time::Instant;

/// Units that a connection has to begin with, and at most. As many bytes of pipelined checks cost more.
const MOST: u32 = 4096;
/// Units for each request.
const FOR_A_REQUEST: u32 = 16;
/// Units for each second.
const A_SECOND: u64 = 100;

/// What a connection may still send of it. No clock is read until it has spent what it had.
#[derive(Debug)]
pub(crate) struct Noise {
    left: u32,
    /// Since when no units for time were added.
    since: Instant,
}

impl Noise {
    pub(crate) fn new() -> Self {
        Self { left: MOST, since: Instant::now() }
    }

    /// Takes so many units. False: the connection has sent too much of it.
    #[inline]
    pub(crate) fn spend(&mut self, units: u32) -> bool {
        match self.left.checked_sub(units) {
            Some(left) => {
                self.left = left;
                true
            }
            None => self.spend_at(units, Instant::now()),
        }
    }

    #[cold]
    fn spend_at(&mut self, units: u32, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.since).as_millis() as u64;
        let earned = millis * A_SECOND / 1000;
        // What is less than one unit is not lost.
        self.since += Duration::from_millis(earned * 1000 / A_SECOND);
        self.add(earned.try_into().unwrap_or(MOST));
        let left = self.left.checked_sub(units);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// So many requests came.
    #[inline]
    pub(crate) fn earn(&mut self, requests: u32) {
        self.add(requests.saturating_mul(FOR_A_REQUEST));
    }

    fn add(&mut self, units: u32) {
        self.left = self.left.saturating_add(units).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(noise: &Noise, millis: u64) -> Instant {
        noise.since + Duration::from_millis(millis)
    }

    #[test]
    fn a_flood_ends_whether_it_is_fast_or_lasts() {
        let mut noise = Noise::new();
        assert!((0..MOST).all(|_| noise.spend(1)));
        let now = noise.since;
        assert!(!noise.spend_at(1, now), "of this moment there is no more");
        assert!(noise.spend_at(99, now + Duration::from_secs(1)), "a second later");
        assert!(!noise.spend_at(2, now + Duration::from_secs(1)));
        // Twice as much as time gives.
        let mut noise = Noise::new();
        let begun = noise.since;
        let lasted = (0..).position(|second| {
            let now = begun + Duration::from_secs(second);
            (0..200).any(|_| noise.left == 0 && !noise.spend_at(1, now) || noise.left > 0 && !noise.spend(1))
        });
        assert!(lasted.is_some_and(|seconds| (35..50).contains(&seconds)), "{lasted:?}");
    }

    #[test]
    fn a_client_that_means_well_never_meets_the_bound() {
        let mut noise = Noise::new();
        // As many requests at a time as there may be, with all that can come along.
        for _ in 0..10_000 {
            assert!((0..256 * 11).all(|_| noise.spend(1)));
            noise.earn(256);
        }
        // One that only keeps its connection alive, for a day.
        let mut noise = Noise::new();
        let begun = noise.since;
        for second in (0..86_400).step_by(10) {
            let now = begun + Duration::from_secs(second);
            assert!(noise.left > 0 && noise.spend(1) || noise.spend_at(1, now));
        }
    }

    #[test]
    fn what_is_less_than_a_unit_of_time_is_not_lost_and_nobody_saves_up() {
        let mut noise = Noise::new();
        noise.left = 0;
        let begun = at(&noise, 0);
        let taken = (1..=1000).filter(|milli| noise.spend_at(1, begun + Duration::from_millis(*milli)));
        assert_eq!(taken.count(), 100);
        noise.earn(u32::MAX);
        assert_eq!(noise.left, MOST);
        let later = noise.since + Duration::from_secs(86_400 * 365);
        noise.left = 0;
        assert!(noise.spend_at(MOST, later) && !noise.spend_at(1, later));
    }
}
