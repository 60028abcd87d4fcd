use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{HashSecret, pattern::PatternForm};

fn describe(yaml: &str) -> DomainDescription {
    Rules::from_yaml(yaml, &HashSecret::new([1; 16])).unwrap().describe("default")
}

const BEFORE: &str = r#"
rules:
  - name: login
    when: { path: ["/login", "/signin/*"], ip: "!10.0.0.0/8", user: "*" }
    key: [ip]
    limit: 5/1m
  - name: old
    key: []
    limit: unlimited
"#;

#[test]
fn a_rule_is_described_with_its_defaults_and_its_patterns_as_written() {
    let rule = &describe(BEFORE).rules[0];
    assert_eq!(
        (&*rule.limit, rule.burst, rule.algorithm.as_deref()),
        ("5/1m", Some(5), Some("token_bucket"))
    );
    assert_eq!(rule.when["path"], ["/login", "/signin/*"].map(PatternText::from));
    assert_eq!((&rule.when["ip"][0], &rule.when["user"][0]), (&"!10.0.0.0/8".into(), &"*".into()));
    let json = serde_json::to_string(&describe(BEFORE)).unwrap();
    assert_eq!(serde_json::from_str::<DomainDescription>(&json).unwrap(), describe(BEFORE));
}

#[test]
fn a_description_written_as_a_rule_file_is_the_same_rules() {
    let rules = serde_json::to_value(describe(BEFORE).rules).unwrap();
    let again = serde_json::json!({ "rules": rules }).to_string();
    assert_eq!(describe(&again), describe(BEFORE));
}

fn pattern() -> impl Strategy<Value = PatternText> {
    let text = || {
        prop_oneof![
            "[!*a/ |]{0,4}",
            select(vec![
                "10.0.0.0/8",
                "10.1.2.3/8",
                "10.1.2.3",
                "::1",
                "!10.0.0.0/8",
                "true",
                "1.10",
                "{ is: a }"
            ])
            .prop_map(str::to_owned),
        ]
    };
    prop_oneof![
        text().prop_map(PatternText::Short),
        text().prop_map(|text| PatternForm::Is(text).into()),
        text().prop_map(|text| PatternForm::IsNot(text).into()),
        text().prop_map(|text| PatternForm::Like(text).into()),
        text().prop_map(|text| PatternForm::NotLike(text).into()),
    ]
}

proptest! {
    #[test]
    fn conditions_are_described_so_that_they_read_as_the_same_again(
        one in vec(pattern(), 1..4), other in vec(pattern(), 1..4), values in vec("[!*a/ |]{0,5}", 1..8),
    ) {
        let rules = |when: &[PatternText]| {
            let file = serde_json::json!({ "rules": [{ "name": "r", "key": [], "limit": "1/1s", "when": { "v": when } }] });
            Rules::from_yaml(&file.to_string(), &HashSecret::new([1; 16])).unwrap()
        };
        let described = |rules: &Rules| rules.describe("default");
        let shape = |rules: &Rules| rules.rules("default")[0].shape;
        let (first, second) = (rules(&one), rules(&other));
        let again = rules(&described(&first).rules[0].when["v"]);
        prop_assert_eq!(described(&again), described(&first));
        prop_assert_eq!(shape(&again), shape(&first));
        let decide = |rules: &Rules| -> Vec<bool> {
            let about = |value: &String| {
                let mut found = smallvec::SmallVec::new();
                rules.matching("default", &[("v", value)][..], &mut found) == crate::Match::Rules
            };
            values.iter().map(about).collect()
        };
        prop_assert_eq!(decide(&again), decide(&first));
        // What decides otherwise is another condition, by its fingerprint and in a diff.
        if decide(&first) != decide(&second) {
            prop_assert_ne!(shape(&first), shape(&second));
            prop_assert!(!RulesDiff::between(&described(&first), &described(&second)).is_empty());
        }
    }
}

#[test]
fn what_changes_is_told_by_rule_and_field() {
    let after = BEFORE.replace("5/1m", "10/1m\n    mode: shadow").replace("name: old", "name: new");
    let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
    let names = |rules: &[RuleDescription]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&diff.added), names(&diff.removed)), (vec!["new".to_owned()], vec!["old".to_owned()]));
    let fields: Vec<_> = diff.changed[0].fields.iter().map(|change| &*change.field).collect();
    assert_eq!((&*diff.changed[0].name, fields), ("login", vec!["limit", "burst", "mode"]));
    assert_eq!(diff.changed[0].fields[0].to.as_deref(), Some("10/1m"));
    assert!(RulesDiff::between(&describe(BEFORE), &describe(BEFORE)).is_empty());
}

#[test]
fn a_value_that_is_read_in_another_way_is_a_change() {
    let after = BEFORE.replace("\"/signin/*\"", "{ is: \"/signin/*\" }, { like: \"*/signin\" }");
    let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
    assert_eq!(
        diff.changed[0].fields[0].to.as_deref(),
        Some(r#"ip=!10.0.0.0/8 path=/login|{ is: "/signin/*" }|{ like: "*/signin" } user=*"#)
    );
}

#[test]
fn a_domain_that_denies_the_unmatched_says_so() {
    let after = format!("unmatched: deny{BEFORE}");
    let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
    assert_eq!(diff.unmatched.unwrap().to.as_deref(), Some("deny"));
}

#[test]
fn a_domain_that_charges_descriptors_together_says_so() {
    let after = format!("all_or_nothing: true{BEFORE}");
    let diff = RulesDiff::between(&describe(BEFORE), &describe(&after));
    assert!(!diff.is_empty());
    let change = diff.all_or_nothing.unwrap();
    assert_eq!((change.from.as_deref(), change.to.as_deref()), (Some("false"), Some("true")));
}

#[test]
fn a_rule_tells_its_worst_case_and_a_carved_one_is_exact_in_a_partition() {
    let worst = |rest: &str| {
        let text = format!("rules:\n  - {{ name: r, key: [ip], limit: 8/1s, {rest} }}\n");
        describe(&text).rules[0].worst_case()
    };
    assert_eq!(worst("consistency: strict, on_owner_loss: deny").partition, Some(1));
    assert_eq!(worst("consistency: strict, carved: true").partition, Some(1));
    assert_eq!(worst("consistency: strict").partition, Some(2));
    assert_eq!(worst("consistency: strict").further_side, Some(0));
    assert_eq!(worst("carved: true").partition, Some(2));
    assert_eq!(worst("carved: true").further_side, Some(1), "whoever is cut off goes on");
    assert_eq!(worst("on_owner_loss: allow").crash, None);
    assert_eq!(worst("burst: 64").lost, Some(64));
    assert_eq!(worst("burst: 64, takeover: reserve").lost, Some(40), "what refills in five seconds");
    assert_eq!(worst("burst: 64, takeover: reserve, on_owner_loss: deny").lost, Some(4));
    assert_eq!(worst("burst: 1000, takeover: reserve").lost, Some(62));
    assert_eq!(
        worst("algorithm: fixed_window, takeover: reserve").lost,
        Some(8),
        "a window that ended meanwhile"
    );
    assert_eq!(worst("algorithm: fixed_window, takeover: reserve, on_owner_loss: deny").lost, Some(1));
    assert_eq!(worst("algorithm: fixed_window, takeover: reserve, carved: true").lost, Some(1));
    assert_eq!(worst("burst: 64").memory_full, None);
    assert_eq!(worst("on_memory_full: strict").memory_full, Some(1));
}

#[test]
fn a_crash_costs_what_the_limit_loses_that_can_lose_most() {
    let lost = |limit: &str, overrides: &str| {
        let rule = format!("name: r, key: [ip], limit: {limit}, on_owner_loss: deny, takeover: reserve");
        let text = format!("rules: [{{ {rule}, overrides: [{overrides}] }}]");
        describe(&text).rules[0].worst_case().lost
    };
    let special = "{ when: { ip: 10.0.0.1 }, limit: 16000/1d }";
    assert_eq!(lost("16/10m", special), Some(1000));
    assert_eq!(lost("32000/1d", special), Some(2000));
    assert_eq!(lost("unlimited", special), Some(1000));
    assert_eq!(lost("deny", special), Some(1000));
    let one = "{ when: { ip: 10.0.0.1 }, limit: 1/10m, burst: 64 }, { when: { ip: 10.0.0.2 }, limit: deny }";
    assert_eq!(lost("16/10m", one), Some(4), "an override has a burst of its own");
}

#[test]
fn what_happens_when_memory_is_full_is_described_and_a_change_of_it_is_one() {
    let rule = |rest: &str| describe(&format!("rules: [{{ name: r, key: [ip], limit: 8/1s{rest} }}]"));
    assert_eq!(rule("").rules[0].on_memory_full, "forget");
    assert_eq!(rule(", on_memory_full: forget"), rule(""));
    let diff = RulesDiff::between(&rule(""), &rule(", on_memory_full: strict"));
    let change = &diff.changed[0].fields[0];
    assert_eq!(
        (&*change.field, change.from.as_deref(), change.to.as_deref()),
        ("on_memory_full", Some("forget"), Some("strict"))
    );
    // Descriptions of versions before have none.
    let old = serde_json::to_string(&rule("").rules[0]).unwrap();
    let old = old.replace(r#","on_memory_full":"forget""#, "");
    assert!(!old.contains("on_memory_full"), "{old}");
    let old: RuleDescription = serde_json::from_str(&old).unwrap();
    assert_eq!(old, rule("").rules[0]);
}

#[test]
fn how_buckets_begin_again_is_said_and_refused_where_it_cannot_be() {
    let takeover = |rest: &str| {
        let text = format!("rules:\n  - {{ name: r, key: [ip], {rest} }}\n");
        let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16]));
        rules.map(|rules| {
            let has_none = rules.rules("default")[0].reserve().is_none();
            (rules.describe("default").rules[0].takeover.clone(), has_none)
        })
    };
    assert_eq!(takeover("limit: 5/1s").unwrap(), ("zero".to_owned(), true));
    assert_eq!(takeover("limit: 5/1h").unwrap(), ("reserve".to_owned(), false));
    assert_eq!(takeover("limit: 5/1h, takeover: zero").unwrap(), ("zero".to_owned(), true));
    assert_eq!(takeover("limit: 5/1s, takeover: reserve").unwrap(), ("reserve".to_owned(), false));
    assert_eq!(takeover("limit: 5/1h, mode: shadow").unwrap(), ("reserve".to_owned(), true));
    let slides = takeover("limit: 5/1h, algorithm: sliding_window").unwrap();
    assert_eq!(slides, ("reserve".to_owned(), false));
    let errors = takeover("limit: 5/1h, algorithm: sliding_log, takeover: reserve").unwrap_err();
    assert!(errors[0].to_string().contains("sliding_log"), "{}", errors[0]);
}

#[test]
fn how_buckets_begin_of_which_nobody_can_tell_is_said_and_admits_the_limit_once_more_at_most() {
    let rule = |rest: &str| format!("rules: [{{ name: r, key: [ip], limit: 5/1h{rest} }}]");
    let described = |rest: &str| describe(&rule(rest)).rules[0].clone();
    assert_eq!(described("").on_total_loss, "exhausted");
    assert_eq!(described(", on_total_loss: exhausted"), described(""));
    let full = described(", on_total_loss: full");
    assert_eq!((&*full.on_total_loss, full.worst_case().crash), ("full", Some(2)));
    assert_eq!(described("").worst_case().crash, Some(1));
    assert_eq!(described(", on_total_loss: full, on_owner_loss: allow").worst_case().crash, None);
    let diff = RulesDiff::between(&describe(&rule("")), &describe(&rule(", on_total_loss: full")));
    assert_eq!(diff.changed[0].fields[0].field, "on_total_loss");
    // Descriptions of versions before have none.
    let old = serde_json::to_string(&described("")).unwrap().replace(r#","on_total_loss":"exhausted""#, "");
    assert!(!old.contains("on_total_loss"), "{old}");
    assert_eq!(serde_json::from_str::<RuleDescription>(&old).unwrap(), described(""));
    let errors = Rules::from_yaml(&rule(", on_total_loss: empty"), &HashSecret::new([1; 16])).unwrap_err();
    assert!(errors[0].to_string().contains("exhausted"), "{}", errors[0]);
    // Of the rules of a domain only those are full.
    let two = "rules: [{ name: r, key: [ip], limit: 5/1h, on_total_loss: full }, { name: s, key: [ip], limit: 5/1h }]";
    let rules = Rules::from_yaml(two, &HashSecret::new([1; 16])).unwrap();
    let starts_full = rules.rules("default").iter().map(|rule| rules.reserves().starts_full(rule.id()));
    assert_eq!(starts_full.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn all_parts_of_a_carved_limit_are_no_more_than_the_whole() {
    for algorithm in crate::Algorithm::ALL {
        for (limit, burst) in
            [("100/1s", Some(40)), ("7/1m", None), ("1000003/1h", Some(11)), ("30/1d", None)]
        {
            let burst = burst.filter(|_| algorithm.has_burst());
            let whole = Limit::parse(limit, burst, algorithm).unwrap();
            let owner = whole.carve().unwrap();
            for nodes in [1u32, 3, 50] {
                let share = owner.share(nodes * Limit::CARVED_PARTS);
                let shares = share.map_or(0, |share| share.burst_size() * u64::from(nodes));
                assert!(owner.burst_size() + shares <= whole.burst_size(), "{whole} {algorithm:?}");
            }
            let rate = |limit: &Limit| limit.count() as f64 / limit.window().as_secs_f64();
            assert!(rate(&owner) <= rate(&whole) * 0.750_000_1, "{whole} {algorithm:?}");
        }
    }
}

#[test]
fn what_a_rule_takes_of_a_request_is_described_and_a_change_of_it_is_one() {
    let rules = |cost: &str| format!("rules:\n  - {{ name: r, key: [ip], limit: 8/1s{cost} }}\n");
    assert_eq!(describe(&rules("")).rules[0].cost, None);
    assert_eq!(describe(&rules(", cost: 1")), describe(&rules("")));
    for cost in ["5", "tokens"] {
        let written = describe(&rules(&format!(", cost: {cost}")));
        assert_eq!(written.rules[0].cost.as_deref(), Some(cost));
        let again = serde_json::json!({ "rules": written.rules }).to_string();
        assert_eq!(describe(&again), written);
        let diff = RulesDiff::between(&describe(&rules("")), &written);
        let change = &diff.changed[0].fields[0];
        assert_eq!((&*change.field, &change.from, change.to.as_deref()), ("cost", &None, Some(cost)));
    }
}
