//! What a message would make the gossip library remember, looked at before the library sees a byte of it.
//!
//! The library believes what any message says of any node, and fails where that does not add up:
//!
//! - It keeps a state for each node that is named, for [`DEAD_MEMBER_GRACE`], tells all of them to all others in one datagram,
//!   and ends when they do not fit, with a little room for changes: at five names as long as they can be, or 1,100 short ones.
//! - It unpacks what is packed before it looks at the length: one datagram can become 150 MB.
//! - A highest version below that of a key ends it; so does the highest version that there is, in what it is told about itself,
//!   when this node wants to say something next.
//! - It keeps every key.
//!
//! Without a cluster key anybody can send all of that. **What no node writes is refused. What could have reached an honest node,
//! because it believed a forger, is left out of the message**: the rest of it is news. A key of a later version is left out
//! without a word.

use std::{collections::HashMap, time::Duration};

use chitchat::ChitchatId;
use tokio::time::Instant;

use super::{
    keys::{DEAD_MEMBER_GRACE, KEYS, LONGEST_PAUSE, MAX_NAME_BYTES, PHI_THRESHOLD, is_valid_name},
    message::{
        self, CHANGED_KEY_BYTES, CHANGED_NODE_BYTES, Change, DIGEST_NUMBERS_BYTES, Entry, HEAD_BYTES,
        MAX_NAMELESS_NODE_BYTES, Parts, changes, entries, list, pack,
    },
    seal::MAX_MESSAGE_BYTES,
};

/// Most nodes that are known at one time, those that are gone and each start of a node among them, and this one not. More are
/// left out of messages: the nodes that are known go on.
pub(super) const MAX_NODES: usize = 512;
/// Longest value of a key; what nodes say of themselves is not half as long.
pub(super) const MAX_VALUE_BYTES: usize = 256;
/// Highest version and heartbeat. A node that says something new a thousand times a second gets there in 8,000 years.
const MAX_VERSION: u64 = 1 << 48;
/// How long a node is remembered that nobody names any more, beyond the time in which the library notices that it is gone and
/// forgets it.
const MARGIN: Duration = Duration::from_secs(60);

const MAX_NODE_BYTES: usize = MAX_NAMELESS_NODE_BYTES + MAX_NAME_BYTES;
/// Longest list of changes, unpacked: as much as a node can have to tell that takes in no more than this.
pub(super) const MAX_UNPACKED_BYTES: usize = (MAX_NODES + 1)
    * (CHANGED_NODE_BYTES
        + MAX_NODE_BYTES
        + KEYS.len() * (CHANGED_KEY_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES));
const MAX_KEY_BYTES: usize = 8;
/// The library ends when less than this is left of a datagram behind the list of all nodes; here there is always room for what
/// one of them has to tell.
const LEAST_ROOM_BYTES: usize = 4 << 10;

const _: () = {
    let digest = 2 + (MAX_NODES + 1) * (MAX_NODE_BYTES + DIGEST_NUMBERS_BYTES);
    assert!(HEAD_BYTES + digest + LEAST_ROOM_BYTES <= MAX_MESSAGE_BYTES);
    let mut key = 0;
    while key < KEYS.len() {
        assert!(KEYS[key].len() <= MAX_KEY_BYTES);
        key += 1;
    }
};

/// The nodes that the library knows, as far as messages have told it.
#[derive(Debug)]
pub(super) struct Intake {
    me: ChitchatId,
    /// When each was last named.
    known: HashMap<ChitchatId, Instant>,
    remembered: Duration,
}

/// What of a message the library may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sifted {
    pub(super) message: Vec<u8>,
    /// Nothing was left out of which others should know.
    pub(super) is_whole: bool,
}

impl Intake {
    pub(super) fn new(me: ChitchatId, gossip_interval: Duration) -> Self {
        // As long as the library takes a node for alive that was last heard of as late as it counts, and then for dead.
        let noticed = (gossip_interval * LONGEST_PAUSE).mul_f64(PHI_THRESHOLD);
        Self { me, known: HashMap::new(), remembered: noticed + DEAD_MEMBER_GRACE + MARGIN }
    }

    /// `None`: it is no message that the library writes, or breaks a limit.
    pub(super) fn sift(&mut self, message: Vec<u8>, now: Instant) -> Option<Sifted> {
        let (Parts { has_digest, has_changes }, mut rest) = message::parts(&message)?;
        let mut kept = message[..HEAD_BYTES].to_vec();
        let mut is_whole = true;
        if has_digest {
            let entries = entries(&mut rest)?;
            self.make_room(entries.len(), now);
            let believed: Vec<&Entry<'_>> =
                entries.iter().filter(|entry| self.believes(entry, now)).collect();
            is_whole &= believed.len() == entries.len();
            list(believed.into_iter(), &mut kept);
        }
        if has_changes {
            let packed = rest;
            let unpacked = message::unpack(&mut rest, MAX_UNPACKED_BYTES)?;
            let (news, all) = self.news(&unpacked)?;
            is_whole &= all;
            if news.len() == unpacked.len() {
                kept.extend_from_slice(&packed[..packed.len() - rest.len()]);
            } else {
                pack(&news, &mut kept);
            }
        }
        kept.extend_from_slice(rest);
        Some(Sifted { message: kept, is_whole })
    }

    /// Forgets whom the library has forgotten, if so many more would not fit.
    fn make_room(&mut self, more: usize, now: Instant) {
        if self.known.len() + more > MAX_NODES {
            self.known.retain(|_, named| now.duration_since(*named) < self.remembered);
        }
    }

    /// Whether the library may know of the node. What it is told of itself there it leaves alone.
    fn believes(&mut self, Entry { node, heartbeat, .. }: &Entry<'_>, now: Instant) -> bool {
        if *node == self.me {
            return true;
        }
        // With the highest heartbeat that there is, a node could never show again that it lives.
        if !is_valid_name(&node.node_id) || *heartbeat > MAX_VERSION {
            return false;
        }
        if let Some(named) = self.known.get_mut(node) {
            *named = now;
            return true;
        }
        let has_room = self.known.len() < MAX_NODES;
        if has_room {
            self.known.insert(node.clone(), now);
        }
        has_room
    }

    /// The changes that the library may have, and whether these are all of which others should know; `None`: the library writes
    /// no such list.
    fn news(&self, unpacked: &[u8]) -> Option<(Vec<u8>, bool)> {
        let mut kept = Vec::with_capacity(unpacked.len());
        let mut is_whole = true;
        // Of the node that the changes are about: whether it may have any, and the version so far.
        let mut about: Option<(bool, u64)> = None;
        for change in changes(unpacked) {
            let (change, bytes) = change?;
            let is_kept = match change {
                Change::Of { node, dropped } => {
                    // No node of ours ever deletes a key. What is said of this one, it knows better.
                    let is_plausible = node != self.me && dropped == 0 && is_valid_name(&node.node_id);
                    is_whole &= is_plausible;
                    // Of a node that it does not know the library takes in nothing either.
                    let is_kept = is_plausible && self.known.contains_key(&node);
                    about = Some((is_kept, 0));
                    is_kept
                }
                Change::Key { key, value, version, is_set } => {
                    let (is_about, highest) = about.as_mut()?;
                    (*highest < version).then_some(())?;
                    *highest = version;
                    let is_plausible = is_set && value.len() <= MAX_VALUE_BYTES && version <= MAX_VERSION;
                    is_whole &= is_plausible;
                    *is_about && is_plausible && KEYS.iter().any(|known| known.as_bytes() == key)
                }
                Change::Highest(version) => {
                    let (is_about, highest) = about.as_mut()?;
                    (*highest <= version).then_some(())?;
                    *highest = version;
                    is_whole &= version <= MAX_VERSION;
                    *is_about && version <= MAX_VERSION
                }
            };
            if is_kept {
                kept.extend_from_slice(bytes);
            }
        }
        Some((kept, is_whole))
    }
}

#[cfg(test)]
mod tests;
