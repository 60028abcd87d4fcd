//! Instants as people read them.

use chrono::{DateTime, SecondsFormat};

/// Unix milliseconds as RFC 3339, UTC.
pub(crate) fn text_of(unix_ms: u64) -> String {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(millis).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Unix milliseconds of an instant in RFC 3339; `None`: it is none, or one before 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_with_its_milliseconds() {
        assert_eq!(text_of(1_795_487_208_325), "2026-11-24T02:26:48.325Z");
        assert_eq!(text_of(u64::MAX), "1970-01-01T00:00:00.000Z");
        assert_eq!(parse("2026-11-24T03:26:48.325+01:00"), Some(1_795_487_208_325));
        assert_eq!((parse("1969-12-31T23:59:59Z"), parse("soon")), (None, None));
    }
}
