//! Slots that move by plan.

use super::*;

#[test]
fn slots_are_given_to_all_members_that_were_expected_or_after_a_while_to_those_that_came() {
    assert!(founded(3).owned(3) > 1000);
    let mut world = World::new(3);
    world.pass(500, &[1, 2]);
    assert_eq!(world.next(), None);
    world.pass(3000, &[1, 2]);
    world.settle();
    assert_eq!(world.owned(1) + world.owned(2), SLOTS);
}

#[test]
fn a_node_that_joins_gets_its_share_and_nothing_else_moves() {
    let mut world = founded(3);
    world.members.insert(4, row(4, 1));
    world.pass(1500, &[1, 2, 3, 4]);
    world.settle();
    world.pass(1000, &[1, 2, 3, 4]);
    let moved = world.settle();
    assert_eq!(moved + world.owned(1) + world.owned(2) + world.owned(3), SLOTS);
    assert_eq!(world.owned(4), moved);
    assert!((870..=1178).contains(&moved), "{moved}");
}

#[test]
fn slots_with_many_buckets_move_at_a_pace_that_leaves_time_to_checks_and_nobody_waits_who_leaves() {
    let mut world = founded(3);
    world.members.insert(4, row(4, 1));
    world.pass(500, &[1, 2, 3, 4]);
    assert_eq!(world.next(), None, "who they are has just changed");
    world.pass(500, &[1, 2, 3, 4]);
    let begun = world.now;
    let mut batches = 0;
    while world.owned(4) < 870 {
        let before = world.owned(4);
        if let Some(Step::Write(entry)) = world.next() {
            let Entry::Prepare { slots, .. } = &entry else { panic!("{entry:?} in the middle of a join") };
            // As the leader's task does: 250 buckets in each.
            world.leader.rest_after(slots.len() * 250);
            world.carry_out(entry);
            batches += 1;
        }
        assert!(world.owned(4) - before <= BATCH);
        world.pass(10, &[1, 2, 3, 4]);
    }
    // 16,000 buckets a batch: a rest of 160 ms after each.
    let took = world.now - begun;
    assert!((batches - 1) * 160 <= took && took <= batches * 190, "{batches} batches in {took} ms");
    world.draining.insert(start(1));
    assert!(matches!(world.next(), Some(Step::Write(Entry::Prepare { .. }))), "it is waited for");
}

#[test]
fn among_fifty_nodes_only_the_slots_of_those_move_that_come_and_go() {
    let mut world = founded(50);
    let all: Vec<NodeId> = (1..=50).collect();
    let most = (SLOTS * 110).div_ceil(100 * 50);
    assert!(all.iter().all(|node| (1..=most).contains(&world.owned(*node))));
    let owners =
        |world: &World| -> Vec<NodeStart> { world.table.rows().iter().map(|row| row.owner).collect() };
    let before = owners(&world);
    let gone = world.owned(7);
    let others: Vec<NodeId> = all.iter().copied().filter(|node| *node != 7).collect();
    world.pass(3100, &others);
    world.settle();
    assert_eq!(world.owned(7), 0);
    // The load bound shifts a few more, by plan.
    let changed = before.iter().zip(owners(&world)).filter(|(before, after)| **before != *after).count();
    assert!((gone..=gone + SLOTS / 20).contains(&changed), "{changed} of {gone}");
    world.pass(1000, &all);
    world.settle();
    world.pass(1000, &all);
    world.settle();
    assert_eq!(owners(&world), before, "each has what it had");
}

#[test]
fn a_node_that_drains_owns_nothing_in_the_end() {
    let mut world = founded(3);
    world.draining.insert(start(2));
    assert!(world.settle() > 1000);
    assert_eq!(world.owned(2), 0);
    world.draining.clear();
    world.pass(100, &[1, 2, 3]);
    world.settle();
    world.pass(1000, &[1, 2, 3]);
    assert!(world.settle() > 1000);
}

#[test]
fn a_move_that_takes_too_long_is_given_up_with_its_targets_consent() {
    let mut world = founded(2);
    world.draining.insert(start(2));
    let Some(Step::Write(entry)) = world.next() else { panic!() };
    world.table.apply(9, LEADERSHIP, &entry);
    assert_eq!(world.next(), None);
    world.pass(4100, &[1, 2]);
    let Some(Step::Refuse { target, moves }) = world.next() else { panic!() };
    assert_eq!((target, moves.len()), (start(1), BATCH));
    assert_eq!(moves[0].id, 9);
}
