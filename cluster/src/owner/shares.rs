//! Which part of a lost bucket each node may give: its *share*, as the log says. **At no instant do the shares that all nodes
//! give of one bucket add up to more than the whole**, however far each of them has applied the log: while members come and go,
//! in a partition, and for nodes that were removed and live on.
//!
//! A node gives one of [`ShareRow::parts`] equal parts, by the last row that it has applied. What the others know of it may
//! be older or newer than that, so each row also names the largest share that the node may still give
//! ([`ShareRow::promised`]). The invariant, kept by [`ShareTable::apply`] itself, is that the *promised* shares of all rows
//! add up to at most one:
//!
//! - A share that becomes smaller frees nothing until the leader has heard that the node has applied the smaller one
//!   (*settled*).
//! - A share that becomes larger, or the first one of a node, is written only if there is room for it.
//! - The row of a node that is removed stays, and with it its promise: it may live on. The leader releases it when the node
//!   must have stopped giving shares, because it has had no session for [`WITHOUT_CONTACT`].
//!
//! After a restart a node may have applied less of the log than before. It never gives more than before all the same: see
//! [`ShareTable::smallest`].

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// A node that has had no session for this long gives no shares: it may have been removed, and its part given to others.
/// Long enough that a cluster without a quorum serves through a night.
pub(crate) const WITHOUT_CONTACT: Duration = Duration::from_secs(24 * 3600);
/// The same for one that has just started, and may have been removed before: so that the leader's wait covers that too.
pub(crate) const WITHOUT_CONTACT_AT_START: Duration = Duration::from_secs(3600);
/// How long the leader waits before it releases the share of a node that is no member any more.
pub(crate) const RELEASE_AFTER: Duration = Duration::from_secs(25 * 3600);
/// Smaller shares are not written: then a node has none.
pub(crate) const MAX_PARTS: u32 = 1 << 16;
/// Rows; one more is not taken in, and its node gives no shares. Twice as many as there may be members.
const MAX_ROWS: usize = 2048;
/// All of a bucket.
const WHOLE: u128 = 1 << 64;

/// One of so many parts. Rounded down: the error of all rows together is less than the smallest unit of the largest limit.
fn part(parts: u32) -> u128 {
    WHOLE / u128::from(parts.max(1))
}

/// The share of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ShareRow {
    /// From [`ShareRow::since`] on the node gives one of so many parts.
    pub(crate) parts: u32,
    /// The fewest parts that the node may still go by: never more than `parts`.
    pub(crate) promised: u32,
    /// The log index that set `parts`.
    pub(crate) since: u64,
}

/// The shares of all nodes that may give any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareTable {
    rows: BTreeMap<NodeId, ShareRow>,
}

/// What changes the shares. The parts of it are carried out in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareChange {
    /// These nodes have applied the row that was set at this index.
    pub(crate) settled: Vec<(NodeId, u64)>,
    /// These nodes are no members any more, and give nothing.
    pub(crate) released: Vec<NodeId>,
    /// These nodes give one of so many parts from now on.
    pub(crate) parts: Vec<(NodeId, u32)>,
}

impl ShareChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.released.is_empty() && self.parts.is_empty()
    }
}

impl ShareTable {
    pub(crate) fn rows(&self) -> &BTreeMap<NodeId, ShareRow> {
        &self.rows
    }

    /// How many equal parts there are, of which the node gives one; `None`: it gives none.
    pub(crate) fn parts(&self, node: NodeId) -> Option<u32> {
        self.rows.get(&node).map(|row| row.parts)
    }

    /// What all nodes together may be giving.
    fn promised(&self) -> u128 {
        self.rows.values().map(|row| part(row.promised)).sum()
    }

    /// The fewest parts that a node could go by beside what the others were promised; `None`: nothing is left for it.
    pub(crate) fn room_for(&self, node: NodeId) -> Option<u32> {
        let own = self.rows.get(&node).map_or(0, |row| part(row.promised));
        let left = WHOLE - (self.promised() - own).min(WHOLE);
        let parts = if left == 0 { return None } else { WHOLE.div_ceil(left) };
        u32::try_from(parts).ok().filter(|parts| *parts <= MAX_PARTS)
    }

    /// Applies the change with this index. What it may not do, it does not do.
    pub(crate) fn apply(&mut self, index: u64, is_member: impl Fn(NodeId) -> bool, change: &ShareChange) {
        for (node, since) in &change.settled {
            if let Some(row) = self.rows.get_mut(node).filter(|row| row.since == *since) {
                row.promised = row.parts;
            }
        }
        for node in change.released.iter().filter(|node| !is_member(**node)) {
            self.rows.remove(node);
        }
        for (node, parts) in &change.parts {
            if is_member(*node) && (1..=MAX_PARTS).contains(parts) {
                self.set(index, *node, *parts);
            }
        }
        debug_assert!(self.promised() <= WHOLE, "{:?}", self.rows);
    }

    fn set(&mut self, index: u64, node: NodeId, parts: u32) {
        let known = self.rows.get(&node).copied();
        if known.is_some_and(|row| row.parts == parts) || known.is_none() && self.rows.len() >= MAX_ROWS {
            return;
        }
        let promised = known.map_or(parts, |row| row.promised.min(parts));
        let before = known.map_or(0, |row| part(row.promised));
        if self.promised() - before + part(promised) <= WHOLE {
            self.rows.insert(node, ShareRow { parts, promised, since: index });
        }
    }

    /// Of the changes that a log holds behind what was applied, the most parts that any gives the node. A node that starts
    /// again may have applied them before: until it has applied all of its log again, it gives no larger share than these.
    pub(crate) fn smallest<'c>(
        node: NodeId,
        changes: impl IntoIterator<Item = &'c ShareChange>,
    ) -> Option<u32> {
        let parts = changes.into_iter().flat_map(|change| &change.parts);
        parts.filter(|(named, _)| *named == node).map(|(_, parts)| *parts).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(parts: &[(NodeId, u32)]) -> ShareChange {
        ShareChange { parts: parts.into(), ..ShareChange::default() }
    }

    fn settled(nodes: &[(NodeId, u64)]) -> ShareChange {
        ShareChange { settled: nodes.into(), ..ShareChange::default() }
    }

    fn table(count: u32) -> ShareTable {
        let mut table = ShareTable::default();
        let all: Vec<(NodeId, u32)> = (1..=u64::from(count)).map(|node| (node, count)).collect();
        table.apply(1, |_| true, &set(&all));
        assert_eq!(table.rows().len() as u32, count);
        table
    }

    #[test]
    fn equal_shares_of_any_number_of_nodes_fit_exactly() {
        for count in (1..200).chain([1000, 1024]) {
            let mut table = table(count);
            assert_eq!(table.room_for(9999), None);
            table.apply(2, |_| true, &set(&[(9999, MAX_PARTS)]));
            assert_eq!(table.parts(9999), None, "there is no room");
        }
    }

    #[test]
    fn a_joiner_gives_nothing_until_all_others_have_applied_their_smaller_shares() {
        let mut table = table(3);
        let smaller = set(&[(1, 4), (2, 4), (3, 4), (4, 4)]);
        table.apply(7, |_| true, &smaller);
        assert_eq!((table.parts(1), table.parts(4)), (Some(4), None));
        table.apply(8, |_| true, &settled(&[(1, 7), (2, 7), (3, 1)]));
        assert_eq!(table.rows()[&3].promised, 3, "that was an earlier row");
        table.apply(9, |_| true, &set(&[(4, 4)]));
        assert_eq!(table.parts(4), None);
        // Beside two quarters and a third there is room for a sixth.
        assert_eq!(table.room_for(4), Some(6));
        table.apply(10, |_| true, &settled(&[(3, 7)]));
        table.apply(11, |_| true, &set(&[(4, 4)]));
        assert_eq!(table.parts(4), Some(4));
    }

    #[test]
    fn the_share_of_a_removed_node_is_kept_until_it_is_released_and_of_a_member_always() {
        let mut table = table(3);
        let release = ShareChange { released: vec![3], ..ShareChange::default() };
        table.apply(5, |_| true, &release);
        assert!(table.parts(3).is_some());
        table.apply(6, |node| node != 3, &set(&[(1, 2), (2, 2), (3, 1)]));
        assert_eq!((table.parts(1), table.parts(2), table.parts(3)), (Some(3), Some(3), Some(3)));
        table.apply(7, |node| node != 3, &release);
        table.apply(8, |node| node != 3, &set(&[(1, 2), (2, 2)]));
        assert_eq!((table.parts(1), table.parts(2)), (Some(2), Some(2)));
    }

    #[test]
    fn what_was_never_taken_back_can_be_given_again() {
        let mut table = table(3);
        table.apply(4, |_| true, &set(&[(1, 5)]));
        assert_eq!(table.rows()[&1], ShareRow { parts: 5, promised: 3, since: 4 });
        table.apply(5, |_| true, &set(&[(1, 3)]));
        assert_eq!(table.rows()[&1], ShareRow { parts: 3, promised: 3, since: 5 });
        // What said that the smaller one was applied comes too late.
        table.apply(6, |_| true, &settled(&[(1, 4)]));
        assert_eq!(table.rows()[&1].promised, 3);
    }

    #[test]
    fn after_a_restart_the_smallest_share_that_may_have_been_applied_counts() {
        let tail = [set(&[(1, 4), (2, 4)]), settled(&[(1, 4)]), set(&[(1, 9)]), set(&[(1, 3)])];
        assert_eq!(ShareTable::smallest(1, &tail), Some(9));
        assert_eq!(ShareTable::smallest(3, &tail), None);
    }

    /// Nodes that apply the log late or not at all, that restart and have applied less, members that come and go, changes in
    /// any order, old ones among them: what all nodes give, each by its own state, never adds up to more than one.
    #[test]
    fn whatever_is_written_and_however_late_each_node_is_all_shares_together_are_at_most_the_whole() {
        const NODES: u64 = 6;
        let mut dice = 88_172_645_463_325_252u64;
        let mut throw = |below: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % below
        };
        let (mut fullest, mut given_together) = (0, 0);
        for _ in 0..3_000 {
            let mut log: Vec<(u64, ShareTable)> = vec![(0, ShareTable::default())];
            let mut applied = [0usize; NODES as usize];
            // What each has applied before it started again.
            let mut highest = [0usize; NODES as usize];
            let mut written: Vec<ShareChange> = vec![ShareChange::default()];
            let mut members = [true; NODES as usize];
            // Removed nodes that have stopped giving shares.
            let mut silent = [false; NODES as usize];
            for _ in 0..60 {
                let node = throw(NODES);
                let at = node as usize;
                match throw(10) {
                    0..=2 => {
                        applied[at] = (applied[at] + 1 + throw(3) as usize).min(log.len() - 1);
                        highest[at] = highest[at].max(applied[at]);
                    }
                    3 => applied[at] = throw(applied[at] as u64 + 1) as usize,
                    4 => members[at] = !members[at],
                    5 if !members[at] => silent[at] = true,
                    _ => {
                        let last = log[log.len() - 1].clone();
                        let mut change = ShareChange::default();
                        for other in 0..NODES {
                            if let Some(row) = last.1.rows().get(&other)
                                && log[highest[other as usize]].0 >= row.since
                                && throw(2) == 0
                            {
                                change.settled.push((other, row.since));
                            }
                            if silent[other as usize] && !members[other as usize] {
                                change.released.push(other);
                            }
                        }
                        for _ in 0..throw(4) {
                            change.parts.push((throw(NODES), 1 + throw(8) as u32));
                        }
                        let index = last.0 + 1 + throw(2);
                        let mut table = last.1;
                        table.apply(index, |node| members[node as usize], &change);
                        log.push((index, table));
                        written.push(change);
                    }
                }
                for at in 0..NODES as usize {
                    // One that comes back has a session before it gives anything, and with it all of the log.
                    if silent[at] && members[at] {
                        silent[at] = false;
                        (applied[at], highest[at]) = (log.len() - 1, log.len() - 1);
                    }
                }
                let mut sum = 0u128;
                let mut givers = 0;
                for node in (0..NODES).filter(|node| !silent[*node as usize]) {
                    let (now, top) = (applied[node as usize], highest[node as usize]);
                    let held = ShareTable::smallest(node, &written[now + 1..=top.max(now)]);
                    if let Some(parts) = log[now].1.parts(node) {
                        sum += part(parts.max(held.unwrap_or(0)));
                        givers += 1;
                    }
                }
                assert!(sum <= WHOLE, "{givers} nodes give {sum} of {WHOLE}");
                fullest = fullest.max(sum);
                given_together = given_together.max(givers);
            }
        }
        assert!(fullest > WHOLE * 9 / 10 && given_together >= NODES - 1, "{fullest}, {given_together}");
    }
}
