//! The clocks of the machine, in nanoseconds.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the machine has counted since it started, also while it was suspended.
pub(crate) fn boot() -> u64 {
    nanos_of(ClockId::Boottime)
}

/// The machine's wall clock.
pub(crate) fn wall() -> u64 {
    nanos_of(ClockId::Realtime)
}

fn nanos_of(clock: ClockId) -> u64 {
    let reading = clock_gettime(clock);
    // Both clocks are positive on any machine that runs; 2^64 ns after 1970 is the year 2554.
    Duration::new(reading.tv_sec.max(0) as u64, reading.tv_nsec as u32).as_nanos() as u64
}
