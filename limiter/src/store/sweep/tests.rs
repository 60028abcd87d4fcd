use proptest::prelude::*;

use super::{Entry, Going};
use crate::{Algorithm, Charge, Cost, KeyHash, Limit, Mode, Nanos, RuleId, Store, StoreConfig};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

fn charge(key: u64, rule: u64) -> Charge {
    let key = KeyHash::from_raw(key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1);
    let limit = Limit::parse("20/1h", None, Algorithm::SlidingLog).unwrap();
    Charge {
        key,
        rule: RuleId::from_raw(rule),
        limit,
        cost: Cost::ONE,
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

#[test]
fn logs_go_in_batches_and_all_of_them_are_no_more_than_their_budget_and_a_little() {
    let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, START);
    let (mut batches, mut before) = (0_u64, 0);
    let flood = 100_000;
    for key in 0..flood {
        store.check(&charge(key, 2), START);
        let let_go = store.let_go[0].load(super::Relaxed);
        batches += u64::from(let_go > before);
        before = let_go;
        let log_bytes = store.log_bytes.load(super::Relaxed);
        assert!(log_bytes <= store.budget.log_bytes / 8 * 9, "{log_bytes} after {key}");
    }
    // Each shard has room for some 700 logs; of these 40 or more go at a time.
    assert!(before > flood / 2 && batches * 40 < flood, "{before} in {batches} batches");
    // Another rule gets its part while these wait for nobody to sweep.
    for key in flood..2 * flood {
        store.check(&charge(key, 4), START);
        let log_bytes = store.log_bytes.load(super::Relaxed);
        assert!(log_bytes <= store.budget.log_bytes / 8 * 9, "{log_bytes} after {key}");
    }
    let [one, other] = [2, 4].map(|rule| store.classes.log_bytes(store.classes.of(RuleId::from_raw(rule))));
    assert!(one > store.budget.log_bytes / 3 && other > store.budget.log_bytes / 3, "{one}, {other}");
}

/// Buckets of a rule each, all of them in one shard.
fn of_many_rules(count: u64) -> (Store, impl Fn(u64, u64) -> Charge) {
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 1024 }, START);
    let one = move |number: u64, cost| {
        let key = KeyHash::from_raw((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 10 & !1);
        let limit = Limit::parse("10/1h", None, Algorithm::TokenBucket).unwrap();
        let (rule, cost) = (RuleId::from_raw((number % count + 1) << 8), Cost::new(cost).unwrap());
        Charge { key, rule, limit, cost, mode: Mode::Enforce, floor: None, ban: None }
    };
    (store, one)
}

/// Found by review: with more rules than a shard has room for buckets, the part of each was none, and all were let go of.
#[test]
fn where_rules_are_more_than_buckets_fit_the_most_used_stay() {
    let (store, one) = of_many_rules(40);
    let exhausted = 3;
    (0..exhausted).for_each(|number| assert!(store.check(&one(number, 10), START).allowed));
    for number in exhausted..1_000 {
        assert!(store.check(&one(number, 1), START).allowed);
        assert!((0..exhausted).all(|number| !store.check(&one(number, 1), START).allowed), "{number}");
    }
    let most = super::budget::capacity(store.budget.max_slots) / 8 * 7;
    assert!(store.stats().buckets >= most && most < 40);
}

proptest! {
    #[test]
    fn all_the_room_is_used_and_of_each_class_the_most_used_stay(
        of in prop::collection::vec((0u16..12, 1u64..20), 1..200), part in 0usize..100,
    ) {
        let busy: Vec<Entry> = of.iter().map(|(class, state)| Entry { key: 1, class: *class, state: *state }).collect();
        let most = (busy.len() - 1) * part / 100;
        let mut going = Going::of(&busy, 16, most);
        let (gone, kept): (Vec<&Entry>, Vec<&Entry>) = busy.iter().partition(|entry| going.takes(entry));
        prop_assert_eq!(kept.len(), most);
        for (one, other) in gone.iter().flat_map(|one| kept.iter().map(move |other| (one, other))) {
            prop_assert!(one.class != other.class || one.state <= other.state);
        }
        for class in 0..12 {
            let count = |of: &[&Entry]| of.iter().filter(|entry| entry.class == class).count();
            let most_of_any = (0..12).map(|class| kept.iter().filter(|entry| entry.class == class).count()).max();
            prop_assert!(count(&gone) == 0 || count(&kept) + 1 >= most_of_any.unwrap_or(0), "equal parts");
        }
    }
}
