//! Who belongs to the group and who has a vote: what the leader should change next, as a function of what it sees.
//!
//! - A node that is there gets the log (as a learner); with its disk lost it is a new one, and the old one is removed.
//! - 5 of the members vote if there are as many, else 3, else all of them. They stand in different zones if that is
//!   possible.
//! - **A voter that cannot be reached keeps its vote until it has been gone for [`GRACE`] and another can take it**:
//!   nothing is won by a smaller group, and a crash is not worth two changes.
//! - **Who leaves by plan gives its vote back before it ends**, and does not count any more: the group becomes as small as
//!   what is left, down to one. Where that is an even number, one of those that leave keeps its vote: a quorum is as many nodes
//!   either way, and it may come back. Where all leave, nobody gives a vote back: they come back together.
//! - **Of those that are to vote, a majority is there**, and of those that vote now: any other change would be begun and never
//!   agreed on, and nothing after it.
//! - One change at a time: what was begun is ended first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::ids::{NodeId, RaftNode};

/// How long a voter may be gone before its vote goes to another.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A node that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) id: NodeId,
    pub(crate) node: RaftNode,
    pub(crate) zone: Option<String>,
    /// It has nearly all of the log.
    pub(crate) caught_up: bool,
    /// It has answered the leader a moment ago: gossip takes seconds to notice that a node is gone.
    pub(crate) answers: bool,
}

/// The group as its log has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) nodes: BTreeMap<NodeId, RaftNode>,
    pub(crate) voters: BTreeSet<NodeId>,
    /// A change of voters was begun and not ended.
    pub(crate) in_between: bool,
}

/// What to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node gets the log from now on.
    Add(NodeId, RaftNode),
    /// A node is found elsewhere.
    Move(NodeId, RaftNode),
    /// A node without a vote is taken out.
    Remove(NodeId),
    /// These vote from now on.
    Voters(BTreeSet<NodeId>),
}

/// How many of so many members vote.
pub(crate) fn voter_count(members: usize) -> usize {
    match members {
        0..=2 => members,
        3..=4 => 3,
        _ => 5,
    }
}

/// What is known of members beside whether they are there.
pub(crate) struct Known<G, D, L, E> {
    /// Since when a member has not been there.
    pub(crate) gone_for: G,
    /// Whether it has been told to leave.
    pub(crate) drains: D,
    /// Whether that was a while ago, and it owns nothing any more.
    pub(crate) leaves: L,
    /// Whether it is to be taken out, or was gone for too long.
    pub(crate) evicted: E,
}

/// The next change; `None` if all is as it should be.
pub(crate) fn next_step<G, D, L, E>(
    membership: &Membership,
    present: &[Present],
    known: &Known<G, D, L, E>,
) -> Option<Step>
where
    G: Fn(NodeId) -> Duration,
    D: Fn(NodeId) -> bool,
    L: Fn(NodeId) -> bool,
    E: Fn(NodeId) -> bool,
{
    let Membership { nodes, voters, in_between } = membership;
    let Known { gone_for, drains, evicted, .. } = known;
    // Somebody has to stay, who was not told to leave either.
    let one_stays = present.iter().any(|one| one.caught_up && !drains(one.id));
    let leaves = |id: NodeId| one_stays && (known.leaves)(id);
    if *in_between {
        return Some(Step::Voters(voters.clone()));
    }
    let was_taken_out = |id: NodeId| leaves(id) && evicted(id);
    if let Some(new) = present.iter().find(|one| !nodes.contains_key(&one.id) && !was_taken_out(one.id)) {
        return Some(Step::Add(new.id, new.node.clone()));
    }
    let moved = |one: &&Present| nodes.get(&one.id).is_some_and(|node| *node != one.node);
    if let Some(moved) = present.iter().find(moved) {
        return Some(Step::Move(moved.id, moved.node.clone()));
    }
    let is_present = |id: NodeId| present.iter().any(|one| one.id == id);
    // A name stands for one node: who is not there while another has its name lost its disk and will not come back.
    // So will not who was gone for too long, or was said to be gone permanently.
    let replaced = |id: NodeId| {
        was_taken_out(id)
            || !is_present(id) && (evicted(id) || present.iter().any(|one| one.node.name == nodes[&id].name))
    };
    let goes = |id: NodeId| replaced(id) || leaves(id);
    let members = nodes.keys().filter(|id| !goes(**id)).count();
    let wanted = voter_count(members);

    let is_there = |id: NodeId| present.iter().any(|one| one.id == id && one.answers);
    // Those that stay, also if they are away for a moment; then who can take a vote.
    let stays = |id: NodeId| nodes.contains_key(&id) && !goes(id) && (is_present(id) || gone_for(id) < GRACE);
    let mut keep: BTreeSet<NodeId> = voters.iter().copied().filter(|id| stays(*id)).collect();
    let full = wanted.max(voters.len().min(members));
    while keep.len() < full {
        let Some(best) = best_candidate(present, &keep, drains) else { break };
        keep.insert(best);
    }
    // Nobody can take the votes of those that are gone: they stay, and with them how many make a quorum, as long as those that are
    // there remain one.
    let add = |keep: &mut BTreeSet<NodeId>, id: NodeId| {
        let there = keep.iter().filter(|id| is_there(**id)).count();
        if 2 * there > keep.len() + 1 {
            keep.insert(id);
        }
    };
    for id in voters.iter().copied().filter(|id| nodes.contains_key(id) && !goes(*id) && !stays(*id)) {
        if keep.len() < full {
            add(&mut keep, id);
        }
    }
    let leaving = voters.iter().copied().filter(|id| leaves(*id) && !replaced(*id));
    if keep.len().is_multiple_of(2)
        && let Some(id) = leaving.max_by_key(|id| is_there(*id))
    {
        add(&mut keep, id);
    }
    let there = |of: &BTreeSet<NodeId>| of.iter().filter(|id| is_there(**id)).count();
    // Who leaves does not wait until those that have just crashed count as gone: without it nothing could be agreed on any more.
    if voters.iter().any(|id| leaves(*id)) {
        while 2 * there(&keep) <= keep.len()
            && let Some(silent) = keep.iter().copied().find(|id| !is_there(*id))
        {
            keep.remove(&silent);
        }
    }
    if keep != *voters && 2 * there(&keep) > keep.len() && 2 * there(voters) > voters.len() {
        return Some(Step::Voters(keep));
    }
    nodes.keys().copied().find(|id| replaced(*id) && !voters.contains(id)).map(Step::Remove)
}

/// Of those who could vote, one in the zone with the fewest votes.
fn best_candidate(
    present: &[Present],
    voters: &BTreeSet<NodeId>,
    leaves: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let votes_in = |zone: &Option<String>| {
        present.iter().filter(|one| voters.contains(&one.id) && one.zone == *zone).count()
    };
    let candidates = present
        .iter()
        .filter(|one| one.caught_up && one.answers && !voters.contains(&one.id) && !leaves(one.id));
    candidates.min_by_key(|one| (votes_in(&one.zone), one.id)).map(|one| one.id)
}

#[cfg(test)]
mod tests;
