//! The header around each message between nodes.
//!
//! ```text
//!   0      2        3      4              8              12
//!   +------+--------+------+--------------+--------------+------------------
//!   | "TG" | version| kind | length (u32) | crc32c (u32) | payload: `length`
//!   +------+--------+------+--------------+--------------+------------------
//! ```
//!
//! Integers are little-endian. The checksum covers the first 8 bytes and the payload. It finds accidents; forgery is
//! the handshake's business ([`crate::peer::Hello`]). The length is compared with a limit before anything is
//! allocated or awaited for it.

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::codec::{self, CodecError};

/// The version of frames and messages that this build speaks. Another version is refused in the handshake.
pub const WIRE_VERSION: u8 = 7;
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 12;
/// Longest payload between nodes that have proved who they are; a longer one ends the connection.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Longest payload of a [`Kind::Call`] and its reply: a whole rule file with what is around it.
pub const MAX_CALL_BYTES: usize = 16 << 20;
/// Longest payload before the handshake is over; a longer one ends the connection.
pub const MAX_HANDSHAKE_BYTES: usize = 1024;

const MAGIC: [u8; 2] = *b"TG";

/// What a frame holds. New kinds are appended; a number is never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`crate::peer::Hello`]
    Hello = 1,
    /// [`crate::peer::Welcome`]
    Welcome = 2,
    /// [`crate::peer::Proof`]
    Proof = 3,
    /// [`crate::peer::Refused`]
    Refused = 4,
    /// [`crate::peer::Check`]
    Check = 5,
    /// [`crate::peer::Answer`]
    Answer = 6,
    /// [`crate::peer::Undo`]
    Undo = 7,
    /// [`crate::peer::Ping`]
    Ping = 8,
    /// [`crate::peer::Pong`]
    Pong = 9,
    /// [`crate::peer::Control`]
    Control = 10,
    /// A call of the Raft group; what is in it is the cluster's business.
    Call = 11,
    /// Answers a [`Kind::Call`].
    Reply = 12,
    /// [`crate::peer::Amend`]
    Amend = 13,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Proof,
            4 => Self::Refused,
            5 => Self::Check,
            6 => Self::Answer,
            7 => Self::Undo,
            8 => Self::Ping,
            9 => Self::Pong,
            10 => Self::Control,
            11 => Self::Call,
            12 => Self::Reply,
            13 => Self::Amend,
            _ => return None,
        })
    }
}

/// A message with its place in the table of kinds.
pub trait Message: Serialize {
    /// The kind that the header of its frame carries.
    const KIND: Kind;
    /// Longest payload that is sent of it.
    const MAX_BYTES: usize = MAX_PAYLOAD_BYTES;
}

/// What is wrong with the bytes of a frame. Each of these ends the connection: after it, the place where the next
/// frame begins is not known.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The first two bytes are not Tidegate's: another protocol has been dialled.
    #[error("not a Tidegate peer: the frame begins with {0:02x?} instead of \"TG\"")]
    Magic([u8; 2]),
    /// The peer runs a build with another wire version.
    #[error("the peer speaks wire version {theirs}, this node speaks {WIRE_VERSION}: upgrade one of them")]
    Version {
        /// The version in the peer's header.
        theirs: u8,
    },
    /// A kind of frame that this version does not have.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// The header promises more than is accepted here.
    #[error("a frame of {length} bytes, at most {limit} are accepted here")]
    TooLong {
        /// What the header says.
        length: u32,
        /// What is accepted.
        limit: usize,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum mismatch: the bytes were changed on the way")]
    Checksum,
}

/// A whole frame at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// The bytes of its message.
    pub payload: &'a [u8],
    /// How many bytes of the buffer it takes up, header included.
    pub length: usize,
}

/// Finds the first frame in `buffer`, with a payload of at most `payload_limit` bytes. `None`: not all of it has arrived
/// yet.
///
/// # Errors
/// As soon as the header shows one, also before the payload is there.
pub fn first(buffer: &[u8], payload_limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let magic_seen = buffer.len().min(MAGIC.len());
    if buffer[..magic_seen] != MAGIC[..magic_seen] {
        let mut found = [0; 2];
        found[..magic_seen].copy_from_slice(&buffer[..magic_seen]);
        return Err(FrameError::Magic(found));
    }
    if let Some(&theirs) = buffer.get(2)
        && theirs != WIRE_VERSION
    {
        return Err(FrameError::Version { theirs });
    }
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let kind = Kind::from_byte(header[3]).ok_or(FrameError::Kind(header[3]))?;
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if length as usize > payload_limit {
        return Err(FrameError::TooLong { length, limit: payload_limit });
    }
    let end = HEADER_BYTES + length as usize;
    let Some(payload) = buffer.get(HEADER_BYTES..end) else { return Ok(None) };
    let expected = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if checksum(&header[..8], payload) != expected {
        return Err(FrameError::Checksum);
    }
    Ok(Some(Frame { kind, payload, length: end }))
}

/// Appends `message` as a frame to `out`. On an error `out` is as it was.
///
/// # Errors
/// When the message is longer than its [`Message::MAX_BYTES`].
pub fn put<M: Message>(message: &M, out: &mut BytesMut) -> Result<(), CodecError> {
    let start = out.len();
    out.put_slice(&MAGIC);
    out.put_u8(WIRE_VERSION);
    out.put_u8(M::KIND as u8);
    out.put_bytes(0, HEADER_BYTES - 4);
    if let Err(fault) = codec::encode(message, out, M::MAX_BYTES) {
        out.truncate(start);
        return Err(fault);
    }
    let frame = &mut out[start..];
    // `encode` refuses more than MAX_BYTES, which fits u32.
    let length = (frame.len() - HEADER_BYTES) as u32;
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(&frame[..8], &frame[HEADER_BYTES..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn checksum(front: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(front), payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Ping;

    fn ping() -> BytesMut {
        let mut out = BytesMut::new();
        put(&Ping { id: 7 }, &mut out).unwrap();
        out
    }

    #[test]
    fn a_frame_comes_back_whole_and_says_how_long_it_is() {
        let mut bytes = ping();
        let length = bytes.len();
        bytes.extend_from_slice(b"TG");
        let frame = first(&bytes, MAX_PAYLOAD_BYTES).unwrap().unwrap();
        assert_eq!((frame.kind, frame.length), (Kind::Ping, length));
        assert_eq!(codec::decode::<Ping>(frame.payload).unwrap(), Ping { id: 7 });
    }

    #[test]
    fn each_cut_of_a_frame_asks_for_more() {
        let bytes = ping();
        for end in 0..bytes.len() {
            assert_eq!(first(&bytes[..end], MAX_PAYLOAD_BYTES), Ok(None), "cut at {end}");
        }
    }

    #[test]
    fn each_flipped_bit_is_found() {
        let good = ping();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = first(&bad, MAX_PAYLOAD_BYTES);
            // A longer length only waits for more bytes; it can not be told from a frame on its way.
            assert!(matches!(found, Err(_) | Ok(None)), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn another_version_is_named_before_its_payload_is_read() {
        let mut bytes = ping();
        bytes[2] = 9;
        let fault = first(&bytes[..3], MAX_PAYLOAD_BYTES).unwrap_err();
        assert_eq!(fault, FrameError::Version { theirs: 9 });
        assert!(fault.to_string().contains("wire version 9"));
    }

    #[test]
    fn a_claimed_gigabyte_is_refused_from_the_header_alone() {
        let mut bytes = ping();
        bytes[4..8].copy_from_slice(&(1u32 << 30).to_le_bytes());
        assert_eq!(
            first(&bytes[..HEADER_BYTES], MAX_HANDSHAKE_BYTES),
            Err(FrameError::TooLong { length: 1 << 30, limit: MAX_HANDSHAKE_BYTES })
        );
    }

    #[test]
    fn garbage_is_refused_at_its_first_byte() {
        assert!(matches!(first(b"G", MAX_PAYLOAD_BYTES), Err(FrameError::Magic(_))));
    }
}
