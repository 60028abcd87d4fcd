//! Limits that are others have buckets that are others: what one admits changes nothing of what another admits.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Limiter, Nanos, NewRule,
    cluster::{Charge, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode, Period},
};

const START: Nanos = Nanos::new(1_800_000_007_000_000_000);
const DAY: u64 = 86_400_000;

fn secret() -> HashSecret {
    HashSecret::new([7; 16])
}

fn at(millis: u64) -> Nanos {
    START.saturating_add(Duration::from_millis(millis))
}

/// A day of the calendar, where the algorithm has one.
fn parse(text: &str, algorithm: Algorithm) -> Limit {
    let text = if algorithm.has_calendar() { text.to_owned() } else { text.replace("day", "1d") };
    Limit::parse(&text, None, algorithm).unwrap()
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, START)
}

fn rules(fields: &str) -> Rules {
    Rules::from_yaml(&format!("rules: [{{ name: r, key: [user], {fields} }}]"), &secret()).unwrap()
}

/// What ada's request is charged, on a path.
fn charge(rules: &Rules, path: &str, cost: u64) -> Charge {
    let mut found = SmallVec::new();
    rules.matching("default", &[("user", "ada"), ("path", path)][..], &mut found);
    let (rule, limit) = (found[0].rule.id(), *found[0].limit.unwrap());
    Charge {
        key: found[0].key,
        rule,
        limit,
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    }
}

fn inline(key: &str, limit: Limit, cost: u64) -> Charge {
    let key = Rules::empty(&secret()).inline_key("default", key, &limit);
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

const SEARCH: &str = "limit: 1000/1d, overrides: [{ when: { path: /search }, limit: 5/1s }]";

#[test]
fn a_check_under_a_short_override_forgets_nothing_of_the_rule_s_own_log() {
    let (rules, store) = (rules(&format!("algorithm: sliding_log, {SEARCH}")), store());
    assert!(store.check(&charge(&rules, "/", 1_000), START).allowed);
    for cost in [0, 9, 1] {
        store.check(&charge(&rules, "/search", cost), at(2_000));
        assert!(!store.check(&charge(&rules, "/", 1), at(2_000)).allowed, "after a check with cost {cost}");
    }
    store.sweep(at(60_000));
    assert!(!store.check(&charge(&rules, "/", 1), at(60_000)).allowed);
    assert!(store.check(&charge(&rules, "/", 1_000), at(DAY)).allowed);
}

#[test]
fn a_check_under_a_short_limit_of_its_own_forgets_nothing_of_a_long_one() {
    let store = store();
    let (long, short) = (parse("1000/1d", Algorithm::SlidingLog), parse("5/1s", Algorithm::SlidingLog));
    assert!(store.check(&inline("k", long, 1_000), START).allowed);
    for cost in [0, 9, 1] {
        store.check(&inline("k", short, cost), at(2_000));
        store.sweep(at(2_000));
        assert!(!store.check(&inline("k", long, 1), at(4_000)).allowed, "after a check with cost {cost}");
    }
}

#[test]
fn an_override_that_refills_quickly_does_not_launder_a_key_that_was_let_go_of() {
    let fields =
        "limit: 5/1d, on_memory_full: strict, overrides: [{ when: { path: /cheap }, limit: 100/1s }]";
    let rules = rules(fields);
    let store = Store::new(StoreConfig { max_memory: 512 << 10, shards: 16 }, START);
    store.set_rules(&rules);
    let of = |path: &str, user: u64, cost: u64| {
        let mut found = SmallVec::new();
        let user = user.to_string();
        rules.matching("default", &[("user", &*user), ("path", path)][..], &mut found);
        Charge { key: found[0].key, limit: *found[0].limit.unwrap(), ..charge(&rules, path, cost) }
    };
    // As many as there is room for and some more, each exhausted.
    let exhausted = |user: &u64| store.check(&of("/", *user, 5), START).allowed;
    let exhausted: Vec<u64> = (0..60_000).filter(exhausted).collect();
    assert!(store.stats().folded > 0 && exhausted.len() > 1_000, "{:?}", store.stats());
    let mut admitted = 0;
    for user in exhausted {
        store.check(&of("/cheap", user, 1), at(10));
        admitted += u64::from(store.check(&of("/", user, 1), at(20)).allowed);
    }
    assert_eq!(admitted, 0, "of keys that have had their five of the day");
}

fn key(fields: &str, path: &str) -> KeyHash {
    charge(&rules(fields), path, 1).key
}

#[test]
fn an_override_s_bucket_is_known_by_its_condition_and_not_by_its_numbers_or_its_place() {
    for algorithm in Algorithm::ALL {
        let of = |rest: &str| format!("algorithm: {algorithm}, limit: 9/1m, {rest}");
        let a = |limit: &str| of(&format!("overrides: [{{ when: {{ path: /a }}, limit: {limit} }}]"));
        let place = |fields: &str, path| key(fields, path).place();
        assert_eq!(place(&a("20/1m"), "/a"), place(&a("3/1m"), "/a"), "{algorithm}: another count");
        assert_ne!(key(&a("20/1m"), "/a"), key(&a("20/1m"), "/"), "{algorithm}");
        assert_eq!(key(&a("20/1m"), "/"), key(&of(""), "/"), "{algorithm}: the rule's own stays");
        // The rule's own limit changes.
        let slower = a("20/1m").replace("9/1m", "8/1m");
        assert_eq!(key(&slower, "/a"), key(&a("20/1m"), "/a"), "{algorithm}");
        // The same limit: the same bucket.
        assert_eq!(key(&a("9/1m"), "/a"), key(&a("9/1m"), "/"), "{algorithm}");
        let order = |one: &str, other: &str| of(&format!("overrides: [{one}, {other}]"));
        let (one, two) = (
            "{ when: { path: [/a, /c*], user: '*' }, limit: 20/1m }",
            "{ when: { path: /b }, limit: 20/1m }",
        );
        let again = "{ when: { user: '*', path: [/c*, /a, /a] }, limit: 20/1m }";
        assert_eq!(
            key(&order(one, two), "/a"),
            key(&order(two, again), "/a"),
            "{algorithm}: written otherwise"
        );
        assert_eq!(key(&order(one, two), "/b"), key(&order(two, again), "/b"), "{algorithm}");
        assert_ne!(key(&order(one, two), "/a"), key(&order(one, two), "/b"), "{algorithm}: each has its own");
    }
    let burst =
        |burst| format!("limit: 9/1m, overrides: [{{ when: {{ path: /a }}, limit: 9/1m, burst: {burst} }}]");
    assert_ne!(key(&burst(20), "/a"), key(&burst(20), "/"));
    assert_eq!(key(&burst(9), "/a"), key(&burst(9), "/"));
    let carved = "limit: 9/1m, carved: true, overrides: [{ when: { path: /a }, limit: 90/1m }]";
    assert_eq!(key(carved, "/a").place(), key(&carved.replace("true", "false"), "/a").place());
    assert_eq!(key(carved, "/").place(), key(&carved.replace("true", "false"), "/").place());
    let day = "limit: 9/1d, overrides: [{ when: { path: /a }, limit: 9/day }]";
    let day = format!("algorithm: fixed_window, {day}");
    assert_eq!(key(&day, "/a"), key(&day, "/"), "windows of a day are those of the calendar");
}

#[test]
fn a_limit_that_comes_with_the_check_is_its_bucket() {
    let of = |text: &str, burst, algorithm| inline("k", Limit::parse(text, burst, algorithm).unwrap(), 1).key;
    let all: Vec<KeyHash> = Algorithm::ALL
        .into_iter()
        .flat_map(|algorithm| {
            let bursts = if algorithm.has_burst() { vec![None, Some(7), Some(8)] } else { vec![None] };
            let texts = ["5/1m", "6/1m", "5/1h", "6/1h"];
            texts
                .into_iter()
                .flat_map(move |text| bursts.clone().into_iter().map(move |burst| of(text, burst, algorithm)))
        })
        .chain([inline(
            "k",
            Limit::new(Algorithm::FixedWindow, 5, Period::from_first(Duration::from_secs(60)), None).unwrap(),
            1,
        )
        .key])
        .collect();
    for (place, one) in all.iter().enumerate() {
        assert!(!all[..place].contains(one), "number {place}");
    }
    let token = Algorithm::TokenBucket;
    assert_eq!(of("5/1m", None, token), of("5/60s", Some(5), token));
    assert_eq!(of("5/1d", None, token), of("5/24h", None, token));
    assert_eq!(of("5/1d", None, Algorithm::FixedWindow), of("5/day", None, Algorithm::FixedWindow));
}

#[test]
fn a_reset_forgets_all_buckets_that_a_key_has_in_the_rule() {
    for algorithm in Algorithm::ALL {
        let limit = |text: &str| parse(text, algorithm);
        let limiter = Limiter::builder()
            .rule(
                NewRule::new("r", limit("3/1d"))
                    .key("user")
                    .limit_when("path", ["/a"], limit("5/1d"))
                    .limit_when("path", ["/same"], limit("3/1d"))
                    .unlimited_when("path", ["/free"]),
            )
            .build()
            .unwrap();
        let ask =
            |user: &str, path: &str| limiter.check(&[("user", user), ("path", path)][..], Cost::ONE, START);
        let admitted = |user: &str, path: &str| (0..9).filter(|_| ask(user, path).allowed).count();
        for user in ["ada", "bob"] {
            assert_eq!(
                (admitted(user, "/"), admitted(user, "/a"), admitted(user, "/same")),
                (3, 5, 0),
                "{algorithm}"
            );
        }
        for asked in ["/", "/a", "/free", "/same"] {
            limiter.reset(&[("user", "ada"), ("path", asked)][..]);
            assert_eq!(
                (admitted("ada", "/"), admitted("ada", "/a")),
                (3, 5),
                "{algorithm}: reset at {asked}"
            );
            assert_eq!((admitted("bob", "/"), admitted("bob", "/a")), (0, 0), "{algorithm}");
        }
        // What is given back goes to the bucket of the limit that the request has.
        limiter.refund(&[("user", "ada"), ("path", "/a")][..], Cost::ONE, START);
        assert_eq!((admitted("ada", "/"), admitted("ada", "/a")), (0, 1), "{algorithm}");
    }
}

/// Limits that differ by count, by period, or by both.
fn pairs() -> impl Strategy<Value = (String, String)> {
    let limit = || (1u64..30, prop::sample::select(vec!["500ms", "1s", "10s", "1m", "1h", "day"]));
    (limit(), limit()).prop_filter("they differ", |(one, other)| one != other).prop_map(|(one, other)| {
        let text = |(count, period): (u64, &str)| format!("{count}/{period}");
        (text(one), text(other))
    })
}

fn steps() -> impl Strategy<Value = Vec<(u64, bool, u64)>> {
    let pause = prop_oneof![Just(0), 0u64..300, 0u64..5_000, 0u64..200_000];
    prop::collection::vec((pause, any::<bool>(), 0u64..12), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Each beside a limiter that knows of nothing else.
    #[test]
    fn checks_under_an_override_change_nothing_of_what_the_rule_admits_nor_the_other_way_round(
        pair in pairs(), steps in steps(),
    ) {
        for algorithm in Algorithm::ALL {
            let (base, other) = (parse(&pair.0, algorithm), parse(&pair.1, algorithm));
            let rule = |limit| NewRule::new("r", limit).key("user");
            let build = |rule| Limiter::builder().secret(secret()).rule(rule).build().unwrap();
            let both = build(rule(base).limit_when("path", ["/a"], other));
            let alone = [build(rule(base)), build(rule(other))];
            let mut now = 0;
            for &(pause, is_other, cost) in &steps {
                now += pause;
                let request = [("user", "ada"), ("path", if is_other { "/a" } else { "/" })];
                let cost = Cost::new(cost).unwrap();
                let said = |limiter: &Limiter| -> Decision { limiter.check(&request[..], cost, at(now)).rules()[0].decision };
                prop_assert_eq!(said(&both), said(&alone[usize::from(is_other)]), "{}", algorithm);
                if now % 7 == 0 {
                    both.sweep(at(now));
                }
            }
        }
    }

    #[test]
    fn checks_that_bring_one_limit_change_nothing_of_what_another_admits(pair in pairs(), steps in steps()) {
        for algorithm in Algorithm::ALL {
            let limits = [parse(&pair.0, algorithm), parse(&pair.1, algorithm)];
            let (both, alone) = (store(), [store(), store()]);
            let mut now = 0;
            for &(pause, is_other, cost) in &steps {
                now += pause;
                let charge = inline("k", limits[usize::from(is_other)], cost);
                let other = alone[usize::from(is_other)].check(&charge, at(now));
                prop_assert_eq!(both.check(&charge, at(now)), other, "{}", algorithm);
                if now % 7 == 0 {
                    both.sweep(at(now));
                }
            }
        }
    }
}
