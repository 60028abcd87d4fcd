use std::fmt::Write as _;

use proptest::{collection::vec, option, prelude::*, sample::select};
use smallvec::SmallVec;

use crate::{HashSecret, Match, Nanos, Rules, cluster::RulesDiff, rfc3339};

const START: u64 = 1_800_000_000;

fn at(second: u64) -> Nanos {
    Nanos::new((START + second) * 1_000_000_000)
}

fn rules(text: &str) -> Rules {
    Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The names of the rules that are found for a request.
fn found(rules: &Rules, request: &[(&str, &str)], now: Nanos) -> Vec<String> {
    let mut found = SmallVec::new();
    let outcome = rules.matching_at("default", request, now, &mut found);
    assert_eq!(matches!(outcome, Match::Rules), !found.is_empty());
    found.iter().map(|one| one.rule.name().to_owned()).collect()
}

#[test]
fn what_is_blocked_is_denied_by_its_entry_alone_until_that_is_over() {
    let list = format!(
        "
unmatched: allow
block:
  - {{ when: {{ ip: 203.0.113.7 }}, until: {} }}
  - {{ when: {{ ip: [198.51.100.0/24, '2001:db8::/32'] }}, name: scrapers }}
  - {{ when: {{ user: [mallory, 'bot-*'], path: /api/* }} }}
rules:
  - {{ name: per-ip, key: [ip], limit: 5/1m }}
",
        rfc3339::text_of(at(10))
    );
    let rules = rules(&list);
    let names = |request: &[(&str, &str)], second| found(&rules, request, at(second));
    assert_eq!(names(&[("ip", "203.0.113.7")], 0), ["block"]);
    assert_eq!(names(&[("ip", "203.0.113.7")], 9), ["block"]);
    assert_eq!(names(&[("ip", "203.0.113.7")], 10), ["per-ip"], "the instant itself is not blocked any more");
    assert_eq!(names(&[("ip", "203.0.113.8")], 0), ["per-ip"]);
    assert_eq!(names(&[("ip", "198.51.100.9")], 1 << 30), ["scrapers"]);
    assert_eq!(names(&[("ip", "2001:db8::1"), ("user", "mallory"), ("path", "/api/x")], 0), ["scrapers"]);
    assert_eq!(names(&[("user", "bot-7"), ("path", "/api/x")], 0), ["block"]);
    assert_eq!(names(&[("user", "bot-7"), ("path", "/")], 0), [""; 0]);
    let mut found = SmallVec::new();
    rules.matching_at("default", &[("ip", "198.51.100.9")][..], at(0), &mut found);
    assert!(found[0].limit.is_some_and(|limit| limit.denies()));
}

#[test]
fn a_refund_or_reset_finds_the_rules_of_what_is_blocked() {
    let rules = rules("block: [{ when: { ip: 10.0.0.1 } }]\nrules: [{ name: r, key: [ip], limit: 5/1m }]");
    let request = [("ip", "10.0.0.1")];
    let (mut refunded, mut reset) = (SmallVec::new(), SmallVec::new());
    rules.matching("default", &request, &mut refunded);
    rules.buckets("default", &request, &mut reset);
    assert_eq!([&refunded, &reset].map(|found| found[0].rule.name()), ["r", "r"]);
}

#[test]
fn a_list_of_ten_thousand_addresses_is_searched_not_read() {
    let address = |number: u32| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let mut list = "block:\n".to_owned();
    for number in 0..10_000 {
        let _ = writeln!(
            list,
            "- {{ when: {{ ip: {} }}, until: {} }}",
            address(number * 7),
            rfc3339::text_of(at(10))
        );
    }
    list += "rules: []\n";
    let rules = rules(&list);
    let candidates = |ip: &str| {
        let block = rules.domains["default"].block().expect("there is one");
        block.index.candidates(&[("ip", ip)][..]).len()
    };
    for number in [0, 7, 69_993] {
        assert_eq!(candidates(&address(number)), 1, "no entry is looked at but its own");
        assert_eq!(found(&rules, &[("ip", &address(number))], at(9)), ["block"]);
        assert!(found(&rules, &[("ip", &address(number))], at(10)).is_empty());
    }
    assert_eq!(candidates(&address(8)), 0);
}

proptest! {
    /// What the index finds is what asking each entry finds.
    #[test]
    fn an_entry_that_fits_blocks_wherever_it_stands(
        entries in vec((select(vec!["address", "user"]), select(vec![
            "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "ada", "a*", "*", "!ada", "!10.0.0.0/8",
        ]), option::of(0u64..20)), 0..12),
        ip in option::of(select(vec!["10.1.2.3", "10.9.9.9", "11.0.0.1"])),
        user in option::of(select(vec!["ada", "al", "bob"])),
        now in 0u64..20,
    ) {
        let mut list = "block:\n".to_owned();
        for (place, (attribute, pattern, until)) in entries.iter().enumerate() {
            let until = until.map_or(String::new(), |second| format!(", until: {}", rfc3339::text_of(at(second))));
            let _ = writeln!(list, "- {{ name: b{place}, when: {{ {attribute}: '{pattern}' }}{until} }}");
        }
        if entries.is_empty() {
            list = "block: []\n".to_owned();
        }
        let rules = rules(&format!("{list}rules: []\n"));
        let request: Vec<(&str, &str)> =
            [("address", ip), ("user", user)].into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let asked = rules.domains["default"].block().into_iter().flat_map(|block| block.entries());
        let mut asked = asked.filter(|(entry, _)| {
            entry.until.is_none_or(|until| at(now) < until) && entry.when.holds(&request[..])
        });
        let expected: Vec<String> = asked.next().map(|(_, name)| name.to_owned()).into_iter().collect();
        prop_assert_eq!(found(&rules, &request, at(now)), expected);
    }
}

#[test]
fn each_mistake_in_a_list_is_told_with_its_place_and_what_to_write() {
    let errors = |list: &str| {
        let text = format!("block:\n{list}rules:\n- {{ name: r, key: [ip], limit: 5/1m }}\n");
        let errors = Rules::from_yaml(&text, &HashSecret::new([1; 16])).map(drop).unwrap_err();
        errors.iter().map(|error| (error.line, error.to_string())).collect::<Vec<_>>()
    };
    let list = "
- { when: { ip: 10.0.0.1 }, until: tomorrow }
- { when: { ip: 10.0.0.0/99 } }
- { when: {} }
- { until: 2026-12-31T00:00:00Z }
- { when: { ip: 10.0.0.1 }, name: r }
- { when: { ip: 10.0.0.1 }, name: a b }
- { when: { ip: [] } }
- { when: { ip: 10.0.0.1 }, untill: 2026-12-31T00:00:00Z }
- 10.0.0.1
";
    let found = errors(list);
    let expected = [
        (
            3,
            "\"tomorrow\" is no instant from 1970 to 2115 (write date, time and zone (RFC 3339), e.g. 2026-12-31T00:00:00Z",
        ),
        (4, "\"10.0.0.0/99\" is no network"),
        (5, "would block every request"),
        (6, "an entry of `block` needs `when`"),
        (7, "\"r\" is the name of a rule"),
        (8, "cannot name a block list entry"),
        (9, "no request could match"),
        (10, "did you mean `until`?"),
        (11, "an entry of `block` is a map of its fields"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, message), (expected_line, words)) in found.iter().zip(expected) {
        assert!(*line == expected_line && message.contains(words), "{line}: {message}, not {words}");
    }
    assert!(errors("  ip: 10.0.0.1\n")[0].1.contains("`block` must be a list of entries"));
}

#[test]
fn what_changes_in_a_list_is_told_and_its_order_does_not_count() {
    let describe = |list: &str| rules(&format!("block: [{list}]\nrules: []\n")).describe("default");
    let (one, other) =
        ("{ when: { ip: 10.0.0.1 } }", "{ when: { user: [a, b] }, until: 2026-12-31T01:00:00+01:00 }");
    let both = describe(&format!("{one}, {other}"));
    assert!(RulesDiff::between(&both, &describe(&format!("{other}, {one}"))).is_empty());
    let diff = RulesDiff::between(&describe(one), &describe(other));
    assert!(!diff.is_empty());
    assert_eq!(diff.blocked[0].to_string(), "block  user=a|b until 2026-12-31T00:00:00Z");
    assert_eq!(diff.unblocked[0].to_string(), "block  ip=10.0.0.1");
    let json = serde_json::to_string(&diff).unwrap();
    assert_eq!(serde_json::from_str::<RulesDiff>(&json).unwrap(), diff);
    // Those of versions before have none.
    let old = r#"{"added":[],"removed":[],"changed":[],"unmatched":null}"#;
    assert!(serde_json::from_str::<RulesDiff>(old).unwrap().is_empty());
    let written = serde_json::json!({ "block": both.block, "rules": [] }).to_string();
    assert_eq!(rules(&written).describe("default"), both, "a description is a rule file");
}
