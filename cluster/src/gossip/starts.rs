//! Earlier starts of nodes, which are not told of any more.
//!
//! To the gossip library each start of a node is a node of its own. It tells of one that is gone for half of
//! [`DEAD_MEMBER_GRACE`](super::keys::DEAD_MEMBER_GRACE), and whoever hears of it for the first time does so for as long again: where nodes
//! start again and again, all starts are told of for ever, until the list is longer than a datagram that others read, and who
//! has just started hears of nobody. So what goes out is without those of which a later start is known, once their heartbeat has
//! stood still for a while; and where both were heard of at once, from the beginning until it has moved: else processes that
//! live for less than a while, one over the end of the other, would pass the list on for ever. One that lives cannot be left
//! out, whatever somebody claims to be a later start of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chitchat::ChitchatId;
use tokio::time::Instant;

use super::{
    intake::MAX_UNPACKED_BYTES,
    message::{Change, Entry, HEAD_BYTES, Parts, changes, entries, list, pack, parts, unpack},
    seal::MAX_MESSAGE_BYTES,
};

/// How long a heartbeat must have stood still: longer than it takes to notice a death.
const STILL: Duration = Duration::from_secs(10);

/// The starts that the library on this node tells of.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Their heartbeats, and when these were last seen to beat.
    seen: HashMap<ChitchatId, (u64, Option<Instant>)>,
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
            list(kept.into_iter(), &mut written);
        }
        if has_changes {
            let packed = rest;
            let unpacked = unpack(&mut rest, MAX_UNPACKED_BYTES)?;
            let mut kept = Vec::new();
            let mut is_over = false;
            for change in changes(&unpacked) {
                let (change, bytes) = change?;
                if let Change::Of { node, .. } = change {
                    is_over = self.is_over(&node, now);
                }
                if !is_over {
                    kept.extend_from_slice(bytes);
                }
            }
            let packed = &packed[..packed.len() - rest.len()];
            if kept.len() == unpacked.len() && written.len() + packed.len() <= MAX_MESSAGE_BYTES {
                written.extend_from_slice(packed);
            } else {
                pack_some(&kept, &mut written);
            }
        }
        written.extend_from_slice(rest);
        Some(written)
    }

    /// Takes in a digest of this node: it lists all that the library tells of.
    fn see(&mut self, entries: &[Entry<'_>], now: Instant) {
        self.latest.clear();
        for Entry { node, .. } in entries {
            let latest = self.latest.entry(Arc::clone(&node.node_id)).or_default();
            *latest = node.generation_id.max(*latest);
        }
        let mut seen = HashMap::with_capacity(entries.len());
        for Entry { node, heartbeat, .. } in entries {
            let beat = match self.seen.get(node) {
                Some((known, beat)) if known == heartbeat => *beat,
                Some(_) => Some(now),
                None => (!self.has_later(node)).then_some(now),
            };
            seen.insert(node.clone(), (*heartbeat, beat));
        }
        self.seen = seen;
    }

    fn has_later(&self, node: &ChitchatId) -> bool {
        self.latest.get(&node.node_id).is_some_and(|latest| *latest > node.generation_id)
    }

    fn is_over(&self, node: &ChitchatId, now: Instant) -> bool {
        let beat = self.seen.get(node).and_then(|(_, beat)| *beat);
        self.has_later(node) && beat.is_none_or(|beat| now.duration_since(beat) >= STILL)
    }
}

/// Adds as many of the changes, from the first one on, as fit: the library does not know what is put around its messages. Who
/// gets them asks for the rest, as it does when the library has left out some.
fn pack_some(kept: &[u8], written: &mut Vec<u8>) {
    let head = written.len();
    let ends = changes(kept).map_while(|change| Some(change?.1.len()));
    let ends: Vec<usize> = ends
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect();
    let mut some = ends.len();
    loop {
        pack(&kept[..some.checked_sub(1).map_or(0, |last| ends[last])], written);
        if written.len() <= MAX_MESSAGE_BYTES || some == 0 {
            return;
        }
        written.truncate(head);
        some = some * 7 / 8;
    }
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
                Change::Of { node, .. } => Some(node),
                Change::Key { .. } | Change::Highest(_) => None,
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
            told(&starts.leave_out(message(0, &at(1)), now)),
            [("n1".to_owned(), 7), ("n2".to_owned(), 1000), ("n3".to_owned(), 1)],
            "who has just begun does not pass on what it was told"
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
    fn a_start_that_was_there_before_its_successor_is_told_of_until_it_has_stood_still() {
        let mut starts = Starts::default();
        let now = Instant::now();
        let told_at = |starts: &mut Starts, second: u64, nodes: &[(ChitchatId, u64)]| {
            told(&starts.leave_out(message(0, nodes), now + Duration::from_secs(second))).len()
        };
        assert_eq!(told_at(&mut starts, 0, &[(id("n1", 1), 5)]), 1);
        let both = |beat| [(id("n1", 1), beat), (id("n1", 2), 1)];
        assert_eq!(told_at(&mut starts, 2, &both(5)), 2, "its death may not be known yet");
        assert_eq!(told_at(&mut starts, 9, &both(6)), 2);
        assert_eq!(told_at(&mut starts, 18, &both(6)), 2);
        assert_eq!(told_at(&mut starts, 19, &both(6)), 1);
    }

    /// Each process lives for less than a while, and hears of all starts from the one before it.
    #[test]
    fn starts_that_overlap_do_not_hand_the_list_on() {
        let mut nodes: Vec<(ChitchatId, u64)> = (0..50).map(|start| (id("n1", start), 3)).collect();
        for process in 0..20u64 {
            nodes.push((id("n2", process), 1));
            let mut starts = Starts::default();
            let now = Instant::now();
            let mut heard = Vec::new();
            for second in 0..8 {
                nodes.last_mut().unwrap().1 += 1;
                let sent = starts.leave_out(message(0, &nodes), now + Duration::from_secs(second));
                heard.extend(told(&sent));
            }
            nodes.retain(|(node, _)| heard.contains(&(node.node_id.to_string(), node.generation_id)));
        }
        assert_eq!(nodes.len(), 2, "{nodes:?}");
    }

    #[test]
    fn one_that_lives_is_told_of_whatever_is_said_of_later_starts() {
        let mut starts = Starts::default();
        let now = Instant::now();
        for second in 0..60 {
            let nodes = [(id("n1", 7), second), (id("n1", u64::MAX), 1)];
            let sent = starts.leave_out(message(0, &nodes), now + Duration::from_secs(second));
            assert_eq!(told(&sent).contains(&("n1".to_owned(), 7)), second > 0, "{second}");
        }
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_told_another_time() {
        let mut changes = Vec::new();
        for number in 0..400u64 {
            changes.push(0);
            id(&format!("n{number}"), 1).serialize(&mut changes);
            changes.extend([0; 16]);
            for version in 1..4u64 {
                changes.push(1);
                "zone".serialize(&mut changes);
                let parts = [0, 2000].map(|more| number * 4 + version + more);
                let values = parts.map(|part| blake3::hash(&part.to_le_bytes()).to_hex());
                values.map(|value| value.to_string()).concat().serialize(&mut changes);
                changes.extend(version.to_le_bytes());
                changes.push(0);
            }
        }
        let mut long = vec![0x53, 0xb0, 0, 2];
        pack(&changes, &mut long);
        // The hex digits of a hash pack to half of their length.
        assert!((MAX_MESSAGE_BYTES..2 * MAX_MESSAGE_BYTES).contains(&long.len()), "{}", long.len());
        let sent = Starts::default().leave_out(long, Instant::now());
        assert!(sent.len() <= MAX_MESSAGE_BYTES);
        let nodes = told(&sent);
        assert!((150..400).contains(&nodes.len()), "{}", nodes.len());
        assert_eq!(nodes[0].0, "n0");
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
