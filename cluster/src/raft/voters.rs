//! Who belongs to the group and who has a vote: what the leader should change next, as a function of what it sees.
//!
//! - A node that is there gets the log (as a learner); with its disk lost it is a new one, and the old one is removed.
//! - 5 of the members vote if there are as many, else 3, else all of them. They stand in different zones if that is
//!   possible.
//! - **A voter that cannot be reached keeps its vote until it has been gone for [`GRACE`] and another can take it**:
//!   nothing is won by a smaller group, and a crash is not worth two changes.
//! - **Who leaves by plan gives its vote back before it ends**, and does not count any more: the group becomes as small as
//!   what is left, down to one. Where all leave, nobody does: they come back together.
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
pub(crate) struct Known<G, L, E> {
    /// Since when a member has not been there.
    pub(crate) gone_for: G,
    /// Whether it has been told to leave, and owns nothing any more.
    pub(crate) leaves: L,
    /// Whether it is to be taken out, or was gone for too long.
    pub(crate) evicted: E,
}

/// The next change; `None` if all is as it should be.
pub(crate) fn next_step<G, L, E>(
    membership: &Membership,
    present: &[Present],
    known: &Known<G, L, E>,
) -> Option<Step>
where
    G: Fn(NodeId) -> Duration,
    L: Fn(NodeId) -> bool,
    E: Fn(NodeId) -> bool,
{
    let Membership { nodes, voters, in_between } = membership;
    let Known { gone_for, evicted, .. } = known;
    // Somebody has to stay.
    let one_stays = present.iter().any(|one| one.caught_up && !(known.leaves)(one.id));
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

    let (mut keep, rest): (BTreeSet<NodeId>, Vec<NodeId>) = {
        let stays =
            |id: &NodeId| nodes.contains_key(id) && !goes(*id) && (is_present(*id) || gone_for(*id) < GRACE);
        (
            voters.iter().copied().filter(|id| stays(id)).collect(),
            voters.iter().copied().filter(|id| !stays(id)).collect(),
        )
    };
    while keep.len() < wanted.max(voters.len().min(members)) {
        let Some(best) = best_candidate(present, &keep, leaves) else { break };
        keep.insert(best);
    }
    // Nobody can take these votes over: they stay, and with them how many make a quorum. More of them than are needed only
    // where those that are there remain one.
    let there = keep.len();
    let mut absent = rest.into_iter().filter(|id| nodes.contains_key(id) && !goes(*id));
    let fits = |votes: usize| votes < wanted || votes < voters.len().min(members) && 2 * there > votes + 1;
    while fits(keep.len())
        && let Some(id) = absent.next()
    {
        keep.insert(id);
    }
    if keep != *voters && !keep.is_empty() {
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
    let candidates =
        present.iter().filter(|one| one.caught_up && !voters.contains(&one.id) && !leaves(one.id));
    candidates.min_by_key(|one| (votes_in(&one.zone), one.id)).map(|one| one.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: NodeId) -> RaftNode {
        RaftNode { name: format!("n{id}"), peer: ([10, 0, 0, id as u8], 7803).into() }
    }

    fn present(ids: impl IntoIterator<Item = NodeId>) -> Vec<Present> {
        ids.into_iter().map(|id| Present { id, node: node(id), zone: None, caught_up: true }).collect()
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
        next_step(membership, present, &Known { gone_for, leaves: |_| false, evicted })
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

    /// What the group becomes when these are there, and some of them leave or are taken out.
    fn settle(mut membership: Membership, there: &[Present], leave: &[NodeId], out: &[NodeId]) -> Membership {
        let known =
            Known { gone_for: |_| LONG, leaves: |id| leave.contains(&id), evicted: |id| out.contains(&id) };
        for _ in 0..50 {
            match next_step(&membership, there, &known) {
                None => return membership,
                Some(Step::Add(id, node) | Step::Move(id, node)) => drop(membership.nodes.insert(id, node)),
                Some(Step::Remove(id)) => drop(membership.nodes.remove(&id)),
                Some(Step::Voters(voters)) => membership.voters = voters,
            }
        }
        panic!("it never ends: {membership:?}");
    }

    #[test]
    fn who_leaves_by_plan_gives_its_vote_back_one_after_the_other_down_to_one() {
        let mut membership = settle(group([1], [1]), &present(1..=5), &[], &[]);
        assert_eq!(membership.voters, (1..=5).collect());
        for last in [4, 3, 2, 1] {
            let leaves: Vec<NodeId> = (last + 1..=5).collect();
            // It is there until it has left, and then gone for long.
            membership = settle(membership, &present(1..=last + 1), &leaves, &[]);
            assert_eq!(membership.voters, (1..=last).collect());
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
