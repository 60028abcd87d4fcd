//! A limit that changes: what was consumed stays, in units, and no wait is longer than the new limit needs to refill.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Nanos,
    cluster::{Charge, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

const START: Nanos = Nanos::new(1_800_000_007_000_000_000);

fn at(millis: u64) -> Nanos {
    START.saturating_add(Duration::from_millis(millis))
}

/// A node's store and rules, which change.
struct Node {
    store: Store,
    rules: Rules,
    secret: HashSecret,
}

impl Node {
    fn new(rule: &str) -> Self {
        let secret = HashSecret::new([7; 16]);
        let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, START);
        let mut node = Self { store, rules: Rules::empty(&secret), secret };
        node.change(rule, START);
        node
    }

    fn change(&mut self, rule: &str, now: Nanos) {
        self.rules = self.compiled(rule);
        self.store.set_limits(&self.rules, now);
    }

    fn compiled(&self, rule: &str) -> Rules {
        Rules::from_yaml(&format!("rules: [{{ name: r, key: [user], {rule} }}]"), &self.secret).unwrap()
    }

    fn charge_by(rules: &Rules, request: &[(&str, &str)], cost: u64) -> Charge {
        let mut found = SmallVec::new();
        rules.matching("default", request, &mut found);
        Charge {
            key: found[0].key,
            rule: found[0].rule.id(),
            limit: *found[0].limit.unwrap(),
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        }
    }

    fn check(&self, cost: u64, now: Nanos) -> Decision {
        self.store.check(&Self::charge_by(&self.rules, &[("user", "ada")], cost), now)
    }

    fn left(&self, now: Nanos) -> u64 {
        self.check(0, now).remaining
    }
}

const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];

fn rule(limit: &str, algorithm: Algorithm) -> String {
    format!("limit: {limit}, algorithm: {algorithm}")
}

#[test]
fn consumed_units_stay_from_any_limit_to_any_other() {
    for (from, to) in ALL.iter().flat_map(|from| ALL.map(|to| (*from, to))) {
        for (used, before, after, left) in [
            (3, "3/10m", "5/10m", 2),
            (20, "1000/1h", "10/1h", 0),
            (7, "10/1m", "10/1h", 3),
            (7, "10/1h", "100/1m", 93),
            (40, "50/1d", "1000/1h", 960),
        ] {
            let mut node = Node::new(&rule(before, from));
            assert!(node.check(used, START).allowed);
            node.change(&rule(after, to), START);
            assert_eq!(node.left(START), left, "{before} {from} -> {after} {to}");
            assert!(!node.check(left + 1, START).allowed, "{before} {from} -> {after} {to}");
            assert!(left == 0 || node.check(left, START).allowed);
        }
    }
}

#[test]
fn no_wait_is_longer_than_the_new_limit_needs_to_refill() {
    for algorithm in ALL {
        let mut node = Node::new(&rule("100/1d", algorithm));
        assert!(node.check(100, START).allowed);
        node.change(&rule("100/1m", algorithm), at(1_000));
        let denied = node.check(1, at(1_000));
        let most = if algorithm == Algorithm::SlidingWindow { 120 } else { 60 };
        let wait = denied.retry_after.unwrap();
        assert!(!denied.allowed && wait <= Duration::from_secs(most), "{algorithm}: {wait:?}");
        assert!(denied.reset_after <= Duration::from_secs(most), "{algorithm}: {:?}", denied.reset_after);
        assert!(node.check(1, at(1_000).saturating_add(wait)).allowed, "{algorithm}: the time comes true");
    }
}

#[test]
fn a_rollback_restores_what_was() {
    for algorithm in ALL {
        let mut node = Node::new(&rule("1000/1h", algorithm));
        assert!(node.check(20, START).allowed);
        node.change(&rule("10/1h", algorithm), START);
        assert_eq!(node.left(START), 0, "{algorithm}");
        node.change(&rule("1000/1h", algorithm), START);
        assert_eq!(node.left(START), 980, "{algorithm}");

        // Whoever has consumed a day does not get it once more by a minute that was a mistake.
        let mut node = Node::new(&rule("100/1d", algorithm));
        assert!(node.check(100, START).allowed);
        node.change(&rule("100/1m", algorithm), START);
        node.check(1, START);
        assert!(node.check(1, at(125_000)).allowed, "{algorithm}");
        node.store.sweep(at(130_000));
        node.change(&rule("100/1d", algorithm), at(190_000));
        assert!(!node.check(1, at(190_000)).allowed, "{algorithm}");
        assert!(node.check(1, at(2 * 86_400_000)).allowed, "{algorithm}");
    }
}

#[test]
fn a_bucket_that_was_full_again_is_found_under_the_limit_that_comes_back_as_it_is_now() {
    let mut node = Node::new("limit: 10/1s");
    assert!(node.check(10, START).allowed);
    node.change("limit: 10/1h", at(5_000));
    assert_eq!(node.left(at(5_000)), 10, "what has refilled is not consumed");
    assert!(node.check(10, at(5_000)).allowed);
    node.change("limit: 10/1s", at(5_000));
    assert_eq!(node.left(at(5_000)), 0, "the entry of before is still in the table, and says nothing");
    assert!(node.check(1, at(5_100)).allowed);
}

#[test]
fn nodes_with_older_and_newer_rules_count_together_wherever_they_ask() {
    for (before, after) in
        [("limit: 100/1h", "limit: 100/1d"), ("limit: 100/1h", "limit: 100/1h, algorithm: fixed_window")]
    {
        for told in [false, true] {
            let mut node = Node::new(before);
            let (older, newer) = (node.compiled(before), node.compiled(after));
            if told {
                node.change(after, START);
            }
            for (number, rules) in [&older, &newer].into_iter().cycle().take(100).enumerate() {
                let charge = Node::charge_by(rules, &[("user", "ada")], 1);
                assert!(node.store.check(&charge, START).allowed, "{before} -> {after}: {number}, {told}");
            }
            node.change(after, START);
            assert!(!node.check(1, START).allowed, "{before} -> {after}, {told}");
        }
    }
}

#[test]
fn several_rules_in_one_check_take_over_each_its_own() {
    let secret = HashSecret::new([7; 16]);
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, START);
    let rules = |limits: [&str; 3]| {
        let [a, b, c] = limits;
        let text = format!(
            "rules: [{{ name: a, key: [user], limit: {a} }}, {{ name: b, key: [user], limit: {b}, algorithm: sliding_log }}, {{ name: c, key: [user], limit: {c}, algorithm: fixed_window }}]"
        );
        let rules = Rules::from_yaml(&text, &secret).unwrap();
        store.set_limits(&rules, START);
        rules
    };
    let check = |rules: &Rules, cost: u64| {
        let mut found = SmallVec::new();
        rules.matching("default", &[("user", "ada")][..], &mut found);
        let charges: Vec<Charge> = found
            .iter()
            .map(|one| Charge {
                key: one.key,
                rule: one.rule.id(),
                limit: *one.limit.unwrap(),
                cost: Cost::new(cost).unwrap(),
                mode: Mode::Enforce,
                floor: None,
                ban: None,
            })
            .collect();
        let mut decisions = SmallVec::new();
        store.check_all(&charges, START, &mut decisions);
        decisions.iter().map(|one| one.remaining).collect::<Vec<_>>()
    };
    assert_eq!(check(&rules(["10/1m", "20/1m", "30/1m"]), 4), [6, 16, 26]);
    assert_eq!(check(&rules(["15/1h", "25/1h", "35/1h"]), 1), [10, 20, 30]);
}

#[test]
fn an_override_and_a_carved_part_keep_their_own_units_too() {
    let mut node = Node::new("limit: 100/1m, overrides: [{ when: { path: /export }, limit: 5/1h }]");
    let charge =
        |node: &Node, cost| Node::charge_by(&node.rules, &[("user", "ada"), ("path", "/export")], cost);
    assert!(node.store.check(&charge(&node, 4), START).allowed);
    assert!(node.check(50, START).allowed);
    node.change("limit: 200/1h, overrides: [{ when: { path: /export }, limit: 7/1d }]", START);
    assert_eq!(node.store.check(&charge(&node, 0), START).remaining, 3);
    assert_eq!(node.left(START), 150);
    node.change("limit: 200/1h, carved: true", START);
    assert_eq!(node.left(START), 100, "three quarters, less 50");
}

#[test]
fn the_same_windows_and_the_same_key_in_other_words_are_the_same_bucket() {
    let mut node = Node::new("limit: 10/1d, algorithm: fixed_window");
    assert!(node.check(4, START).allowed);
    node.change("limit: 10/day, algorithm: fixed_window", START);
    assert_eq!(node.left(START), 6);

    let keys = |order: &str| {
        let text = format!("rules: [{{ name: r, key: [{order}], limit: 5/1m }}]");
        let rules = Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap();
        Node::charge_by(&rules, &[("user", "ada"), ("path", "/")], 1).key
    };
    assert_eq!(keys("user, path"), keys("path, user"));
}

#[test]
fn a_reset_forgets_what_was_consumed_under_the_limits_before_too() {
    for (from, to) in ALL.iter().flat_map(|from| ALL.map(|to| (*from, to))) {
        let mut node = Node::new(&rule("10/1h", from));
        assert!(node.check(10, START).allowed);
        node.change(&rule("10/1d", to), START);
        let charge = Node::charge_by(&node.rules, &[("user", "ada")], 1);
        node.store.forget_former(&charge, START);
        node.store.reset(charge.key);
        assert_eq!(node.left(START), 10, "{from} -> {to}");
        node.change(&rule("10/1h", from), START);
        assert_eq!(node.left(START), 10, "{from} -> {to}, and back");
    }
}

#[test]
fn units_are_given_back_to_the_bucket_that_counts_now() {
    let mut node = Node::new("limit: 10/1h");
    assert!(node.check(10, START).allowed);
    node.change("limit: 10/1d", START);
    let charge = Node::charge_by(&node.rules, &[("user", "ada")], 4);
    node.store.take_over_former(&charge, START);
    node.store.refund(charge.key, &charge.limit, charge.cost, START);
    assert_eq!(node.left(START), 4);
}

#[test]
fn what_has_refilled_under_the_new_limit_stays_refilled_after_its_bucket_was_swept() {
    for algorithm in ALL {
        let mut node = Node::new(&rule("100/1d", algorithm));
        assert!(node.check(100, START).allowed);
        node.change(&rule("100/1m", algorithm), START);
        assert!(!node.check(1, START).allowed, "{algorithm}");
        let period = if algorithm == Algorithm::SlidingWindow { 120_000 } else { 60_000 };
        for round in 1..4 {
            let now = at(round * 5 * period);
            (0..40).for_each(|_| _ = node.store.sweep(now));
            assert_eq!(node.left(now), 100, "{algorithm}, round {round}");
            assert!(node.check(1, now).allowed, "{algorithm}, round {round}");
        }
        // And a rollback long after the mistake restores what was, though the mistake says nothing any more.
        let late = at(24 * period);
        (0..40).for_each(|_| _ = node.store.sweep(late));
        node.change(&rule("100/1d", algorithm), late);
        assert!(node.left(late) <= 2, "{algorithm}: {} left", node.left(late));
        let later = at(44 * period);
        assert!(node.left(later) <= 4, "{algorithm}: {} left", node.left(later));
    }
}

#[test]
fn a_rollback_that_is_first_asked_under_late_restores_what_was() {
    for algorithm in ALL {
        let mut node = Node::new(&rule("100/1d", algorithm));
        assert!(node.check(100, START).allowed);
        node.change(&rule("100/1m", algorithm), START);
        node.check(1, START);
        node.change(&rule("100/1d", algorithm), at(1_000));
        (0..40).for_each(|_| _ = node.store.sweep(at(600_000)));
        assert!(node.left(at(600_000)) <= 1, "{algorithm}: {} left", node.left(at(600_000)));
    }
}

#[test]
fn a_smaller_burst_of_the_same_pace_waits_no_longer_than_it_refills() {
    let mut node = Node::new("limit: 3600/1h");
    assert!(node.check(3_600, START).allowed);
    node.change("limit: 1/1s", START);
    let wait = node.check(1, START).retry_after.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    node.change("limit: 3600/1h", START);
    assert_eq!(node.left(START), 0);
}

#[test]
fn a_rule_with_many_limits_forgets_none_of_them() {
    let overrides = |period: &str| {
        let one = |number: u64| format!("{{ when: {{ path: /{number} }}, limit: {}/{period} }}", 10 + number);
        format!("limit: 5/1h, overrides: [{}]", (0..40).map(one).collect::<Vec<_>>().join(", "))
    };
    let mut node = Node::new(&overrides("1h"));
    let charge = |node: &Node, number: u64, cost| {
        let path = format!("/{number}");
        Node::charge_by(&node.rules, &[("user", "ada"), ("path", &path)], cost)
    };
    (0..40).for_each(|number| assert!(node.store.check(&charge(&node, number, 10), START).allowed));
    node.change(&overrides("1d"), START);
    for number in 0..40 {
        assert_eq!(node.store.check(&charge(&node, number, 0), START).remaining, number, "override {number}");
    }
}

/// Found with a real cluster: of a rule with 16 overrides the second change forgot what the first one had left.
#[test]
fn what_a_bucket_consumed_is_known_after_many_changes_however_many_overrides_there_are() {
    for (algorithm, count) in
        ALL.into_iter().flat_map(|algorithm| [0, 3, 16, 200].map(|count| (algorithm, count)))
    {
        let changed = |step: u64| {
            let one = |number: u64| {
                format!(
                    "{{ when: {{ path: /{number} }}, limit: {}/{}h }}",
                    1000 * step + 20 + number,
                    24 + step
                )
            };
            let overrides: Vec<String> = (0..count).map(one).collect();
            let own = rule(&format!("{}/{}h", 1000 * step + 10, 24 + step), algorithm);
            format!("{own}, overrides: [{}]", overrides.join(", "))
        };
        let mut node = Node::new(&changed(0));
        let of = |node: &Node, number: u64, cost| {
            let path = format!("/{number}");
            node.store.check(&Node::charge_by(&node.rules, &[("user", "ada"), ("path", &path)], cost), START)
        };
        (0..count).for_each(|number| assert!(of(&node, number, 20 + number).allowed));
        assert!(node.check(10, START).allowed);
        // A key that is asked for in between loses nothing either.
        for step in 1..=60 {
            node.change(&changed(step), START);
            if step == 30 && count > 1 {
                assert_eq!(of(&node, 1, 0).remaining, 1000 * step, "{algorithm}, {count} overrides");
            }
        }
        for number in 0..count {
            assert_eq!(of(&node, number, 0).remaining, 60_000, "{algorithm}, override {number} of {count}");
        }
        assert_eq!(node.left(START), 60_000, "{algorithm}, {count} overrides");
    }
}

#[test]
fn a_rule_that_was_removed_and_comes_back_has_what_was_consumed() {
    for algorithm in ALL {
        let mut node = Node::new(&rule("10/1h", algorithm));
        assert!(node.check(7, START).allowed);
        let none = Rules::from_yaml("rules: []", &node.secret).unwrap();
        node.store.set_limits(&none, at(1_000));
        node.change(&rule("20/1h", algorithm), at(2_000));
        assert_eq!(node.left(at(2_000)), 13, "{algorithm}");
    }
}

/// Of overrides with the same condition the second has the bucket of the first, from when that one is over.
#[test]
fn an_override_that_follows_one_with_the_same_condition_has_what_was_consumed() {
    let until = "2027-01-15T08:01:00Z";
    let text = format!(
        "limit: 100/1h, overrides: [{{ when: {{ path: /a }}, limit: 20/1h, until: \"{until}\" }}, {{ when: {{ path: /a }}, limit: 10/1d }}]"
    );
    let node = Node::new(&text);
    let check = |cost, now| {
        let mut found = SmallVec::new();
        node.rules.matching_at("default", &[("user", "ada"), ("path", "/a")][..], now, &mut found);
        let limit = *found[0].limit.unwrap();
        let charge = Node::charge_by(&node.rules, &[("user", "ada"), ("path", "/a")], cost);
        node.store.check(&Charge { key: found[0].key, limit, ..charge }, now)
    };
    assert_eq!(check(6, START).remaining, 14);
    let decision = check(0, at(60_000));
    assert_eq!((decision.limit, decision.remaining), (10, 4));
}

#[test]
fn a_node_that_is_told_of_former_limits_knows_what_comes_from_before() {
    let mut old = Node::new("limit: 10/1h");
    assert!(old.check(10, START).allowed);
    let mut joined = Node::new("limit: 20/1d");
    let mut moved = Vec::new();
    old.store.buckets(START, |_| true, |bucket| moved.push(bucket));
    moved.iter().for_each(|bucket| joined.store.take_over(bucket, START));
    let former = joined.compiled("limit: 10/1h");
    joined.store.add_former_limits(&former, START, START);
    assert_eq!(joined.left(START), 10);
    joined.change("limit: 10/1h", START);
    assert_eq!(joined.left(START), 0);
    old.change("limit: 10/1h", START);
}

/// Found by a review: of two states the larger number counted, which knew nothing of the window before.
#[test]
fn a_sliding_window_that_comes_back_in_its_next_window_has_what_both_say() {
    let midnight = Nanos::new(1_800_057_600_000_000_000);
    let at = |minutes: u64| midnight.saturating_add(Duration::from_secs(60 * minutes));
    let [day, hour] = ["1000/1d", "1000/1h"].map(|limit| rule(limit, Algorithm::SlidingWindow));
    // Whether the key is asked for in the hour of the change: else the other limit takes over what is left of the day.
    for (is_asked, least) in [(true, 60), (false, 55)] {
        let mut node = Node::new(&day);
        assert!(node.check(1000, at(23 * 60)).allowed);
        node.change(&hour, at(23 * 60 + 50));
        assert!(!is_asked || node.left(at(23 * 60 + 50)) == 0);
        assert!(node.check(1, at(25 * 60 + 30)).allowed);
        node.change(&day, at(25 * 60 + 40));
        let left = node.left(at(25 * 60 + 40));
        assert!((least..=69).contains(&left), "{left}");
        // Put aside once more, it is not forgotten either, nor counted twice.
        node.change(&hour, at(25 * 60 + 45));
        node.left(at(25 * 60 + 45));
        node.change(&day, at(25 * 60 + 50));
        let left = node.left(at(25 * 60 + 50));
        assert!((least..=75).contains(&left), "{left}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever limits a rule goes through within an instant: a change gives nothing back of what was consumed under the limit
    /// before, and a limit that comes back has no more left than it had.
    #[test]
    fn changes_give_nothing_back(
        steps in prop::collection::vec((0usize..6, prop::sample::select(ALL.to_vec()), 0u64..6), 1..24),
    ) {
        const LIMITS: [(&str, u64); 6] =
            [("10/1m", 10), ("10/1h", 10), ("7/1h", 7), ("25/1d", 25), ("3/100ms", 3), ("12/7m", 12)];
        let mut node = Node::new(&rule(LIMITS[0].0, Algorithm::TokenBucket));
        let (mut consumed, mut known) = (0, std::collections::HashMap::new());
        for (limit, algorithm, cost) in steps {
            let (text, count) = LIMITS[limit];
            node.change(&rule(text, algorithm), START);
            let left = node.left(START);
            prop_assert!(left <= count.saturating_sub(consumed), "{left} left of {text} {algorithm}, {consumed} consumed");
            let had = known.get(&(limit, algorithm)).copied().unwrap_or(count);
            prop_assert!(left <= had, "{left} left of {text} {algorithm}, it had {had}");
            node.check(cost, START);
            consumed = count - node.left(START);
            known.insert((limit, algorithm), node.left(START));
        }
    }

    /// The same at any instant. A limit that comes back has no more left than if it had been in force all the time, and charged
    /// with what was admitted under it.
    #[test]
    fn changes_give_nothing_back_at_any_time(
        steps in prop::collection::vec(
            (0usize..5, prop::sample::select(ALL.to_vec()), 0u64..12, prop::sample::select(vec![0u64, 7, 90, 900, 5_000, 40_000])),
            1..24,
        ),
    ) {
        const LIMITS: [(&str, u64); 5] =
            [("10/1h", 10), ("7/1h", 7), ("25/1d", 25), ("40/2h", 40), ("60/1d", 60)];
        let mut node = Node::new(&rule(LIMITS[0].0, Algorithm::TokenBucket));
        let mut alone: std::collections::HashMap<_, Node> = std::collections::HashMap::new();
        let (mut now, mut count, mut is_log) = (START, 10, false);
        for (limit, algorithm, cost, seconds) in steps {
            now = now.saturating_add(Duration::from_secs(seconds));
            // Logs of all periods are one, which knows how old each unit is.
            let was_log = std::mem::replace(&mut is_log, algorithm == Algorithm::SlidingLog);
            let consumed = if was_log && is_log { 0 } else { count - node.left(now).min(count) };
            let text = LIMITS[limit].0;
            count = LIMITS[limit].1;
            node.change(&rule(text, algorithm), now);
            let left = node.left(now);
            prop_assert!(left <= count.saturating_sub(consumed), "{left} left of {text} {algorithm}, {consumed} consumed");
            let same = alone.entry((limit, algorithm)).or_insert_with(|| Node::new(&rule(text, algorithm)));
            let most = same.left(now);
            prop_assert!(left <= most, "{left} left of {text} {algorithm}, alone {most}");
            if node.check(cost, now).allowed {
                same.check(cost, now);
            }
        }
    }
}

/// What a reset forgets, as a node does it.
fn reset(node: &Node, request: &[(&str, &str)], now: Nanos) -> Vec<String> {
    let (mut found, mut former) = (SmallVec::new(), SmallVec::new());
    node.rules.buckets("default", request, &mut found);
    node.store.former_buckets(&node.rules, "default", request, now, &mut former);
    let in_force = found.iter().map(|one| (one.key, *one.limit.unwrap()));
    let all: Vec<_> = in_force.chain(former.iter().map(|(one, limit)| (one.key, *limit))).collect();
    let rule = node.rules.rules("default")[0].id();
    for (key, limit) in &all {
        let charge = Charge {
            key: *key,
            rule,
            limit: *limit,
            cost: Cost::PEEK,
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        node.store.forget_former(&charge, now);
        node.store.reset(*key);
    }
    all.iter().map(|(_, limit)| limit.to_string()).collect()
}

#[test]
fn a_reset_forgets_what_was_consumed_where_a_rule_counts_nothing_now() {
    for algorithm in ALL {
        for nothing in ["limit: unlimited".to_owned(), format!("limit: deny, algorithm: {algorithm}")] {
            let mut node = Node::new(&rule("10/1h", algorithm));
            assert!(reset(&node, &[("user", "ada")], at(0)).len() == 1);
            assert!(node.check(10, at(1)).allowed);
            node.change(&rule("20/2h", algorithm), at(2));
            assert_eq!(node.left(at(3)), 10);
            node.change(&nothing, at(4));
            assert_eq!(reset(&node, &[("user", "bob")], at(5)), ["20/2h"], "{algorithm}: of another key");
            node.change(&rule("20/2h", algorithm), at(6));
            assert_eq!(node.left(at(7)), 10, "{algorithm}: what was not reset stays");
            node.change(&nothing, at(8));
            assert_eq!(reset(&node, &[("user", "ada")], at(9)), ["20/2h"], "{algorithm}");
            node.change(&rule("20/2h", algorithm), at(10));
            assert_eq!(node.left(at(11)), 20, "{algorithm}");
            node.change(&rule("10/1h", algorithm), at(12));
            assert_eq!(node.left(at(13)), 10, "{algorithm}: nor under the limit before");
        }
    }
}

#[test]
fn a_reset_forgets_what_an_override_counted_that_is_unlimited_now() {
    let with = |limit: &str| format!("limit: 10/1h, overrides: [{{ when: {{ path: x }}, limit: {limit} }}]");
    let request = [("user", "ada"), ("path", "x")];
    let mut node = Node::new(&with("4/1h"));
    let check = |node: &Node, cost, now| node.store.check(&Node::charge_by(&node.rules, &request, cost), now);
    assert!(check(&node, 4, at(0)).allowed);
    node.change(&with("unlimited"), at(1));
    assert_eq!(reset(&node, &request, at(2)), ["10/1h", "4/1h"]);
    node.change(&with("4/1h"), at(3));
    assert_eq!(check(&node, 0, at(4)).remaining, 4);
    assert_eq!(reset(&node, &request, at(5)), ["4/1h", "10/1h"], "what counts is not told twice");
}
