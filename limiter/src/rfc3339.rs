//! Instants as rule files write them: RFC 3339, from 1970 to 2115.

use crate::{
    Nanos,
    calendar::civil::{civil, days_before, days_in},
};

const SECOND: u64 = 1_000_000_000;
const DAY_SECONDS: u64 = 86_400;

/// What to write.
pub(crate) const EXAMPLE: &str = "2026-12-31T00:00:00Z";

/// Reads e.g. `2026-12-31T00:00:00Z` or `2026-12-31T01:00:00.5+01:00`; `None`: it is no such instant.
pub(crate) fn parse(text: &str) -> Option<Nanos> {
    let is = |place: usize, any: &[u8]| text.as_bytes().get(place).is_some_and(|byte| any.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let digits = |start: usize, count: usize| number(text.get(start..start + count)?);
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    // A leap second is the second after it.
    if !(1970..=2115).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || (hour, minute, second) > (23, 59, 60)
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (nanos, zone) = fraction(text.get(19..)?)?;
    let days = days_before(year, month) + day - 1;
    let seconds = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    let seconds = seconds.checked_add_signed(-offset(zone)?)?;
    Some(Nanos::new(seconds * SECOND + nanos))
}

/// As [`parse`] reads it.
pub(crate) fn text_of(instant: Nanos) -> String {
    let (seconds, nanos) = (instant.get() / SECOND, instant.get() % SECOND);
    let (days, seconds) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month) = civil(days);
    let day = days - days_before(year, month) + 1;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Nanoseconds, and what comes behind them.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    // What is finer than a nanosecond is cut off.
    let used = length.min(9);
    let nanos = number(rest.get(..used).filter(|digits| !digits.is_empty())?)? * 10u64.pow(9 - used as u32);
    Some((nanos, &rest[length..]))
}

/// Seconds by which a zone is ahead.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, zone) = match zone.strip_prefix('+') {
        Some(zone) => (1, zone),
        None => (-1, zone.strip_prefix('-')?),
    };
    let (hours, minutes) =
        zone.split_once(':').filter(|(hours, minutes)| (hours.len(), minutes.len()) == (2, 2))?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_are_read_in_each_way_of_writing_them() {
        let second = |second: u64| Some(Nanos::new(second * SECOND));
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", second(0)),
            ("2026-12-31T00:00:00Z", second(1_798_675_200)),
            ("2026-12-31t00:00:00z", second(1_798_675_200)),
            ("2026-12-31 01:30:00+01:30", second(1_798_675_200)),
            ("2026-12-30T19:00:00-05:00", second(1_798_675_200)),
            ("2024-02-29T00:00:00Z", second(1_709_164_800)),
            ("2016-12-31T23:59:60Z", second(1_483_228_800)),
            ("1970-01-01T00:00:00.25Z", Some(Nanos::new(SECOND / 4))),
            ("1970-01-01T00:00:00.1234567891Z", Some(Nanos::new(123_456_789))),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-12-31",
            "2026-12-31T00:00:00",
            "2026-12-31T00:00Z",
            "2026-12-31T00:00:00.Z",
            "2026-12-31T24:00:00Z",
            "2026-12-31T00:60:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-12-31T00:00:00+1:00",
            "2026-12-31T00:00:00Z!",
            "1969-12-31T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "2116-01-01T00:00:00Z",
            "+026-12-31T00:00:00Z",
            "2026-12-31T0é:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 0..4_607_000_000_000_000_000u64, is_whole in any::<bool>()) {
            let instant = Nanos::new(if is_whole { nanos / SECOND * SECOND } else { nanos });
            prop_assert_eq!(parse(&text_of(instant)), Some(instant));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]{0,20}|.{0,30}") {
            let _ = parse(&text);
        }
    }
}
