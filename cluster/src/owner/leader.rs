//! What the leader does about ownership: grants sessions, gives slots to nodes that come, takes them from nodes that go.
//! A state machine of values; whatever it proposes, the log decides ([`Table::apply`]).
//!
//! - Which sessions it has granted lives in memory only. **A new leader takes nobody's slots before each session that an
//!   earlier one may have granted must have ended**: those were confirmed by a quorum before this leader was elected.
//! - **Nobody is granted a session while it is being expired**, and nobody is expired while a grant is under way: the index
//!   that comes with a grant would not tell of the expiry.
//! - A leader that did not look for a while (its process was stopped) counts as new, but what it has written in this reign
//!   may still be in its log: who is being expired stays so until that is over.
//! - **A renewal counts only when the node has applied the log up to where its last session was granted**: a node whose disk
//!   hangs asks like any other, but cannot know what it has lost.
//! - **A leader expires nobody unless a quorum of voters reaches it** (`reach`): it may be the leader itself that cannot be
//!   reached, and then it resigns.

mod expiry;
mod moves;
mod pace;
mod reach;
mod shares;
mod successors;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidegate_limiter::Nanos;

use self::pace::Pace;
pub(crate) use self::{pace::BATCH, reach::is_quorum};
use super::{
    session::SessionTiming,
    shares::{ShareChange, ShareTable},
    table::{Entry, SlotMove, Table},
};
use crate::{
    ids::{Leadership, NodeId, NodeStart},
    member::MemberRow,
    placement::{Candidate, Placement},
    planted::PlantedBug,
};

/// Members must have been the same for so long before slots move for them: who comes alone is soon followed by others.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the first owners are waited for, when not all members are there.
const FOUNDERS_WITHIN: Duration = Duration::from_secs(3);
/// A leader that did not look for so long was stopped meanwhile.
const MAX_GAP: Duration = Duration::from_millis(1500);
/// A leader whose own entries wait for longer writes nothing more, and expects to take no slots from anybody meanwhile.
pub(crate) const STUCK_AFTER: Duration = Duration::from_millis(1250);
/// For so long a leader that can write says that it will take slots before it does: who cannot read its log asks again within
/// 150 ms, and a quorum has to confirm the answer. Shorter than a leader is not stuck after an entry that waited: entries that
/// wait again and again do not put a takeover off for ever.
pub(crate) const NOTICE: Duration = Duration::from_millis(1100);
const _: () = assert!(NOTICE.as_millis() < STUCK_AFTER.as_millis());

/// What the log says, as far as the leader has applied it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'v> {
    /// This node.
    pub(crate) me: NodeId,
    /// Up to where it has applied the log.
    pub(crate) index: u64,
    pub(crate) table: &'v Table,
    pub(crate) shares: &'v ShareTable,
    /// Who votes: each of these sets must have a quorum.
    pub(crate) voters: &'v [BTreeSet<NodeId>],
    /// When each member last answered what this leader sent it.
    pub(crate) answered: &'v BTreeMap<NodeId, Nanos>,
    pub(crate) members: &'v BTreeMap<NodeId, MemberRow>,
    /// Those that want to own nothing.
    pub(crate) draining: &'v BTreeSet<NodeStart>,
    /// Members of the Raft group: so many rows there will be.
    pub(crate) expected: usize,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this.
    Write(Entry),
    /// Ask the target of these moves to promise not to take the slots; if it does, write that they are over.
    Refuse { target: NodeStart, moves: Vec<SlotMove> },
    /// Write these shares.
    Share(ShareChange),
    /// Do not lead any more, for this reason: somebody else can.
    Resign(&'static str),
}

#[derive(Debug, Clone, Default)]
struct Grants {
    last: Option<Nanos>,
    /// What the last grant was bound to: the node has no session before it has applied that.
    bound: u64,
    under_way: u32,
    expiring: bool,
}

/// What a member has reported to this leader by asking it.
#[derive(Debug, Clone, Copy)]
struct Contact {
    at: Nanos,
    /// Up to where it has applied the log.
    applied: u64,
}

/// What becomes of a node that asks for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It gets one if a quorum confirms that this node leads.
    Granting(Granting),
    /// It has not applied the log up to here, where its last session was granted.
    Behind(u64),
    /// It must not have one.
    Never,
}

/// A grant that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granting {
    start: NodeStart,
    leadership: Leadership,
}

/// The leader's side of all sessions, and what it knows of moves.
#[derive(Debug)]
pub(crate) struct Leader {
    timing: SessionTiming,
    leadership: Option<Leadership>,
    since: Nanos,
    looked: Nanos,
    /// In this reign up to where this leader had applied the log when it first looked what to do: a node that has not got so far
    /// should own nothing more.
    from: Option<u64>,
    contacts: BTreeMap<NodeId, Contact>,
    sessions: BTreeMap<NodeStart, Grants>,
    /// Nodes that have a share and are no members, and since when that is known.
    removed: BTreeMap<NodeId, Nanos>,
    /// When this node resigned last because most members did not reach it. It stays over reigns.
    resigned: Option<Nanos>,
    /// Who should own slots, since when that is so, and which slots each should own.
    wanted: Option<Wanted>,
    /// The move that was looked at last, and since when it is pending.
    watched: Option<(u64, Nanos)>,
    /// An index of the log that is not applied yet, and since when it is written.
    waiting: Option<(u64, Nanos)>,
    /// Since when this leader can have slots taken over: who asks hears of it before that happens.
    able_since: Nanos,
    pace: Pace,
}

#[derive(Debug)]
struct Wanted {
    eligible: Vec<NodeStart>,
    since: Nanos,
    owners: Vec<NodeStart>,
    /// Who takes over from these owners.
    successors: Vec<Option<NodeStart>>,
}

impl Leader {
    pub(crate) fn new(timing: SessionTiming) -> Self {
        Self {
            timing,
            leadership: None,
            since: Nanos::new(0),
            looked: Nanos::new(0),
            from: None,
            contacts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            removed: BTreeMap::new(),
            resigned: None,
            wanted: None,
            watched: None,
            waiting: None,
            able_since: Nanos::new(0),
            pace: Pace::default(),
        }
    }

    /// Says whether this node leads, before anything else is asked of it, and at least every [`MAX_GAP`].
    pub(crate) fn look(&mut self, leadership: Option<Leadership>, now: Nanos) {
        let stopped = now.saturating_since(self.looked) > MAX_GAP;
        self.looked = self.looked.max(now);
        let is_same = leadership == self.leadership;
        if !is_same || stopped {
            self.leadership = leadership;
            self.since = now;
            self.from = None;
            self.contacts.clear();
            self.removed.clear();
            // An expiry of this very reign may be in the log, and no grant of this reign is bound to it. One of an earlier reign is
            // not like that: what a new leader grants is bound to all that was in its log when it was elected.
            let keeps = is_same && !PlantedBug::StopForgetsExpiry.is_on();
            self.sessions.retain(|_, known| keeps && known.expiring);
            for known in self.sessions.values_mut() {
                *known = Grants { expiring: true, ..Grants::default() };
            }
            self.wanted = None;
            self.watched = None;
            self.waiting = None;
            self.able_since = now;
            self.pace = Pace::default();
        }
    }

    /// A member has reached this leader, and says up to where it has applied the log.
    pub(crate) fn note_contact(&mut self, node: NodeId, applied: u64, now: Nanos) {
        let known = self.contacts.entry(node).or_insert(Contact { at: now, applied });
        *known = Contact { at: known.at.max(now), applied: known.applied.max(applied) };
    }

    /// Begins to grant a session to a node that has applied the log up to there: from now on until [`Leader::granted`] the
    /// node is not expired.
    pub(crate) fn begin_grant(&mut self, start: NodeStart, applied: u64) -> Asked {
        let Some(leadership) = self.leadership else { return Asked::Never };
        let known = self.sessions.entry(start).or_default();
        if known.expiring {
            return Asked::Never;
        }
        if applied < known.bound && !PlantedBug::RenewalWithoutProgress.is_on() {
            return Asked::Behind(known.bound);
        }
        known.under_way += 1;
        Asked::Granting(Granting { start, leadership })
    }

    /// A quorum has confirmed that this node leads, at this index of the log, or has not. Whether the session is granted.
    pub(crate) fn granted(&mut self, granting: Granting, confirmed: Option<u64>, now: Nanos) -> bool {
        if self.leadership != Some(granting.leadership) {
            return false;
        }
        // Where the gap was too long, what was under way has been forgotten.
        let Some(known) = self.sessions.get_mut(&granting.start).filter(|known| known.under_way > 0) else {
            return false;
        };
        known.under_way -= 1;
        if let Some(index) = confirmed {
            known.last = known.last.max(Some(now));
            known.bound = known.bound.max(index);
        }
        confirmed.is_some()
    }

    /// Slots with so many buckets are about to move: when they have arrived, nothing moves for a while, unless a node leaves.
    pub(crate) fn rest_after(&mut self, buckets: usize) {
        self.pace.begin(buckets);
    }

    /// When there may be something to do though nothing has changed.
    pub(crate) fn rests_until(&self) -> Option<Nanos> {
        self.pace.until
    }

    /// Up to where the log is written and applied at this leader; to be called several times a second.
    pub(crate) fn note_log(&mut self, written: u64, applied: u64, now: Nanos) {
        if self.is_stuck(now) {
            // Also where that has just ended: nobody knows since when.
            self.able_since = now;
        }
        if self.waiting.is_none_or(|(index, _)| applied >= index) {
            self.waiting = (written > applied).then_some((written, now));
        }
    }

    /// Whether what this leader has written is not applied for so long that a quorum of disks may not work.
    pub(crate) fn is_stuck(&self, now: Nanos) -> bool {
        self.waiting.is_some_and(|(_, since)| now.saturating_since(since) >= STUCK_AFTER)
    }

    /// Whether this leader may have taken slots from this node since it leads, or may soon: it waits for a whole session, gives
    /// them to who has one, and must be able to write that.
    pub(crate) fn takes_over_soon(&self, from: NodeStart, now: Nanos) -> bool {
        let mut others = self.sessions.keys().filter(|start| **start != from);
        now >= self.since.saturating_add(self.timing.leader / 2)
            && !self.is_stuck(now)
            && others.any(|start| self.is_live(*start, now))
    }

    /// Whether who asks has had the time to hear that slots will be taken over.
    fn has_given_notice(&self, now: Nanos) -> bool {
        now >= self.able_since.saturating_add(NOTICE)
    }

    /// Whether the node's session must have ended, whoever granted it.
    pub(crate) fn has_lapsed(&self, start: NodeStart, now: Nanos) -> bool {
        let known = self.sessions.get(&start);
        if PlantedBug::NewLeaderDoesNotWait.is_on() && known.and_then(|known| known.last).is_none() {
            return true;
        }
        let last = known.and_then(|known| known.last).unwrap_or(self.since).max(self.since);
        known.is_none_or(|known| known.under_way == 0) && self.timing.has_lapsed(last, now)
    }

    /// Whether this leader has granted the node a session that has not ended.
    pub(crate) fn is_live(&self, start: NodeStart, now: Nanos) -> bool {
        let known = self.sessions.get(&start);
        let last = known.filter(|known| !known.expiring).and_then(|known| known.last);
        last.is_some_and(|last| now < last.saturating_add(self.timing.node))
    }

    /// Whether the node lives, and has not started again since.
    fn is_there(&self, start: NodeStart, view: View<'_>, now: Nanos) -> bool {
        let is_member = view.members.get(&start.node).is_some_and(|row| row.node_start() == start);
        is_member && self.is_live(start, now)
    }

    /// What became of an expiry that was proposed. Known or not: it is looked at again, and an entry that comes twice does
    /// nothing more. Only what is not in the log for sure lets sessions be granted again.
    pub(crate) fn expiry_is_over(&mut self, lapsed: &[NodeStart]) {
        for start in lapsed {
            if let Some(known) = self.sessions.get_mut(start) {
                known.expiring = false;
            }
        }
    }

    /// What to do next.
    pub(crate) fn next(&mut self, view: View<'_>, now: Nanos) -> Option<Step> {
        self.leadership?;
        if let Some(reason) = self.cannot_be_reached(view, now) {
            return Some(Step::Resign(reason));
        }
        if self.is_stuck(now) {
            // Each attempt would be one more entry on a disk that may be the last one with room.
            return None;
        }
        let from = *self.from.get_or_insert(view.index);
        let starts = |filter: &dyn Fn(NodeStart) -> bool| -> Vec<NodeStart> {
            let all =
                view.members.values().map(|row| NodeStart { node: row.id, incarnation: row.incarnation });
            all.filter(|start| filter(*start)).collect()
        };
        let live = starts(&|start| self.is_live(start, now));
        let mut eligible = live.clone();
        eligible.retain(|start| !view.draining.contains(start) && self.has_applied(start.node, from));
        if eligible.is_empty() {
            // Better one that is about to go than nobody.
            eligible = live;
        }
        self.sessions.retain(|start, known| {
            // Also of a start that is no member any more: it may run, where its disk was taken from it.
            let may_last = known.last.is_some_and(|last| !self.timing.has_lapsed(last, now));
            known.under_way > 0
                || known.expiring
                || may_last
                || view.members.get(&start.node).is_some_and(|row| row.incarnation <= start.incarnation)
        });
        self.contacts.retain(|node, _| {
            view.members.contains_key(node) || view.voters.iter().any(|set| set.contains(node))
        });
        if eligible.is_empty() {
            self.able_since = now;
            return None;
        }
        self.want(&eligible, view.members, now);
        let wanted = self.wanted.as_ref()?;
        if !view.table.is_assigned() {
            let all_there = eligible.len() >= view.expected;
            let waited = now >= self.since.saturating_add(FOUNDERS_WITHIN);
            return (all_there || waited).then(|| Step::Write(Entry::Assign(wanted.owners.clone())));
        }
        self.expire(view, now)
            .or_else(|| self.end_slow_move(view.table, now))
            .or_else(|| self.share(view, now))
            .or_else(|| self.replace_successors(view, now))
            .or_else(|| self.rebalance(view, now))
            .or_else(|| if self.pace.rests(now) { None } else { self.name_successors(view, now) })
    }

    /// Whether a member has reported that it has applied the log up to this index.
    fn has_applied(&self, node: NodeId, index: u64) -> bool {
        self.contacts.get(&node).is_some_and(|known| known.applied >= index)
    }

    fn want(&mut self, eligible: &[NodeStart], members: &BTreeMap<NodeId, MemberRow>, now: Nanos) {
        if self.wanted.as_ref().is_some_and(|wanted| wanted.eligible == eligible) {
            return;
        }
        let rows = || eligible.iter().filter_map(|start| members.get(&start.node));
        let named: BTreeMap<&str, NodeStart> = rows().map(|row| (&*row.name, row.node_start())).collect();
        let placement = Placement::of(rows().map(Candidate::from));
        let owners = placement.owners.owners().map(|name| named[&**name]).collect();
        let successors = placement.successors().map(|name| name.map(|name| named[&**name])).collect();
        self.wanted = Some(Wanted { eligible: eligible.to_vec(), since: now, owners, successors });
    }
}

#[cfg(test)]
mod tests;
