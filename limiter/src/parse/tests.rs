//! Rule files, as they should and should not be written.

mod arbitrary;

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
fn each_mistake_is_reported_with_its_place_and_what_to_write() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n{rest}");
    assert_error("rules: [{ name: r, key: [], limit: 0/1m, burst: 5 }]", "5 }", "a count of 0 denies");
    assert_error("rules: [{ name: r, key: [], limit: deni }]", "deni", "did you mean `deny`?");
    assert_error("rules:\n  - name: r\n    key: [ip]\n    limit: 5/0s\n", "5/0s", "1ms to 3650d");
    assert_error("rules:\n  - name: r\n    key: [ip]\n    limit: 5 a minute\n", "5 a minute", "COUNT/PERIOD");
    assert_error("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1x\n", "5/1x", "no period");
    assert_error(
        "rules:\n  - name: r\n    key: [ip]\n    limit: 9007199254740993/1s\n",
        "9007199254740993/1s",
        "2^53",
    );
    assert_error(&rule("    burst: 0\n"), "0\n", "burst of 0");
    assert_error(&rule("    algorithm: magic\n"), "magic", "token_bucket");
    assert_error(&rule("    mode: loud\n"), "loud", "enforce, shadow");
    assert_error(&rule("    on_owner_loss: panic\n"), "panic", "share, deny, allow");
    assert_error(&rule("    consistency: some\n"), "some", "available, strict");
    assert_error(&rule("    carved: maybe\n"), "maybe", "false, true");
    assert_error(&rule("    on_memory_full: deny\n"), "deny", "forget, strict");
    assert_error(&rule("    carved: true\n    on_owner_loss: deny\n"), "true", "does not give");
    assert_error(&rule("    when: { ip: 10.0.0.0/99 }\n"), "10.0.0.0/99", "no network");
    assert_error(&rule("    when: { cost: \"1\" }\n"), "cost", "another name");
    assert_error(&rule("    when: { path: [/a, [/b]] }\n"), "[/b]", "here is a list (write single words");
    assert_error(&rule("    when: { path: [] }\n"), "[]", "no request could match");
    assert_error(&rule("    when: { ip: [10.0.0.1, 10.0.0.0/x] }\n"), "10.0.0.0/x", "no network");
    assert_error(
        &rule("    algorithm: tokenbucket\n"),
        "tokenbucket",
        "did you mean `token_bucket`? write one",
    );
    assert_error(&rule("    algorithm: sliding_log\n    burst: 10\n"), "10\n", "belongs to token_bucket");
    assert_error("rules: [{ name: r, key: [], limit: unlimted }]", "unlimted", "did you mean `unlimited`?");
    assert_error(
        "rules: [{ name: r, key: [], limit: unlimited, burst: 5 }]",
        "5 }",
        "what is unlimited has no burst",
    );
    assert_error("rules:\n  - name: r\n    key: [ip, ip]\n    limit: 5/1m\n", "ip]", "twice");
    assert_error("rules:\n  - name: r\n    key: [domain]\n    limit: 5/1m\n", "domain]", "another name");
    assert_error("unmatched: maybe\nrules: []\n", "maybe", "allow, deny");
    assert_error("rules:\n  - name: a b\n    key: []\n    limit: 5/1m\n", "a b", "cannot name a rule");
}

#[test]
fn a_field_that_is_unknown_is_reported_with_what_was_probably_meant() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n    {rest}\n");
    assert_error(&rule("brust: 10"), "brust", "a rule has no field `brust` (did you mean `burst`?)");
    assert_error(&rule("Mode: shadow"), "Mode", "did you mean `mode`?");
    assert_error(&rule("on-owner-loss: deny"), "on-owner-loss", "did you mean `on_owner_loss`?");
    assert_error(&rule("colour: red"), "colour", "a rule has: name, when, key, limit, burst");
    assert_error(
        &rule("overrides: [{ when: {}, limit: 1/1s, key: [a] }]"),
        "key: [a]",
        "an override has: when",
    );
    assert_error("rules: []\nrule: []\n", "rule: []", "did you mean `rules`?");
    assert_error("rules: [{ name: r, key: [], limt: 5/1m }]", "limt", "did you mean `limit`?");
    let long = format!("rules: []\n{}: 1\n", "x".repeat(900));
    assert!(errors(&long)[0].message.len() < 200);
    let wrong_twice = errors("rules: [{ name: r, key: [], limt: 5/0m }]");
    assert_eq!(wrong_twice.len(), 2, "what a misspelt field says is looked at too: {wrong_twice:?}");
}

#[test]
fn a_field_that_is_missing_is_reported_with_an_example() {
    assert_error("rules:\n  - key: [ip]\n    limit: 5/1m\n", "key", "a rule needs `name`");
    assert_error(
        "rules:\n  - name: r\n    limit: 5/1m\n",
        "name",
        "a rule needs `key` (write e.g. `key: [ip]`",
    );
    assert_error(
        "rules:\n  - { name: r, key: [ip] }\n",
        "{",
        "a rule needs `limit` (write e.g. `limit: 5/1m`)",
    );
    assert_error("rules: [{ name: r, key: [], limit: }]", ": }", "`limit` is empty");
    assert_error("domain: x\n", "domain", "a rule file needs `rules`");
    assert_error(
        "rules: [{ name: r, key: [], limit: 1/1s, overrides: [{ when: { a: b } }] }]",
        "{ when",
        "an override needs `limit`",
    );
    assert_error(
        "rules: [{ name: r, key: [], limit: 1/1s, overrides: [{ limit: 2/1s }] }]",
        "{ limit: 2",
        "an override needs `when`",
    );
    assert_eq!(errors("rules: [{}]").len(), 3, "all that is missing");
}

#[test]
fn a_field_that_is_there_twice_is_reported_at_the_second() {
    assert_error("rules: []\nrules: [ ]\n", "rules: [ ]", "`rules` is there twice");
    assert_error(
        "rules:\n  - name: r\n    key: []\n    limit: 5/1m\n    limit: 6/1m\n",
        "limit: 6",
        "`limit` is there twice in a rule (keep one of them)",
    );
    assert_error(
        "rules:\n  - { name: r, key: [], limit: 5/1m, when: { path: /a, \"path\": /b } }\n",
        "\"path\"",
        "\"path\" is there twice in `when` (write all its values as one list: [a, b])",
    );
}

#[test]
fn a_value_of_another_kind_is_reported_with_what_is_expected() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n    {rest}\n");
    assert_error("- name: r\n", "- name", "a rule file is a map of its fields, here is a list");
    assert_error("just words", "just words", "here is a text");
    assert_error("rules: { a: b }\n", "{", "`rules` must be a list of rules, here is a map");
    assert_error("rules: [r1]\n", "r1", "a rule is a map of its fields, here is a text");
    assert_error(
        "rules: [{ name: [r], key: [], limit: 1/1s }]",
        "[r]",
        "`name` must be a text, here is a list",
    );
    assert_error(
        "rules: [{ name: r, key: ip, limit: 1/1s }]",
        "ip",
        "must be a list of attributes, here is a text",
    );
    assert_error(
        "rules: [{ name: r, key: [{ a: b }], limit: 1/1s }]",
        "{ a",
        "an attribute of `key` must be",
    );
    assert_error("rules: [{ name: r, key: [], limit: { count: 5 } }]", "{ count", "`limit` must be a text");
    assert_error("rules: [{ name: r, key: [], limit: 5 }]", "5", "write COUNT/PERIOD");
    assert_error(&rule("burst: many"), "many", "`burst` must be a whole number, here is a text");
    assert_error(&rule("burst: -1"), "-1", "`burst` must be a whole number");
    assert_error(&rule("burst: 1.5"), "1.5", "`burst` must be a whole number");
    assert_error(&rule("when: /login"), "/login", "`when` must be a map of attributes, here is a text");
    assert_error(&rule("when: [path]"), "[path]", "`when` must be a map of attributes, here is a list");
    assert_error(
        &rule("when: { path: { was: /a } }"),
        "was",
        "has no field `was` (a value in `when` that is a map has: is, is_not, like, not_like, exactly_like, not_exactly_like)",
    );
    assert_error(&rule("when: { path: { isnot: /a } }"), "isnot", "did you mean `is_not`?");
    assert_error(&rule("when: { path: { is: [/a, /b] } }"), "[/a", "`is` must be a text, here is a list");
    assert_error(&rule("when: { path: [/b, { is: }] }"), "{ is", "says nothing (write one of is,");
    assert_error(&rule("when: { path: { is: /a, like: /b } }"), "{ is", "says more than one thing");
    assert_error(&rule("when: { path: }"), ": }", "here is nothing (write \"\"");
    assert_error(&rule("overrides: { limit: 1/1s }"), "{ limit", "`overrides` must be a list");
    assert_error(&rule("overrides: [gold]"), "gold", "an override is a map of its fields");
    assert_error(&rule("mode: [enforce]"), "[enforce]", "`mode` must be a text, here is a list");
    assert_error(&rule("? [a, b]\n    : c"), "[a, b]", "the name of a field must be a text");
}

#[test]
fn what_is_no_yaml_has_one_error_with_its_place() {
    for (text, line, offset) in [
        ("a: é\nrules: [\n", 2, 13),
        ("rules:\n\t- a\n", 2, 8),
        ("a: b: c\n", 1, 4),
        ("rules: []\n\"x", 2, 10),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
        assert_eq!((errors[0].line, errors[0].offset), (line, offset), "{text:?}: {errors:?}");
    }
}

#[test]
fn a_file_with_many_mistakes_reports_all_of_them() {
    let errors = errors(
        "domain: a b
unmatched: dny
rules:
  - nam: first
    key: ip
    limit: 5/1x
    when: { ip: [10.0.0.0/99, 1.2.3.4], cost: 1 }
    algorithm: fixedwindow
    overrides:
      - { when: { tier: gold }, limit: 5/0s }
      - { limit: 1/1s, mode: shadow }
  - just a text
  - name: second
    name: third
    key: [a, a]
    burst: [1]
---
rule: 7
",
    );
    let reported: Vec<(usize, &str)> = errors.iter().map(|error| (error.line, &*error.message)).collect();
    let expected = [
        (1, "cannot name a domain"),
        (2, "\"dny\" is no value for unmatched"),
        (4, "no field `nam`"),
        (5, "`key` must be a list"),
        (6, "no period"),
        (7, "\"10.0.0.0/99\" is no network"),
        (7, "\"cost\" cannot be an attribute"),
        (8, "\"fixedwindow\" is no value for algorithm"),
        (10, "1ms to 3650d"),
        (11, "an override needs `when`"),
        (11, "an override has no field `mode`"),
        (12, "a rule is a map"),
        (13, "a rule needs `limit`"),
        (14, "`name` is there twice"),
        (15, "twice in the key"),
        (16, "`burst` must be a whole number"),
        (18, "no field `rule`"),
        (18, "`rules` must be a list"),
    ];
    assert_eq!(reported.len(), expected.len(), "{reported:#?}");
    for ((line, message), (expected_line, words)) in reported.iter().zip(expected) {
        assert!(*line == expected_line && message.contains(words), "{line}: {message}, not {words}");
    }
}

#[test]
fn at_most_a_hundred_errors_are_reported() {
    let text = format!("rules:\n{}", "- { name: r, key: ip, limit: 5/0s }\n".repeat(1_000));
    let errors = errors(&text);
    assert_eq!(errors.len(), MAX_RULE_ERRORS);
    assert!(errors.iter().all(|error| error.line <= MAX_RULE_ERRORS), "the first ones");
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
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let errors = errors(
        "rules:\n  - {name: a, key: [ip], limit: 5/0m}\n  - {name: a, key: [ip], limit: 5/1m, mode: x}\n  - {name: c, key: [], limit: z}\n",
    );
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 3, 4], "{errors:?}");
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

/// Found by an outside tester: such a block list was valid, and nobody was blocked.
#[test]
fn a_text_that_can_be_no_address_is_refused_for_ip_but_taken_from_the_log() {
    let secret = HashSecret::new([1; 16]);
    let text = |pattern: &str| format!("block: [{{ when: {{ ip: '{pattern}' }} }}]\nrules: []");
    for pattern in [
        "203.0.113.07",
        "203.0.113.20-203.0.113.30",
        "10.0.0.300",
        "localhost",
        "!localhost",
        "",
        "10.300.*",
        "host*",
        "10.0.0.1, 10.0.0.2",
    ] {
        let errors = Rules::from_yaml(&text(pattern), &secret).unwrap_err();
        let told = errors[0].to_string();
        assert!(errors.len() == 1 && errors[0].line == 1 && told.contains("address"), "{pattern}: {told}");
        let nothing = Rules::empty(&secret);
        assert!(nothing.with_domain_at("default", &text(pattern), &secret, 7).is_ok(), "{pattern}");
    }
    for pattern in [
        "*",
        "!*",
        "10.1.*",
        "10.1*",
        "2001:db8:*",
        "10.1.2.3",
        "[2001:DB8::1]:80",
        "!10.0.0.0/8",
        "fe80::1%eth0",
    ] {
        assert!(Rules::from_yaml(&text(pattern), &secret).is_ok(), "{pattern}");
    }
    // A text that says how it is read is described so, and taken again.
    let told = |text: &str| Rules::from_yaml(text, &secret).unwrap().describe("default");
    let written =
        told("rules: [{ name: r, key: [], limit: 1/1s, when: { ip: [{ is: unknown }, { is_not: x }] } }]");
    let again = serde_json::json!({ "rules": written.rules }).to_string();
    assert_eq!(told(&again), written);
}
