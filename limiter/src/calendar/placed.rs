//! Windows of a time zone, or from a date on, known by what they are: so that a period is a number that can be copied.
//!
//! Each grid that is asked for stays for the life of the process, at the same place. Finding it again takes no lock and allocates
//! nothing. There is a bound to how many there are, and what comes with checks cannot reach it: that names time zones, of which
//! there are some hundreds, and no dates.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    civil::{civil, days_before},
    grid::{Grid, Step},
    seen::Seen,
    starts::Starts,
    zone::Zone,
};

/// Different windows in a process: each has some two hundred bytes. A rule that needs one more is refused.
const MAX_PLACED: usize = 1 << 16;
/// Chains in which they are found: few of them are in one.
const CHAINS: usize = 1 << 10;

/// 1970 began with a Thursday.
const MONDAY: u32 = 4;

/// Parts of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// From midnight to midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// From 1 January.
    Year,
}

/// Windows of the calendar in a time zone, or windows that begin on a date. It is as small as a number.
#[derive(Clone, Copy)]
pub struct Calendar(&'static Placed);

#[derive(Debug)]
struct Placed {
    seen: Seen,
    grid: Grid,
    number: u64,
    next: OnceLock<&'static Placed>,
}

static FOUND: [OnceLock<&'static Placed>; CHAINS] = [const { OnceLock::new() }; CHAINS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What another node is told of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalendarParts {
    /// Which kind of windows.
    pub step: u8,
    /// A number of the name of the time zone.
    pub zone: u64,
    /// Where in the calendar a window begins.
    pub place: u32,
    /// When, in seconds.
    pub seconds: u32,
}

impl Unit {
    /// Its name in limits.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The mean length.
    pub const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 2_629_746,
            Self::Year => 31_556_952,
        })
    }
}

impl Calendar {
    /// The windows of a zone's calendar, from a date on. `None`: there are too many different ones in this process.
    pub(crate) fn of(unit: Unit, zone: Zone, starts: Option<Starts>) -> Option<Self> {
        Self::known(Grid::of(unit, zone, starts))
    }

    /// Windows of so many seconds, one of which begins at that time in a zone. `None`: as for the calendar.
    pub(crate) fn of_length(seconds: u32, zone: Zone, starts: Starts) -> Option<Self> {
        let local = i64::from(starts.days()) * 86_400 + i64::from(starts.seconds());
        let first = zone.first_at(local).rem_euclid(seconds.max(1).into()) as u32;
        Self::known(Grid { step: Step::Length, zone: Zone::UTC, place: seconds, seconds: first })
    }

    /// What another node says. `None`: there is no such thing, or the database here has no such time zone.
    pub fn from_parts(parts: CalendarParts) -> Option<Self> {
        let CalendarParts { step, zone, place, seconds } = parts;
        let grid = Grid { step: Step::of(step)?, zone: Zone::with_number(zone)?, place, seconds };
        if grid.is_valid() { Self::known(grid) } else { None }
    }

    /// What another node is told.
    pub fn parts(self) -> CalendarParts {
        let Grid { step, zone, place, seconds } = self.0.grid;
        CalendarParts { step: step as u8, zone: zone.number(), place, seconds }
    }

    /// Which part of the calendar its windows are; `None`: they have a length.
    pub const fn unit(self) -> Option<Unit> {
        match self.0.grid.step {
            Step::Days => Some(Unit::Day),
            Step::Weeks => Some(Unit::Week),
            Step::Months => Some(Unit::Month),
            Step::Years => Some(Unit::Year),
            Step::Length => None,
        }
    }

    /// The length of its windows; the mean one of those of the calendar.
    pub const fn length(self) -> Duration {
        match self.unit() {
            Some(unit) => unit.length(),
            None => Duration::from_secs(self.0.grid.place as u64),
        }
    }

    /// The time zone, and a date from which on it has these windows, where they do not begin as the calendar does.
    pub(crate) fn place(self) -> (Zone, Option<Starts>) {
        let Grid { step, zone, place, seconds } = self.0.grid;
        let days = match step {
            Step::Days => 0,
            Step::Weeks => place,
            Step::Months => place - 1,
            // A leap year.
            Step::Years => days_before(1972, u64::from(place / 32)) as u32 + place % 32 - 1,
            Step::Length => return (zone, Some(Starts::new(seconds / 86_400, seconds % 86_400))),
        };
        let usual = match step {
            Step::Weeks => place == MONDAY,
            Step::Months => place == 1,
            Step::Years => place == 33,
            Step::Days | Step::Length => true,
        };
        (zone, (!usual || seconds > 0).then(|| Starts::new(days, seconds)))
    }

    /// Whether these are windows of UTC that begin as the calendar does.
    pub(crate) fn is_usual(self) -> bool {
        self.place() == (Zone::UTC, None)
    }

    /// The start and the end of the window at an instant, and the end of the next one, in ticks. It costs a look at a cache line,
    /// but for the first one who asks in a new window.
    #[inline]
    pub(crate) fn windows(self, instant: u64) -> (u64, u64, u64) {
        if self.0.grid.step == Step::Length {
            return self.0.grid.windows_of_length(instant);
        }
        self.0.seen.find(instant).unwrap_or_else(|| self.work_out(instant))
    }

    #[cold]
    fn work_out(self, instant: u64) -> (u64, u64, u64) {
        let starts = self.0.grid.starts_around(instant);
        self.0.seen.keep(&starts);
        (starts[super::seen::BEFORE], starts[super::seen::BEFORE + 1], starts[super::seen::BEFORE + 2])
    }

    /// No window has fewer ticks.
    pub(crate) const fn shortest(self) -> u64 {
        self.0.grid.shortest()
    }

    /// No window has more ticks.
    pub(crate) const fn longest(self) -> u64 {
        self.0.grid.longest()
    }

    /// Which windows: a number below 2^51, the same at each node.
    pub(crate) const fn number(self) -> u64 {
        self.0.number
    }

    fn known(grid: Grid) -> Option<Self> {
        let number = number_of(&grid);
        let mut place = &FOUND[number as usize % CHAINS];
        loop {
            let found = match place.get() {
                Some(found) => found,
                None => {
                    // Some more than that may come at once.
                    if COUNT.load(Relaxed) >= MAX_PLACED {
                        return None;
                    }
                    place.get_or_init(|| {
                        COUNT.fetch_add(1, Relaxed);
                        let next = OnceLock::new();
                        Box::leak(Box::new(Placed { seen: Seen::new(), grid, number, next }))
                    })
                }
            };
            if found.grid == grid {
                return Some(Self(found));
            }
            place = &found.next;
        }
    }
}

impl Grid {
    /// The windows of a zone's calendar, from a date on.
    pub(super) fn of(unit: Unit, zone: Zone, starts: Option<Starts>) -> Self {
        let day = starts.map_or(0, Starts::days);
        let (month, day_of_month) = {
            let (year, month) = civil(day.into());
            (month as u32, day - days_before(year, month) as u32 + 1)
        };
        let (step, place) = match unit {
            Unit::Day => (Step::Days, 0),
            Unit::Week => (Step::Weeks, if starts.is_some() { day % 7 } else { MONDAY }),
            Unit::Month => (Step::Months, day_of_month),
            Unit::Year => (Step::Years, month * 32 + day_of_month),
        };
        // Zones that are all UTC have the same windows.
        let zone = if zone.is_utc() { Zone::UTC } else { zone };
        Self { step, zone, place, seconds: starts.map_or(0, Starts::seconds) }
    }
}

fn number_of(grid: &Grid) -> u64 {
    let mix = |bits: u64, word: u64| (bits ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let Grid { step, zone, place, seconds } = *grid;
    let words = [step as u64, zone.number(), place.into(), seconds.into(), 0];
    words.into_iter().fold(0, mix) >> 13
}

/// Each grid is there once.
impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Calendar {}

impl Hash for Calendar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.grid.fmt(f)
    }
}

#[cfg(test)]
mod tests;
