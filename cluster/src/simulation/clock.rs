//! The clocks of simulated machines: each with an offset and a rate of its own, and one may stand still for a while, as
//! that of a process does which is stopped.

use std::{cell::RefCell, time::Duration};

use tidegate_limiter::Nanos;

/// When simulations begin: 2027-01-15 08:00 UTC, in Unix nanoseconds.
pub const BEGIN: u64 = 1_800_000_000_000_000_000;

/// A machine's clock, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine(usize);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    ahead: i64,
    ppm: i64,
    /// It shows what it showed at this time of the simulation.
    frozen: Option<u64>,
    /// It was stopped for so long with its whole machine, and does not know.
    behind: u64,
}

#[derive(Debug, Default)]
struct World {
    now: u64,
    clocks: Vec<State>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

pub(super) fn forget() {
    WORLD.take();
}

/// A new clock: so many nanoseconds ahead, and so many millionths faster than the simulation's time.
pub fn add(ahead: i64, ppm: i64) -> crate::Clock {
    WORLD.with_borrow_mut(|world| {
        world.clocks.push(State { ahead, ppm, frozen: None, behind: 0 });
        crate::Clock::simulated(Machine(world.clocks.len() - 1))
    })
}

/// Says where the simulation is, to those who look from outside of a node.
pub fn set(elapsed: Duration) {
    WORLD.with_borrow_mut(|world| world.now = elapsed.as_nanos() as u64);
}

/// Has a clock stand still, or go on where it would be.
pub fn freeze(clock: crate::Clock, frozen: bool) {
    clock.freeze(frozen);
}

/// Has a clock that stands still go on from there: that of a virtual machine which was stopped.
pub fn resume(clock: crate::Clock) {
    clock.resume();
}

/// How long the simulation has run: in a node to the microstep, outside of nodes to the step.
pub fn elapsed() -> u64 {
    match turmoil::sim_elapsed() {
        Some(elapsed) => elapsed.as_nanos() as u64,
        None => WORLD.with_borrow(|world| world.now),
    }
}

impl Machine {
    pub(crate) fn now(self) -> Nanos {
        let elapsed = elapsed();
        let State { ahead, ppm, frozen, behind } = WORLD.with_borrow(|world| world.clocks[self.0]);
        let elapsed = frozen.map_or(elapsed, |since| elapsed.min(since)).saturating_sub(behind);
        let drift = i128::from(elapsed) * i128::from(ppm) / 1_000_000;
        let reading = i128::from(BEGIN) + i128::from(elapsed) + i128::from(ahead) + drift;
        Nanos::new(reading.max(0) as u64)
    }

    pub(crate) fn freeze(self, frozen: bool) {
        let now = elapsed();
        WORLD.with_borrow_mut(|world| world.clocks[self.0].frozen = frozen.then_some(now));
    }

    /// Goes on from what it shows.
    pub(crate) fn resume(self) {
        let now = elapsed();
        WORLD.with_borrow_mut(|world| {
            let state = &mut world.clocks[self.0];
            state.behind += state.frozen.take().map_or(0, |since| now.saturating_sub(since));
        });
    }
}
