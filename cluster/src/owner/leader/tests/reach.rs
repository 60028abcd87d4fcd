//! A leader whom others do not reach.

use super::*;

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
