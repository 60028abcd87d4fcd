//! Shares of buckets whose owner is lost.

use super::*;

#[test]
fn shares_are_given_out_only_by_who_can_know_that_an_owner_is_lost() {
    let world = World::owning();
    world.watch(0, 1000);
    assert_eq!(shares_since(&world, at(900)), None, "it has just begun");
    assert_eq!(shares_since(&world, at(1000)), Some(at(1000)));
    assert_eq!(shares_since(&world, at(14_000)), None, "it was stopped, and nobody has noticed yet");
    world.ownership.watch(at(14_000));
    let question = world.ownership.ask(at(14_100));
    world.ownership.grant(question, 1, at(14_100));
    world.watch(14_200, 15_000);
    assert_eq!(shares_since(&world, at(14_900)), None, "its links may not be back");
    assert_eq!(shares_since(&world, at(15_000)), Some(at(15_000)));
    // Without a quorum.
    world.watch(20_000, 23_000);
    assert_eq!(shares_since(&world, at(23_000)), None);
    world.watch(23_000, 23_400);
    assert_eq!(shares_since(&world, at(23_400)), Some(at(23_200)));
}

#[test]
fn who_has_just_begun_gives_out_shares_when_it_knows_who_owns_what_and_its_links_are_there() {
    let world = |granted: Option<u64>, linked: Option<u64>| {
        let mut world = World {
            ownership: SlotOwnership::new(start(2), SessionTiming::of(LENGTH), at(0)),
            table: Table::default(),
            index: 0,
        };
        world.ownership.set_share(0, Some(2), at(0));
        for millis in (0..6000).step_by(100) {
            world.ownership.watch(at(millis));
            if granted == Some(millis) {
                let question = world.ownership.ask(at(millis));
                world.ownership.grant(question, 1, at(millis));
                // It learns what it was granted for, and has to apply that first.
                world.write(&Entry::Assign(vec![start(1); SLOTS]), at(millis));
                let question = world.ownership.ask(at(millis));
                world.ownership.grant(question, 1, at(millis));
            }
            if linked == Some(millis) {
                world.ownership.links_begin(at(millis));
            }
        }
        shares_since(&world, at(6000))
    };
    assert_eq!(world(Some(300), None), Some(at(1000)));
    assert_eq!(world(Some(1900), None), Some(at(2000)), "the table was an old one until then");
    assert_eq!(world(None, None), Some(at(3100)), "without a quorum");
    assert_eq!(world(Some(300), Some(2000)), Some(at(3000)));
    assert_eq!(world(None, Some(2500)), Some(at(3500)));
}

#[test]
fn a_grant_after_a_stop_does_not_let_shares_count_from_before_it() {
    let world = World::owning();
    world.watch(0, 1000);
    world.watch(14_000, 16_000);
    assert_eq!(shares_since(&world, at(15_900)), None);
    let question = world.ownership.ask(at(15_900));
    world.ownership.grant(question, 1, at(15_900));
    world.watch(16_000, 16_200);
    assert_eq!(shares_since(&world, at(16_100)), Some(at(16_000)));
}

#[test]
fn shares_of_a_slot_without_a_session_count_from_when_no_new_leader_has_granted_one() {
    let mut world = World::owning();
    let session = SessionTiming::of(LENGTH).node;
    assert_eq!(world.ownership.lapsed_since(), at(0).saturating_add(session * 2));
    for to in [2, 1] {
        let lapsed = vec![start(3 - to)];
        let slots = vec![(slot().get(), start(to))];
        world.write(&Entry::Expire { leadership: LEADERSHIP, lapsed, slots }, at(8000));
    }
    assert!(world.claim(Consistency::Strict, at(8001)).is_err());
    assert_eq!(
        world.ownership.lapsed_since(),
        at(8000).saturating_add(session),
        "another has decided until then"
    );
}
