//! The JSON of an answer.

use std::time::Duration;

use bytes::BytesMut;

use crate::{check::CheckAnswer, rate_limit_headers::number};

impl CheckAnswer<'_> {
    /// Appends the JSON.
    pub(in crate::http) fn write_json(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"allowed\":");
        out.extend_from_slice(if self.allowed { b"true" } else { b"false" });
        out.extend_from_slice(b",\"rule\":");
        match self.rule {
            Some(rule) => string(out, rule),
            None => out.extend_from_slice(b"null"),
        }
        let numbers = self.numbers;
        field(out, "limit", numbers.map(|n| n.limit));
        field(out, "remaining", numbers.map(|n| n.remaining));
        let reset_after = numbers.filter(|n| !n.denies()).map(|n| millis(n.reset_after));
        field(out, "reset_after_ms", reset_after);
        let retry_after = if self.allowed { None } else { numbers.and_then(|n| n.retry_after) };
        field(out, "retry_after_ms", retry_after.map(millis));
        field(out, "delay_ms", Some(numbers.map_or(0, |n| millis(n.delay))));
        if numbers.is_some_and(|n| n.banned) {
            out.extend_from_slice(b",\"banned\":true");
        }
        out.extend_from_slice(b",\"decided_by\":\"");
        out.extend_from_slice(self.decided_by.as_str().as_bytes());
        out.extend_from_slice(b"\",\"node\":");
        string(out, self.node);
        out.extend_from_slice(b"}");
    }
}

/// Appends a field that is not the first one.
pub(super) fn field(out: &mut BytesMut, name: &str, value: Option<u64>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    match value {
        Some(value) => number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends any text.
pub(super) fn string(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(b"\"");
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for character in text.chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                character if character < ' ' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                }
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.extend_from_slice(b"\"");
}

/// Rounded up: who waits so long waits long enough.
pub(in crate::http) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_written_as_json() {
        for text in ["plain", "a\"b\\c", "line\nfeed\u{1}", "ä 漢"] {
            let mut out = BytesMut::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
