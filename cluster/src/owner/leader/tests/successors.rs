//! Who takes a lost owner's slots.

use super::*;

fn successors(world: &World) -> Vec<Option<NodeStart>> {
    world.table.rows().iter().map(|row| row.successor.map(|next| next.node)).collect()
}

#[test]
fn each_slot_has_a_successor_and_goes_to_it_when_the_owner_is_lost() {
    let mut world = founded(3);
    let named = successors(&world);
    assert!(world.table.rows().iter().all(|row| row.successor.is_some_and(|next| next.node != row.owner)));
    world.pass(3100, &[1, 2]);
    let Some(Step::Write(Entry::Expire { slots, .. })) = world.next() else { panic!() };
    assert!(slots.len() > 1000);
    assert!(slots.iter().all(|(slot, to)| named[usize::from(*slot)] == Some(*to)));
    world.settle();
    world.pass(1000, &[1, 2]);
    world.settle();
    assert!(world.table.rows().iter().all(|row| {
        let next = row.successor.unwrap().node;
        next != row.owner && next != start(3)
    }));
}

#[test]
fn the_successor_stands_in_another_zone() {
    let mut world = World::new(4);
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        world.members.get_mut(&node).unwrap().zone = Some(zone.to_owned());
    }
    world.pass(500, &[1, 2, 3, 4]);
    world.settle();
    let is_elsewhere = |row: &SlotRow| (row.owner.node <= 2) != (row.successor.unwrap().node.node <= 2);
    assert!(world.table.rows().iter().all(is_elsewhere));
}

#[test]
fn who_starts_again_is_a_successor_again_and_who_drains_is_none() {
    let mut world = founded(3);
    world.members.insert(3, row(3, 2));
    let again = NodeStart { node: 3, incarnation: 2 };
    assert!(world.renew(again));
    world.settle();
    let named =
        |world: &World, one: NodeStart| successors(world).iter().filter(|next| **next == Some(one)).count();
    assert_eq!(named(&world, start(3)), 0);
    world.pass(1000, &[1, 2]);
    assert!(world.renew(again));
    world.settle();
    assert!(named(&world, again) > 1000);
    world.draining.insert(start(1));
    world.settle();
    for _ in 0..3 {
        world.pass(300, &[1, 2]);
        assert!(world.renew(again));
    }
    world.settle();
    assert_eq!((world.owned(1), named(&world, start(1))), (0, 0));
}

#[test]
fn who_started_again_and_knows_nothing_leaves_its_slots_to_the_successors_that_it_had_told() {
    let mut world = founded(3);
    let named = successors(&world);
    world.members.insert(3, MemberRow { keeps: false, ..row(3, 2) });
    for _ in 0..3 {
        world.pass(400, &[1, 2]);
        world.settle();
    }
    let of_three = |world: &World| -> Vec<usize> {
        let rows = world.table.rows().iter().enumerate();
        rows.filter(|(_, row)| row.owner == start(3)).map(|(slot, _)| slot).collect()
    };
    let lost = of_three(&world);
    assert!(lost.len() > 1000 && lost.iter().all(|slot| successors(&world)[*slot] == named[*slot]));
    assert!(world.renew(NodeStart { node: 3, incarnation: 2 }));
    let Some(Step::Write(Entry::Expire { slots, .. })) = world.next() else { panic!() };
    assert_eq!(slots.len(), lost.len());
    assert!(slots.iter().all(|(slot, to)| named[usize::from(*slot)] == Some(*to)));
}

#[test]
fn a_new_leader_waits_for_the_successors_of_who_knows_nothing() {
    let mut world = founded(3);
    let named = successors(&world);
    world.members.insert(3, MemberRow { keeps: false, ..row(3, 2) });
    world.leader.look(Some(Leadership { term: 2, leader: 1 }), world.now());
    assert!(world.renew(NodeStart { node: 3, incarnation: 2 }));
    assert!(world.renew(start(1)));
    let Some(Step::Write(Entry::Expire { slots, .. })) = world.next() else { panic!() };
    assert!(slots.iter().all(|(slot, to)| named[usize::from(*slot)] == Some(*to) && *to == start(1)));
}

/// Each has floors on its disk, and no successor has any more.
#[test]
fn after_a_crash_of_all_each_gets_its_own_slots_again() {
    let mut world = founded(3);
    let again = |node: NodeId| NodeStart { node, incarnation: 2 };
    for node in 1..=3 {
        world.members.insert(node, MemberRow { keeps: false, ..row(node, 2) });
    }
    world.leader.look(Some(Leadership { term: 2, leader: 1 }), world.now());
    (1..=3).for_each(|node| assert!(world.renew(again(node))));
    let Some(Step::Write(Entry::Expire { slots, .. })) = world.next() else { panic!() };
    assert_eq!(slots.len(), SLOTS);
    let owner = |slot: u16| world.table.rows()[usize::from(slot)].owner.node;
    assert!(slots.iter().all(|(slot, to)| *to == again(owner(*slot))));
}

#[test]
fn a_member_that_is_silent_for_a_moment_stays_the_successor() {
    let mut world = founded(3);
    let before = successors(&world);
    world.leader.look(Some(Leadership { term: 2, leader: 1 }), world.now());
    for _ in 0..4 {
        world.now += 500;
        world.leader.look(Some(Leadership { term: 2, leader: 1 }), world.now());
        assert!(world.renew(start(1)) && world.renew(start(2)));
        world.settle();
    }
    assert_eq!(successors(&world), before);
}
