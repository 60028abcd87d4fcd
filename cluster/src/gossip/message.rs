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
/// A node whose name has no bytes: lengths, start, address (IPv6) and port.
pub(super) const MAX_NAMELESS_NODE_BYTES: usize = 2 + 8 + 1 + 16 + 2;
/// Of a node among the changes, beside the node: what it is, and two versions.
pub(super) const CHANGED_NODE_BYTES: usize = 1 + 16;
/// Of a key among the changes, beside key and value: what it is, two lengths, its version, whether it was deleted.
pub(super) const CHANGED_KEY_BYTES: usize = 1 + 2 + 2 + 8 + 1;
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

/// A node in a digest.
pub(super) struct Entry<'m> {
    pub(super) node: ChitchatId,
    pub(super) heartbeat: u64,
    pub(super) bytes: &'m [u8],
}

/// The nodes of a digest; `None`: it cannot be read.
pub(super) fn entries<'m>(rest: &mut &'m [u8]) -> Option<Vec<Entry<'m>>> {
    let count = count(rest)?;
    // Not what somebody says that there are.
    let mut entries = Vec::with_capacity(count.min(rest.len() / DIGEST_NUMBERS_BYTES));
    for _ in 0..count {
        let before = *rest;
        let node = node(rest)?;
        let mut numbers = take(rest, DIGEST_NUMBERS_BYTES)?;
        let heartbeat = number(&mut numbers)?;
        entries.push(Entry { node, heartbeat, bytes: &before[..before.len() - rest.len()] });
    }
    Some(entries)
}

/// A digest of these nodes.
pub(super) fn list<'m>(entries: impl ExactSizeIterator<Item = &'m Entry<'m>>, to: &mut Vec<u8>) {
    to.extend((entries.len() as u16).to_le_bytes());
    entries.for_each(|entry| to.extend_from_slice(entry.bytes));
}

/// One of a list of changes.
pub(super) enum Change<'m> {
    /// The following ones are of this node; keys up to this version were dropped.
    Of { node: ChitchatId, dropped: u64 },
    /// What a key is since this version.
    Key { key: &'m [u8], value: &'m [u8], version: u64, is_set: bool },
    /// The highest version.
    Highest(u64),
}

/// The changes of an unpacked list, each with its bytes; `None` where it cannot be read any further.
pub(super) fn changes(unpacked: &[u8]) -> impl Iterator<Item = Option<(Change<'_>, &[u8])>> {
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

fn change<'m>(rest: &mut &'m [u8]) -> Option<Change<'m>> {
    Some(match take(rest, 1)?[0] {
        // A node, and between which versions the following changes are.
        0 => {
            let (node, dropped, _from) = (node(rest)?, number(rest)?, number(rest)?);
            Change::Of { node, dropped }
        }
        // Key, value, version, whether it was deleted.
        1 => {
            let (key, value) = (text(rest)?, text(rest)?);
            Change::Key { key, value, version: number(rest)?, is_set: take(rest, 1)?[0] == 0 }
        }
        2 => Change::Highest(number(rest)?),
        _ => return None,
    })
}

/// The blocks of a list of changes, unpacked, if they are no more than so many bytes.
pub(super) fn unpack(rest: &mut &[u8], most: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    // Each costs more than what is in it, and thousands of nearly empty ones fit a datagram.
    for _ in 0..2 * most / BLOCK_BYTES + 2 {
        let kind = take(rest, 1)?[0];
        if kind == 0 {
            return Some(unpacked);
        }
        let length = count(rest)?;
        let block = take(rest, length)?;
        let room = (most - unpacked.len()).min(MAX_BLOCK_BYTES);
        match kind {
            1 => unpacked.extend(zstd::bulk::decompress(block, room).ok()?),
            2 if length <= room => unpacked.extend_from_slice(block),
            _ => return None,
        }
    }
    None
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

fn node(rest: &mut &[u8]) -> Option<ChitchatId> {
    ChitchatId::deserialize(rest).ok()
}

fn text<'m>(rest: &mut &'m [u8]) -> Option<&'m [u8]> {
    let length = count(rest)?;
    take(rest, length)
}

fn count(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 2)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u64::from_le_bytes(*bytes))
}

fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}
