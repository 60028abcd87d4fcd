//! How far a bucket has been used, by this clock ([`Mark`]) and for another one ([`Held`]). The later a mark, the stricter.

use std::time::Duration;

use crate::{Nanos, key::KeyHash, time::TICKS_PER_NANO};

/// Of a burst, or a window's count, this part is one quantum; at least one unit.
pub(crate) const QUANTUM_PART: u64 = 16;
/// How far a bucket has been used, as its algorithm writes it: the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(u64);

impl Mark {
    /// A mark that was [taken apart](Self::get) before, by the same clock.
    pub const fn new(state: u64) -> Self {
        Self(state)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The mark for another clock.
    pub fn held(self, key: KeyHash, now: Nanos) -> Held {
        if key.is_of_window() { Held::Window(self.0) } else { Held::Debt(self.0.saturating_sub(now.ticks())) }
    }

    /// The mark of such a bucket by a clock that shows so many nanoseconds more. Windows lie where they lie.
    pub fn shifted(self, key: KeyHash, nanos: i64) -> Self {
        if key.is_of_window() {
            return self;
        }
        let ticks = i128::from(nanos) * i128::from(TICKS_PER_NANO);
        Self((i128::from(self.0) + ticks).clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// As if time had stood still for so long.
    pub fn postponed(self, by: Duration) -> Self {
        Self(self.0.saturating_add(Nanos::new(0).saturating_add(by).ticks()))
    }

    /// Whether such a bucket knows of nothing any more.
    pub fn is_over(self, now: Nanos) -> bool {
        self.0 <= now.ticks()
    }
}

/// What a bucket knows, for another clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Of a token bucket or leaky bucket: the time in which it will be full again, in quarters of a nanosecond.
    Debt(u64),
    /// Of a fixed or sliding window: its state.
    Window(u64),
    /// Of a sliding log.
    Log {
        /// How long an entry counts, in quarters of a nanosecond.
        memory: u64,
        /// Age, in the same unit, and units of each entry, the oldest first.
        entries: Vec<(u64, u64)>,
    },
}

impl Held {
    /// As a mark on this clock; none of a log.
    pub fn mark(&self, now: Nanos) -> Option<Mark> {
        match self {
            Self::Debt(debt) => Some(Mark(now.ticks().saturating_add(*debt))),
            Self::Window(state) => Some(Mark(*state)),
            Self::Log { .. } => None,
        }
    }

    /// Until when it knows of something: of a log, as of a bucket that is empty until then. None if it does not any more.
    pub fn until(&self, now: Nanos) -> Option<Self> {
        match self {
            Self::Log { memory, entries } => {
                let (age, _) = entries.last()?;
                memory.checked_sub(*age).map(Self::Debt)
            }
            other => other.mark(now).filter(|mark| !mark.is_over(now)).map(|_| other.clone()),
        }
    }

    /// As if time had stood still for so long. Windows and logs lie where they lie.
    pub fn postponed(self, by: Duration) -> Self {
        match self {
            Self::Debt(debt) => Self::Debt(debt.saturating_add(Nanos::new(0).saturating_add(by).ticks())),
            other => other,
        }
    }

    /// After so much time; none where it knows of nothing any more then. Windows lie where they lie.
    pub fn aged(self, by: Duration) -> Option<Self> {
        let ticks = Nanos::new(0).saturating_add(by).ticks();
        match self {
            Self::Debt(debt) => debt.checked_sub(ticks).filter(|debt| *debt > 0).map(Self::Debt),
            Self::Window(state) => Some(Self::Window(state)),
            Self::Log { memory, entries } => {
                let entries = entries.into_iter().map(|(age, units)| (age.saturating_add(ticks), units));
                let entries: Vec<_> = entries.filter(|(age, _)| *age < memory).collect();
                (!entries.is_empty()).then_some(Self::Log { memory, entries })
            }
        }
    }

    /// As a mark on this clock, and a little more, so that the next charges fit below it: less than a quantum of the limit
    /// that let it be used so far.
    pub fn mark_ahead(&self, now: Nanos) -> Option<Mark> {
        let mark = self.mark(now)?;
        let used = match self {
            Self::Debt(debt) => *debt,
            // What was used of the window stands above its end, which is a multiple of a millisecond.
            Self::Window(state) => state % (TICKS_PER_NANO * 1_000_000),
            Self::Log { .. } => 0,
        };
        Some(Mark(mark.0.saturating_add(used / QUANTUM_PART)))
    }
}
