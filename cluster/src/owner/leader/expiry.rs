//! Slots of those whose sessions have lapsed go to others.

use std::collections::BTreeSet;

use tidegate_limiter::Nanos;

use super::{Leader, Step, View};
use crate::{
    ids::NodeStart,
    owner::table::{Entry, SlotRow},
};

impl Leader {
    /// Takes slots from those whose sessions have lapsed.
    pub(super) fn expire(&mut self, view: View<'_>, now: Nanos) -> Option<Step> {
        let (leadership, wanted) = (self.leadership?, self.wanted.as_ref()?);
        // Else it may be this leader that cannot be reached.
        if !self.is_reached_by_a_quorum(view, now) {
            return None;
        }
        let mut named: BTreeSet<NodeStart> = BTreeSet::new();
        for row in view.table.rows() {
            named.insert(row.owner);
            named.extend(row.moving.map(|pending| pending.to));
        }
        // What became of an earlier expiry may not be known, and it may have been carried out: then no row names that node any
        // more. When the same one is applied once more, the earlier one must have been, or never will be, and the node can
        // have a session again.
        let unsettled: BTreeSet<NodeStart> =
            self.sessions.iter().filter(|(_, known)| known.expiring).map(|(start, _)| *start).collect();
        named.extend(&unsettled);
        // A node that has started again has the disk, and with it the lock, of the one that it was: that one has ended.
        let again = |start: NodeStart| {
            let row = view.members.get(&start.node)?;
            (row.incarnation > start.incarnation && self.is_live(row.node_start(), now))
                .then(|| row.node_start())
        };
        let has_heard = self.has_given_notice(now);
        let has_ended =
            |start: &NodeStart| again(*start).is_some() || has_heard && self.has_lapsed(*start, now);
        let lapsed: Vec<NodeStart> = named.into_iter().filter(has_ended).collect();
        if lapsed.is_empty() {
            return None;
        }
        // A leader that is new does not know yet who lives: the successor may be about to ask for its session.
        let may_come = |next: NodeStart| {
            let is_member = view.members.get(&next.node).is_some_and(|row| row.node_start() == next);
            let is_new = now < self.since.saturating_add(self.timing.leader);
            is_new && is_member && !self.is_live(next, now)
        };
        let slots: Vec<(u16, NodeStart)> = (0u16..)
            .zip(view.table.rows())
            .filter(|(_, row)| lapsed.contains(&row.owner))
            .filter_map(|(slot, row)| match row.moving {
                Some(pending) if !lapsed.contains(&pending.to) => Some((slot, pending.to)),
                _ => {
                    // It may have saved what it knew when it ended. Else the successor may know something, also of what the node's disk
                    // has not all of; if there is none, the node may have floors on its disk. What should be elsewhere moves from there by
                    // plan.
                    let keeps = |one: &NodeStart| view.members.get(&one.node).is_some_and(|row| row.keeps);
                    let successor = row.successor.map(|next| next.node);
                    let again_with_all = again(row.owner).filter(keeps);
                    if again_with_all.is_none() && successor.is_some_and(may_come) {
                        return None;
                    }
                    let to = again_with_all
                        .or(successor.filter(|next| wanted.eligible.contains(next)))
                        .or(again(row.owner))
                        .unwrap_or(wanted.owners[usize::from(slot)]);
                    (!lapsed.contains(&to)).then_some((slot, to))
                }
            })
            .collect();
        let ends_moves = |row: &SlotRow| row.moving.is_some_and(|pending| lapsed.contains(&pending.to));
        let settles = lapsed.iter().any(|start| unsettled.contains(start));
        if slots.is_empty() && !settles && !view.table.rows().iter().any(ends_moves) {
            return None;
        }
        for start in &lapsed {
            self.sessions.entry(*start).or_default().expiring = true;
        }
        Some(Step::Write(Entry::Expire { leadership, lapsed, slots }))
    }
}
