//! Each slot has a successor, who takes over from its owner.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_limiter::Nanos;

use super::{Leader, SETTLE, Step, View, Wanted};
use crate::{
    ids::NodeStart,
    member::MemberRow,
    owner::table::{Entry, SlotRow, Table},
};

impl Leader {
    /// Names others where the successor cannot be the one any more, or there is none.
    pub(super) fn replace_successors(&self, view: View<'_>, now: Nanos) -> Option<Step> {
        let wanted = self.wanted.as_ref()?;
        // Who is silent may be busy: it is a successor as long as it would be an owner.
        let stays = |next: NodeStart| {
            let is_member = view.members.get(&next.node).is_some_and(|row| row.node_start() == next);
            is_member && (self.is_live(next, now) || !self.has_lapsed(next, now))
        };
        let usable: BTreeMap<NodeStart, bool> = {
            let named = view.table.rows().iter().filter_map(|row| row.successor);
            let starts: BTreeSet<NodeStart> = named.map(|next| next.node).collect();
            starts.into_iter().map(|start| (start, stays(start))).collect()
        };
        // Another one has no floors of a lost owner, and would keep the owner's next start from its own disk.
        succeed(view.table, wanted, |row| {
            row.successor.is_none_or(|next| !usable[&next.node]) && self.is_there(row.owner, view, now)
        })
    }

    /// Names the successors that there should be, when the slots are where they should be.
    pub(super) fn name_successors(&self, view: View<'_>, now: Nanos) -> Option<Step> {
        let wanted = self.wanted.as_ref()?;
        let settled = now >= wanted.since.saturating_add(SETTLE);
        // Until it is known of each member whether it lives, those that were named are not replaced.
        let known =
            |row: &MemberRow| self.is_live(row.node_start(), now) || self.has_lapsed(row.node_start(), now);
        if !settled || view.table.moving() > 0 || !view.members.values().all(known) {
            return None;
        }
        // The floors that a lost owner has sent its successor, no other one has.
        succeed(view.table, wanted, |row| self.is_there(row.owner, view, now))
    }
}

/// Names the successors of those rows that want another one.
fn succeed(table: &Table, wanted: &Wanted, wants: impl Fn(&SlotRow) -> bool) -> Option<Step> {
    let mut named: BTreeMap<Option<NodeStart>, Vec<u16>> = BTreeMap::new();
    for (slot, row) in (0u16..).zip(table.rows()) {
        let (owner, successor) = (wanted.owners[usize::from(slot)], wanted.successors[usize::from(slot)]);
        // A slot that is not yet where it should be: who should have it can take it over.
        let best = if row.owner == owner { successor } else { Some(owner) };
        if best != row.successor.map(|next| next.node) && wants(row) {
            named.entry(best).or_default().push(slot);
        }
    }
    (!named.is_empty()).then(|| Step::Write(Entry::Succeed(named.into_iter().collect())))
}
