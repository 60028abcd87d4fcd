//! The leader in a world of values: members, their sessions, and a table that does what is written.

use super::*;
use crate::{ids::Weight, owner::table::SlotRow, slots::SLOTS};

const LENGTH: Duration = Duration::from_secs(3);
const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

struct World {
    leader: Leader,
    table: Table,
    shares: ShareTable,
    /// This node is the first, and alone has a vote, where a test says nothing else.
    voters: Vec<BTreeSet<NodeId>>,
    answered: BTreeMap<NodeId, Nanos>,
    members: BTreeMap<NodeId, MemberRow>,
    draining: BTreeSet<NodeStart>,
    index: u64,
    now: u64,
}

fn start(node: NodeId) -> NodeStart {
    NodeStart { node, incarnation: 1 }
}

fn row(id: NodeId, incarnation: u64) -> MemberRow {
    let peer = "127.0.0.1:7803".parse().unwrap();
    MemberRow {
        id,
        name: format!("n{id}"),
        incarnation,
        peer,
        zone: None,
        keeps: true,
        weight: Weight::default(),
    }
}

impl World {
    fn new(nodes: u64) -> Self {
        let mut world = Self {
            leader: Leader::new(SessionTiming::of(LENGTH)),
            table: Table::default(),
            shares: ShareTable::default(),
            voters: vec![BTreeSet::from([1])],
            answered: BTreeMap::new(),
            members: (1..=nodes).map(|id| (id, row(id, 1))).collect(),
            draining: BTreeSet::new(),
            index: 1,
            now: 1_000_000,
        };
        world.pass(0, &[]);
        world
    }

    fn now(&self) -> Nanos {
        Nanos::new(self.now * 1_000_000)
    }

    /// Lets time pass while these renew.
    fn pass(&mut self, millis: u64, live: &[NodeId]) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 500).min(end);
            self.leader.look(Some(LEADERSHIP), self.now());
            live.iter().for_each(|node| assert!(self.renew(start(*node))));
        }
        self.leader.look(Some(LEADERSHIP), self.now());
    }

    /// A node that has applied all of the log asks.
    fn renew(&mut self, start: NodeStart) -> bool {
        self.renew_from(start, self.index)
    }

    fn renew_from(&mut self, start: NodeStart, applied: u64) -> bool {
        self.leader.note_contact(start.node, applied, self.now());
        let Asked::Granting(granting) = self.leader.begin_grant(start, applied) else { return false };
        self.leader.granted(granting, Some(self.index), self.now())
    }

    fn takes_over_soon(&self) -> bool {
        self.leader.takes_over_soon(start(2), self.now())
    }

    /// What to do next beside shares, which are given at once.
    fn next(&mut self) -> Option<Step> {
        loop {
            match self.next_of_all() {
                Some(Step::Share(change)) => self.carry_out_shares(&change),
                other => return other,
            }
        }
    }

    fn carry_out_shares(&mut self, change: &ShareChange) {
        self.index += 1;
        let (members, before) = (&self.members, self.shares.clone());
        self.shares.apply(self.index, |id| members.contains_key(&id), change);
        assert_ne!(self.shares, before, "{change:?} changes nothing");
    }

    fn next_of_all(&mut self) -> Option<Step> {
        let view = View {
            me: 1,
            index: self.index,
            table: &self.table,
            shares: &self.shares,
            voters: &self.voters,
            answered: &self.answered,
            members: &self.members,
            draining: &self.draining,
            expected: self.members.len(),
        };
        let now = Nanos::new(self.now * 1_000_000);
        self.leader.next(view, now)
    }

    /// What is written is applied, and a move succeeds.
    fn carry_out(&mut self, entry: Entry) {
        self.index += 1;
        self.table.apply(self.index, LEADERSHIP, &entry);
        match entry {
            Entry::Prepare { slots, .. } => {
                assert!(slots.len() <= BATCH);
                let id = self.index;
                self.index += 1;
                let moves = slots.into_iter().map(|slot| SlotMove { slot, id }).collect();
                self.table.apply(self.index, LEADERSHIP, &Entry::Commit(moves));
            }
            Entry::Expire { lapsed, .. } => self.leader.expiry_is_over(&lapsed),
            _ => {}
        }
    }

    /// Does what the leader wants until it wants nothing more, with moves that all succeed. How many moved.
    fn settle(&mut self) -> usize {
        let mut moved = 0;
        while let Some(step) = self.next() {
            let Step::Write(entry) = step else { panic!("{step:?}") };
            if let Entry::Prepare { slots, .. } = &entry {
                moved += slots.len();
            }
            self.carry_out(entry);
        }
        moved
    }

    fn owned(&self, node: NodeId) -> usize {
        self.table.rows().iter().filter(|row| row.owner == start(node)).count()
    }
}

fn founded(nodes: u64) -> World {
    let mut world = World::new(nodes);
    let all: Vec<NodeId> = (1..=nodes).collect();
    assert_eq!(world.next(), None, "nobody has a session");
    world.pass(500, &all);
    world.settle();
    assert_eq!(world.table.rows().len(), SLOTS);
    world
}

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
fn a_silent_node_keeps_its_slots_until_its_session_must_have_ended() {
    let mut world = founded(3);
    world.pass(3000, &[1, 2]);
    world.settle();
    assert!(world.owned(3) > 1000, "they move neither by plan nor by force");
    world.pass(100, &[1, 2]);
    world.settle();
    assert_eq!(world.owned(3), 0);
    assert!(world.table.rows().iter().all(|row| row.owner == start(1) || row.owner == start(2)));
}

#[test]
fn a_new_leader_waits_as_long_as_any_session_may_last() {
    let mut world = founded(3);
    let next = Leadership { term: 2, leader: 1 };
    world.leader.look(Some(next), world.now());
    for step in 1..=30u64 {
        world.now += 100;
        world.leader.look(Some(next), world.now());
        assert!(world.renew(start(1)));
        assert_eq!(world.next(), None, "after {step} tenths of a second");
    }
    world.now += 60;
    world.leader.look(Some(next), world.now());
    let Some(Step::Write(Entry::Expire { lapsed, .. })) = world.next() else {
        panic!("it should take the slots of the silent nodes now")
    };
    assert_eq!(lapsed, [start(2), start(3)]);
}

#[test]
fn who_is_being_expired_is_granted_nothing_and_who_is_being_granted_is_not_expired() {
    let mut world = founded(3);
    world.pass(3060, &[1, 2]);
    let Asked::Granting(granting) = world.leader.begin_grant(start(3), world.index) else { panic!() };
    assert_eq!(world.next(), None);
    assert!(!world.leader.granted(granting, None, world.now()));
    assert!(matches!(world.next(), Some(Step::Write(Entry::Expire { .. }))));
    assert_eq!(world.leader.begin_grant(start(3), world.index), Asked::Never);
    world.leader.expiry_is_over(&[start(3)]);
    assert!(matches!(world.leader.begin_grant(start(3), world.index), Asked::Granting(_)));
}

/// Review H11: the expiry is in the log, not committed, and a grant of this reign is not bound to it.
#[test]
fn who_is_being_expired_stays_so_when_the_leader_is_stopped_and_leads_on() {
    let mut world = founded(3);
    world.pass(3060, &[1, 2]);
    assert!(matches!(world.next(), Some(Step::Write(Entry::Expire { .. }))));
    world.now += 1_600;
    world.leader.look(Some(LEADERSHIP), world.now());
    assert_eq!(world.leader.begin_grant(start(3), world.index), Asked::Never);
    assert!(world.renew(start(2)), "the others ask as always");
    // A grant that was under way when the leader was stopped is forgotten, and another reign begins with nothing.
    world.leader.look(Some(Leadership { term: 2, leader: 1 }), world.now());
    assert!(matches!(world.leader.begin_grant(start(3), world.index), Asked::Granting(_)));
}

/// The same, when what became of it is known only after the stop, or never.
#[test]
fn an_expiry_from_before_a_stop_is_settled_like_any_other() {
    let mut world = founded(3);
    world.pass(3060, &[1, 2]);
    let Some(Step::Write(entry)) = world.next() else { panic!() };
    world.index += 1;
    world.table.apply(world.index, LEADERSHIP, &entry);
    world.now += 1_600;
    world.leader.look(Some(LEADERSHIP), world.now());
    assert!(!world.renew(start(3)));
    world.pass(3_100, &[1, 2]);
    let Some(Step::Write(Entry::Expire { lapsed, slots, .. })) = world.next() else { panic!() };
    assert_eq!((&lapsed[..], slots.len()), (&[start(3)][..], 0));
    world.leader.expiry_is_over(&lapsed);
    assert!(world.renew(start(3)));
}

/// Review H7: a node asks, and does not apply what it was granted for.
#[test]
fn a_node_that_applies_nothing_more_loses_its_session_in_the_usual_time_and_gets_one_when_it_goes_on() {
    let mut world = founded(3);
    let stuck = world.index;
    world.carry_out(Entry::Succeed(Vec::new()));
    assert!(world.renew_from(start(3), stuck), "it is bound to what was written since");
    for _ in 0..6 {
        world.pass(500, &[1, 2]);
        assert!(!world.renew_from(start(3), stuck));
    }
    world.pass(100, &[1, 2]);
    assert_eq!(world.leader.begin_grant(start(3), stuck), Asked::Behind(stuck + 1));
    world.settle();
    assert_eq!(world.owned(3), 0);
    assert!(!world.renew_from(start(3), stuck), "also when it is expired");
    let caught_up = world.index;
    assert!(world.renew_from(start(3), caught_up));
    for _ in 0..2 {
        world.pass(1_000, &[1, 2, 3]);
        world.settle();
    }
    assert!(world.owned(3) > 1000);
}

#[test]
fn a_new_leader_gives_nothing_more_to_a_node_that_applies_nothing() {
    let mut world = founded(3);
    world.pass(3_100, &[1, 2]);
    world.settle();
    let stuck = 1;
    let next = Leadership { term: 2, leader: 1 };
    world.leader.look(Some(next), world.now());
    for step in 0..20 {
        world.now += 300;
        world.leader.look(Some(next), world.now());
        assert!(world.renew(start(1)) && world.renew(start(2)));
        assert_eq!(world.renew_from(start(3), stuck), step == 0, "it is not known before it has asked once");
        world.settle();
        assert_eq!(world.owned(3), 0);
    }
}

/// Six nodes, five of which vote. The leader sends to all of them and they answer; what they ask for does not arrive.
fn six() -> World {
    let mut world = founded(6);
    world.voters = vec![BTreeSet::from([1, 2, 3, 4, 5])];
    world
}

/// Half a second in which all answer the leader, and these reach it.
fn pass_answered(world: &mut World, reaching: &[NodeId]) {
    world.pass(500, reaching);
    world.answered = (2..=6).map(|node| (node, world.now())).collect();
}

/// Review H2.
#[test]
fn a_leader_that_a_quorum_of_voters_does_not_reach_expires_nobody_and_resigns() {
    for reaching in [&[1][..], &[1, 2], &[1, 2, 6]] {
        let mut world = six();
        let mut passed = 0;
        let reason = loop {
            match world.next() {
                None => {}
                Some(Step::Resign(reason)) => break reason,
                Some(other) => panic!("{other:?}"),
            }
            pass_answered(&mut world, reaching);
            passed += 500;
            assert!(passed <= 3_500, "{reaching:?}");
        };
        assert!(reason.contains("quorum"), "{reason}");
        assert!(passed >= 3_000, "{passed} ms");
        assert!(world.owned(2) > 0 && world.owned(6) > 0);
    }
    let mut world = six();
    for _ in 0..20 {
        pass_answered(&mut world, &[1, 2, 3, 6]);
        world.settle();
    }
    assert_eq!((world.owned(4), world.owned(5)), (0, 0), "a quorum reaches it: they are the fault");
}

/// It can have nothing written, so nothing is lost; and nobody knows that another would do better.
#[test]
fn a_leader_that_nobody_answers_neither_resigns_nor_expires() {
    let mut world = six();
    for _ in 0..20 {
        world.pass(500, &[1]);
        let step = world.next();
        let takes = matches!(step, Some(Step::Resign(_) | Step::Write(Entry::Expire { .. })));
        assert!(!takes, "it would take slots, or leave");
    }
}

/// A quorum of voters has open connections, and new ones are refused to all others.
#[test]
fn a_leader_that_most_members_do_not_reach_resigns_once_before_it_takes_it_for_their_fault() {
    let mut world = founded(9);
    world.voters = vec![BTreeSet::from([1, 2, 3, 4, 5])];
    let reaching = [1, 2, 3, 4];
    let mut resigned = 0;
    for round in 0..40 {
        world.pass(500, &reaching);
        world.answered = (2..=9).map(|node| (node, world.now())).collect();
        match world.next() {
            Some(Step::Resign(reason)) => {
                assert!(reason.contains("members"), "{reason}");
                resigned += 1;
                // It is elected again all the same.
                world.leader.look(None, world.now());
            }
            Some(Step::Write(Entry::Expire { lapsed, .. })) => {
                assert_eq!((resigned, lapsed.len()), (1, 5), "in round {round}");
                return;
            }
            None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
    panic!("for ever");
}

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
    let end = world.now + super::super::shares::RELEASE_AFTER.as_millis() as u64;
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
    let late = super::super::shares::RELEASE_AFTER.as_millis() as u64;
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

#[test]
fn a_node_that_started_again_takes_over_from_the_one_that_it_was_at_once() {
    let mut world = founded(1);
    world.members.insert(1, row(1, 2));
    let again = NodeStart { node: 1, incarnation: 2 };
    assert_eq!(world.next(), None, "it has no session yet");
    assert!(world.renew(again));
    let Some(Step::Write(Entry::Expire { lapsed, slots, .. })) = world.next() else { panic!() };
    assert_eq!((lapsed, slots.len()), (vec![start(1)], SLOTS));
    assert!(slots.iter().all(|(_, to)| *to == again));
}

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

/// Seed 6 of the simulation: the leader could not write for some seconds, and the expiry was carried out later.
#[test]
fn an_expiry_whose_end_is_not_known_does_not_keep_the_node_out_for_ever() {
    let mut world = founded(3);
    world.pass(3_500, &[1, 2]);
    let Some(Step::Write(entry)) = world.next() else { panic!() };
    assert!(!world.renew(start(3)), "it is being expired");
    // Nobody says that it was written, but it was.
    world.index += 1;
    world.table.apply(world.index, LEADERSHIP, &entry);
    assert!(!world.renew(start(3)));
    let Some(Step::Write(Entry::Expire { lapsed, slots, .. })) = world.next() else { panic!() };
    assert_eq!((&lapsed[..], slots.len()), (&[start(3)][..], 0));
    world.leader.expiry_is_over(&lapsed);
    assert!(world.renew(start(3)));
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

/// Found by starting a node under another boot id: when the log named its later start, the session of the earlier one was forgotten,
/// and its slots went to others at once.
#[test]
fn the_session_of_an_earlier_start_lasts_though_the_log_names_a_later_one_that_has_none() {
    let mut world = founded(3);
    world.pass(300, &[1, 2, 3]);
    world.members.insert(3, row(3, 2));
    let expires = |world: &mut World| matches!(world.next(), Some(Step::Write(Entry::Expire { .. })));
    for _ in 0..10 {
        world.pass(300, &[1, 2]);
        assert!(!expires(&mut world), "the earlier start may run elsewhere");
    }
    let mut waited = 0;
    while !expires(&mut world) {
        waited += 1;
        assert!(waited < 10, "it has lapsed");
        world.pass(300, &[1, 2]);
    }
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

#[test]
fn a_leader_expects_to_take_slots_only_while_it_can_write_that_and_somebody_can_have_them() {
    let mut world = World::new(3);
    world.pass(1_000, &[1, 2, 3]);
    assert!(!world.takes_over_soon(), "it waits for a whole session");
    world.pass(3_000, &[1, 2, 3]);
    assert!(world.takes_over_soon());
    // Nobody renews: there is nobody to take anything.
    world.pass(4_000, &[]);
    assert!(!world.takes_over_soon());
    world.pass(500, &[1]);
    assert!(world.takes_over_soon());
    // What it writes is not applied: no quorum of disks.
    let index = world.index;
    for waited in 0..10 {
        world.leader.note_log(index + 1 + waited, index, world.now());
        assert_eq!(world.takes_over_soon(), waited < 3, "after {waited} times half a second");
        world.pass(500, &[1]);
    }
    assert_eq!(world.next(), None, "it writes nothing more");
    world.leader.note_log(index + 20, index + 1, world.now());
    assert!(world.takes_over_soon(), "it goes on");
    // The others' sessions ended long ago; whoever asks hears of it first.
    world.table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(2); 4096]));
    world.index += 20;
    let mut waited = 0;
    while !matches!(world.next(), Some(Step::Write(Entry::Expire { .. }))) {
        waited += 1;
        assert!(waited < 50, "the slots are taken over");
        world.leader.note_log(world.index, world.index, world.now());
        world.pass(100, &[1]);
    }
    assert!((11..13).contains(&waited), "{waited} tenths of a second");
}

/// Found by review: each stall began the notice anew, and a node that had crashed kept its slots for as long as they went on.
#[test]
fn entries_that_wait_too_long_again_and_again_do_not_put_off_a_takeover() {
    for fine in [0, 300] {
        let mut world = founded(3);
        let mut expired = false;
        let mut pass = |world: &mut World, written: u64, applied: u64| {
            world.leader.note_log(written, applied, world.now());
            expired |= matches!(world.next(), Some(Step::Write(Entry::Expire { .. })));
            world.pass(100, &[1, 2]);
        };
        for _ in 0..5 {
            let index = world.index;
            for _ in 0..15 {
                pass(&mut world, index + 1, index);
            }
            world.index += 1;
            // The next entry is there when this one is applied, or a moment later.
            for _ in 0..fine / 100 {
                pass(&mut world, index + 1, index + 1);
            }
        }
        assert!(expired, "{fine} ms after each stall of 1.5 s");
    }
}
