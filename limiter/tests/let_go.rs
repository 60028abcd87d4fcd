//! What strict rules have let go of, where buckets come from other stores too: it counts for those that are not in memory, and
//! for these only.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Bucket, Charge, Held, KeyHash, LetGo, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn rules() -> Rules {
    let yaml = "rules:
  - { name: strict, key: [k], limit: 1000/1d, on_memory_full: strict }
  - { name: forgets, key: [k], limit: 1000/1d }
";
    Rules::from_yaml(yaml, &HashSecret::new([7; 16])).unwrap()
}

fn store(rules: &Rules) -> Store {
    let store = Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, START);
    store.set_rules(rules);
    store
}

fn charge(rules: &Rules, key: u64, limit: &str) -> Charge {
    Charge {
        key: KeyHash::from_raw((key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1),
        rule: rules.rules("default")[0].id(),
        limit: Limit::parse(limit, None, Algorithm::TokenBucket).unwrap(),
        cost: Cost::ONE,
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

fn debt(time: Duration) -> Held {
    Held::Debt(time.as_nanos() as u64 * 4)
}

#[test]
fn a_bucket_that_comes_after_marks_counts_as_it_is_and_not_as_the_most_used_that_was_let_go_of() {
    let rules = rules();
    let (from, to) = (store(&rules), store(&rules));
    let one = charge(&rules, 1, "1000/1d");
    to.take_over_let_go(&LetGo { rule: one.rule, held: debt(DAY) }, START);
    assert_eq!(from.check(&one, START).remaining, 999);
    from.buckets(START, |_| true, |bucket: Bucket| to.take_over(&bucket, START));
    assert_eq!(to.check(&one, START).remaining, 998);
    assert!(!to.check(&charge(&rules, 2, "1000/1d"), START).allowed, "that one may have been let go of");
}

#[test]
fn what_lies_beyond_a_limits_own_refill_time_because_it_is_a_floor_or_time_stood_still_is_assumed_too() {
    let rules = rules();
    let unheard = Duration::from_secs(5 * 86_400);
    // A floor runs a quantum ahead: a sixteenth of the burst, or one unit.
    for (limit, beyond) in [("1000/1d", DAY / 16), ("10/1d", DAY / 10), ("1/1d", DAY)] {
        for stood_still in [Duration::ZERO, unheard] {
            let store = store(&rules);
            let one = charge(&rules, 1, limit);
            let look = |at: Duration| store.check(&one, START.saturating_add(at));
            store.postpone(stood_still, START);
            let held = debt(DAY + beyond + stood_still);
            store.take_over_let_go(&LetGo { rule: one.rule, held }, START);
            assert!(!look(Duration::ZERO).allowed, "{limit}, {stood_still:?}");
            assert!(!look(stood_still + beyond).allowed, "{limit}, {stood_still:?}");
            assert!(look(stood_still + beyond + DAY).allowed, "{limit}, {stood_still:?}");
        }
    }
}

#[test]
fn what_only_another_limit_of_the_rule_can_owe_is_not_assumed_once_time_has_made_up_for_standing_still() {
    let rules = rules();
    let store = store(&rules);
    let short = charge(&rules, 1, "10/1m");
    let hour = Duration::from_secs(3_600);
    store.postpone(hour, START);
    let later = START.saturating_add(2 * hour);
    store.take_over_let_go(&LetGo { rule: short.rule, held: debt(DAY / 2) }, later);
    assert!(store.check(&short, later).allowed);
}
