//! The first bytes on a stream between nodes, before anything is authenticated: read by hand, of fixed length, and without a
//! word about the cluster.
//!
//! ```text
//!   0      2        3      4
//!   +------+--------+------+-----------------------------------------
//!   | "TG" | version| what | 16 bytes of nonce, or 1 byte of refusal
//!   +------+--------+------+-----------------------------------------
//! ```
//!
//! The caller sends `Hello`, the other side `Challenge`: a fresh nonce each. From then on both derive the keys of the stream
//! from the cluster key and the nonces, and talk in records ([`crate::record`]). A side that cannot go on sends `Refusal`.

use std::fmt;

use crate::frame::WIRE_VERSION;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 16;
/// Length of the longest greeting in bytes.
pub const GREETING_BYTES: usize = HEADER_BYTES + NONCE_BYTES;

const HEADER_BYTES: usize = 4;
const MAGIC: [u8; 2] = *b"TG";
const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const REFUSAL: u8 = 3;

/// What is said before anything is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// The caller's nonce.
    Hello([u8; NONCE_BYTES]),
    /// The nonce of the side that was called.
    Challenge([u8; NONCE_BYTES]),
    /// The stream ends.
    Refusal(Refusal),
}

/// Why a stream ends before its caller has proved anything. Fixed words: a stranger learns nothing about this node from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The caller speaks another wire version.
    WireVersion = 1,
    /// What the caller sent is no greeting or no introduction.
    Malformed = 2,
    /// The seal does not fit: the cluster keys differ, or the bytes were changed on the way.
    WrongKey = 3,
    /// The caller took too long.
    Timeout = 4,
    /// Too many callers that have proved nothing.
    TooMany = 5,
    /// The caller does not speak TLS.
    NeedsTls = 6,
    /// A reason that this version does not know.
    Other = 255,
}

impl Refusal {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::WireVersion,
            2 => Self::Malformed,
            3 => Self::WrongKey,
            4 => Self::Timeout,
            5 => Self::TooMany,
            6 => Self::NeedsTls,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WireVersion => "it speaks another wire version: upgrade one of the two nodes",
            Self::Malformed => "it could not read the handshake",
            Self::WrongKey => {
                "it has another cluster key (--cluster-key-file), or the bytes were changed on the way"
            }
            Self::Timeout => "the handshake took too long",
            Self::TooMany => "too many other callers have not proved themselves yet",
            Self::NeedsTls => "it demands TLS (--peer-tls-cert, --peer-tls-key, --peer-tls-ca)",
            Self::Other => "for a reason that this version does not know",
        })
    }
}

/// What is wrong with the first bytes of a stream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GreetingError {
    /// The first two bytes are not Tidegate's: another protocol has been dialled.
    #[error("not a Tidegate peer: the stream begins with {0:02x?} instead of \"TG\"")]
    Magic([u8; 2]),
    /// The peer runs a build with another wire version.
    #[error("the peer speaks wire version {theirs}, this node speaks {WIRE_VERSION}: upgrade one of them")]
    Version {
        /// The version in the peer's greeting.
        theirs: u8,
    },
    /// A greeting that this version does not have.
    #[error("unknown greeting {0}")]
    Unknown(u8),
}

impl Greeting {
    /// The bytes of it.
    pub fn to_bytes(self) -> Vec<u8> {
        let (what, rest): (u8, &[u8]) = match &self {
            Self::Hello(nonce) => (HELLO, nonce),
            Self::Challenge(nonce) => (CHALLENGE, nonce),
            Self::Refusal(refusal) => (REFUSAL, &[*refusal as u8]),
        };
        [&MAGIC[..], &[WIRE_VERSION, what], rest].concat()
    }

    /// Whether these bytes begin a greeting; a record of a handshake never does (see [`crate::record::Inbox`]).
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Reads the greeting at the front of `buffer`, and says how many bytes it takes up. `None`: not all of it has arrived yet.
    ///
    /// # Errors
    /// As soon as a byte shows one.
    pub fn first(buffer: &[u8]) -> Result<Option<(Self, usize)>, GreetingError> {
        let seen = buffer.len().min(MAGIC.len());
        if buffer[..seen] != MAGIC[..seen] {
            let mut found = [0; 2];
            found[..seen].copy_from_slice(&buffer[..seen]);
            return Err(GreetingError::Magic(found));
        }
        match buffer.get(2) {
            Some(&theirs) if theirs != WIRE_VERSION => return Err(GreetingError::Version { theirs }),
            _ => {}
        }
        let Some((&[_, _, _, what], rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let nonce = rest.first_chunk::<NONCE_BYTES>();
        Ok(match what {
            HELLO => nonce.map(|nonce| (Self::Hello(*nonce), GREETING_BYTES)),
            CHALLENGE => nonce.map(|nonce| (Self::Challenge(*nonce), GREETING_BYTES)),
            REFUSAL => rest.first().map(|byte| (Self::Refusal(Refusal::from_byte(*byte)), HEADER_BYTES + 1)),
            other => return Err(GreetingError::Unknown(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_greeting_comes_back_and_each_cut_of_it_asks_for_more() {
        let all =
            [Greeting::Hello([7; 16]), Greeting::Challenge([8; 16]), Greeting::Refusal(Refusal::WrongKey)];
        for greeting in all {
            let bytes = greeting.to_bytes();
            assert_eq!(Greeting::first(&bytes), Ok(Some((greeting, bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(Greeting::first(&bytes[..end]), Ok(None), "cut at {end}");
            }
        }
    }

    #[test]
    fn garbage_another_version_and_an_unknown_greeting_are_refused_at_the_byte_that_shows_them() {
        assert!(matches!(Greeting::first(b"G"), Err(GreetingError::Magic(_))));
        assert_eq!(Greeting::first(b"TG\x06"), Err(GreetingError::Version { theirs: 6 }));
        assert_eq!(Greeting::first(&[b'T', b'G', WIRE_VERSION, 9]), Err(GreetingError::Unknown(9)));
        let unknown = [b'T', b'G', WIRE_VERSION, REFUSAL, 77];
        assert_eq!(Greeting::first(&unknown), Ok(Some((Greeting::Refusal(Refusal::Other), 5))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Greeting::first(&bytes);
            let _ = Greeting::first(&[&b"TG\x07"[..], &bytes].concat());
        }
    }
}
