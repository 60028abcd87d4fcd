//! Which share each node should have: all the same, beside those that removed nodes may still give. What may be written when
//! is kept by [`ShareTable::apply`]; here is only what the leader would like.

use tidegate_limiter::Nanos;

use super::{Leader, Step, View};
use crate::{
    ids::NodeId,
    owner::shares::{RELEASE_AFTER, ShareChange, ShareTable},
};

/// A first share that is smaller than this part of what it should be is waited with: others will settle.
const LEAST_FIRST: u32 = 8;
/// A share becomes larger when it is then what it should be, or so many times as large.
const WORTH_WRITING: u32 = 2;

impl Leader {
    /// Gives the members their shares.
    pub(super) fn share(&mut self, view: View<'_>, now: Nanos) -> Option<Step> {
        let is_member = |node: NodeId| view.members.contains_key(&node);
        let shares = view.shares;
        self.removed.retain(|node, _| shares.parts(*node).is_some() && !is_member(*node));
        for node in shares.rows().keys().filter(|node| !is_member(**node)) {
            self.removed.entry(*node).or_insert(now);
        }
        let mut change = ShareChange::default();
        for (node, row) in shares.rows() {
            let is_over = |since: &Nanos| now >= since.saturating_add(RELEASE_AFTER);
            if self.removed.get(node).is_some_and(is_over) {
                change.released.push(*node);
            } else if row.promised != row.parts && self.has_applied(*node, row.since) {
                change.settled.push((*node, row.since));
            }
        }
        // As it will be, whatever its index: so that what is wanted next is known now.
        let mut planned = shares.clone();
        planned.apply(u64::MAX, is_member, &change);
        let removed = planned.rows().keys().filter(|node| !is_member(**node)).count();
        let members = view.members.len().max(view.expected);
        let wanted = u32::try_from(members + removed).unwrap_or(u32::MAX).max(1);
        let mut write = |planned: &mut ShareTable, node: NodeId, parts: u32| {
            let one = ShareChange { parts: vec![(node, parts)], ..ShareChange::default() };
            planned.apply(u64::MAX, is_member, &one);
            if planned.parts(node) == Some(parts) {
                change.parts.push((node, parts));
            }
        };
        let smaller = |node: &&NodeId| shares.parts(**node).is_some_and(|parts| parts < wanted);
        view.members.keys().filter(smaller).for_each(|node| write(&mut planned, *node, wanted));
        for node in view.members.keys() {
            let Some(room) = planned.room_for(*node) else { continue };
            let best = room.max(wanted);
            let is_better = match planned.parts(*node) {
                None => best <= wanted.saturating_mul(LEAST_FIRST),
                Some(parts) => best < parts && (best == wanted || best <= parts / WORTH_WRITING),
            };
            if is_better {
                write(&mut planned, *node, best);
            }
        }
        (!change.is_empty()).then_some(Step::Share(change))
    }
}
