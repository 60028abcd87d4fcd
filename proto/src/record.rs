//! Records: what a stream between nodes consists of after the greeting. Each is sealed with a key that only this direction of
//! this stream has.
//!
//! ```text
//!   0              4             20
//!   +--------------+-------------+------------------------
//!   | length (u32) | seal (16 B) | whole frames: `length`
//!   +--------------+-------------+------------------------
//! ```
//!
//! The seal is SipHash-2-4 with 128 bits over the number of the record on this stream (0, 1, 2 ...) and its frames. A record
//! that was changed, put in, repeated, left out, reordered, or that comes from another stream or from the other direction,
//! does not fit, and the stream ends. What is left out at the end of a stream is what was never sent: each question on a
//! stream waits for its own answer. Why SipHash, and why nothing is encrypted: `docs/decisions/012-sealed-peer-streams.md`.

use std::{fmt, hash::Hasher as _};

use bytes::{Buf as _, BufMut as _, BytesMut};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::{
    codec::{self, CodecError},
    frame::{FRAME_HEADER_BYTES, Frame, Kind, MAX_HANDSHAKE_BYTES, Message},
};

/// Length of what stands before the frames of a record.
pub const RECORD_HEADER_BYTES: usize = 20;
/// Length of a key.
pub const SEAL_KEY_BYTES: usize = 16;
/// A record that is so long takes no further frame: a large one is read and checked as a whole.
const RECORD_FULL: usize = 16 << 10;

// No record that is accepted during the handshake is as long as "TG" says in little-endian: none begins like a greeting.
const _: () = assert!(MAX_HANDSHAKE_BYTES + FRAME_HEADER_BYTES + RECORD_FULL < 0x4754);

/// What is wrong with the records of a peer. Each of these ends the stream: after it, nothing on it can be told from a forgery.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// The seal does not fit.
    #[error("the seal does not fit: bytes were changed, put in, repeated or left out on the way")]
    Seal,
    /// The header promises more than is accepted here.
    #[error("a record or frame of {length} bytes, at most {limit} are accepted here")]
    TooLong {
        /// What the header says.
        length: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The frames do not fill the record, which a peer with the key has sealed.
    #[error("the frames of a record do not fill it")]
    Frames,
    /// A kind of frame that this version does not have.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
}

/// Seals the records of one direction of one stream, in their order.
#[derive(Clone)]
struct Seals {
    keyed: SipHasher24,
    /// The number of the next record.
    next: u64,
}

impl Seals {
    fn new(key: [u8; SEAL_KEY_BYTES]) -> Self {
        Self { keyed: SipHasher24::new_with_key(&key), next: 0 }
    }

    /// The seal of the next record, if these are its frames.
    fn of(&self, frames: &[u8]) -> u128 {
        let mut hasher = self.keyed;
        hasher.write(&self.next.to_le_bytes());
        hasher.write(frames);
        hasher.finish128().as_u128()
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seals").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Frames on their way to a peer.
#[derive(Debug)]
pub struct Outbox {
    seals: Seals,
    bytes: BytesMut,
    /// Where the record begins that is not sealed yet. It is the last one, and what is in front of it may be written.
    open: Option<usize>,
}

impl Outbox {
    /// For a direction with this key.
    pub fn new(key: [u8; SEAL_KEY_BYTES]) -> Self {
        Self { seals: Seals::new(key), bytes: BytesMut::new(), open: None }
    }

    /// Adds a message. On an error nothing is added.
    ///
    /// # Errors
    /// When the message is longer than its [`Message::MAX_BYTES`].
    pub fn put<M: Message>(&mut self, message: &M) -> Result<(), CodecError> {
        let before = self.bytes.len();
        let start = match self.open {
            Some(start) if before - start < RECORD_FULL => start,
            _ => {
                self.seal();
                let start = self.bytes.len();
                self.bytes.put_bytes(0, RECORD_HEADER_BYTES);
                start
            }
        };
        let frame = self.bytes.len();
        self.bytes.put_u8(M::KIND as u8);
        self.bytes.put_u32_le(0);
        if let Err(error) = codec::encode(message, &mut self.bytes, M::MAX_BYTES) {
            self.bytes.truncate(before);
            return Err(error);
        }
        self.open = Some(start);
        // `encode` refuses more than MAX_BYTES, which fits u32.
        let length = (self.bytes.len() - frame - FRAME_HEADER_BYTES) as u32;
        self.bytes[frame + 1..frame + FRAME_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Ends the record: what is put from now on goes into the next one. For a receiver that accepts more from then on.
    pub fn seal(&mut self) {
        let Some(start) = self.open.take() else { return };
        let record = &mut self.bytes[start..];
        let (header, frames) = record.split_at_mut(RECORD_HEADER_BYTES);
        let seal = self.seals.of(frames);
        self.seals.next += 1;
        header[..4].copy_from_slice(&(frames.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&seal.to_le_bytes());
    }

    /// The bytes to write, all of them sealed. What was written is to be taken from their front.
    pub fn sealed(&mut self) -> &mut BytesMut {
        self.seal();
        &mut self.bytes
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Bytes from a peer, of which only frames of records whose seal fits are shown.
#[derive(Debug)]
pub struct Inbox {
    seals: Seals,
    bytes: BytesMut,
    /// Longest payload of a frame.
    limit: usize,
    /// Bytes at the front that are frames of a record whose seal fits.
    verified: usize,
    #[cfg(feature = "planted-bugs")]
    believes_all: bool,
}

impl Inbox {
    /// For a direction with this key, with what has been read of it, and the longest payload that is accepted.
    pub fn new(key: [u8; SEAL_KEY_BYTES], bytes: BytesMut, limit: usize) -> Self {
        Self {
            seals: Seals::new(key),
            bytes,
            limit,
            verified: 0,
            #[cfg(feature = "planted-bugs")]
            believes_all: false,
        }
    }

    /// Accepts payloads up to this length from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A bug on purpose: seals are not looked at.
    #[cfg(feature = "planted-bugs")]
    pub fn believe_all(&mut self) {
        self.believes_all = true;
    }

    /// Where what arrives is added.
    pub fn unread(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether nothing of a frame or record has arrived that was not taken. If that is not so when the stream ends, it was cut
    /// off.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The first frame. It stays there until it is taken. `None`: not all of its record has arrived yet.
    ///
    /// # Errors
    /// As soon as the header shows one, also before the rest is there. It then comes again.
    pub fn first(&mut self) -> Result<Option<Frame<'_>>, RecordError> {
        if self.verified == 0 && !self.open_record()? {
            return Ok(None);
        }
        let frames = &self.bytes[..self.verified];
        let (header, rest) = frames.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(RecordError::Frames)?;
        let kind = Kind::from_byte(header[0]).ok_or(RecordError::Kind(header[0]))?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > self.limit {
            return Err(RecordError::TooLong { length, limit: self.limit });
        }
        let payload = rest.get(..length).ok_or(RecordError::Frames)?;
        Ok(Some(Frame { kind, payload, length: FRAME_HEADER_BYTES + length }))
    }

    /// Takes the first frame, of this length.
    ///
    /// # Panics
    /// When there is no such frame.
    pub fn take(&mut self, length: usize) {
        assert!(length <= self.verified, "only what was verified is taken");
        self.bytes.advance(length);
        self.verified -= length;
    }

    /// Looks at the seal of the next record, if all of it is there.
    fn open_record(&mut self) -> Result<bool, RecordError> {
        let Some(header) = self.bytes.first_chunk::<4>() else { return Ok(false) };
        let length = u32::from_le_bytes(*header) as usize;
        let limit = self.limit + FRAME_HEADER_BYTES + RECORD_FULL;
        if length > limit {
            return Err(RecordError::TooLong { length, limit });
        }
        if length == 0 {
            return Err(RecordError::Frames);
        }
        let end = RECORD_HEADER_BYTES + length;
        let Some(record) = self.bytes.get(..end) else { return Ok(false) };
        let (header, frames) = record.split_at(RECORD_HEADER_BYTES);
        let mut seal = [0; 16];
        seal.copy_from_slice(&header[4..]);
        // One comparison of 128 bits: how long it takes says nothing about which of them differ.
        let fits = self.seals.of(frames) ^ u128::from_le_bytes(seal) == 0;
        #[cfg(feature = "planted-bugs")]
        let fits = fits || self.believes_all;
        if !fits {
            return Err(RecordError::Seal);
        }
        self.seals.next += 1;
        self.bytes.advance(RECORD_HEADER_BYTES);
        self.verified = length;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
