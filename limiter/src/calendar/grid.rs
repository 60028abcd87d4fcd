//! The windows of a time zone, or from a date on.
//!
//! **Each instant is in exactly one window, and each window ends where the next one starts.** For a window starts at the first
//! instant at which the zone's clocks show its beginning, or something later (`Zone::first_at`), and that is a sequence that only
//! grows. Where clocks jump over all of a window, or over most of it, it belongs to the one before: no window is shorter than its
//! [`shortest`](Step::shortest).
//!
//! Windows are numbered. The numbers count from 400 years before 1970, when the calendar begins anew: so nothing is negative, and
//! the grid lies before the date on which it `starts` as it does after it.

use super::{
    civil::{DAY, SECOND, civil, days_before, days_in},
    seen::{BEFORE, STARTS, among},
    zone::Zone,
};

const DAY_SECONDS: u64 = 86_400;
/// Days of 400 years, which are whole weeks.
const ERA_DAYS: u64 = 146_097;
const HOUR: u64 = 3_600 * SECOND;

/// What windows count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Step {
    Days = 0,
    Weeks = 1,
    Months = 2,
    Years = 3,
    /// Always as many seconds.
    Length = 4,
}

/// Windows, told apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Grid {
    pub(crate) step: Step,
    /// Of a length UTC.
    pub(crate) zone: Zone,
    /// Weeks: a day of one, counted from Thursday, as 1970 began with one. Months: a day, from 1. Years: the same, and 32 for each
    /// month, from 1. Lengths: their seconds.
    pub(crate) place: u32,
    /// The second of the day on which windows begin. Lengths: the second since 1970 at which the first one does.
    pub(crate) seconds: u32,
}

impl Step {
    pub(crate) fn of(number: u8) -> Option<Self> {
        [Self::Days, Self::Weeks, Self::Months, Self::Years, Self::Length]
            .into_iter()
            .find(|step| *step as u8 == number)
    }

    /// Fewer ticks than any window that clocks do not jump over has. Clocks jump by a day at most.
    const fn shortest(self) -> u64 {
        match self {
            Self::Days => 12 * HOUR,
            Self::Weeks => 5 * DAY,
            Self::Months => 26 * DAY,
            Self::Years => 363 * DAY,
            Self::Length => 0,
        }
    }

    const fn longest(self) -> u64 {
        match self {
            // One, and what is left of one that clocks jump over.
            Self::Days => 3 * DAY,
            Self::Weeks => 15 * DAY,
            Self::Months => 60 * DAY,
            Self::Years => 735 * DAY,
            Self::Length => 0,
        }
    }
}

impl Grid {
    /// Whether it is one: what another node says may be none.
    pub(crate) fn is_valid(&self) -> bool {
        let Self { step, zone, place, seconds } = *self;
        let is_time = u64::from(seconds) < DAY_SECONDS;
        match step {
            Step::Days => is_time && place == 0,
            Step::Weeks => is_time && place < 7,
            Step::Months => is_time && (1..=31).contains(&place),
            Step::Years => {
                let (month, day) = (u64::from(place / 32), u64::from(place % 32));
                // 1972 has a 29 February.
                is_time && (1..=12).contains(&month) && (1..=days_in(1972, month)).contains(&day)
            }
            Step::Length => zone == Zone::UTC && place > 0 && seconds < place,
        }
    }

    pub(crate) const fn shortest(&self) -> u64 {
        match self.step {
            Step::Length => self.place as u64 * SECOND,
            step => step.shortest(),
        }
    }

    pub(crate) const fn longest(&self) -> u64 {
        match self.step {
            Step::Length => self.place as u64 * SECOND,
            step => step.longest(),
        }
    }

    /// The start and the end of the window at an instant, and the end of the next one, of windows of a length. Before the first
    /// one that begins after 1970 is the end of one that began before.
    #[inline]
    pub(super) fn windows_of_length(&self, instant: u64) -> (u64, u64, u64) {
        let (length, first) = (u64::from(self.place) * SECOND, u64::from(self.seconds) * SECOND);
        let Some(since) = instant.checked_sub(first) else {
            return (0, first, first.saturating_add(length));
        };
        let start = instant - since % length;
        let end = start.saturating_add(length);
        (start, end, end.saturating_add(length))
    }

    /// The starts of the windows around an instant, in ticks.
    pub(super) fn starts_around(&self, instant: u64) -> [u64; STARTS] {
        let seconds = (instant / SECOND) as i64;
        let mut window = self.window_at(seconds);
        let at_place = window;
        let mut starts = [0; STARTS];
        for start in starts[..=BEFORE].iter_mut().rev() {
            *start = ticks(self.start_of(window));
            window = self.whole_before(window);
        }
        window = at_place;
        for start in &mut starts[BEFORE + 1..] {
            window = self.whole_after(window);
            *start = ticks(self.start_of(window));
        }
        debug_assert!(among(&starts, instant).is_some_and(|(start, ..)| start == starts[BEFORE]));
        starts
    }

    /// The number of the window at an instant.
    fn window_at(&self, instant: i64) -> u64 {
        let shifted = self.zone.local(instant).saturating_add((ERA_DAYS * DAY_SECONDS) as i64);
        // Offsets are less than 400 years.
        let mut window = self.window_of(shifted as u64);
        // Clocks that went back show what they have shown before.
        while self.start_of(window + 1) <= instant {
            window += 1;
        }
        while self.start_of(window) > instant {
            window -= 1;
        }
        if self.is_whole(window) { window } else { self.whole_before(window) }
    }

    /// The number of the window to which clocks belong that show this, in seconds since 1570.
    fn window_of(&self, local: u64) -> u64 {
        let (place, seconds) = (u64::from(self.place), u64::from(self.seconds));
        match self.step {
            Step::Days | Step::Length => (local - seconds) / DAY_SECONDS,
            Step::Weeks => (local - seconds - place * DAY_SECONDS) / (7 * DAY_SECONDS),
            Step::Months | Step::Years => {
                let (year, month) = civil(local / DAY_SECONDS);
                let window = match self.step {
                    Step::Years => year,
                    _ => year * 12 + month - 1,
                };
                let begins = self.day_of(window) * DAY_SECONDS + seconds;
                if local < begins { window - 1 } else { window }
            }
        }
    }

    /// The day on which a window begins, since 1570.
    fn day_of(&self, window: u64) -> u64 {
        let place = u64::from(self.place);
        // The last day of a month that has no such day.
        let of_month = |year, month, day: u64| days_before(year, month) + day.min(days_in(year, month)) - 1;
        match self.step {
            Step::Days | Step::Length => window,
            Step::Weeks => window * 7 + place,
            // As if 1570 were 1970.
            Step::Months => of_month(window / 12, window % 12 + 1, place),
            Step::Years => of_month(window, place / 32, place % 32),
        }
    }

    /// When a window starts, in seconds since 1970.
    fn start_of(&self, window: u64) -> i64 {
        let local = (self.day_of(window) * DAY_SECONDS + u64::from(self.seconds)) as i64;
        self.zone.first_at(local - (ERA_DAYS * DAY_SECONDS) as i64)
    }

    /// Whether it is not one that clocks jump over, for the most part.
    fn is_whole(&self, window: u64) -> bool {
        let length = self.start_of(window + 1) - self.start_of(window);
        length >= (self.step.shortest() / SECOND) as i64
    }

    fn whole_before(&self, window: u64) -> u64 {
        let mut before = window - 1;
        while !self.is_whole(before) {
            before -= 1;
        }
        before
    }

    fn whole_after(&self, window: u64) -> u64 {
        let mut after = window + 1;
        while !self.is_whole(after) {
            after += 1;
        }
        after
    }
}

/// From 1970 to the end of time.
fn ticks(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(SECOND)
}

const _: () = assert!(ERA_DAYS.is_multiple_of(7));

#[cfg(test)]
mod tests;
