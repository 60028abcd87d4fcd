//! A limit of nothing: whatever is asked, it denies, and keeps nothing of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use tidegate_limiter::{
    Algorithm, Cost, Keyed, Limit, Limiter, Nanos, NewRule,
    cluster::{DomainDescription, Rules, WorstCase},
    rules::HashSecret,
};

const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

#[test]
fn each_algorithm_denies_each_cost_for_ever_and_keeps_no_bucket() {
    for algorithm in Algorithm::ALL {
        for text in ["deny", "0/1s", "0/1m", "0/31d"] {
            let limit = Limit::parse(text, None, algorithm).unwrap();
            let keyed = Keyed::new(limit).unwrap();
            for cost in [Cost::PEEK, Cost::ONE, Cost::new(7).unwrap(), Cost::MAX] {
                for key in ["a", "b"] {
                    let answer = keyed.check(key, cost, NOW);
                    let decision = answer.decision();
                    assert!(!answer.is_allowed() && !decision.allowed, "{text} {algorithm} {cost:?}");
                    assert_eq!((decision.limit, decision.remaining), (0, 0), "{text} {algorithm}");
                    assert_eq!(decision.retry_after, None, "{text} {algorithm} {cost:?}");
                }
            }
            keyed.refund("a", Cost::new(9).unwrap(), NOW);
            assert!(
                !keyed.check("a", Cost::ONE, NOW).is_allowed(),
                "nothing was taken, so nothing is given back"
            );
            assert_eq!(keyed.stats().buckets, 0);
        }
    }
}

#[test]
fn what_is_cut_out_of_nothing_is_nothing() {
    for algorithm in Algorithm::ALL {
        let limit = Limit::parse("deny", None, algorithm).unwrap();
        assert!(limit.carve().unwrap().denies());
        assert_eq!(limit.share(1), None);
        // What is left of a small limit is not a denial.
        assert_eq!(Limit::parse("3/1m", None, algorithm).unwrap().carve(), None);
    }
}

#[test]
fn an_override_denies_one_and_another_one_spares_from_a_denial() {
    let limiter = Limiter::builder()
        .yaml(
            "
rules:
  - name: per-user
    key: [user]
    limit: 5/1h
    overrides: [{ when: { user: mallory }, limit: deny }]
  - name: closed
    when: { path: /admin/* }
    key: [user]
    limit: 0/1m
    overrides: [{ when: { user: root }, limit: unlimited }, { when: { user: ada }, limit: 2/1h }]
",
        )
        .build()
        .unwrap();
    let admitted =
        |request: &[(&str, &str)]| (0..9).filter(|_| limiter.check(request, Cost::ONE, NOW).allowed).count();
    assert_eq!(admitted(&[("user", "mallory")]), 0);
    assert_eq!(admitted(&[("user", "ada"), ("path", "/admin/x")]), 2);
    assert_eq!(admitted(&[("user", "ada")]), 3, "what was denied was not charged");
    assert_eq!(admitted(&[("user", "root"), ("path", "/admin/x")]), 5);
    assert_eq!(admitted(&[("user", "eve"), ("path", "/admin/x")]), 0);
    assert_eq!(admitted(&[("user", "eve")]), 5);
    let request = [("user", "mallory"), ("path", "/admin/x")];
    let denied = limiter.check(&request[..], Cost::ONE, NOW);
    assert_eq!(denied.binding().unwrap().decision.retry_after, None);
    limiter.reset(&request[..]);
    assert_eq!(admitted(&request), 0, "a reset changes nothing");
}

#[test]
fn in_shadow_mode_it_only_reports() {
    let limiter = Limiter::builder()
        .rule(NewRule::new("closed", Limit::DENY).shadow())
        .rule(NewRule::new("all", Limit::per_hour(2)))
        .build()
        .unwrap();
    let verdicts: Vec<bool> =
        (0..3).map(|_| limiter.check(&[("user", "ada")][..], Cost::ONE, NOW).allowed).collect();
    assert_eq!(verdicts, [true, true, false]);
}

fn describe(rules: &str) -> DomainDescription {
    let secret = HashSecret::new([1; 16]);
    let rules = Rules::from_yaml(&format!("rules: [{rules}]"), &secret).unwrap();
    rules.describe("default")
}

#[test]
fn it_is_described_as_it_was_written_and_nothing_is_lost_of_it() {
    for limit in ["deny", "0/1m"] {
        let described =
            describe(&format!("{{ name: closed, key: [ip], limit: {limit}, on_owner_loss: allow }}"));
        let rule = &described.rules[0];
        assert_eq!((&*rule.limit, rule.burst, rule.algorithm.as_deref()), (limit, None, None));
        let nothing_more = WorstCase { memory_full: Some(1), ..WorstCase::default() };
        assert_eq!(rule.worst_case(), nothing_more, "each node denies, whomever it reaches");
    }
    let spared = describe(
        "{ name: closed, key: [ip], limit: deny, algorithm: sliding_log, on_owner_loss: allow,
           overrides: [{ when: { ip: 10.0.0.0/8 }, limit: 5/1h }] }",
    );
    assert_eq!(spared.rules[0].algorithm.as_deref(), Some("sliding_log"), "that of its override");
    assert_eq!(spared.rules[0].worst_case().crash, None);
    let json = serde_json::json!({ "rules": serde_json::to_value(&spared.rules).unwrap() }).to_string();
    let again = Rules::from_yaml(&json, &HashSecret::new([1; 16])).unwrap().describe("default");
    assert_eq!(again, spared, "a description is a rule file");
}

#[test]
fn a_rule_whose_override_denies_keeps_the_floors_of_its_other_limits() {
    let secret = HashSecret::new([1; 16]);
    let reserves = |rules: &str| {
        let rules = Rules::from_yaml(&format!("rules: [{rules}]"), &secret).unwrap();
        (**rules.reserves()).clone()
    };
    let plain = "{ name: r, key: [ip], limit: 500/1h, carved: true";
    let with = reserves(&format!("{plain}, overrides: [{{ when: {{ ip: 10.0.0.1 }}, limit: deny }}] }}"));
    assert_eq!(with, reserves(&format!("{plain} }}")));
    let none = reserves("{ name: r, key: [ip], limit: deny, takeover: zero }");
    assert_eq!(reserves("{ name: r, key: [ip], limit: deny, takeover: reserve }"), none);
}
