//! Lengths of time and sizes as people write them: `100ms`, `256MiB`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// A length of time: a whole number with `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: a whole number, alone or with `KiB`, `MiB`, `GiB`, `KB`, `MB` or `GB`; as Kubernetes writes them too, without
/// the `B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCount(pub u64);

/// A text that is neither.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; write {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        scaled(text, &units).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "length of time",
            example: "for example 100ms, 2s or 1m",
        })
    }
}

impl FromStr for ByteCount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let units = [
            ("", 1),
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("K", 1_000),
            ("k", 1_000),
            ("M", 1_000_000),
            ("G", 1_000_000_000),
        ];
        let number = text.trim_end();
        let number =
            number.strip_suffix('B').filter(|rest| !rest.ends_with(char::is_numeric)).unwrap_or(number);
        scaled(number, &units).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "size",
            example: "for example 256MiB or 2GiB",
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!("100ms".parse(), Ok(Span(Duration::from_millis(100))));
        assert_eq!("2 s".parse(), Ok(Span(Duration::from_secs(2))));
        assert_eq!("1m".parse(), Ok(Span(Duration::from_secs(60))));
        assert_eq!("90d".parse(), Ok(Span(Duration::from_secs(90 * 86_400))));
        for wrong in ["", "100", "ms", "-1s", "1.5s", "1w", "99999999999999999999s"] {
            let fault = wrong.parse::<Span>().unwrap_err();
            assert!(fault.to_string().contains("for example"), "{fault}");
        }
    }

    #[test]
    fn sizes_may_have_one() {
        assert_eq!("512".parse(), Ok(ByteCount(512)));
        assert_eq!("256MiB".parse(), Ok(ByteCount(256 << 20)));
        assert_eq!("2GB".parse(), Ok(ByteCount(2_000_000_000)));
        // As in the manifests of Kubernetes.
        assert_eq!("512Mi".parse(), Ok(ByteCount(512 << 20)));
        assert_eq!("1Gi".parse(), Ok(ByteCount(1 << 30)));
        assert_eq!("512M".parse(), Ok(ByteCount(512_000_000)));
        for wrong in ["", "MiB", "1TiB", "1mb", "1B", "1BB", "1MiBB", "B", "99999999999GiB"] {
            assert!(wrong.parse::<ByteCount>().is_err(), "{wrong}");
        }
    }
}
