//! Rules and overrides that are in force for a time.

#![cfg(feature = "yaml")]
#![allow(clippy::unwrap_used, reason = "tests")]

use smallvec::SmallVec;
use tidegate_limiter::{
    Nanos,
    cluster::{Match, Rules},
    rules::HashSecret,
};

const TEXT: &str = "
domain: default
unmatched: deny
block: [{ when: { user: mallory }, until: 2026-12-01T00:00:00Z }]
rules:
  - { name: sale, key: [user], limit: 5/1m, from: '2026-11-27T00:00:00Z', until: 2026-11-30T00:00:00+01:00 }
  - name: api
    key: [user]
    when: { path: /api }
    limit: 10/1m
    overrides: [{ when: { plan: gold }, limit: 100/1m, until: 2026-12-24T00:00:00Z }]
";
/// 2026-11-27T00:00:00Z.
const FIRST: u64 = 1_795_737_600;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> Nanos {
    Nanos::new(seconds * 1_000_000_000)
}

fn rules(text: &str) -> Rules {
    Rules::from_yaml(text, &HashSecret::new([7; 16])).unwrap()
}

fn found(rules: &Rules, request: &[(&str, &str)], seconds: u64) -> Vec<String> {
    let mut found = SmallVec::new();
    let outcome = rules.matching_at("default", request, at(seconds), &mut found);
    assert_eq!(outcome == Match::Rules, !found.is_empty());
    found.iter().map(|one| format!("{} {}", one.rule.name(), one.limit.unwrap())).collect()
}

#[test]
fn a_rule_is_about_requests_from_its_first_instant_until_its_last() {
    let rules = rules(TEXT);
    let request = [("user", "ada")];
    // Until midnight in a zone that is an hour ahead.
    let until = FIRST + 3 * DAY - 3_600;
    for (seconds, expected) in [(FIRST - 1, false), (FIRST, true), (until - 1, true), (until, false)] {
        assert_eq!(found(&rules, &request, seconds) == ["sale 5/1m"], expected, "{seconds}");
    }
    let mut changed = SmallVec::new();
    rules.buckets("default", &request[..], &mut changed);
    assert_eq!(changed.len(), 1, "its buckets can be reset whenever");
}

#[test]
fn an_override_that_is_over_leaves_its_requests_to_the_rule() {
    let rules = rules(TEXT);
    let request = [("user", "ada"), ("path", "/api"), ("plan", "gold")];
    let christmas = FIRST + 27 * DAY;
    assert_eq!(found(&rules, &request, christmas - 1), ["api 100/1m"]);
    assert_eq!(found(&rules, &request, christmas), ["api 10/1m"]);
    let mut refunded = SmallVec::new();
    rules.matching_unblocked_at("default", &request[..], at(christmas), &mut refunded);
    assert_eq!(refunded[0].limit.unwrap().count(), 10);
}

#[test]
fn what_is_over_is_told_and_what_would_never_be_is_refused() {
    let rules = rules(TEXT);
    assert!(rules.over(at(FIRST)).is_empty());
    let over = rules.over(at(FIRST + 40 * DAY));
    assert_eq!(over.len(), 3, "{over:?}");
    assert!(over[0].contains("\"sale\" is over since 2026-11-29T23:00:00"), "{over:?}");
    assert!(over[1].contains("override of \"api\" for plan=gold"), "{over:?}");
    for (fields, expected) in [
        ("from: 2026-12-01T00:00:00Z, until: 2026-12-01T00:00:00Z", "not after `from`"),
        ("until: tomorrow", "no instant"),
        ("until: 2026-12-01", "no instant"),
        ("until: [1]", "must be a text"),
    ] {
        let text = format!("rules:\n  - {{ name: r, key: [], limit: 1/1s, {fields} }}\n");
        let errors = Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap_err();
        assert!(errors.len() == 1 && errors[0].message.contains(expected), "{fields}: {errors:?}");
    }
    let described = rules.describe("default");
    assert_eq!(described.rules[0].from.as_deref(), Some("2026-11-27T00:00:00Z"));
    assert_eq!(described.rules[1].overrides[0].until.as_deref(), Some("2026-12-24T00:00:00Z"));
}

#[test]
fn a_limit_says_when_it_ends_whichever_of_rule_and_override_ends_first() {
    let rules = rules(TEXT);
    let until = |request: &[(&str, &str)], seconds: u64| {
        let mut found = SmallVec::new();
        rules.matching_at("default", request, at(seconds), &mut found);
        found.iter().map(|one| (one.rule.name(), one.until())).collect::<Vec<_>>()
    };
    let (sale, christmas) = (FIRST + 3 * DAY - 3_600, FIRST + 27 * DAY);
    let gold = [("user", "ada"), ("path", "/api"), ("plan", "gold")];
    assert_eq!(until(&gold, FIRST), [("sale", Some(at(sale))), ("api", Some(at(christmas)))]);
    assert_eq!(until(&gold, christmas), [("api", None)]);
    assert_eq!(until(&gold[..2], FIRST), [("sale", Some(at(sale))), ("api", None)]);
    let both = "rules: [{ name: r, key: [user], limit: 5/1m, until: 2026-11-28T00:00:00Z, \
                overrides: [{ when: { plan: gold }, limit: 9/1m, until: 2026-12-24T00:00:00Z }] }]";
    let both = self::rules(both);
    let mut found = SmallVec::new();
    both.matching_at("default", &gold[..], at(FIRST), &mut found);
    assert_eq!(found[0].until(), Some(at(FIRST + DAY)));
}
