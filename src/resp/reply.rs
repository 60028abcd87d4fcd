//! Answers as bytes.

use bytes::{BufMut as _, BytesMut};

/// Which version of the protocol a client has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    /// The one that a connection begins with.
    #[default]
    Two,
    /// After `HELLO 3`.
    Three,
}

impl Version {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Where answers are written.
pub(super) struct Replies<'o> {
    pub(super) out: &'o mut BytesMut,
    pub(super) version: Version,
}

impl Replies<'_> {
    pub(super) fn status(&mut self, text: &str) {
        self.out.put_u8(b'+');
        self.out.put_slice(text.as_bytes());
        self.end();
    }

    /// `text` begins with the kind of the error, as in `ERR`. What would end the line early is made visible.
    pub(super) fn error(&mut self, text: &str) {
        self.out.put_u8(b'-');
        for character in text.chars() {
            if character.is_control() {
                self.out.put_slice(character.escape_default().to_string().as_bytes());
            } else {
                self.out.put_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.end();
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.line(b':', number);
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', bytes.len() as i64);
        self.out.put_slice(bytes);
        self.end();
    }

    /// So many answers follow, which are one.
    pub(super) fn array(&mut self, count: usize) {
        self.line(b'*', count as i64);
    }

    /// An array of five integers, which is what a check is answered: written at once.
    pub(super) fn integers(&mut self, numbers: [i64; 5]) {
        // A head, and for each number a sign, a digit more than 18, and three bytes around it.
        let mut bytes = [0; 4 + 5 * 23];
        let mut end = 0;
        let mut put = |part: &[u8]| {
            bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        };
        put(b"*5\r\n");
        for number in numbers {
            put(b":");
            put(itoa::Buffer::new().format(number).as_bytes());
            put(b"\r\n");
        }
        self.out.put_slice(&bytes[..end]);
    }

    /// So many pairs follow. RESP2 has no maps, and takes a flat array for one.
    pub(super) fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Two => self.array(2 * pairs),
            Version::Three => self.line(b'%', pairs as i64),
        }
    }

    pub(super) fn null(&mut self) {
        match self.version {
            Version::Two => self.out.put_slice(b"$-1\r\n"),
            Version::Three => self.out.put_slice(b"_\r\n"),
        }
    }

    /// What stands where an array could not be given.
    pub(super) fn null_array(&mut self) {
        match self.version {
            Version::Two => self.out.put_slice(b"*-1\r\n"),
            Version::Three => self.null(),
        }
    }

    fn line(&mut self, kind: u8, number: i64) {
        self.out.put_u8(kind);
        self.out.put_slice(itoa::Buffer::new().format(number).as_bytes());
        self.end();
    }

    fn end(&mut self) {
        self.out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl FnOnce(&mut Replies<'_>)) -> String {
        let mut out = BytesMut::new();
        write(&mut Replies { out: &mut out, version });
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn each_kind_has_its_form() {
        assert_eq!(written(Version::Two, |to| to.status("OK")), "+OK\r\n");
        assert_eq!(written(Version::Two, |to| to.integer(-1)), ":-1\r\n");
        let most = written(Version::Two, |to| to.integers([i64::MIN, i64::MAX, 0, -1, 7]));
        assert_eq!(most, "*5\r\n:-9223372036854775808\r\n:9223372036854775807\r\n:0\r\n:-1\r\n:7\r\n");
        assert_eq!(written(Version::Two, |to| to.bulk(b"a\r\n")), "$3\r\na\r\n\r\n");
        assert_eq!(written(Version::Two, |to| to.map(3)), "*6\r\n");
        assert_eq!(written(Version::Three, |to| to.map(3)), "%3\r\n");
        assert_eq!(written(Version::Three, |to| to.null()), "_\r\n");
    }

    #[test]
    fn an_error_is_one_line_whatever_is_in_it() {
        assert_eq!(written(Version::Two, |to| to.error("ERR a\r\n+OK")), "-ERR a\\r\\n+OK\r\n");
    }
}
