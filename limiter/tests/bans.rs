//! A key that exceeds its limit is denied for a time, longer each time, whatever else happens.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Barrier, thread, time::Duration};

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Limiter, Nanos, NewRule,
    cluster::{Ban, Bucket, Charge, Floor, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode, OnMemoryFull},
};

const START: u64 = 1_800_000_000_000_000_000;
const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];
/// Ends of bans are rounded down to so much: no answer tells more than the rule says.
const GRAIN: Duration = Duration::from_micros(33);

fn at(millis: u64) -> Nanos {
    Nanos::new(START + millis * 1_000_000)
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 16 << 20, shards: 16 }, at(0))
}

fn charge(limit: &str, algorithm: Algorithm, ban: Option<Ban>) -> Charge {
    let is_window = matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow);
    Charge {
        key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c14 | u64::from(is_window)),
        rule: RuleId::from_raw(8),
        limit: Limit::parse(limit, None, algorithm).unwrap(),
        cost: Cost::ONE,
        mode: Mode::Enforce,
        floor: None,
        ban,
    }
}

fn ban(first: u32, longest: u32) -> Option<Ban> {
    Some(Ban::of_seconds(first, longest).unwrap())
}

fn exhaust(store: &Store, charge: &Charge, now: Nanos) -> Decision {
    (0..100).map(|_| store.check(charge, now)).find(|decision| !decision.allowed).unwrap()
}

fn is_about(told: Option<Duration>, seconds: u64) -> bool {
    let seconds = Duration::from_secs(seconds);
    told.is_some_and(|told| (seconds - GRAIN..=seconds).contains(&told))
}

#[test]
fn a_key_that_exceeds_its_limit_is_denied_for_the_time_and_then_has_what_has_refilled() {
    for algorithm in ALL {
        let (store, charge) = (store(), charge("5/10s", algorithm, ban(60, 3600)));
        let denied = exhaust(&store, &charge, at(0));
        assert!(denied.banned && is_about(denied.retry_after, 60), "{algorithm:?}: {denied:?}");
        assert_eq!(denied.remaining, 0);
        // What comes meanwhile changes nothing of it, and tells what is left.
        for second in 1..60 {
            let decision = store.check(&charge, at(second * 1_000));
            assert!(!decision.allowed && is_about(decision.retry_after, 60 - second), "{decision:?}");
            let look = store.check(&Charge { cost: Cost::PEEK, ..charge }, at(second * 1_000));
            assert!(!look.allowed && look.remaining == 0 && look.banned, "{look:?}");
            assert_eq!(store.preview(&charge, at(second * 1_000)), decision, "{algorithm:?}");
        }
        let after = at(60_001);
        assert_eq!((0..5).filter(|_| store.check(&charge, after).allowed).count(), 5, "{algorithm:?}");
        assert_eq!(store.stats().bans, 1);
    }
}

#[test]
fn who_waits_as_long_as_told_is_not_banned_again() {
    for algorithm in ALL {
        // The limit takes longer to refill than the ban lasts.
        let (store, charge) = (store(), charge("2/1h", algorithm, ban(1, 4)));
        let mut now = at(0);
        for _ in 0..6 {
            let wait = exhaust(&store, &charge, now).retry_after.unwrap();
            now = now.saturating_add(wait);
            assert!(store.check(&charge, now).allowed, "{algorithm:?}");
        }
    }
}

#[test]
fn each_ban_is_twice_as_long_and_a_key_that_was_good_for_long_begins_anew() {
    let (store, charge) = (store(), charge("1/1s", Algorithm::TokenBucket, ban(10, 35)));
    let mut now = at(0);
    for expected in [10, 20, 35, 35] {
        let denied = exhaust(&store, &charge, now);
        assert!(is_about(denied.retry_after, expected), "{expected}: {denied:?}");
        now = now.saturating_add(denied.retry_after.unwrap() + Duration::from_secs(34));
    }
    // What was refilled is taken, and it is known for 35 s, or a 64th more.
    let again = exhaust(&store, &charge, now.saturating_add(Duration::from_secs(2)));
    assert!(is_about(again.retry_after, 10), "{again:?}");
}

#[test]
fn what_is_no_excess_bans_nobody() {
    for algorithm in ALL {
        let (store, asked) = (store(), charge("5/1h", algorithm, ban(60, 60)));
        let large = Charge { cost: Cost::new(6).unwrap(), ..asked };
        assert_eq!(store.check(&large, at(0)).retry_after, None, "more than there ever is");
        (0..5).for_each(|_| assert!(store.check(&asked, at(0)).allowed));
        let look = store.check(&Charge { cost: Cost::PEEK, ..asked }, at(0));
        assert!(!look.allowed && !look.banned, "{algorithm:?}: a look");
        assert!(!store.preview(&asked, at(0)).banned, "a preview");
        let watched = Charge { ban: None, mode: Mode::Shadow, ..asked };
        assert!(!store.check(&watched, at(0)).banned, "a rule in shadow mode");
        let large = store.check_all(&[asked, large], at(0), &mut SmallVec::new());
        assert!(!large && !store.check(&Charge { cost: Cost::PEEK, ..asked }, at(0)).banned);
        assert_eq!(store.stats().bans, 0, "{algorithm:?}");
    }
    // The owner was lost half an hour ago: what was consumed before is assumed, and what is added to that.
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::SlidingLog] {
        let store = store();
        let floor = Some(Floor::empty_at(at(0)));
        let assumed = Charge { floor, ..charge("5/1h", algorithm, ban(60, 60)) };
        for minute in 0..60 {
            assert!(
                !exhaust(&store, &assumed, at(minute * 60_000)).banned,
                "{algorithm:?} after {minute} min"
            );
        }
        let later = exhaust(&store, &assumed, at(3 * 3_600_000));
        assert!(later.banned, "{algorithm:?}: but not for ever");
    }
}

#[test]
fn a_check_that_another_rule_denies_bans_nobody_and_a_ban_takes_nothing_of_other_rules() {
    let store = store();
    let banning = charge("5/1h", Algorithm::TokenBucket, ban(60, 60));
    let other = Charge {
        key: KeyHash::from_raw(0x1357_9bdf_2468_ace0),
        limit: Limit::parse("3/1h", None, Algorithm::TokenBucket).unwrap(),
        ban: None,
        ..banning
    };
    let check = |charges: &[Charge]| {
        let mut decisions = SmallVec::new();
        (store.check_all(charges, at(0), &mut decisions), decisions)
    };
    assert_eq!((0..20).filter(|_| check(&[banning, other]).0).count(), 3);
    assert_eq!(store.stats().bans, 0, "the other rule has denied");
    let big = Charge { limit: Limit::parse("100/1h", None, Algorithm::TokenBucket).unwrap(), ..other };
    let big = Charge { key: KeyHash::from_raw(0x0246_8ace_1357_9bde), ..big };
    assert_eq!((0..20).filter(|_| check(&[big, banning]).0).count(), 2, "two were left");
    let (_, decisions) = check(&[big, banning]);
    assert!(decisions[0].allowed && !decisions[0].banned && decisions[1].banned);
    assert_eq!((decisions[0].remaining, store.stats().bans), (98, 1), "denied checks have taken nothing");
    // The same key twice in one check is one ban.
    let twice = Charge { key: KeyHash::from_raw(0x2222_2222_8888_4444), ..banning };
    (0..10).for_each(|_| _ = check(&[twice, twice]));
    assert_eq!(store.stats().bans, 2);
}

#[test]
fn checks_at_the_same_time_make_one_ban_of_one_excess() {
    for round in 0..20 {
        let (store, charge) = (store(), charge("100/1h", ALL[round % 5], ban(600, 3600)));
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    (0..100).for_each(|_| _ = store.check(&charge, at(0)));
                });
            }
        });
        assert_eq!(store.stats().bans, 1);
        let left = store.check(&charge, at(1_000)).retry_after.unwrap();
        // Its end is rounded down.
        assert!(left >= Duration::from_secs(599) - Duration::from_micros(33), "{left:?}");
    }
}

#[test]
fn a_reset_lifts_a_ban_and_forgets_it_and_a_rule_without_ban_does_not_see_it() {
    for algorithm in ALL {
        let (store, charge) = (store(), charge("5/1s", algorithm, ban(60, 3600)));
        assert!(is_about(exhaust(&store, &charge, at(0)).retry_after, 60));
        assert!(store.check(&Charge { ban: None, ..charge }, at(10_000)).allowed);
        assert!(!store.check(&charge, at(10_000)).allowed, "until the rule bans again");
        store.reset(charge.key);
        assert!(store.check(&charge, at(10_000)).allowed);
        assert!(is_about(exhaust(&store, &charge, at(10_000)).retry_after, 60), "not twice as long");
    }
}

#[test]
fn a_ban_goes_to_another_store_with_its_buckets_and_stays_when_limit_and_ban_change() {
    for algorithm in ALL {
        let (from, to) = (store(), store());
        let asked = charge("5/1s", algorithm, ban(600, 3600));
        exhaust(&from, &asked, at(0));
        let mut all: Vec<Bucket> = Vec::new();
        from.buckets(at(1), |_| true, |bucket| all.push(bucket));
        assert!(all.iter().all(|bucket| bucket.key.place() == asked.key.place()), "in the same slot");
        all.iter().for_each(|bucket| to.take_over(bucket, at(2)));
        all.iter().for_each(|bucket| to.take_over(bucket, at(2)));
        assert!(is_about(to.check(&asked, at(10_000)).retry_after, 590), "{algorithm:?}");
        let mut one = Vec::new();
        from.bucket(asked.key.of_ban(), at(1), |bucket| one.push(bucket));
        assert_eq!(one.len(), 1);
        // The rule says something shorter now: a ban that goes on ends by that.
        let shorter = Charge { ban: ban(5, 20), ..asked };
        assert!(is_about(to.check(&shorter, at(10_000)).retry_after, 20));
        assert!(is_about(to.check(&shorter, at(29_000)).retry_after, 1));
        assert!(to.check(&shorter, at(30_001)).allowed);
        // And it was the first: the next one is the second.
        let next = exhaust(&to, &shorter, at(30_001));
        assert!(is_about(next.retry_after, 10), "{next:?}");
    }
}

#[test]
fn a_rule_that_is_written_in_rust_bans_as_one_of_a_file_does() {
    let rule = |first, longest| {
        let [first, longest] = [first, longest].map(Duration::from_secs);
        NewRule::new("logins", Limit::per_second(2)).key("user").ban(first, longest)
    };
    let limiter = Limiter::builder().rule(rule(600, 3600)).build().unwrap();
    let check = |user: &str, now| limiter.check(&[("user", user)], Cost::ONE, now).rules()[0].decision;
    assert!((0..2).all(|_| check("ada", at(0)).allowed));
    assert!(is_about(check("ada", at(0)).retry_after, 600));
    assert!(check("ada", at(300_000)).banned && check("eve", at(300_000)).allowed);
    limiter.reset(&[("user", "ada")]);
    assert!(check("ada", at(300_000)).allowed);
    for (first, longest) in [(0, 60), (60, 30), (60, 367 * 86_400)] {
        assert!(Limiter::builder().rule(rule(first, longest)).build().is_err(), "{first} {longest}");
    }
}

#[test]
fn where_memory_is_full_bans_go_last_and_are_no_buckets_of_which_something_is_assumed() {
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 16 }, at(0));
    let text = "rules: [{ name: r, key: [k], limit: 5/1h, ban: 1h, on_memory_full: strict }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([7; 16])).unwrap();
    store.set_rules(&rules);
    let rule = &rules.rules("default")[0];
    assert_eq!(rule.on_memory_full(), OnMemoryFull::Strict);
    let of = |key: u64| Charge {
        key: KeyHash::from_raw(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1),
        rule: rule.id(),
        ban: rule.ban(),
        ..charge("5/1h", Algorithm::TokenBucket, None)
    };
    assert!(exhaust(&store, &of(0), at(0)).banned);
    (1..60_000).for_each(|key| _ = store.check(&of(key), at(0)));
    assert!(store.stats().folded > 1_000);
    assert!(store.check(&of(0), at(1_000)).banned);
    // Nobody is banned for what had to be assumed.
    let unseen: Vec<Decision> = (90_000..90_050).map(|key| exhaust(&store, &of(key), at(1_000))).collect();
    assert!(unseen.iter().all(|decision| !decision.banned), "{unseen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// In any order of checks, looks and pauses: what is admitted is within the limit, each ban that begins is as long as said and
    /// at most the longest, and nothing is admitted within it.
    #[test]
    fn a_ban_only_ever_denies_more(
        algorithm in prop::sample::select(ALL.to_vec()),
        first in 1u32..20,
        more in 0u32..60,
        steps in prop::collection::vec((0u64..4_000, 0u64..4), 1..120),
    ) {
        let (with, without) = (store(), store());
        let longest = first + more;
        let (asked, plain) =
            (charge("5/2s", algorithm, ban(first, longest)), charge("5/2s", algorithm, None));
        let (mut now, mut until, mut admitted) = (0, 0, Vec::new());
        for (pause, cost) in steps {
            now += pause;
            let cost = Cost::new(cost).unwrap();
            let bans = with.stats().bans;
            let decision = with.check(&Charge { cost, ..asked }, at(now));
            without.check(&Charge { cost, ..plain }, at(now));
            if decision.allowed {
                prop_assert!(at(now) >= Nanos::new(until), "within a ban");
                admitted.push((now, cost.get()));
            }
            if with.stats().bans > bans {
                let rest = decision.retry_after.unwrap();
                prop_assert!(decision.banned && at(now) >= Nanos::new(until));
                prop_assert!(rest + GRAIN >= Duration::from_secs(first.into()));
                prop_assert!(rest <= Duration::from_secs(longest.max(4).into()));
                until = at(now).saturating_add(Duration::from_secs(first.into())).get();
            }
        }
        // The loosest bound of all five algorithms.
        for (place, (from, _)) in admitted.iter().enumerate() {
            let within: u64 =
                admitted[place..].iter().filter(|(at, _)| *at < from + 2_000).map(|(_, cost)| cost).sum();
            prop_assert!(within <= 10, "{admitted:?}");
        }
    }
}
