//! Sessions: who is granted one, and whose is over.

use super::*;

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
