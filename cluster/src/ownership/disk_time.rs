//! The clock of the floors on a disk: it goes on from one start of a node to the next.
//!
//! It counts the time for which their buckets have refilled. While the node does not run it counts what the machine's boot clock
//! proves, within one start of the machine; from one start of the machine to the next it stands still, because only a wall clock,
//! which anybody can set, could say more. So a debt is never believed to be older than it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_limiter::{
    Nanos,
    cluster::{KeyHash, Mark},
};

use crate::{clock::Clock, raft::disk::boot_id};

/// When something was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Which start of the machine; nothing where the system does not say.
    boot_id: Vec<u8>,
    /// What its boot clock showed.
    boot: u64,
    /// The node's clock.
    unix: u64,
    /// The clock of the disk.
    pub(super) disk: u64,
}

impl Stamp {
    /// What the wall clock showed, by which windows lie.
    pub(super) fn shown(&self) -> Nanos {
        Nanos::new(self.unix)
    }
}

/// What the clocks of the machine show.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) boot_id: Vec<u8>,
    pub(super) boot: u64,
    pub(super) now: Nanos,
}

impl Reading {
    pub(super) fn of(clock: Clock) -> Self {
        Self { boot_id: boot_id(), boot: clock.boot_nanos(), now: clock.now() }
    }

    /// What the boot clock has counted since; `None`: it does not say.
    fn proven_since(&self, stamp: &Stamp) -> Option<u64> {
        let is_same = !self.boot_id.is_empty() && self.boot_id == stamp.boot_id;
        is_same.then(|| self.boot.checked_sub(stamp.boot)).flatten()
    }
}

/// The disk's clock beside the node's, which never steps.
#[derive(Debug, Clone)]
pub(super) struct DiskTime {
    boot_id: Vec<u8>,
    /// How much more it shows than the node's.
    ahead: i64,
}

impl DiskTime {
    /// Goes on from where it was.
    pub(super) fn after(stamp: Option<&Stamp>, reading: &Reading) -> Self {
        let disk = stamp.map_or(reading.now.get(), |stamp| {
            stamp.disk.saturating_add(reading.proven_since(stamp).unwrap_or(0))
        });
        let ahead = i128::from(disk) - i128::from(reading.now.get());
        let ahead = ahead.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Self { boot_id: reading.boot_id.clone(), ahead }
    }

    pub(super) fn stamp(&self, clock: Clock) -> Stamp {
        let now = clock.now();
        Stamp {
            boot_id: self.boot_id.clone(),
            boot: clock.boot_nanos(),
            unix: now.get(),
            disk: self.to_disk(now),
        }
    }

    pub(super) fn to_disk(&self, at: Nanos) -> u64 {
        at.get().saturating_add_signed(self.ahead)
    }

    pub(super) fn of_disk(&self, at: u64) -> Nanos {
        Nanos::new((i128::from(at) - i128::from(self.ahead)).clamp(0, i128::from(u64::MAX)) as u64)
    }

    pub(super) fn mark_to_disk(&self, key: KeyHash, mark: Mark) -> Mark {
        mark.shifted(key, self.ahead)
    }

    pub(super) fn mark_from_disk(&self, key: KeyHash, mark: Mark) -> Mark {
        mark.shifted(key, self.ahead.saturating_neg())
    }
}

/// When, on the node's clock, something was that was stamped. It is for what may have been given away since, so where the
/// boot clock does not say, the wall clock counts, and where that went back, the beginning of time.
pub(super) fn when(stamp: &Stamp, reading: &Reading) -> Nanos {
    let by_wall = || reading.now.get().checked_sub(stamp.unix);
    let away = reading.proven_since(stamp).or_else(by_wall);
    away.map_or(Nanos::new(0), |away| Nanos::new(reading.now.get().saturating_sub(away)))
}

/// How long ago that was, for people.
pub(super) fn away(stamp: &Stamp, reading: &Reading) -> Duration {
    reading.now.saturating_since(when(stamp, reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    fn stamp() -> Stamp {
        Stamp { boot_id: b"one".to_vec(), boot: 100 * SECOND, unix: START, disk: 5_000 * SECOND }
    }

    fn reading(boot_id: &[u8], boot: u64, unix: u64) -> Reading {
        Reading { boot_id: boot_id.to_vec(), boot, now: Nanos::new(unix) }
    }

    #[test]
    fn within_one_start_of_the_machine_its_boot_clock_counts_whatever_the_wall_clock_does() {
        for unix in [START - 3600 * SECOND, START, START + 86_400 * SECOND] {
            let reading = reading(b"one", 107 * SECOND, unix);
            let time = DiskTime::after(Some(&stamp()), &reading);
            assert_eq!(time.to_disk(reading.now), 5_007 * SECOND, "{unix}");
            assert_eq!(when(&stamp(), &reading), Nanos::new(unix - 7 * SECOND));
            assert_eq!(time.of_disk(time.to_disk(reading.now)), reading.now);
        }
    }

    #[test]
    fn from_one_start_of_the_machine_to_the_next_debts_stand_still_and_shares_may_have_been_given() {
        for (unix, since) in [(START + 60 * SECOND, START), (START - SECOND, 0)] {
            let reading = reading(b"two", 7 * SECOND, unix);
            let time = DiskTime::after(Some(&stamp()), &reading);
            assert_eq!(time.to_disk(reading.now), 5_000 * SECOND, "nothing proves that time has passed");
            assert_eq!(when(&stamp(), &reading), Nanos::new(since));
        }
        let unknown = reading(b"", 900 * SECOND, START);
        let time = DiskTime::after(Some(&Stamp { boot_id: Vec::new(), ..stamp() }), &unknown);
        assert_eq!(time.to_disk(unknown.now), 5_000 * SECOND, "a system that does not say which it is");
        // A boot clock that fell is that of another machine, whatever it is called.
        let fell = reading(b"one", 7 * SECOND, START + SECOND);
        assert_eq!(DiskTime::after(Some(&stamp()), &fell).to_disk(fell.now), 5_000 * SECOND);
    }

    #[test]
    fn a_debt_has_one_length_by_either_clock_and_a_window_one_end() {
        let reading = reading(b"one", 107 * SECOND, START + 55 * SECOND);
        let time = DiskTime::after(Some(&stamp()), &reading);
        let (bucket, window) = (KeyHash::from_raw(2), KeyHash::from_raw(3));
        let mark = Mark::new(reading.now.get() * 4 + 1234);
        let on_disk = time.mark_to_disk(bucket, mark);
        assert_eq!(on_disk, Mark::new(5_007 * SECOND * 4 + 1234));
        assert_eq!(time.mark_from_disk(bucket, on_disk), mark);
        assert_eq!(time.mark_to_disk(window, mark), mark);
    }
}
