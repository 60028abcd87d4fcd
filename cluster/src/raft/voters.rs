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
mod tests {
    use super::*;

    fn node(id: NodeId) -> RaftNode {
        RaftNode { name: format!("n{id}"), peer: ([10, 0, 0, id as u8], 7803).into() }
    }

    fn present(ids: impl IntoIterator<Item = NodeId>) -> Vec<Present> {
        let there = |id| Present { id, node: node(id), zone: None, caught_up: true, answers: true };
        ids.into_iter().map(there).collect()
    }

    fn group(
        nodes: impl IntoIterator<Item = NodeId>,
        voters: impl IntoIterator<Item = NodeId>,
    ) -> Membership {
        Membership {
            nodes: nodes.into_iter().map(|id| (id, node(id))).collect(),
            voters: voters.into_iter().collect(),
            in_between: false,
        }
    }

    /// As if nobody left by plan.
    fn step(
        membership: &Membership,
        present: &[Present],
        gone_for: impl Fn(NodeId) -> Duration,
        evicted: impl Fn(NodeId) -> bool,
    ) -> Option<Step> {
        next_step(membership, present, &Known { gone_for, drains: |_| false, leaves: |_| false, evicted })
    }

    const LONG: Duration = Duration::from_secs(3600);

    fn voters(ids: impl IntoIterator<Item = NodeId>) -> Option<Step> {
        Some(Step::Voters(ids.into_iter().collect()))
    }

    #[test]
    fn a_member_that_is_gone_for_good_is_taken_out_and_a_live_one_is_not() {
        let membership = group(1..=4, 1..=3);
        let evicted = |id| id == 3 || id == 1;
        assert_eq!(step(&membership, &present([1, 2, 4]), |_| Duration::ZERO, evicted), voters([1, 2, 4]));
        let after = group(1..=4, [1, 2, 4]);
        let next = step(&after, &present([1, 2, 4]), |_| Duration::ZERO, evicted);
        assert_eq!(next, Some(Step::Remove(3)));
    }

    #[test]
    fn a_group_grows_to_three_and_to_five_and_then_has_learners() {
        assert_eq!(
            step(&group([1], [1]), &present([1, 2]), |_| LONG, |_| false),
            Some(Step::Add(2, node(2)))
        );
        assert_eq!(step(&group([1, 2], [1]), &present([1, 2]), |_| LONG, |_| false), voters([1, 2]));
        assert_eq!(step(&group(1..=3, [1, 2]), &present(1..=3), |_| LONG, |_| false), voters([1, 2, 3]));
        assert_eq!(step(&group(1..=4, 1..=3), &present(1..=4), |_| LONG, |_| false), None);
        assert_eq!(step(&group(1..=5, 1..=3), &present(1..=5), |_| LONG, |_| false), voters(1..=5));
        assert_eq!(step(&group(1..=9, 1..=5), &present(1..=9), |_| LONG, |_| false), None);
    }

    #[test]
    fn who_is_behind_gets_no_vote_yet() {
        let mut there = present([1, 2]);
        there[1].caught_up = false;
        assert_eq!(step(&group([1, 2], [1]), &there, |_| LONG, |_| false), None);
    }

    #[test]
    fn a_dead_voter_is_replaced_after_a_while_if_another_can_take_its_vote() {
        let membership = group(1..=4, 1..=3);
        assert_eq!(step(&membership, &present([1, 2, 4]), |_| GRACE / 2, |_| false), None);
        assert_eq!(step(&membership, &present([1, 2, 4]), |_| GRACE, |_| false), voters([1, 2, 4]));
        assert_eq!(step(&group(1..=3, 1..=3), &present([1, 2]), |_| LONG, |_| false), None);
    }

    #[test]
    fn a_node_that_lost_its_disk_takes_the_place_of_itself() {
        let mut there = present([1, 2, 9]);
        there[2].node.name = "n3".to_owned();
        let mut membership = group(1..=3, 1..=3);
        assert_eq!(
            step(&membership, &there, |_| Duration::ZERO, |_| false),
            Some(Step::Add(9, there[2].node.clone()))
        );
        membership.nodes.insert(9, there[2].node.clone());
        assert_eq!(step(&membership, &there, |_| Duration::ZERO, |_| false), voters([1, 2, 9]));
        membership.voters = [1, 2, 9].into();
        assert_eq!(step(&membership, &there, |_| Duration::ZERO, |_| false), Some(Step::Remove(3)));
        membership.nodes.remove(&3);
        assert_eq!(step(&membership, &there, |_| LONG, |_| false), None);
    }

    #[test]
    fn until_the_new_one_has_the_log_the_lost_one_keeps_no_vote_that_would_make_a_smaller_group() {
        let mut there = present([1, 2, 9]);
        there[2].node.name = "n3".to_owned();
        there[2].caught_up = false;
        let mut membership = group([1, 2, 3, 9], 1..=3);
        membership.nodes.insert(9, there[2].node.clone());
        // The vote of the lost one goes at once: it can never be cast again.
        assert_eq!(step(&membership, &there, |_| Duration::ZERO, |_| false), voters([1, 2]));
    }

    #[test]
    fn votes_are_spread_over_zones() {
        let mut there = present(1..=5);
        for (one, zone) in there.iter_mut().zip(["a", "a", "b", "a", "c"]) {
            one.zone = Some(zone.to_owned());
        }
        there.truncate(4);
        assert_eq!(step(&group(1..=4, [1]), &there, |_| LONG, |_| false), voters([1, 2, 3]));
        let mut membership = group(1..=4, [1, 2]);
        membership.nodes.remove(&2);
        membership.voters = [1].into();
        there.remove(1);
        assert_eq!(step(&membership, &there, |_| LONG, |_| false), voters([1, 3, 4]));
    }

    /// What the group becomes when these are there, and some of all leave or are taken out. Each change of votes is one that is
    /// agreed on.
    fn settle(mut membership: Membership, there: &[Present], leave: &[NodeId], out: &[NodeId]) -> Membership {
        let leaves = |id: NodeId| leave.contains(&id);
        let known =
            Known { gone_for: |_| LONG, drains: leaves, leaves, evicted: |id: NodeId| out.contains(&id) };
        for _ in 0..50 {
            match next_step(&membership, there, &known) {
                None => return membership,
                Some(Step::Add(id, node) | Step::Move(id, node)) => drop(membership.nodes.insert(id, node)),
                Some(Step::Remove(id)) => drop(membership.nodes.remove(&id)),
                Some(Step::Voters(voters)) => {
                    assert_is_agreed_on(&membership.voters, &voters, there);
                    membership.voters = voters;
                }
            }
        }
        panic!("it never ends: {membership:?}");
    }

    fn assert_is_agreed_on(before: &BTreeSet<NodeId>, after: &BTreeSet<NodeId>, there: &[Present]) {
        for set in [before, after] {
            let answer = there.iter().filter(|one| one.answers && set.contains(&one.id)).count();
            assert!(2 * answer > set.len(), "{before:?} -> {after:?}, where {there:?} are there");
        }
    }

    #[test]
    fn who_leaves_by_plan_gives_its_vote_back_one_after_the_other_down_to_one() {
        let mut membership = settle(group([1], [1]), &present(1..=5), &[], &[]);
        assert_eq!(membership.voters, (1..=5).collect());
        // Of an even number one of those that have left keeps a vote: it makes a quorum no larger.
        for (last, vote) in [(4, 5), (3, 3), (2, 3), (1, 1)] {
            let leaves: Vec<NodeId> = (last + 1..=5).collect();
            // It is there until it has left, and then gone for long.
            membership = settle(membership, &present(1..=last + 1), &leaves, &[]);
            assert_eq!(membership.voters, (1..=vote).collect());
            assert_eq!(settle(membership.clone(), &present(1..=last), &leaves, &[]), membership);
            assert_eq!(membership.nodes.len(), 5, "they have the log, and may come back");
        }
        assert_eq!(settle(membership, &present(1..=5), &[], &[]).voters, (1..=5).collect());
    }

    #[test]
    fn three_become_five_and_three_again_and_one_may_crash() {
        let five = settle(group(1..=3, 1..=3), &present(1..=5), &[], &[]);
        let three = settle(five, &present(1..=5), &[4, 5], &[]);
        assert_eq!(three.voters, [1, 2, 3].into());
        // Two of three are left, and nobody takes the vote over: who has left by plan does not.
        assert_eq!(settle(three.clone(), &present([1, 2]), &[4, 5], &[]).voters, [1, 2, 3].into());
        assert_eq!(settle(three, &present([1, 2, 4, 5]), &[4, 5], &[]).voters, [1, 2, 3].into());
    }

    #[test]
    fn new_names_take_the_votes_of_those_that_leave() {
        let mut membership = group(1..=3, 1..=3);
        for new in 4..=6 {
            let leaves: Vec<NodeId> = (1..=new - 3).collect();
            membership = settle(membership, &present(new - 3..=new - 1), &leaves, &[]);
            membership = settle(membership, &present(new - 2..=new), &leaves, &[]);
            assert_eq!(membership.voters, (new - 2..=new).collect());
        }
    }

    #[test]
    fn where_all_leave_nobody_gives_a_vote_back() {
        let membership = group(1..=3, 1..=3);
        assert_eq!(settle(membership.clone(), &present(1..=3), &[1, 2, 3], &[]), membership);
        // Also while some of them still own something.
        for leave in [&[1][..], &[1, 2]] {
            let known = Known {
                gone_for: |_| LONG,
                drains: |_| true,
                leaves: |id| leave.contains(&id),
                evicted: |_| false,
            };
            assert_eq!(next_step(&membership, &present(1..=3), &known), None);
        }
    }

    #[test]
    fn who_was_told_to_leave_can_be_taken_out_while_it_is_there_and_no_other_can() {
        let membership = settle(group(1..=3, 1..=3), &present(1..=3), &[3], &[3]);
        assert_eq!((membership.voters, membership.nodes.len()), ([1, 2].into(), 2));
        let membership = settle(group(1..=3, 1..=3), &present(1..=3), &[], &[3]);
        assert_eq!(membership, group(1..=3, 1..=3));
    }

    #[test]
    fn crashed_voters_do_not_outvote_those_that_stay_when_one_leaves() {
        // Of five, two have crashed for good and one leaves: two of three are a quorum, two of four are none.
        let membership = settle(group(1..=5, 1..=5), &present(1..=3), &[3], &[]);
        assert_eq!(membership.voters.len(), 3);
        assert!(membership.voters.is_superset(&[1, 2].into()));
        // Of three, one has crashed and one leaves: with the crashed one nothing could be agreed on.
        assert_eq!(settle(group(1..=3, 1..=3), &present([1, 2]), &[2], &[]).voters, [1].into());
        // Also while gossip has not noticed the crash.
        let mut there = present(1..=3);
        there[2].answers = false;
        assert_eq!(settle(group(1..=3, 1..=3), &there, &[2], &[]).voters, [1].into());
        let mut there = present(1..=5);
        (there[2].answers, there[3].answers) = (false, false);
        let left = settle(group(1..=5, 1..=5), &there, &[5], &[]).voters;
        assert!(left.len() == 3 && left.is_superset(&[1, 2].into()), "{left:?}");
    }

    /// Whoever of five is there, seems to be, leaves, is evicted, or was gone for however long.
    #[test]
    fn every_change_of_votes_is_one_that_can_be_agreed_on() {
        let bits = |set: u64, id: NodeId| set >> (id - 1) & 1 == 1;
        for count in 1..=5_u64 {
            for voters in 1..1_u64 << count {
                for (there, seem, leave) in (0..1_u64 << (3 * count)).map(|all| {
                    (all & 31 & ((1 << count) - 1), all >> count & ((1 << count) - 1), all >> (2 * count))
                }) {
                    // To spare time, who answers is a part of who seems to be there.
                    if there & !seem != 0 || leave % 3 == 1 && count == 5 {
                        continue;
                    }
                    let voters: Vec<NodeId> = (1..=count).filter(|id| bits(voters, *id)).collect();
                    let mut present = present((1..=count).filter(|id| bits(seem, *id)));
                    present.iter_mut().for_each(|one| one.answers = bits(there, one.id));
                    let membership = group(1..=count, voters);
                    for gone in [Duration::ZERO, LONG] {
                        let leaves = |id| bits(leave, id);
                        let known = Known { gone_for: |_| gone, drains: leaves, leaves, evicted: |_| false };
                        if let Some(Step::Voters(next)) = next_step(&membership, &present, &known) {
                            assert_is_agreed_on(&membership.voters, &next, &present);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_begun_is_ended_first_and_a_new_address_is_noted() {
        let mut membership = group(1..=3, 1..=3);
        membership.in_between = true;
        assert_eq!(step(&membership, &present(1..=4), |_| LONG, |_| false), voters(1..=3));
        let mut there = present(1..=3);
        there[1].node.peer = ([10, 0, 0, 77], 7803).into();
        let next = step(&group(1..=3, 1..=3), &there, |_| LONG, |_| false);
        assert_eq!(next, Some(Step::Move(2, there[1].node.clone())));
    }

    #[test]
    fn following_the_steps_always_ends_with_all_that_are_there() {
        for count in 1..=9u64 {
            let mut membership = group([1], [1]);
            let there = present(1..=count);
            let mut steps = 0;
            while let Some(next) = step(&membership, &there, |_| LONG, |_| false) {
                steps += 1;
                assert!(steps < 50, "{membership:?}");
                match next {
                    Step::Add(id, node) | Step::Move(id, node) => drop(membership.nodes.insert(id, node)),
                    Step::Remove(id) => drop(membership.nodes.remove(&id)),
                    Step::Voters(voters) => membership.voters = voters,
                }
            }
            assert_eq!(membership.nodes.len() as u64, count);
            assert_eq!(membership.voters.len(), voter_count(count as usize));
        }
    }
}
