//! Time enters here.
//!
//! A node has one clock: Unix time, read once when the process starts, plus what the machine's boot clock has counted
//! since. It never steps, whatever is done to the wall clock, and it counts the time that the machine was suspended
//! (`Instant` does not). Calendar periods are therefore off by as much as the wall clock was at the start; everything
//! else is a difference and does not care.

use tidegate_limiter::Nanos;

use crate::machine_clock::{boot, wall};

/// The node's clock. Cheap to copy; a reading is one call without a switch into the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What is added to the boot clock's nanoseconds to make Unix nanoseconds.
    unix_offset: u64,
    #[cfg(feature = "simulation")]
    machine: Option<crate::simulation::clock::Machine>,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn start() -> Self {
        let wall = wall();
        #[cfg(feature = "fault-injection")]
        let wall = wall.saturating_add_signed(crate::injection::begin());
        let clock = Self {
            unix_offset: wall.saturating_sub(boot()),
            #[cfg(feature = "simulation")]
            machine: None,
        };
        #[cfg(feature = "fault-injection")]
        crate::injection::follow(move || clock.unix_millis());
        clock
    }

    /// That of a simulated machine.
    #[cfg(feature = "simulation")]
    pub(crate) fn simulated(machine: crate::simulation::clock::Machine) -> Self {
        Self { unix_offset: 0, machine: Some(machine) }
    }

    /// Has a simulated clock stand still, or go on where it would be.
    #[cfg(feature = "simulation")]
    pub(crate) fn freeze(&self, frozen: bool) {
        if let Some(machine) = self.machine {
            machine.freeze(frozen);
        }
    }

    /// Has a simulated clock that stands still go on from there, as that of a virtual machine does which was stopped.
    #[cfg(feature = "simulation")]
    pub(crate) fn resume(&self) {
        if let Some(machine) = self.machine {
            machine.resume();
        }
    }

    /// The present instant.
    pub fn now(&self) -> Nanos {
        #[cfg(feature = "simulation")]
        if let Some(machine) = self.machine {
            return machine.now();
        }
        #[cfg(feature = "fault-injection")]
        return Nanos::new(crate::injection::paced(boot).saturating_add(self.unix_offset));
        #[cfg(not(feature = "fault-injection"))]
        Nanos::new(boot().saturating_add(self.unix_offset))
    }

    /// What the machine has counted since it started, in nanoseconds.
    pub(crate) fn boot_nanos(&self) -> u64 {
        self.now().get().saturating_sub(self.unix_offset)
    }

    /// The present instant as Unix milliseconds: grows from one start of a node to the next, unless the wall clock
    /// was set back in between.
    pub fn unix_millis(&self) -> u64 {
        self.now().get() / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_at_unix_time_and_never_falls() {
        let clock = Clock::start();
        let mut last = clock.now();
        assert!(last.get() > 1_700_000_000_000_000_000, "{last:?}");
        for _ in 0..1_000 {
            let next = clock.now();
            assert!(next >= last);
            last = next;
        }
    }
}
