//! Which rules are about a request: the compiled rules beside a reading of their words, and rules written in Rust.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Error, Limit, Limiter, LimiterBuilder, Nanos, NewRule,
    cluster::{Match, Rules, StoreConfig},
    rules::{HashSecret, Rule},
};

const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

/// What a pattern says, read word by word.
fn fits(pattern: &str, value: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => value.starts_with(prefix),
        None => pattern == value,
    }
}

fn holds(patterns: &[String], value: Option<&str>) -> bool {
    let (not, any): (Vec<&String>, Vec<&String>) =
        patterns.iter().partition(|pattern| pattern.starts_with('!'));
    let fits = |pattern: &str| value.is_some_and(|value| fits(pattern, value));
    (any.is_empty() || any.iter().any(|pattern| fits(pattern)))
        && !not.iter().any(|pattern| fits(&pattern[1..]))
}

#[derive(Debug, Clone)]
struct Words {
    when: BTreeMap<String, Vec<String>>,
    key: Vec<String>,
}

fn words() -> impl Strategy<Value = Words> {
    let attribute = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let pattern =
        "!?[xy]{0,2}\\*?".prop_filter("a pattern says something", |text| !text.is_empty() && text != "!");
    let when = prop::collection::btree_map(attribute(), prop::collection::vec(pattern, 1..4), 0..3);
    let key = prop::collection::btree_set(attribute(), 0..3).prop_map(|set| set.into_iter().collect());
    (when, key).prop_map(|(when, key)| Words { when, key })
}

proptest! {
    #[test]
    fn rules_mean_what_their_words_say(
        written in prop::collection::vec(words(), 1..20),
        requests in prop::collection::vec(prop::collection::btree_map("[abc]", "[xy]{0,3}", 0..4), 1..10),
    ) {
        let mut yaml = "rules:\n".to_owned();
        for (number, Words { when, key }) in written.iter().enumerate() {
            yaml.push_str(&format!("- {{name: r{number}, when: {when:?}, key: {key:?}, limit: 1/1s}}\n"));
        }
        let rules = Rules::from_yaml(&yaml, &HashSecret::new([7; 16])).map_err(|faults| {
            TestCaseError::fail(format!("{faults:?}\n{yaml}"))
        })?;
        for request in requests {
            let mut found = SmallVec::new();
            let outcome = rules.matching("default", &request, &mut found);
            let get = |name: &String| request.get(name).map(String::as_str);
            let expected: Vec<String> = written.iter().enumerate()
                .filter(|(_, words)| words.when.iter().all(|(name, patterns)| holds(patterns, get(name))))
                .filter(|(_, words)| words.key.iter().all(|name| request.contains_key(name)))
                .map(|(number, _)| format!("r{number}"))
                .collect();
            let names: Vec<&str> = found.iter().map(|one| one.rule.name()).collect();
            prop_assert_eq!(&names, &expected);
            prop_assert_eq!(outcome == Match::Rules, !expected.is_empty());
        }
    }

    /// Equal key values are one bucket, others are others; other attributes do not matter.
    #[test]
    fn a_bucket_is_its_key(one in "\\PC{0,8}", two in "\\PC{0,8}", other in "\\PC{0,8}") {
        let rules = Rules::from_yaml("rules: [{name: r, key: [k, l], limit: 1/1s}]", &HashSecret::new([7; 16])).unwrap();
        let key = |k: &str, l: &str, other: &str| {
            let mut found = SmallVec::new();
            rules.matching("default", &[("other", other), ("k", k), ("l", l)][..], &mut found);
            found[0].key
        };
        prop_assert_eq!(key(&one, &two, &other), key(&one, &two, ""));
        prop_assert_eq!(key(&one, &two, "") == key(&two, &one, ""), one == two);
        let joined = format!("{one}{two}");
        prop_assert_eq!(key(&one, &two, "") == key(&joined, "", ""), two.is_empty());
    }
}

fn limit(text: &str) -> Limit {
    Limit::parse(text, None, Algorithm::TokenBucket).unwrap()
}

#[test]
fn rules_written_in_rust_limit_as_they_say() {
    let limiter = Limiter::builder()
        .rule(NewRule::new("ip", limit("3/1h")).key("ip").unlimited_when("ip", ["10.0.0.0/8"]).limit_when(
            "plan",
            ["gold"],
            limit("5/1h"),
        ))
        .rule(NewRule::new("all", limit("6/1h")).when("path", ["/x/*"]))
        .rule(NewRule::new("seen", limit("1/1h")).shadow())
        .build()
        .unwrap();
    let admitted =
        |request: &[(&str, &str)]| (0..20).filter(|_| limiter.check(request, Cost::ONE, NOW).allowed).count();
    assert_eq!(admitted(&[("ip", "10.0.0.1")]), 20, "only the shadow rule is about it");
    assert_eq!(admitted(&[("ip", "1.1.1.1"), ("plan", "gold")]), 5);
    assert_eq!(admitted(&[("ip", "1.1.1.2"), ("path", "/x/y")]), 3);
    assert_eq!(admitted(&[("ip", "1.1.1.3"), ("path", "/x/y")]), 3);
    let denied = limiter.check(&[("ip", "1.1.1.4"), ("path", "/x/y")][..], Cost::ONE, NOW);
    assert!(!denied.allowed);
    assert_eq!(denied.binding().unwrap().rule.name(), "all", "not the shadow rule, which denies too");
    assert!(!denied.rules()[2].decision.allowed);
    let enforced: Vec<(&str, bool, u64)> = denied.rules()[..2]
        .iter()
        .map(|ruled| (ruled.rule.name(), ruled.decision.allowed, ruled.decision.remaining))
        .collect();
    assert_eq!(enforced, [("ip", true, 3), ("all", false, 0)], "a denied request costs nothing");

    limiter.refund(&[("ip", "1.1.1.3"), ("path", "/x/y")][..], Cost::ONE, NOW);
    assert_eq!(admitted(&[("ip", "1.1.1.3"), ("path", "/x/y")]), 1);
    limiter.reset(&[("ip", "1.1.1.3")][..]);
    assert_eq!(admitted(&[("ip", "1.1.1.3")]), 3);
    assert!(limiter.stats().buckets > 0);
    limiter.sweep(NOW);
    assert_eq!(limiter.rules().len(), 3);
}

#[test]
fn what_is_wrong_with_rules_in_rust_is_told_at_once() {
    let error = Limiter::builder()
        .rule(NewRule::new("a b", limit("1/1s")))
        .rule(NewRule::new("r", limit("1/1s")).when("ip", ["10.0.0.0/99"]))
        .rule(NewRule::new("r", limit("1/1s")).key("x").key("x"))
        .rule(NewRule::new("none", Limit::per_minute(0).burst(1)).limit_when(
            "a",
            ["b"],
            Limit::per_day(1).burst(0),
        ))
        .build()
        .unwrap_err();
    let text = error.to_string();
    let Error::Rules(faults) = error else { panic!("{text}") };
    assert_eq!(faults.len(), 6, "{text}");
    for says in
        ["cannot name a rule", "no network", "\"r\" is there twice", "\"none\": a count of 0", "a burst of 0"]
    {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_limiter_takes_a_rule_file_and_rules_in_rust_together() {
    let yaml = "domain: api\nunmatched: deny\nrules: [{ name: file, key: [ip], limit: 2/1h }]";
    let builder = || Limiter::builder().yaml(yaml);
    let limiter = builder().rule(NewRule::new("rust", Limit::per_hour(1)).key("user")).build().unwrap();
    let names: Vec<&str> = limiter.rules().iter().map(Rule::name).collect();
    assert_eq!(names, ["file", "rust"]);
    let admitted =
        |request: &[(&str, &str)]| (0..9).filter(|_| limiter.check(request, Cost::ONE, NOW).allowed).count();
    assert_eq!(admitted(&[("ip", "1.1.1.1")]), 2);
    assert_eq!(admitted(&[("ip", "1.1.1.2"), ("user", "ada")]), 1);
    assert_eq!(admitted(&[("host", "h")]), 0, "the file denies what no rule is about");

    let said = |builder: LimiterBuilder| builder.build().unwrap_err().to_string();
    let twice = said(builder().rule(NewRule::new("file", Limit::per_hour(1))));
    assert!(twice.contains("\"file\" is there twice"), "{twice}");
    assert!(said(Limiter::builder().yaml("rules: [")).contains("line 1"));
    assert!(
        said(Limiter::builder().yaml("rules:\n  - { name: x, key: [], limt: 1/1s }")).contains("`limit`")
    );
    assert!(said(Limiter::builder().yaml("rules: []\n---\nrules: []")).contains("2 documents"));
    assert_eq!(Limiter::builder().yaml("").build().unwrap().rules().len(), 0);
}

#[test]
fn unmatched_requests_are_denied_when_asked_and_memory_can_be_set() {
    let limiter = Limiter::builder()
        .secret(HashSecret::new([1; 16]))
        .max_memory(StoreConfig::default().max_memory / 4)
        .deny_unmatched()
        .rule(NewRule::new("r", limit("1/1s")).when("path", ["/x"]))
        .build()
        .unwrap();
    assert!(!limiter.check(&[("path", "/y")][..], Cost::ONE, NOW).allowed);
    assert!(limiter.check(&[("path", "/x")][..], Cost::PEEK, NOW).allowed);
}

#[test]
fn another_limit_of_a_rule_is_another_bucket_in_the_same_place_unless_its_states_mean_the_same() {
    let key = |limit: &str, algorithm: &str| {
        let yaml = format!("rules: [{{name: r, key: [k], limit: {limit}, algorithm: {algorithm}}}]");
        let rules = Rules::from_yaml(&yaml, &HashSecret::new([7; 16])).unwrap();
        let mut found = SmallVec::new();
        rules.matching("default", &[("k", "v")][..], &mut found);
        found[0].key
    };
    assert_eq!(
        key("1/1s, burst: 60", "token_bucket"),
        key("60/1m", "token_bucket"),
        "the same pace and burst"
    );
    assert_eq!(key("1/1s", "token_bucket"), key("1/1s", "leaky_bucket"));
    assert_ne!(key("1/1s", "token_bucket"), key("9/1h", "token_bucket"));
    assert_ne!(key("1/1s", "token_bucket"), key("1/1s", "sliding_log"));
    assert_eq!(key("1/1s", "fixed_window"), key("9/1s", "fixed_window"));
    assert_ne!(key("1/1s", "fixed_window"), key("1/1h", "fixed_window"), "their windows do not line up");
    assert_eq!(key("1/1s", "sliding_log"), key("1/1h", "sliding_log"), "it remembers for the longer of both");
    for (limit, algorithm) in [("9/1h", "token_bucket"), ("1/1h", "fixed_window"), ("1/1s", "sliding_log")] {
        assert_eq!(key(limit, algorithm).place(), key("1/1s", "token_bucket").place(), "{limit} {algorithm}");
    }
}
