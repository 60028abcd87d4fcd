//! How the gossip library writes its messages (chitchat 0.11, protocol version 0), as far as it has to be known to look into one
//! before the library does, and to leave something out of one behind it.
//!
//! ```text
//!     magic (2), version, type      type 0: digest, cluster    1: digest, changes    2: changes    3: nothing
//!     digest:    count (2), for each: node, heartbeat (8), version up to which keys were dropped (8), highest version (8)
//!     changes:   blocks: 1, length (2), packed by zstd    2, length (2), as it is    0: the end
//! ```

use chitchat::{ChitchatId, Deserializable as _};

/// A block holds at most so much.
pub(super) const MAX_BLOCK_BYTES: usize = u16::MAX as usize;
/// What is written into one.
const BLOCK_BYTES: usize = 16 << 10;
/// Behind each node of a digest; the heartbeat is the first of the three.
pub(super) const DIGEST_NUMBERS_BYTES: usize = 24;
/// Magic, version, type.
pub(super) const HEAD_BYTES: usize = 4;

/// What a message has, in this order.
pub(super) struct Parts {
    pub(super) has_digest: bool,
    pub(super) has_changes: bool,
}

/// What a message has, and all that is behind its head; `None`: it is none.
pub(super) fn parts(message: &[u8]) -> Option<(Parts, &[u8])> {
    let (head, rest) = message.split_at_checked(HEAD_BYTES)?;
    let (has_digest, has_changes) = match head[3] {
        0 => (true, false),
        1 => (true, true),
        2 => (false, true),
        3 => (false, false),
        _ => return None,
    };
    Some((Parts { has_digest, has_changes }, rest))
}

/// One of a list of changes.
pub(super) enum Change {
    /// The following ones are of this node.
    Of(ChitchatId),
    /// A key, or the highest version.
    Other,
}

/// The changes of an unpacked list, each with its bytes; `None` where it can not be read any further.
pub(super) fn changes(unpacked: &[u8]) -> impl Iterator<Item = Option<(Change, &[u8])>> {
    let mut rest = unpacked;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let before = rest;
        let read = change(&mut rest).map(|change| (change, &before[..before.len() - rest.len()]));
        if read.is_none() {
            rest = &[];
        }
        Some(read)
    })
}

fn change(rest: &mut &[u8]) -> Option<Change> {
    match take(rest, 1)?[0] {
        // A node, and between which versions the following changes are.
        0 => {
            let node = node(rest)?;
            take(rest, 16)?;
            Some(Change::Of(node))
        }
        // Key, value, version, whether it was deleted.
        1 => {
            for _ in 0..2 {
                let length = number(rest)?;
                take(rest, length)?;
            }
            take(rest, 9)?;
            Some(Change::Other)
        }
        // The highest version.
        2 => take(rest, 8).map(|_| Change::Other),
        _ => None,
    }
}

/// The blocks of a list of changes, unpacked, if they are no more than so many bytes.
pub(super) fn unpack(rest: &mut &[u8], most: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    loop {
        let kind = take(rest, 1)?[0];
        if kind == 0 {
            return Some(unpacked);
        }
        let length = number(rest)?;
        let block = take(rest, length)?;
        let room = (most - unpacked.len()).min(MAX_BLOCK_BYTES);
        match kind {
            1 => unpacked.extend(zstd::bulk::decompress(block, room).ok()?),
            2 if length <= room => unpacked.extend_from_slice(block),
            _ => return None,
        }
    }
}

/// The other way round.
pub(super) fn pack(unpacked: &[u8], to: &mut Vec<u8>) {
    for block in unpacked.chunks(BLOCK_BYTES) {
        let packed = zstd::bulk::compress(block, 0).ok().filter(|packed| packed.len() < block.len());
        let (kind, bytes) = packed.as_deref().map_or((2, block), |packed| (1, packed));
        to.push(kind);
        to.extend((bytes.len() as u16).to_le_bytes());
        to.extend_from_slice(bytes);
    }
    to.push(0);
}

pub(super) fn node(rest: &mut &[u8]) -> Option<ChitchatId> {
    ChitchatId::deserialize(rest).ok()
}

pub(super) fn number(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 2)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

pub(super) fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}
