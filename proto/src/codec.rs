//! The bytes of a message: bincode, fixed-width little-endian integers, a limit, no trailing bytes.
//!
//! This is the only file that names bincode; why it is pinned, and what could replace it, stands in
//! `docs/decisions/001-bincode.md`.

use bincode::Options as _;
use bytes::BufMut;
use serde::{Serialize, de::DeserializeOwned};

/// A message that could not be turned into bytes or back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(#[from] bincode::Error);

/// Appends the bytes of `message` to `out`.
///
/// # Errors
/// When the message is longer than `limit` bytes; `out` may then hold a part of it.
pub fn encode<M: Serialize>(message: &M, out: &mut impl BufMut, limit: usize) -> Result<(), CodecError> {
    Ok(options(limit).serialize_into(out.writer(), message)?)
}

/// Reads a message that must fill `bytes` exactly.
///
/// # Errors
/// When the bytes are not such a message, claim more than they hold, or leave bytes over.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    Ok(options(bytes.len()).deserialize(bytes)?)
}

fn options(limit: usize) -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(limit as u64)
        .reject_trailing_bytes()
}
