//! Mistakes in a file: where they are, and what to write.

use super::*;

#[test]
fn each_mistake_is_reported_with_its_place_and_what_to_write() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n{rest}");
    assert_error("rules: [{ name: r, key: [], limit: 0/1m, burst: 5 }]", "5 }", "a count of 0 denies");
    assert_error("rules: [{ name: r, key: [], limit: deni }]", "deni", "did you mean `deny`?");
    assert_error("rules:\n  - name: r\n    key: [ip]\n    limit: 5/0s\n", "5/0s", "1ms to 3650d");
    assert_error("rules:\n  - name: r\n    key: [ip]\n    limit: 5 a minute\n", "5 a minute", "COUNT/PERIOD");
    assert_error("rules: [{ name: r, key: [], limit: none }]", "none", "1000/day, `unlimited` or `deny`");
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
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let errors = errors(
        "rules:\n  - {name: a, key: [ip], limit: 5/0m}\n  - {name: a, key: [ip], limit: 5/1m, mode: x}\n  - {name: c, key: [], limit: z}\n",
    );
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 3, 4], "{errors:?}");
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
