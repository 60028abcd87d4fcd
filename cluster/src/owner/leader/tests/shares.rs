//! Who gives which share.

use super::*;

fn parts(world: &World) -> Vec<Option<u32>> {
    (1..=world.members.len() as NodeId).map(|node| world.shares.parts(node)).collect()
}

#[test]
fn all_members_have_the_same_share_whether_they_own_slots_or_not() {
    let mut world = founded(5);
    assert_eq!(parts(&world), [Some(5); 5]);
    world.draining.extend([3, 4, 5].map(start));
    world.settle();
    assert_eq!((world.owned(1) + world.owned(2), parts(&world)), (SLOTS, vec![Some(5); 5]));
    // One crashes, and is a member until it is removed.
    world.pass(3_100, &[1, 3, 4, 5]);
    world.settle();
    assert_eq!(parts(&world), [Some(5); 5]);
}

#[test]
fn a_joiner_has_a_share_when_each_other_member_has_applied_that_it_comes() {
    let mut world = founded(3);
    let before = world.index;
    world.members.insert(4, row(4, 1));
    world.next();
    assert_eq!(parts(&world), [Some(4), Some(4), Some(4), None]);
    world.pass(500, &[1, 2]);
    world.leader.note_contact(3, before, world.now());
    world.next();
    // Two have, and one may give a third for as long as it likes.
    assert_eq!(parts(&world), [Some(4), Some(4), Some(4), Some(6)]);
    world.leader.note_contact(3, world.index, world.now());
    world.next();
    assert_eq!(parts(&world), [Some(4); 4]);
    assert_eq!(world.next_of_all(), None, "that is all");
}

#[test]
fn the_share_of_a_removed_node_is_counted_until_it_must_have_stopped_giving_it() {
    let mut world = founded(3);
    world.pass(3_100, &[1, 2]);
    world.settle();
    world.members.remove(&3);
    world.members.insert(4, row(4, 1));
    for _ in 0..4 {
        world.pass(500, &[1, 2, 4]);
        world.settle();
    }
    // Three members, and the one that is gone, which may live on with a third.
    assert_eq!(world.shares.parts(3), Some(3));
    assert_eq!((world.shares.parts(1), world.shares.parts(4)), (Some(4), Some(6)));
    let end = world.now + crate::owner::shares::RELEASE_AFTER.as_millis() as u64;
    while world.now < end {
        world.pass(1_000, &[1, 2, 4]);
    }
    world.settle();
    world.pass(1_000, &[1, 2, 4]);
    world.settle();
    assert_eq!([1, 2, 3, 4].map(|node| world.shares.parts(node)), [Some(3), Some(3), None, Some(3)]);
}

#[test]
fn a_new_leader_counts_the_time_of_removed_nodes_anew() {
    let mut world = founded(2);
    world.pass(3_100, &[1]);
    world.settle();
    world.members.remove(&2);
    world.settle();
    let late = crate::owner::shares::RELEASE_AFTER.as_millis() as u64;
    world.now += late + 1_000;
    // It was stopped, which is the same.
    world.leader.look(Some(LEADERSHIP), world.now());
    assert!(world.renew(start(1)));
    world.settle();
    assert!(world.shares.parts(2).is_some());
}

#[test]
fn a_leader_that_was_stopped_counts_as_new() {
    let mut world = founded(3);
    world.now += 10_000;
    world.leader.look(Some(LEADERSHIP), world.now());
    assert!(world.renew(start(1)));
    assert_eq!(world.next(), None);
}
