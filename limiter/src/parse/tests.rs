use super::*;
use crate::{Match, Matched, Period};
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
        (limit.count(), limit.burst(), limit.period()),
        (5, 10, Period::Fixed(Duration::from_secs(60)))
    );
    assert_eq!(found[0].rule.name(), "login-per-ip");

    let inside = [("path", "/login"), ("method", "POST"), ("ip", "10.1.2.3")];
    assert!(matched(&rules, "default", &inside)[0].limit.is_none());
    let gold = [("path", "/login"), ("method", "POST"), ("ip", "203.0.113.7"), ("tier", "gold")];
    assert_eq!(matched(&rules, "default", &gold)[0].limit.unwrap().burst(), 100);
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
    assert_fault(&rule("    consistency: strict\n"), "strict", "sessions");
    assert_fault(&rule("    when: { ip: 10.0.0.0/99 }\n"), "10.0.0.0/99", "no network");
    assert_fault(&rule("    when: { cost: \"1\" }\n"), "\"1\"", "another name");
    assert_fault("rules:\n  - name: r\n    key: [ip, ip]\n    limit: 5/1m\n", "ip]", "twice");
    assert_fault("rules:\n  - name: r\n    key: [domain]\n    limit: 5/1m\n", "domain]", "another name");
    assert_fault("unmatched: maybe\nrules: []\n", "maybe", "allow, deny");
    assert_fault("rules:\n  - name: a b\n    key: []\n    limit: 5/1m\n", "a b", "can not name a rule");
}

#[test]
fn an_unknown_field_is_named_with_its_place() {
    let faults = faults("rules:\n  - name: r\n    key: [ip]\n    limit: 5/1m\n    brust: 10\n");
    assert!(faults[0].message.contains("brust"), "{faults:?}");
    assert_eq!(faults[0].line, 5, "{faults:?}");
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

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = rules(&text);
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
            Err(faults) => for fault in faults {
                prop_assert!(text.get(fault.offset..fault.offset + fault.length).is_some(), "{fault:?}");
            }
        }
    }

    #[test]
    fn arbitrary_limits_are_read_or_refused(text in "[0-9]{0,21}/?[0-9]{0,21}[a-z]{0,6}", burst in any::<Option<u64>>()) {
        if let Ok(limit) = Limit::parse(&text, burst, Algorithm::TokenBucket) {
            let again = Limit::parse(&limit.to_string(), Some(limit.burst()), Algorithm::TokenBucket);
            prop_assert_eq!(again.unwrap(), limit);
        }
    }
}
