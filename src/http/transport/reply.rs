//! Responses as the bytes of HTTP/1.1 messages, one behind the other.

use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;

/// Room for the digits of a body's length, which is known only when the body has been written.
const LENGTH: &[u8] = b"     ";

/// Responses of one connection that are to be written.
#[derive(Debug, Default)]
pub struct Replies {
    pub(super) out: BytesMut,
    date: Date,
}

/// The time of a response: put into words once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn at(&mut self, unix_millis: u64) -> &str {
        let second = unix_millis / 1000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

impl Replies {
    /// Appends a response whose body is written in place and has less than 100,000 bytes. `head` writes its first line and its
    /// headers but for the length and the date.
    #[inline]
    pub fn write(
        &mut self,
        unix_millis: u64,
        head: impl FnOnce(&mut BytesMut),
        body: impl FnOnce(&mut BytesMut),
    ) {
        let (out, date) = (&mut self.out, self.date.at(unix_millis));
        head(out);
        out.extend_from_slice(b"content-length: ");
        let length = out.len();
        out.extend_from_slice(LENGTH);
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        let start = out.len();
        body(out);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(out.len() - start).as_bytes();
        // White space before a value means nothing (RFC 9110, section 5.5).
        let end = length + LENGTH.len();
        out[end - digits.len()..end].copy_from_slice(digits);
    }

    /// Appends a response whose body is there.
    pub fn write_whole(&mut self, unix_millis: u64, head: &str, body: &[u8]) {
        let date = self.date.at(unix_millis);
        let head = format!("{head}content-length: {}\r\ndate: {date}\r\n\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
    }

    /// What is to be written.
    #[cfg(test)]
    pub(in crate::http) fn as_bytes(&self) -> &[u8] {
        &self.out
    }
}
