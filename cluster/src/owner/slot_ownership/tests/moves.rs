//! Slots that move, and what is kept of slots.

use super::*;

#[test]
fn a_charge_during_a_move_is_sent_or_does_not_count() {
    let mut world = World::owning();
    let early = world.claim(Consistency::Available, at(1)).unwrap();
    let moves = world.begin_move();
    assert_eq!(moves.len(), 1);
    let late = world.claim(Consistency::Available, at(2)).unwrap();
    assert!(world.ownership.confirm(&early, key(), at(2)), "noted");
    assert!(world.ownership.confirm(&late, key(), at(2)));
    let (frozen, keys) = world.ownership.freeze(&moves);
    assert_eq!((frozen.len(), keys), (1, vec![key()]));
    assert!(!world.ownership.confirm(&late, key(), at(3)), "too late to be sent");
    assert_eq!(world.claim(Consistency::Available, at(3)).unwrap_err(), Unclaimed::Frozen);
    world.write(&Entry::Commit(moves), at(4));
    assert_eq!(world.claim(Consistency::Available, at(4)).unwrap_err(), Unclaimed::Elsewhere);
}

#[test]
fn a_claim_of_an_earlier_tenure_does_not_count() {
    let mut world = World::owning();
    let early = world.claim(Consistency::Available, at(1)).unwrap();
    for to in [2, 1] {
        let lapsed = vec![start(3 - to)];
        let slots = vec![(slot().get(), start(to))];
        world.write(&Entry::Expire { leadership: LEADERSHIP, lapsed, slots }, at(5));
    }
    let claim = world.claim(Consistency::Available, at(6)).unwrap();
    assert_eq!(claim.floor, Some(at(5)));
    assert!(!world.ownership.confirm(&early, key(), at(6)));
    assert!(world.ownership.confirm(&claim, key(), at(6)));
}

#[test]
fn who_has_given_away_what_it_knew_decides_nothing_whatever_the_log_says() {
    let mut world = World::owning();
    let claim = world.claim(Consistency::Available, at(1)).unwrap();
    assert_eq!(world.ownership.retire().len(), SLOTS);
    assert!(!world.ownership.confirm(&claim, key(), at(1)));
    assert_eq!(world.begin_move(), []);
    assert!(world.claim(Consistency::Available, at(2)).is_err());
}

#[test]
fn what_was_kept_counts_for_slots_that_nobody_owned_in_between() {
    let again = NodeStart { incarnation: 2, ..start(1) };
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let mine = slot().get();
    let other = (mine + 1) % SLOTS as u16;
    let expire = |lapsed: NodeStart, slot: u16, to: NodeStart| Entry::Expire {
        leadership: LEADERSHIP,
        lapsed: vec![lapsed],
        slots: vec![(slot, to)],
    };
    table.apply(2, LEADERSHIP, &expire(start(1), other, start(2)));
    table.apply(3, LEADERSHIP, &expire(start(2), other, again));
    table.apply(4, LEADERSHIP, &expire(start(1), mine, again));
    let ownership = SlotOwnership::new(again, SessionTiming::of(LENGTH), at(0));
    let saved = KeptBuckets { floor: 77, basis: None };
    let kept = KeptSlot { start: start(1), epoch: 1, saved: Some(saved), floors: None };
    let slots = [mine, other].map(|slot| (slot, kept.clone())).into();
    ownership.keep(Kept { slots, readers: Vec::new() });
    ownership.watch(at(0));
    ownership.observe(4, &Arc::new(table), at(5), NoBuckets);
    assert_eq!(world_floor(&ownership, slot()), Some(Nanos::new(77)));
    let other = SlotId::all().find(|slot| slot.get() == other).unwrap();
    assert_eq!(world_floor(&ownership, other), Some(at(5)));
}

fn world_floor(ownership: &SlotOwnership, slot: SlotId) -> Option<Nanos> {
    ownership.claim(slot, Consistency::Available, at(6)).unwrap().floor
}

#[test]
fn a_target_decides_as_soon_as_it_has_the_buckets() {
    let ownership = SlotOwnership::new(start(2), SessionTiming::of(LENGTH), at(0));
    ownership.watch(at(0));
    let mut world = World { ownership, table: Table::default(), index: 0 };
    world.write(&Entry::Assign(vec![start(1); SLOTS]), at(0));
    world.write(&Entry::Prepare { slots: vec![slot().get()], to: start(2) }, at(1));
    let one = SlotMove { slot: slot().get(), id: 2 };
    assert_eq!(world.ownership.install(one, 1, Some(at(0)), None, at(1)), Install::Now);
    let claim = world.claim(Consistency::Available, at(1)).unwrap();
    assert_eq!(claim.floor, Some(at(0)));
    world.write(&Entry::Commit(vec![one]), at(2));
    assert!(world.ownership.confirm(&claim, key(), at(2)), "the same tenure");
}

/// The order of marks and charges, with real threads: whatever counts was sent.
#[test]
fn no_charge_that_counts_is_missed_by_the_move() {
    use std::sync::atomic::AtomicU64;
    for _ in 0..200 {
        let mut world = World::owning();
        let bucket = AtomicU64::new(0);
        let counted = AtomicU64::new(0);
        let entry = Entry::Prepare { slots: vec![slot().get()], to: start(2) };
        world.index += 1;
        world.table.apply(world.index, LEADERSHIP, &entry);
        let table = Arc::new(world.table.clone());
        let (ownership, index) = (&world.ownership, world.index);
        let sent = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Ok(claim) = ownership.claim(slot(), Consistency::Available, at(1)) {
                        bucket.fetch_add(1, Relaxed);
                        if ownership.confirm(&claim, key(), at(1)) {
                            counted.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let moves = ownership.observe(index, &table, at(1), NoBuckets).send;
            let scanned = bucket.load(Relaxed);
            let (_, keys) = ownership.freeze(&moves);
            if keys.is_empty() { scanned } else { bucket.load(Relaxed) }
        });
        assert!(counted.load(Relaxed) <= sent, "{} counted, {sent} sent", counted.load(Relaxed));
    }
}

/// Found by a review: a member that named a slot that there is not had the call panic while it held the lock.
#[test]
fn moves_of_slots_that_there_are_not_are_refused() {
    let mut world = World::owning();
    for slot in [SLOTS as u16, SLOTS as u16 + 1, u16::MAX] {
        let one = SlotMove { slot, id: 1 };
        assert_eq!(world.ownership.awaits(&[one]), [Install::Never]);
        assert_eq!(world.ownership.install(one, 1, None, None, at(1)), Install::Never);
        let refusal = world.ownership.refuse(&[one]);
        assert!(refusal.refused.is_empty() && refusal.taken.is_empty());
        assert!(!world.ownership.is_moving(&[one]));
        assert!(world.ownership.freeze(&[one]).0.is_empty());
    }
    assert_eq!(world.begin_move().len(), 1, "it goes on");
}
