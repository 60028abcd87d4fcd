//! What a message between nodes is called on the wire, and how long it may be.
//!
//! A stream begins with a greeting ([`crate::greeting`]) and goes on with records ([`crate::record`]), each of which holds
//! whole frames:
//!
//! ```text
//!   0      1              5
//!   +------+--------------+------------------
//!   | kind | length (u32) | payload: `length`
//!   +------+--------------+------------------
//! ```
//!
//! Integers are little-endian.

use serde::Serialize;

/// The version of greetings, records and messages that this build speaks. Another version is refused at the greeting.
pub const WIRE_VERSION: u8 = 10;
/// Length of the header of a frame in bytes.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Longest payload between nodes that have proved who they are; a longer one ends the connection.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Longest payload of a [`Kind::Call`] and its reply: a whole rule file with what is around it.
pub const MAX_CALL_BYTES: usize = 16 << 20;
/// Longest payload before the handshake is over; a longer one ends the connection.
pub const MAX_HANDSHAKE_BYTES: usize = 1024;

/// What a frame holds. New kinds are appended; a number is never used again for something else (1 to 3 were the handshake
/// until version 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
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
    /// [`crate::peer::Introduction`]
    Introduction = 14,
    /// [`crate::peer::Welcome`]
    Welcome = 15,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
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
            14 => Self::Introduction,
            15 => Self::Welcome,
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

/// A whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// The bytes of its message.
    pub payload: &'a [u8],
    /// How many bytes it takes up, header included.
    pub length: usize,
}
