//! What the leader does about ownership: grants sessions, gives slots to nodes that come, takes them from nodes that go.
//! A state machine of values; whatever it proposes, the log decides ([`Table::apply`]).
//!
//! - Which sessions it has granted lives in memory only. **A new leader takes nobody's slots before each session that an
//!   earlier one may have granted must have ended**: those were confirmed by a quorum before this leader was elected.
//! - **Nobody is granted a session while it is being expired**, and nobody is expired while a grant is under way: the index
//!   that comes with a grant would not tell of the expiry.
//! - A leader that did not look for a while (its process was stopped) counts as new.

mod expiry;
mod moves;
mod successors;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidegate_limiter::Nanos;

pub(crate) use self::moves::BATCH;
use self::moves::Pace;

use super::{
    session::Terms,
    table::{Entry, Holder, Reign, SlotMove, Table},
};
use crate::{
    placement::{Candidate, Placement},
    planted::PlantedBug,
    raft::{MemberRow, NodeId},
};

/// Members must have been the same for so long before slots move for them: who comes alone is soon followed by others.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the first owners are waited for, when not all members are there.
const FOUNDERS_WITHIN: Duration = Duration::from_secs(3);
/// A leader that did not look for so long was stopped meanwhile.
const MAX_GAP: Duration = Duration::from_millis(1500);

/// What the log says, as far as the leader has applied it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'v> {
    pub(crate) table: &'v Table,
    pub(crate) members: &'v BTreeMap<NodeId, MemberRow>,
    /// Those that want to own nothing.
    pub(crate) draining: &'v BTreeSet<Holder>,
    /// Members of the Raft group: so many rows there will be.
    pub(crate) expected: usize,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this.
    Write(Entry),
    /// Ask the target of these moves to promise not to take the slots; if it does, write that they are over.
    Refuse { target: Holder, moves: Vec<SlotMove> },
}

#[derive(Debug, Clone, Default)]
struct Grants {
    last: Option<Nanos>,
    under_way: u32,
    expiring: bool,
}

/// A grant that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granting {
    holder: Holder,
    reign: Reign,
}

/// The leader's side of all sessions, and what it knows of moves.
#[derive(Debug)]
pub(crate) struct Leader {
    terms: Terms,
    reign: Option<Reign>,
    since: Nanos,
    looked: Nanos,
    sessions: BTreeMap<Holder, Grants>,
    /// Who should own slots, since when that is so, and which slots each should own.
    wanted: Option<Wanted>,
    /// The move that was looked at last, and since when it is pending.
    watched: Option<(u64, Nanos)>,
    pace: Pace,
}

#[derive(Debug)]
struct Wanted {
    holders: Vec<Holder>,
    since: Nanos,
    owners: Vec<Holder>,
    /// Who takes over from these owners.
    successors: Vec<Option<Holder>>,
}

impl Leader {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            reign: None,
            since: Nanos::new(0),
            looked: Nanos::new(0),
            sessions: BTreeMap::new(),
            wanted: None,
            watched: None,
            pace: Pace::default(),
        }
    }

    /// Says whether this node leads, before anything else is asked of it, and at least every [`MAX_GAP`].
    pub(crate) fn look(&mut self, reign: Option<Reign>, now: Nanos) {
        let stopped = now.saturating_since(self.looked) > MAX_GAP;
        self.looked = self.looked.max(now);
        if reign != self.reign || stopped {
            self.reign = reign;
            self.since = now;
            self.sessions.clear();
            self.wanted = None;
            self.watched = None;
            self.pace = Pace::default();
        }
    }

    /// Begins to grant a session: from now on until [`Leader::granted`] the holder is not expired. `None`: it must not
    /// have one.
    pub(crate) fn begin_grant(&mut self, holder: Holder) -> Option<Granting> {
        let reign = self.reign?;
        let known = self.sessions.entry(holder).or_default();
        if known.expiring {
            return None;
        }
        known.under_way += 1;
        Some(Granting { holder, reign })
    }

    /// A quorum has confirmed that this node leads, or (`confirmed` is false) has not. Whether the session is granted.
    pub(crate) fn granted(&mut self, granting: Granting, confirmed: bool, now: Nanos) -> bool {
        if self.reign != Some(granting.reign) {
            return false;
        }
        // Where the gap was too long, what was under way has been forgotten.
        let Some(known) = self.sessions.get_mut(&granting.holder).filter(|known| known.under_way > 0) else {
            return false;
        };
        known.under_way -= 1;
        if confirmed {
            known.last = known.last.max(Some(now));
        }
        confirmed
    }

    /// Slots with so many buckets are about to move: when they have arrived, nothing moves for a while, unless a node leaves.
    pub(crate) fn rest_after(&mut self, buckets: usize) {
        self.pace.begin(buckets);
    }

    /// When there may be something to do though nothing has changed.
    pub(crate) fn rests_until(&self) -> Option<Nanos> {
        self.pace.until
    }

    /// Whether the holder's session must have ended, whoever granted it.
    pub(crate) fn has_lapsed(&self, holder: Holder, now: Nanos) -> bool {
        let known = self.sessions.get(&holder);
        if PlantedBug::NewLeaderDoesNotWait.is_on() && known.and_then(|known| known.last).is_none() {
            return true;
        }
        let last = known.and_then(|known| known.last).unwrap_or(self.since).max(self.since);
        known.is_none_or(|known| known.under_way == 0) && self.terms.has_lapsed(last, now)
    }

    /// Whether this leader has granted the holder a session that has not ended.
    pub(crate) fn is_live(&self, holder: Holder, now: Nanos) -> bool {
        let known = self.sessions.get(&holder);
        let last = known.filter(|known| !known.expiring).and_then(|known| known.last);
        last.is_some_and(|last| now < last.saturating_add(self.terms.node))
    }

    /// Whether the holder lives, and has not started again since.
    fn is_there(&self, holder: Holder, view: View<'_>, now: Nanos) -> bool {
        let is_member = view.members.get(&holder.node).is_some_and(|row| row.holder() == holder);
        is_member && self.is_live(holder, now)
    }

    /// What became of an expiry that was proposed. Known or not: it is looked at again, and an entry that comes twice does
    /// nothing more. Only what is not in the log for sure lets sessions be granted again.
    pub(crate) fn expiry_is_over(&mut self, lapsed: &[Holder]) {
        for holder in lapsed {
            if let Some(known) = self.sessions.get_mut(holder) {
                known.expiring = false;
            }
        }
    }

    /// What to do next.
    pub(crate) fn next(&mut self, view: View<'_>, now: Nanos) -> Option<Step> {
        self.reign?;
        let holders = |filter: &dyn Fn(Holder) -> bool| -> Vec<Holder> {
            let all = view.members.values().map(|row| Holder { node: row.id, incarnation: row.incarnation });
            all.filter(|holder| filter(*holder)).collect()
        };
        let live = holders(&|holder| self.is_live(holder, now));
        let mut eligible = live.clone();
        eligible.retain(|holder| !view.draining.contains(holder));
        if eligible.is_empty() {
            // Better one that is about to go than nobody.
            eligible = live;
        }
        self.sessions.retain(|holder, known| {
            known.under_way > 0
                || known.expiring
                || view.members.get(&holder.node).is_some_and(|row| row.incarnation <= holder.incarnation)
        });
        if eligible.is_empty() {
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
            .or_else(|| self.replace_successors(view, now))
            .or_else(|| self.rebalance(view, now))
            .or_else(|| if self.pace.rests(now) { None } else { self.name_successors(view, now) })
    }

    fn want(&mut self, eligible: &[Holder], members: &BTreeMap<NodeId, MemberRow>, now: Nanos) {
        if self.wanted.as_ref().is_some_and(|wanted| wanted.holders == eligible) {
            return;
        }
        let rows = || eligible.iter().filter_map(|holder| members.get(&holder.node));
        let named: BTreeMap<&str, Holder> = rows().map(|row| (&*row.name, row.holder())).collect();
        let placement = Placement::of(rows().map(Candidate::from));
        let owners = placement.owners.owners().map(|name| named[&**name]).collect();
        let successors = placement.successors().map(|name| name.map(|name| named[&**name])).collect();
        self.wanted = Some(Wanted { holders: eligible.to_vec(), since: now, owners, successors });
    }
}

#[cfg(test)]
mod tests;
