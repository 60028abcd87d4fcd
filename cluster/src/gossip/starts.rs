//! Earlier starts of nodes, which are not told of any more.
//!
//! To the gossip library each start of a node is a node of its own. It tells of one that is gone for half of
//! [`DEAD_MEMBER_GRACE`](super::DEAD_MEMBER_GRACE), and whoever hears of it for the first time does so for as long again: where nodes
//! start again and again, all starts are told of for ever, until the list is longer than a datagram that others read, and who
//! has just started hears of nobody. So what goes out is without those of which a later start is known, once their heartbeat has
//! stood still for a while. One that lives can not be left out, whatever somebody claims to be a later start of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chitchat::ChitchatId;
use tokio::time::Instant;

use super::message::{
    Change, DIGEST_NUMBERS_BYTES, HEAD_BYTES, Parts, changes, node, number, pack, parts, take, unpack,
};

/// How long a heartbeat must have stood still: longer than it takes to notice a death.
const STILL: Duration = Duration::from_secs(10);
/// What this node itself writes is not longer.
const MAX_UNPACKED_BYTES: usize = 16 << 20;

/// The starts that the library on this node tells of.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Their heartbeats, and since when these stand still.
    seen: HashMap<ChitchatId, (u64, Instant)>,
    latest: HashMap<Arc<str>, u64>,
}

impl Starts {
    /// A message of the library, without what is not told of any more.
    pub(super) fn leave_out(&mut self, message: Vec<u8>, now: Instant) -> Vec<u8> {
        self.rewrite(&message, now).unwrap_or(message)
    }

    /// `None`: it stays as it is.
    fn rewrite(&mut self, message: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (Parts { has_digest, has_changes }, mut rest) = parts(message)?;
        let mut written = message[..HEAD_BYTES].to_vec();
        if has_digest {
            let entries = entries(&mut rest)?;
            self.see(&entries, now);
            let kept: Vec<&Entry<'_>> =
                entries.iter().filter(|entry| !self.is_over(&entry.node, now)).collect();
            written.extend((kept.len() as u16).to_le_bytes());
            kept.iter().for_each(|entry| written.extend_from_slice(entry.bytes));
        }
        if has_changes {
            let packed = rest;
            let unpacked = unpack(&mut rest, MAX_UNPACKED_BYTES)?;
            let mut kept = Vec::new();
            let mut is_over = false;
            for change in changes(&unpacked) {
                let (change, bytes) = change?;
                if let Change::Of(node) = change {
                    is_over = self.is_over(&node, now);
                }
                if !is_over {
                    kept.extend_from_slice(bytes);
                }
            }
            if kept.len() == unpacked.len() {
                written.extend_from_slice(&packed[..packed.len() - rest.len()]);
            } else {
                pack(&kept, &mut written);
            }
        }
        written.extend_from_slice(rest);
        Some(written)
    }

    /// Takes in a digest of this node: it lists all that the library tells of.
    fn see(&mut self, entries: &[Entry<'_>], now: Instant) {
        let mut seen = HashMap::with_capacity(entries.len());
        self.latest.clear();
        for Entry { node, heartbeat, .. } in entries {
            let known = self.seen.get(node).filter(|(known, _)| known == heartbeat);
            seen.insert(node.clone(), known.copied().unwrap_or((*heartbeat, now)));
            let latest = self.latest.entry(Arc::clone(&node.node_id)).or_default();
            *latest = node.generation_id.max(*latest);
        }
        self.seen = seen;
    }

    fn is_over(&self, node: &ChitchatId, now: Instant) -> bool {
        let has_later = self.latest.get(&node.node_id).is_some_and(|latest| *latest > node.generation_id);
        has_later && self.seen.get(node).is_none_or(|(_, since)| now.duration_since(*since) >= STILL)
    }
}

/// A node in a digest.
struct Entry<'m> {
    node: ChitchatId,
    heartbeat: u64,
    bytes: &'m [u8],
}

fn entries<'m>(rest: &mut &'m [u8]) -> Option<Vec<Entry<'m>>> {
    let count = number(rest)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let before = *rest;
        let node = node(rest)?;
        let numbers = take(rest, DIGEST_NUMBERS_BYTES)?;
        let heartbeat = u64::from_le_bytes(numbers[..8].try_into().ok()?);
        entries.push(Entry { node, heartbeat, bytes: &before[..before.len() - rest.len()] });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Deserializable as _, Serializable as _};

    use super::*;
    use crate::gossip::message::unpack;

    fn id(name: &str, start: u64) -> ChitchatId {
        ChitchatId::new(name, start, ([127, 0, 0, 1], 7803).into())
    }

    /// As the library writes it, with a change of each node if `kind` has changes.
    fn message(kind: u8, nodes: &[(ChitchatId, u64)]) -> Vec<u8> {
        let mut message = vec![0x53, 0xb0, 0, kind];
        if kind < 2 {
            message.extend((nodes.len() as u16).to_le_bytes());
            for (node, heartbeat) in nodes {
                node.serialize(&mut message);
                message.extend(heartbeat.to_le_bytes());
                message.extend([0; 16]);
            }
        }
        if kind == 0 {
            "cluster".serialize(&mut message);
        } else {
            let mut changes = Vec::new();
            for (node, _) in nodes {
                changes.push(0);
                node.serialize(&mut changes);
                changes.extend([0; 16]);
                changes.push(1);
                "key".serialize(&mut changes);
                "value".serialize(&mut changes);
                changes.extend(1u64.to_le_bytes());
                changes.push(0);
                changes.push(2);
                changes.extend(1u64.to_le_bytes());
            }
            pack(&changes, &mut message);
        }
        ChitchatMessage::deserialize(&mut &message[..]).expect("the library reads it");
        message
    }

    fn told(message: &[u8]) -> Vec<(String, u64)> {
        ChitchatMessage::deserialize(&mut &message[..]).expect("the library still reads it");
        let (Parts { has_digest, has_changes }, mut rest) = parts(message).unwrap();
        let mut told = Vec::new();
        if has_digest {
            told.extend(entries(&mut rest).unwrap().into_iter().map(|entry| entry.node));
        }
        if has_changes {
            let unpacked = unpack(&mut rest, MAX_UNPACKED_BYTES).unwrap();
            told.extend(changes(&unpacked).filter_map(|change| match change.unwrap().0 {
                Change::Of(node) => Some(node),
                Change::Other => None,
            }));
        }
        told.into_iter().map(|node| (node.node_id.to_string(), node.generation_id)).collect()
    }

    #[test]
    fn a_thousand_starts_are_told_of_as_one() {
        let mut starts = Starts::default();
        let now = Instant::now();
        let at = |beat: u64| {
            let mut nodes: Vec<_> = (1..1000).map(|start| (id("n2", start), 3)).collect();
            nodes.extend([(id("n1", 7), beat), (id("n2", 1000), beat), (id("n3", 1), 5)]);
            nodes
        };
        assert_eq!(
            told(&starts.leave_out(message(0, &at(1)), now)).len(),
            1002,
            "their deaths may not be known yet"
        );
        let later = now + STILL;
        for kind in [0, 1] {
            let sent = starts.leave_out(message(kind, &at(2)), later);
            let mut nodes = told(&sent);
            nodes.dedup();
            nodes.truncate(3);
            // The third is gone as well, but that is the latest that is known of it.
            assert_eq!(
                nodes,
                [("n1".to_owned(), 7), ("n2".to_owned(), 1000), ("n3".to_owned(), 1)],
                "{kind}"
            );
            assert!(sent.len() < 400, "{kind}: {}", sent.len());
        }
        let changes =
            starts.leave_out(message(2, &[(id("n2", 4), 0), (id("n3", 1), 0), (id("n2", 9), 0)]), later);
        assert_eq!(told(&changes), [("n3".to_owned(), 1)]);
    }

    #[test]
    fn one_that_lives_is_told_of_whatever_is_said_of_later_starts() {
        let mut starts = Starts::default();
        let now = Instant::now();
        for second in 0..60 {
            let nodes = [(id("n1", 7), second), (id("n1", u64::MAX), 1)];
            let sent = starts.leave_out(message(0, &nodes), now + Duration::from_secs(second));
            assert!(told(&sent).contains(&("n1".to_owned(), 7)), "{second}");
        }
    }

    #[test]
    fn what_has_nothing_to_leave_out_stays_as_it_is() {
        let mut starts = Starts::default();
        let nodes = [(id("n1", 7), 1), (id("n2", 1), 1)];
        for kind in [0, 1, 2] {
            let message = message(kind, &nodes);
            assert_eq!(starts.leave_out(message.clone(), Instant::now() + STILL), message, "{kind}");
        }
        assert_eq!(starts.leave_out(vec![1, 2, 3], Instant::now()), [1, 2, 3]);
    }
}
