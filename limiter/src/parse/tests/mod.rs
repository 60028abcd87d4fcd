//! Rule files, as they should and should not be written.

mod arbitrary;
mod mistakes;

use std::time::Duration;

use smallvec::SmallVec;

use super::*;
use crate::{Algorithm, HashSecret, Limit, Match, Matched, Period, Rules};

fn rules(text: &str) -> Result<Rules, Vec<RuleError>> {
    Rules::from_yaml(text, &HashSecret::new([1; 16]))
}

fn errors(text: &str) -> Vec<RuleError> {
    rules(text).expect_err("the file is invalid")
}

/// The file's only error must point at `place` and say `words`.
fn assert_error(text: &str, place: &str, words: &str) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = &errors[0];
    assert!(error.to_string().contains(words), "{error}");
    let offset = text.find(place).expect("the place is in the text");
    assert_eq!(error.offset, offset, "{error:?}");
    assert_eq!(error.line, text[..offset].matches('\n').count() + 1, "{error:?}");
}

fn matched<'r>(rules: &'r Rules, domain: &str, attributes: &[(&str, &str)]) -> SmallVec<[Matched<'r>; 4]> {
    let mut found = SmallVec::new();
    let outcome = rules.matching(domain, attributes, &mut found);
    assert_eq!(outcome == Match::Rules, !found.is_empty());
    found
}

const EXAMPLE: &str = r#"
domain: default
rules:
  - name: login-per-ip
    when: { path: "/login", method: POST }
    key: [ip]
    limit: 5/1m
    burst: 10
    algorithm: token_bucket
    mode: enforce
    consistency: available
    on_owner_loss: share
    overrides:
      - { when: { ip: "10.0.0.0/8" }, limit: unlimited }
      - { when: { tier: gold }, limit: 50/1m, burst: 100 }
"#;

#[test]
fn the_example_of_the_documentation_means_what_it_says() {
    let rules = rules(EXAMPLE).unwrap();
    assert_eq!(rules.domains(), ["default"]);
    let login = [("path", "/login"), ("method", "POST"), ("ip", "203.0.113.7")];
    let found = matched(&rules, "default", &login);
    let limit = found[0].limit.unwrap();
    assert_eq!(
        (limit.count(), limit.burst_size(), limit.period()),
        (5, 10, Period::Fixed(Duration::from_secs(60)))
    );
    assert_eq!(found[0].rule.name(), "login-per-ip");

    let inside = [("path", "/login"), ("method", "POST"), ("ip", "10.1.2.3")];
    assert!(matched(&rules, "default", &inside)[0].limit.is_none());
    let gold = [("path", "/login"), ("method", "POST"), ("ip", "203.0.113.7"), ("tier", "gold")];
    assert_eq!(matched(&rules, "default", &gold)[0].limit.unwrap().burst_size(), 100);
    assert!(matched(&rules, "default", &login[1..]).is_empty());
    assert!(
        matched(&rules, "default", &login[..2]).is_empty(),
        "without the key's attribute it does not apply"
    );
    assert!(matched(&rules, "other", &login).is_empty());
}

#[test]
fn a_value_is_taken_letter_by_letter_whatever_yaml_makes_of_it() {
    let rules = rules(
        "rules: [{ name: 404, when: { status: 404, version: 1.10, flag: true, word: yes, code: 007 }, key: [], limit: 1/1s }]",
    )
    .unwrap();
    let request =
        [("status", "404"), ("version", "1.10"), ("flag", "true"), ("word", "yes"), ("code", "007")];
    assert_eq!(matched(&rules, "default", &request)[0].rule.name(), "404");
}

#[test]
fn a_value_can_say_how_its_text_is_read() {
    let text = "rules:
  - { name: is, when: { v: { is: \"192.168.0.0/16\" } }, key: [], limit: 1/1s }
  - { name: one-of, when: { v: [{ is: \"!x\" }, { is: x* }, { is: 1.10 }] }, key: [], limit: 1/1s }
  - { name: like, when: { v: { like: /api/*/download } }, key: [], limit: 1/1s }
  - { name: neither, when: { v: [\"*\", { is_not: x* }, { not_like: \"*/download\" }] }, key: [], limit: 1/1s }
  - { name: like-a-prefix, when: { v: { like: \"!x**\" } }, key: [], limit: 1/1s }
";
    let rules = rules(text).unwrap();
    let about = |value: &str| {
        let found = matched(&rules, "default", &[("v", value)]);
        found.iter().map(|one| one.rule.name().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(about("192.168.0.0/16"), "is neither");
    assert_eq!(about("192.168.1.1"), "neither");
    assert_eq!(about("!x"), "one-of neither like-a-prefix");
    assert_eq!(about("x*"), "one-of");
    assert_eq!(about("xy"), "neither");
    assert_eq!(about("1.10"), "one-of neither", "letter by letter");
    assert_eq!(about("/api/a/b/download"), "like");
    assert_eq!(about("/api/*/download"), "like");
    assert_eq!(about("/api/download"), "", "the two slashes");
    assert_eq!(about("!xyz"), "neither like-a-prefix");
}

#[test]
fn a_part_can_be_written_once_and_used_again() {
    let text = "
rules:
  - name: a
    key: [ip]
    limit: 5/1m
    when: &login { path: /login, status: 404 }
    overrides: &friends [{ when: { ip: 10.0.0.0/8 }, limit: unlimited }]
  - { name: b, key: [], limit: 9/1s, when: *login, overrides: *friends }
  - { name: c, key: [], limit: 9/1s, when: { <<: *login, method: POST } }
";
    let rules = rules(text).unwrap();
    let request = [("path", "/login"), ("status", "404"), ("ip", "10.1.1.1"), ("method", "POST")];
    let found = matched(&rules, "default", &request);
    assert_eq!(found.iter().map(|one| one.rule.name()).collect::<String>(), "abc");
    assert!(found[1].limit.is_none());

    let errors = errors(&text.replace("10.0.0.0/8", "10.0.0.0/88"));
    assert!(errors.iter().all(|error| error.message.contains("no network")), "{errors:?}");
}

#[test]
fn empty_fields_that_can_be_left_out_are_left_out() {
    let rules = rules(
        "domain:\nunmatched: ~\nrules: [{ name: r, key: [], limit: 1/1s, burst: null, when: , mode: , overrides: }]",
    )
    .unwrap();
    assert_eq!(rules.rules("default").len(), 1);
}

#[test]
fn json_is_read_too() {
    let text = r#"{ "domain": "x", "rules": [ { "name": "r", "key": ["ip"], "limit": "5/1m", "burst": 7,
        "when": { "path": ["/a", "/b"], "word": "\u00e9" } } ] }"#;
    assert_eq!(rules(text).unwrap().rules("x")[0].limit().unwrap().burst_size(), 7);
    assert_error(&text.replace("burst", "brust"), "\"brust\"", "did you mean `burst`?");
    assert_error(
        "{\n\t\"rules\": [ { \"name\": \"é\" , \"key\": [], \"limit\": \"1/1s\" } ]\n}",
        "\"é\"",
        "name a rule",
    );
}

#[test]
fn several_documents_are_several_domains_and_one_can_deny_what_no_rule_knows() {
    let rules =
        rules("rules: [{name: a, key: [], limit: 1/1s}]\n---\ndomain: x\nunmatched: deny\nrules: []\n")
            .unwrap();
    assert_eq!(rules.domains(), ["default", "x"]);
    let mut found = SmallVec::new();
    assert_eq!(rules.matching("x", &[("a", "b")][..], &mut found), Match::Unmatched { allow: false });
    assert!(self::rules("rules: []\n---\nrules: []\n").unwrap_err()[0].message.contains("twice"));
}

#[test]
fn each_way_of_writing_an_address_is_the_same_bucket() {
    let rules = rules("rules: [{name: r, key: [ip], limit: 1/1s}]").unwrap();
    let key = |ip: &str| matched(&rules, "default", &[("ip", ip)])[0].key;
    assert_eq!(key("1.2.3.4"), key("::ffff:1.2.3.4"));
    assert_eq!(key("2001:db8::1"), key("2001:db8:0:0:ffff::2"), "one /64 is one bucket");
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
    assert_ne!(key("not an address"), key("another"));
}

#[test]
fn ten_thousand_rules_are_read() {
    let mut text = "rules:\n".to_owned();
    (0..10_000).for_each(|n| {
        text.push_str(&format!("- {{name: r{n}, when: {{path: /p{n}}}, key: [ip], limit: 5/1m}}\n"))
    });
    let rules = rules(&text).unwrap();
    assert_eq!(rules.rules("default").len(), 10_000);
    assert_eq!(matched(&rules, "default", &[("path", "/p77"), ("ip", "1.2.3.4")]).len(), 1);
}

/// Algorithm and period of the limits of a rule, its own first.
fn counted_by(rules: &Rules) -> Vec<String> {
    let rule = &rules.rules("default")[0];
    rule.counting_limits().map(|limit| format!("{limit} {}", limit.algorithm())).collect()
}

#[test]
fn words_of_the_calendar_are_windows_of_the_calendar_unless_the_rule_says_otherwise() {
    for (written, expected) in [
        ("limit: 1000/month", &["1000/month fixed_window"][..]),
        ("limit: 1000/day", &["1000/day fixed_window"]),
        ("limit: 1000/month, algorithm: sliding_window", &["1000/month sliding_window"]),
        ("limit: 1000/1d", &["1000/1d token_bucket"]),
        // One algorithm for all limits of a rule: that of its own limit, where that counts.
        (
            "limit: 1000/month, overrides: [{ when: { plan: gold }, limit: 5/1m }]",
            &["1000/month fixed_window", "5/1m fixed_window"],
        ),
        ("limit: deny, overrides: [{ when: { plan: gold }, limit: 9/month }]", &["9/month fixed_window"]),
        ("limit: unlimited, overrides: [{ when: { plan: gold }, limit: 9/day }]", &["9/day fixed_window"]),
    ] {
        let text = format!("rules: [{{ name: r, key: [user], {written} }}]");
        assert_eq!(counted_by(&rules(&text).unwrap()), expected, "{written}");
    }
}

#[test]
fn what_refills_or_slides_has_no_month_and_the_error_says_what_to_write() {
    let rule = |rest: &str| format!("rules: [{{ name: r, key: [user], {rest} }}]");
    for (algorithm, limit, length) in [
        ("token_bucket", "7/month", "30d"),
        ("leaky_bucket", "7/day", "1d"),
        ("sliding_log", "7/month", "30d"),
    ] {
        let text = rule(&format!("algorithm: {algorithm}, limit: {limit}"));
        let says = format!("a {algorithm} does not: write fixed_window (or sliding_window) as the");
        assert_error(&text, limit, &says);
        assert_error(&text, limit, &format!("e.g. {length}"));
    }
    assert_error(&rule("limit: 7/month, burst: 9"), "9 }", "a fixed_window admits its count");
    let mixed = rule("limit: 7/1m, overrides: [{ when: { plan: gold }, limit: 8/month }]");
    assert_error(&mixed, "8/month", "a token_bucket does not");
}

#[test]
fn what_an_earlier_version_took_is_taken_from_the_log_with_the_meaning_that_it_had() {
    let stored = |written: &str| {
        let (secret, text) =
            (HashSecret::new([1; 16]), format!("rules: [{{ name: r, key: [user], {written} }}]"));
        let nothing = Rules::empty(&secret);
        (
            nothing.with_domain("default", &text, &secret).is_err(),
            nothing.with_domain_at("default", &text, &secret, 7),
        )
    };
    for (written, expected) in [
        ("limit: 7/month, algorithm: token_bucket", &["7/month token_bucket"][..]),
        ("limit: 7/day, algorithm: sliding_log", &["7/day sliding_log"]),
        ("limit: 7/month, burst: 9", &["7/month token_bucket"]),
        (
            "limit: 7/1m, overrides: [{ when: { plan: gold }, limit: 8/month, burst: 9 }]",
            &["7/1m token_bucket", "8/month token_bucket"],
        ),
    ] {
        let (is_refused, taken) = stored(written);
        assert!(is_refused, "{written} is written anew");
        assert_eq!(counted_by(&taken.unwrap()), expected, "{written}");
    }
    // The same text means the same, whenever it was written.
    assert_eq!(counted_by(&stored("limit: 7/month").1.unwrap()), ["7/month fixed_window"]);
}
