use super::*;
use crate::{Algorithm, HashSecret, Limit, Match, Matched, Period, Rules};
use proptest::prelude::*;
use smallvec::SmallVec;
use std::time::Duration;

fn rules(text: &str) -> Result<Rules, Vec<RuleError>> {
    Rules::from_yaml(text, &HashSecret::new([1; 16]))
}

fn faults(text: &str) -> Vec<RuleError> {
    rules(text).expect_err("the file is faulty")
}

/// The file's only fault must point at `place` and say `words`.
fn assert_fault(text: &str, place: &str, words: &str) {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let fault = &faults[0];
    assert!(fault.to_string().contains(words), "{fault}");
    let offset = text.find(place).expect("the place is in the text");
    assert_eq!(fault.offset, offset, "{fault:?}");
    assert_eq!(fault.line, text[..offset].matches('\n').count() + 1, "{fault:?}");
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
fn each_mistake_is_told_with_its_place_and_what_to_write() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n{rest}");
    assert_fault("rules:\n  - name: r\n    key: [ip]\n    limit: 0/1m\n", "0/1m", "count of 0");
    assert_fault("rules:\n  - name: r\n    key: [ip]\n    limit: 5/0s\n", "5/0s", "100ms to 31d");
    assert_fault("rules:\n  - name: r\n    key: [ip]\n    limit: 5 a minute\n", "5 a minute", "COUNT/PERIOD");
    assert_fault("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1w\n", "5/1w", "no period");
    assert_fault(
        "rules:\n  - name: r\n    key: [ip]\n    limit: 9007199254740993/1s\n",
        "9007199254740993/1s",
        "2^53",
    );
    assert_fault(&rule("    burst: 0\n"), "0\n", "burst of 0");
    assert_fault(&rule("    algorithm: magic\n"), "magic", "token_bucket");
    assert_fault(&rule("    mode: loud\n"), "loud", "enforce, shadow");
    assert_fault(&rule("    on_owner_loss: panic\n"), "panic", "share, deny, allow");
    assert_fault(&rule("    consistency: some\n"), "some", "available, strict");
    assert_fault(&rule("    carved: maybe\n"), "maybe", "false, true");
    assert_fault(&rule("    on_memory_full: deny\n"), "deny", "forget, strict");
    assert_fault(&rule("    carved: true\n    on_owner_loss: deny\n"), "true", "does not give");
    assert_fault(&rule("    when: { ip: 10.0.0.0/99 }\n"), "10.0.0.0/99", "no network");
    assert_fault(&rule("    when: { cost: \"1\" }\n"), "cost", "another name");
    assert_fault(&rule("    when: { path: [/a, [/b]] }\n"), "[/b]", "here is a list (write single words");
    assert_fault(&rule("    when: { path: [] }\n"), "[]", "no request could match");
    assert_fault(&rule("    when: { ip: [10.0.0.1, 10.0.0.0/x] }\n"), "10.0.0.0/x", "no network");
    assert_fault(
        &rule("    algorithm: tokenbucket\n"),
        "tokenbucket",
        "did you mean `token_bucket`? write one",
    );
    assert_fault(&rule("    algorithm: sliding_log\n    burst: 10\n"), "10\n", "belongs to token_bucket");
    assert_fault("rules: [{ name: r, key: [], limit: unlimted }]", "unlimted", "did you mean `unlimited`?");
    assert_fault(
        "rules: [{ name: r, key: [], limit: unlimited, burst: 5 }]",
        "5 }",
        "what is unlimited has no burst",
    );
    assert_fault("rules:\n  - name: r\n    key: [ip, ip]\n    limit: 5/1m\n", "ip]", "twice");
    assert_fault("rules:\n  - name: r\n    key: [domain]\n    limit: 5/1m\n", "domain]", "another name");
    assert_fault("unmatched: maybe\nrules: []\n", "maybe", "allow, deny");
    assert_fault("rules:\n  - name: a b\n    key: []\n    limit: 5/1m\n", "a b", "cannot name a rule");
}

#[test]
fn a_field_that_is_unknown_is_told_with_what_was_probably_meant() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n    {rest}\n");
    assert_fault(&rule("brust: 10"), "brust", "a rule has no field `brust` (did you mean `burst`?)");
    assert_fault(&rule("Mode: shadow"), "Mode", "did you mean `mode`?");
    assert_fault(&rule("on-owner-loss: deny"), "on-owner-loss", "did you mean `on_owner_loss`?");
    assert_fault(&rule("colour: red"), "colour", "a rule has: name, when, key, limit, burst");
    assert_fault(
        &rule("overrides: [{ when: {}, limit: 1/1s, key: [a] }]"),
        "key: [a]",
        "an override has: when",
    );
    assert_fault("rules: []\nrule: []\n", "rule: []", "did you mean `rules`?");
    assert_fault("rules: [{ name: r, key: [], limt: 5/1m }]", "limt", "did you mean `limit`?");
    let long = format!("rules: []\n{}: 1\n", "x".repeat(900));
    assert!(faults(&long)[0].message.len() < 200);
    let wrong_twice = faults("rules: [{ name: r, key: [], limt: 0/1m }]");
    assert_eq!(wrong_twice.len(), 2, "what a misspelt field says is looked at too: {wrong_twice:?}");
}

#[test]
fn a_field_that_is_missing_is_told_with_an_example() {
    assert_fault("rules:\n  - key: [ip]\n    limit: 5/1m\n", "key", "a rule needs `name`");
    assert_fault(
        "rules:\n  - name: r\n    limit: 5/1m\n",
        "name",
        "a rule needs `key` (write e.g. `key: [ip]`",
    );
    assert_fault(
        "rules:\n  - { name: r, key: [ip] }\n",
        "{",
        "a rule needs `limit` (write e.g. `limit: 5/1m`)",
    );
    assert_fault("rules: [{ name: r, key: [], limit: }]", ": }", "`limit` is empty");
    assert_fault("domain: x\n", "domain", "a rule file needs `rules`");
    assert_fault(
        "rules: [{ name: r, key: [], limit: 1/1s, overrides: [{ when: { a: b } }] }]",
        "{ when",
        "an override needs `limit`",
    );
    assert_fault(
        "rules: [{ name: r, key: [], limit: 1/1s, overrides: [{ limit: 2/1s }] }]",
        "{ limit: 2",
        "an override needs `when`",
    );
    assert_eq!(faults("rules: [{}]").len(), 3, "all that is missing");
}

#[test]
fn a_field_that_is_there_twice_is_told_at_the_second() {
    assert_fault("rules: []\nrules: [ ]\n", "rules: [ ]", "`rules` is there twice");
    assert_fault(
        "rules:\n  - name: r\n    key: []\n    limit: 5/1m\n    limit: 6/1m\n",
        "limit: 6",
        "`limit` is there twice in a rule (keep one of them)",
    );
    assert_fault(
        "rules:\n  - { name: r, key: [], limit: 5/1m, when: { path: /a, \"path\": /b } }\n",
        "\"path\"",
        "\"path\" is there twice in `when` (write all its values as one list: [a, b])",
    );
}

#[test]
fn a_value_of_another_kind_is_told_with_what_is_expected() {
    let rule = |rest: &str| format!("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n    {rest}\n");
    assert_fault("- name: r\n", "- name", "a rule file is a map of its fields, here is a list");
    assert_fault("just words", "just words", "here is a text");
    assert_fault("rules: { a: b }\n", "{", "`rules` must be a list of rules, here is a map");
    assert_fault("rules: [r1]\n", "r1", "a rule is a map of its fields, here is a text");
    assert_fault(
        "rules: [{ name: [r], key: [], limit: 1/1s }]",
        "[r]",
        "`name` must be a text, here is a list",
    );
    assert_fault(
        "rules: [{ name: r, key: ip, limit: 1/1s }]",
        "ip",
        "must be a list of attributes, here is a text",
    );
    assert_fault(
        "rules: [{ name: r, key: [{ a: b }], limit: 1/1s }]",
        "{ a",
        "an attribute of `key` must be",
    );
    assert_fault("rules: [{ name: r, key: [], limit: { count: 5 } }]", "{ count", "`limit` must be a text");
    assert_fault("rules: [{ name: r, key: [], limit: 5 }]", "5", "write COUNT/PERIOD");
    assert_fault(&rule("burst: many"), "many", "`burst` must be a whole number, here is a text");
    assert_fault(&rule("burst: -1"), "-1", "`burst` must be a whole number");
    assert_fault(&rule("burst: 1.5"), "1.5", "`burst` must be a whole number");
    assert_fault(&rule("when: /login"), "/login", "`when` must be a map of attributes, here is a text");
    assert_fault(&rule("when: [path]"), "[path]", "`when` must be a map of attributes, here is a list");
    assert_fault(
        &rule("when: { path: { is: /a } }"),
        "{ is",
        "a value in `when` must be a text, here is a map",
    );
    assert_fault(&rule("when: { path: }"), ": }", "here is nothing (write \"\"");
    assert_fault(&rule("overrides: { limit: 1/1s }"), "{ limit", "`overrides` must be a list");
    assert_fault(&rule("overrides: [gold]"), "gold", "an override is a map of its fields");
    assert_fault(&rule("mode: [enforce]"), "[enforce]", "`mode` must be a text, here is a list");
    assert_fault(&rule("? [a, b]\n    : c"), "[a, b]", "the name of a field must be a text");
}

#[test]
fn what_is_no_yaml_has_one_fault_with_its_place() {
    for (text, line, offset) in [
        ("a: é\nrules: [\n", 2, 13),
        ("rules:\n\t- a\n", 2, 8),
        ("a: b: c\n", 1, 4),
        ("rules: []\n\"x", 2, 10),
    ] {
        let faults = faults(text);
        assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
        assert_eq!((faults[0].line, faults[0].offset), (line, offset), "{text:?}: {faults:?}");
    }
}

#[test]
fn a_file_with_many_mistakes_tells_all_of_them() {
    let faults = faults(
        "domain: a b
unmatched: dny
rules:
  - nam: first
    key: ip
    limit: 5/1w
    when: { ip: [10.0.0.0/99, 1.2.3.4], cost: 1 }
    algorithm: fixedwindow
    overrides:
      - { when: { tier: gold }, limit: 0/1s }
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
    let told: Vec<(usize, &str)> = faults.iter().map(|fault| (fault.line, &*fault.message)).collect();
    let expected = [
        (1, "cannot name a domain"),
        (2, "\"dny\" is no value for unmatched"),
        (4, "no field `nam`"),
        (5, "`key` must be a list"),
        (6, "no period"),
        (7, "\"10.0.0.0/99\" is no network"),
        (7, "\"cost\" cannot be an attribute"),
        (8, "\"fixedwindow\" is no value for algorithm"),
        (10, "count of 0"),
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
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for ((line, message), (expected_line, words)) in told.iter().zip(expected) {
        assert!(*line == expected_line && message.contains(words), "{line}: {message}, not {words}");
    }
}

#[test]
fn at_most_a_hundred_faults_are_told() {
    let text = format!("rules:\n{}", "- { name: r, key: ip, limit: 0/1s }\n".repeat(1_000));
    let faults = faults(&text);
    assert_eq!(faults.len(), MAX_FAULTS);
    assert!(faults.iter().all(|fault| fault.line <= MAX_FAULTS), "the first ones");
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

    let faults = faults(&text.replace("10.0.0.0/8", "10.0.0.0/88"));
    assert!(faults.iter().all(|fault| fault.message.contains("no network")), "{faults:?}");
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
    assert_fault(&text.replace("burst", "brust"), "\"brust\"", "did you mean `burst`?");
    assert_fault(
        "{\n\t\"rules\": [ { \"name\": \"é\" , \"key\": [], \"limit\": \"1/1s\" } ]\n}",
        "\"é\"",
        "name a rule",
    );
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let faults = faults(
        "rules:\n  - {name: a, key: [ip], limit: 0/1m}\n  - {name: a, key: [ip], limit: 5/1m, mode: x}\n  - {name: c, key: [], limit: z}\n",
    );
    let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 3, 3, 4], "{faults:?}");
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

#[test]
fn a_file_that_grows_while_it_is_read_is_refused() {
    for deep in ["[", "{a: ", "- "] {
        assert!(rules(&deep.repeat(100_000)).is_err());
        let inside =
            format!("rules: [{{name: r, key: [], limit: 1/1s, when: {{a: {}}}}}]", deep.repeat(20_000));
        assert!(rules(&inside).is_err());
    }
    let mut bomb = "x0: &x0 [a, a]\n".to_owned();
    (1..40).for_each(|n| bomb.push_str(&format!("x{n}: &x{n} [*x{0}, *x{0}]\n", n - 1)));
    assert!(rules(&bomb).is_err());
    let inside = "rules:\n- name: r\n  key: []\n  limit: 1/1s\n  when:\n    a: &x0 [a, a]\n".to_owned();
    let inside = (1..40).fold(inside, |text, n| format!("{text}    a{n}: &x{n} [*x{0}, *x{0}]\n", n - 1));
    assert!(rules(&inside).is_err());
}

/// Whatever is wrong is shown within the text: never beyond its end, never inside of a letter.
fn assert_places(text: &str) {
    for fault in rules(text).err().unwrap_or_default() {
        assert!(text.get(fault.offset..fault.offset + fault.length).is_some(), "{fault:?} in {text:?}");
    }
}

/// What rule files are made of, right and wrong.
fn piece() -> BoxedStrategy<String> {
    let words: Vec<String> = [
        "rules:",
        "domain: ",
        "name: ",
        "when: ",
        "key: ",
        "limit: ",
        "burst: ",
        "overrides:",
        "unmatched: ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "? ",
        "\"",
        "'",
        "#",
        " #",
        "|\n",
        ">\n",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "!!int ",
        "!x ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "é",
        "😀",
        "\u{feff}",
        "5/1m",
        "7",
        "-1",
        "1.5",
        "0x10",
        "true",
        "null",
        "~",
        ".inf",
        "ip",
        "r",
        "10.0.0.0/8",
        "\r\n",
        "\u{85}",
        "\0",
    ]
    .map(str::to_owned)
    .to_vec();
    proptest::sample::select(words).boxed()
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,200}") {
        assert_places(&text);
    }

    #[test]
    fn arbitrary_pieces_of_yaml_never_panic(pieces in proptest::collection::vec(piece(), 0..40)) {
        assert_places(&pieces.concat());
    }

    #[test]
    fn arbitrary_damage_to_a_good_file_never_panics(
        at in 0..EXAMPLE.len(), cut in 0usize..40, put in prop_oneof![piece(), ".{0,4}".boxed()],
    ) {
        let end = (at + cut).min(EXAMPLE.len());
        assert_places(&format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]));
    }

    #[test]
    fn arbitrary_rules_never_panic_and_faults_point_into_the_text(
        name in ".{0,10}", value in ".{0,12}", key in "[a-zé]{0,5}", limit in "[0-9]{0,20}/[0-9]{0,20}[a-z]{0,5}",
        burst in any::<u64>(),
    ) {
        let text = format!(
            "rules:\n- name: {name:?}\n  when: {{ path: {value:?} }}\n  key: [{key:?}]\n  limit: {limit:?}\n  burst: {burst}\n"
        );
        match rules(&text) {
            Ok(rules) => { matched(&rules, "default", &[("path", &value), (&key, "x")]); }
            Err(_) => assert_places(&text),
        }
    }

    #[test]
    fn arbitrary_limits_are_read_or_refused(text in "[0-9]{0,21}/?[0-9]{0,21}[a-z]{0,6}", burst in any::<Option<u64>>()) {
        if let Ok(limit) = Limit::parse(&text, burst, Algorithm::TokenBucket) {
            let again = Limit::parse(&limit.to_string(), Some(limit.burst_size()), Algorithm::TokenBucket);
            prop_assert_eq!(again.unwrap(), limit);
        }
    }
}
