//! A boot clock that runs faster or slower than the machine's, or stands still while the process is stopped: as that of a
//! virtual machine does which a hypervisor stops.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::machine_clock::boot;

/// A million of them is the whole.
const MILLION: i128 = 1_000_000;

/// The pace since somebody has set it.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When that was, by the machine's clock.
    since: u64,
    /// What this one showed then.
    showed: u64,
    ppm: i64,
    /// Whether it stands still while nothing reads it.
    holds: bool,
    /// For how long it has.
    held: u64,
}

/// When the machine's clock was last read, with the lock held: never later than what a reader has been told.
static LAST_READ: AtomicU64 = AtomicU64::new(0);

/// A process whose clock nobody has read for so long was stopped: a thread of it reads it several times in that time.
const STOPPED_FOR: u64 = Duration::from_millis(250).as_nanos() as u64;

/// That of the process. Readers wait while it changes, so that nobody reads what a later reading would fall behind.
static HERE: RwLock<Pace> = RwLock::new(Pace { since: 0, showed: 0, ppm: 0, holds: false, held: 0 });

impl Pace {
    fn at(&self, machine: u64) -> u64 {
        let passed = i128::from(machine.saturating_sub(self.since));
        let gained = passed * i128::from(self.ppm) / MILLION;
        (i128::from(self.showed) + passed + gained).clamp(0, i128::from(u64::MAX)) as u64
    }

    /// Goes on from what it shows at another pace, and never backwards.
    fn set(&mut self, machine: u64, ppm: i64) {
        if ppm != self.ppm {
            *self = Self { since: machine, showed: self.at(machine), ppm: ppm.max(-999_999), ..*self };
        }
    }

    /// Whether the clock stood still between two readings.
    fn stood_still(&self, last: u64, machine: u64) -> bool {
        self.holds && machine.saturating_sub(last) >= STOPPED_FOR
    }

    /// Goes on from what it showed at the last reading.
    fn hold(&mut self, last: u64, machine: u64) {
        *self = Self { since: machine, showed: self.at(last), held: self.held + (machine - last), ..*self };
    }
}

/// What the clock shows when the machine's boot clock, which is read in here, shows what it does.
pub(crate) fn paced(machine: impl FnOnce() -> u64) -> u64 {
    let pace = HERE.read().unwrap_or_else(PoisonError::into_inner);
    if !pace.holds {
        return pace.at(machine());
    }
    let now = machine();
    if !pace.stood_still(LAST_READ.load(Relaxed), now) {
        LAST_READ.fetch_max(now, Relaxed);
        return pace.at(now);
    }
    drop(pace);
    let mut pace = HERE.write().unwrap_or_else(PoisonError::into_inner);
    let last = LAST_READ.load(Relaxed);
    // Another one may have seen it first.
    if pace.stood_still(last, now) {
        pace.hold(last, now);
    }
    LAST_READ.fetch_max(now, Relaxed);
    pace.at(now)
}

pub(super) fn set_rate(ppm: i64) {
    let mut pace = HERE.write().unwrap_or_else(PoisonError::into_inner);
    pace.set(boot(), ppm);
}

/// From now on it stands still while the process is stopped, or does not any more.
pub(super) fn set_holds(holds: bool) {
    let mut pace = HERE.write().unwrap_or_else(PoisonError::into_inner);
    if holds && !pace.holds {
        LAST_READ.store(boot(), Relaxed);
    }
    pace.holds = holds;
}

/// For how long it has stood still, in nanoseconds.
pub(super) fn held() -> u64 {
    HERE.read().unwrap_or_else(PoisonError::into_inner).held
}

/// How far it is ahead of the machine's, in nanoseconds.
pub(super) fn gained() -> i64 {
    let pace = HERE.read().unwrap_or_else(PoisonError::into_inner);
    let machine = boot();
    (i128::from(pace.at(machine)) - i128::from(machine)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn half_a_thousandth_is_half_a_millisecond_in_a_second() {
        let mut pace = Pace::default();
        pace.set(100 * SECOND, 500);
        assert_eq!(pace.at(100 * SECOND), 100 * SECOND);
        assert_eq!(pace.at(101 * SECOND), 101 * SECOND + 500_000);
        pace.set(102 * SECOND, -500);
        assert_eq!(pace.at(102 * SECOND), 102 * SECOND + 1_000_000);
        assert_eq!(pace.at(104 * SECOND), 104 * SECOND);
        pace.set(106 * SECOND, 0);
        assert_eq!(pace.at(200 * SECOND), 200 * SECOND - 1_000_000);
    }

    #[test]
    fn a_clock_that_holds_does_not_see_that_its_process_was_stopped() {
        let mut pace = Pace { holds: true, ..Pace::default() };
        assert!(!pace.stood_still(SECOND, SECOND + STOPPED_FOR - 1));
        assert!(pace.stood_still(SECOND, 6 * SECOND));
        pace.hold(SECOND, 6 * SECOND);
        assert_eq!((pace.at(6 * SECOND), pace.at(7 * SECOND), pace.held), (SECOND, 2 * SECOND, 5 * SECOND));
        pace.set(8 * SECOND, 500);
        assert_eq!((pace.at(9 * SECOND), pace.held), (4 * SECOND + 500_000, 5 * SECOND));
        pace.holds = false;
        assert!(!pace.stood_still(SECOND, 60 * SECOND));
    }

    #[test]
    fn it_never_falls_whatever_the_pace_becomes() {
        let (mut pace, mut last) = (Pace::default(), 0);
        for step in 0..10_000_u64 {
            let machine = step * 997;
            if step % 7 == 0 {
                pace.set(machine, [500, -500, 50_000, -999_999, -5_000_000, 0][(step / 7 % 6) as usize]);
            }
            let now = pace.at(machine);
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    }
}
