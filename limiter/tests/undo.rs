//! What is undone was never charged: the store beside a second one in which it indeed never was.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, Floor, HoldId, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period},
};

const START: u64 = 1_800_000_007_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START))
}

fn charge(limit: Limit, cost: u64) -> Charge {
    let key = KeyHash::from_raw(0x9e37_79b9_7f4a_7c15);
    Charge {
        key,
        rule: RuleId::INLINE,
        limit,
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

fn hold(store: &Store, charges: &[Charge], now: Nanos) -> (bool, Option<HoldId>) {
    store.hold(charges, now, now.saturating_add(Duration::from_secs(3600)), &mut SmallVec::new())
}

/// One thing that was done to the bucket, and whether it has been undone.
#[derive(Clone, Copy)]
struct Deed {
    at: u64,
    cost: u64,
    floor: Option<u64>,
    undone: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The model forgets the undone charges and replays all others, admitted as they were, from the start.
    #[test]
    fn an_undone_charge_was_never_made(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        steps in prop::collection::vec(
            (prop_oneof![Just(0), 0u64..SECOND, 0u64..8 * SECOND], 1u64..12, 0u8..10,
             any::<prop::sample::Index>(), prop::option::weighted(0.05, 0u64..30 * SECOND)),
            1..60),
    ) {
        let limit = Limit::new(algorithm, 20, Period::Fixed(Duration::from_secs(10)), None).unwrap();
        let store = store();
        let (mut now, mut done, mut open) = (START, Vec::<Deed>::new(), Vec::<(HoldId, usize)>::new());
        for (pause, cost, what, which, floor) in steps {
            now += pause;
            let floor = floor.map(|ago| now - ago);
            let one = Charge { floor: floor.map(|at| Floor::empty_at(Nanos::new(at))), ..charge(limit, cost) };
            let deed = Deed { at: now, cost, floor, undone: false };
            match what {
                0..3 => if !open.is_empty() {
                    let (id, place) = open.swap_remove(which.index(open.len()));
                    store.undo(id, Nanos::new(now));
                    done[place].undone = true;
                },
                3 => { store.sweep(Nanos::new(now)); }
                4 => if !open.is_empty() {
                    let (id, _) = open.swap_remove(which.index(open.len()));
                    store.settle(id);
                    store.undo(id, Nanos::new(now));
                },
                5..7 => if store.check(&one, Nanos::new(now)).allowed {
                    done.push(deed);
                },
                _ => if let (true, id) = hold(&store, &[one], Nanos::new(now)) {
                    open.push((id.unwrap(), done.len()));
                    done.push(deed);
                },
            }
            let without = self::store();
            for deed in done.iter().filter(|deed| !deed.undone) {
                let floor = deed.floor.map(|at| Floor::empty_at(Nanos::new(at)));
                let replayed = without.check(&Charge { floor, ..charge(limit, deed.cost) }, Nanos::new(deed.at));
                prop_assert!(replayed.allowed, "with fewer charges all others pass too");
            }
            let look = |store: &Store| store.check(&charge(limit, 0), Nanos::new(now));
            let (here, there) = (look(&store), look(&without));
            prop_assert!(here.remaining <= there.remaining, "{} > {}", here.remaining, there.remaining);
            // What a floor says of a sliding window stays true when the charge that brought it is undone.
            if algorithm != Algorithm::SlidingWindow || done.iter().all(|deed| deed.floor.is_none()) {
                prop_assert_eq!(here.remaining, there.remaining);
                prop_assert_eq!(here.reset_after, there.reset_after);
            }
        }
    }
}

#[test]
fn what_ran_full_in_between_does_not_come_back() {
    let limit = Limit::parse("10/10s", None, Algorithm::TokenBucket).unwrap();
    let store = store();
    let at = |seconds: u64| Nanos::new(START + seconds * SECOND);
    let (_, first) = hold(&store, &[charge(limit, 5)], at(0));
    let (_, second) = hold(&store, &[charge(limit, 5)], at(0));
    store.undo(first.unwrap(), at(0));
    assert!(store.check(&charge(limit, 10), at(60)).allowed, "the bucket ran full");
    store.undo(second.unwrap(), at(60));
    assert_eq!(store.check(&charge(limit, 0), at(60)).remaining, 0);
}

#[test]
fn more_holds_than_can_be_kept_are_charged_and_stay() {
    let limit = Limit::parse("1000000/1h", None, Algorithm::TokenBucket).unwrap();
    let store = store();
    let now = Nanos::new(START);
    let holds: Vec<_> = (0..10_000).map(|_| hold(&store, &[charge(limit, 1)], now)).collect();
    assert!(holds.iter().all(|(allowed, _)| *allowed));
    let open: Vec<HoldId> = holds.into_iter().filter_map(|(_, id)| id).collect();
    assert!(open.len() < 10_000 && open.len() == store.stats().holds);
    open.iter().for_each(|id| store.undo(*id, now));
    let given_back = 10_000 - (1_000_000 - store.check(&charge(limit, 0), now).remaining);
    assert!(given_back <= open.len() as u64 && given_back > 0);

    // A deadline that has passed makes room.
    assert!(hold(&store, &[charge(limit, 1)], now.saturating_add(Duration::from_secs(4000))).1.is_some());
}

#[test]
fn a_reset_or_refunded_bucket_gets_nothing_back() {
    for algorithm in Algorithm::ALL {
        let limit = Limit::parse("10/10s", None, algorithm).unwrap();
        let store = store();
        let now = Nanos::new(START);
        let (_, id) = hold(&store, &[charge(limit, 6)], now);
        store.refund(charge(limit, 0).key, &limit, Cost::new(6).unwrap(), now);
        assert!(store.check(&charge(limit, 8), now).allowed);
        store.undo(id.unwrap(), now);
        assert_eq!(store.check(&charge(limit, 0), now).remaining, 2, "{algorithm}");
        let (_, id) = hold(&store, &[charge(limit, 2)], now);
        store.reset(charge(limit, 0).key);
        assert!(store.check(&charge(limit, 9), now).allowed);
        store.undo(id.unwrap(), now);
        assert_eq!(store.check(&charge(limit, 0), now).remaining, 1, "{algorithm}");
    }
}

#[test]
fn holds_past_their_deadline_are_closed_in_small_steps_by_sweeping_and_by_new_holds() {
    let limit = Limit::parse("1000000/1h", None, Algorithm::TokenBucket).unwrap();
    let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, Nanos::new(START));
    let now = Nanos::new(START);
    while hold(&store, &[charge(limit, 1)], now).1.is_some() {}
    let open = store.stats().holds;
    assert!(open > 500, "{open}");

    let later = now.saturating_add(Duration::from_secs(4000));
    assert!(hold(&store, &[charge(limit, 1)], later).1.is_some());
    let left = store.stats().holds;
    assert!((1..200).contains(&(open - left)), "{left} of {open}");
    for _ in 0..left {
        store.sweep(later);
    }
    assert_eq!(store.stats().holds, 1, "the last one is still open");
}

/// Found by review: holds were counted, and a hold of a check with many limits takes as much memory as many others.
#[test]
fn what_can_be_undone_is_bounded_by_charges_and_what_is_beyond_stays() {
    let limit = Limit::parse("1000/1h", None, Algorithm::TokenBucket).unwrap();
    let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, Nanos::new(START));
    let now = Nanos::new(START);
    let one = |check: u64, place: u64| {
        let key = (check * 50 + place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1;
        Charge { key: KeyHash::from_raw(key), ..charge(limit, 1) }
    };
    let check = |check| (0..50).map(|place| one(check, place)).collect::<Vec<_>>();
    let holds: Vec<_> = (0..100).map_while(|number| hold(&store, &check(number), now).1).collect();
    assert_eq!(holds.len(), (16 << 20) / 32 / 512 / 50);
    let beyond = holds.len() as u64;
    assert!(hold(&store, &check(99), now).0, "it is allowed all the same");
    store.undo(holds[0], now);
    let left = |number: u64| store.check(&Charge { cost: Cost::PEEK, ..one(number, 7) }, now).remaining;
    assert_eq!((left(0), left(beyond), left(99)), (1_000, 999, 999));
    assert!(hold(&store, &check(0), now).1.is_some(), "and there is room again");
}
