use super::*;

fn node(id: NodeId) -> RaftNode {
    RaftNode { name: format!("n{id}"), peer: ([10, 0, 0, id as u8], 7803).into() }
}

fn present(ids: impl IntoIterator<Item = NodeId>) -> Vec<Present> {
    let there = |id| Present { id, node: node(id), zone: None, caught_up: true, answers: true };
    ids.into_iter().map(there).collect()
}

fn group(nodes: impl IntoIterator<Item = NodeId>, voters: impl IntoIterator<Item = NodeId>) -> Membership {
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
    assert_eq!(step(&group([1], [1]), &present([1, 2]), |_| LONG, |_| false), Some(Step::Add(2, node(2))));
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
    let known = Known { gone_for: |_| LONG, drains: leaves, leaves, evicted: |id: NodeId| out.contains(&id) };
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
    // Two of five voters have crashed permanently and one leaves: two of three are a quorum, two of four are none.
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
