//! Whether the members reach this leader: its own calls to them say nothing about that. A leader to which nobody can open a
//! connection (a firewall, a wrong advertised address, a full accept queue) sees all sessions end but its own. If it expired
//! them it would own everything, and nobody could ask it.

use std::{collections::BTreeSet, time::Duration};

use tidegate_limiter::Nanos;

use super::{Leader, View};
use crate::{ids::NodeId, planted::PlantedBug};

/// A leader resigns at most this often because it is most *members* that do not reach it. If all leaders find the same, it is
/// the members' fault after all, and their slots go to others.
const RESIGN_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Whether these are a quorum of each set of voters.
pub(crate) fn is_quorum(voters: &[BTreeSet<NodeId>], of: impl Fn(NodeId) -> bool) -> bool {
    let has_quorum = |set: &BTreeSet<NodeId>| set.iter().filter(|id| of(**id)).count() * 2 > set.len();
    !voters.is_empty() && voters.iter().all(has_quorum)
}

impl Leader {
    fn is_recent(&self, at: Nanos, now: Nanos) -> bool {
        now < at.saturating_add(self.timing.leader)
    }

    /// Whether a member has asked this leader for something within a session's length.
    fn has_contact(&self, node: NodeId, view: View<'_>, now: Nanos) -> bool {
        node == view.me || self.contacts.get(&node).is_some_and(|known| self.is_recent(known.at, now))
    }

    /// Whether a member has answered this leader within a session's length.
    fn answers(&self, node: NodeId, view: View<'_>, now: Nanos) -> bool {
        node == view.me || view.answered.get(&node).is_some_and(|at| self.is_recent(*at, now))
    }

    /// Whether a quorum of voters has asked this leader for something within a session's length.
    pub(super) fn is_reached_by_a_quorum(&self, view: View<'_>, now: Nanos) -> bool {
        PlantedBug::UnreachableLeaderStays.is_on()
            || is_quorum(view.voters, |node| self.has_contact(node, view, now))
    }

    /// Why another should lead: the others answer this leader, but do not reach it. Without their answers it could not have
    /// anything written, so it takes nothing from anybody; then it stays, because nobody else could do better for all it knows.
    pub(super) fn cannot_be_reached(&mut self, view: View<'_>, now: Nanos) -> Option<&'static str> {
        if PlantedBug::UnreachableLeaderStays.is_on() || self.is_recent(self.since, now) {
            return None;
        }
        let is_answered = is_quorum(view.voters, |node| self.answers(node, view, now));
        if !is_answered {
            return None;
        }
        if !self.is_reached_by_a_quorum(view, now) {
            return Some("a quorum of the voters answers this leader and does not reach it");
        }
        let is_deaf_to = |node: NodeId| self.answers(node, view, now) && !self.has_contact(node, view, now);
        let unheard = view.members.keys().filter(|node| is_deaf_to(**node)).count();
        let may_resign = self.resigned.is_none_or(|last| now >= last.saturating_add(RESIGN_AGAIN_AFTER));
        if unheard * 2 > view.members.len() && may_resign {
            self.resigned = Some(now);
            return Some("most members answer this leader and do not reach it");
        }
        None
    }
}
