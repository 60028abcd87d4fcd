//! Nodes that do not have the same rules: the newer ones of those that meet at an owner decide.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::{sync::Arc, time::Duration};

use kit::{DEADLINE, Node, stop_all, until};
use smallvec::SmallVec;
use tidegate_cluster::{
    Amendment, CheckOptions, Clock, DecidedBy, LossPolicy, Undecided, Verdict, rules::NewRules, slots::SlotId,
};
use tidegate_limiter::{
    Cost,
    cluster::{Charge, Consistency, Matched, Rules},
    rules::HashSecret,
};
use tokio::time::Instant;

const DOMAIN: &str = "api";

fn rule(rest: &str) -> String {
    format!("rules: [{{ name: per-user, key: [user], {rest} }}]")
}

/// Writes rules, and waits until each node has them.
async fn write(nodes: &[Node], text: &str) -> Arc<Rules> {
    let written =
        nodes[0].ledger().write(NewRules::new(DOMAIN, text), Instant::now() + DEADLINE).await.unwrap();
    let revision = written.revision.get();
    until("all have the rules", || nodes.iter().all(|node| node.rules.load().revision() >= revision)).await;
    nodes[2].rules.load_full()
}

/// What the rules make of a request: what is charged, of rules of which revision.
struct Made {
    charges: SmallVec<[Charge; 4]>,
    policies: SmallVec<[LossPolicy; 4]>,
    revision: u64,
}

fn make(rules: &Rules, request: &[(&str, &str)]) -> Made {
    let mut matched: SmallVec<[Matched<'_>; 4]> = SmallVec::new();
    rules.matching(DOMAIN, request, &mut matched);
    let mut made = Made { charges: SmallVec::new(), policies: SmallVec::new(), revision: rules.revision() };
    for Matched { rule, limit, key, limit_ref } in matched {
        let Some(limit) = limit else { continue };
        made.charges.push(Charge {
            key,
            rule: rule.id(),
            limit: *limit,
            cost: Cost::ONE,
            mode: rule.mode(),
            floor: None,
            ban: None,
        });
        made.policies.push(LossPolicy {
            on_owner_loss: rule.on_owner_loss(),
            consistency: rule.consistency(),
            carved: rule.is_carved(),
            reserve: rule.reserve(),
            limit_ref,
        });
    }
    made
}

/// A user whose buckets are not at `n3`, by these rules: that of an override is another than the rule's own.
fn user_of_others(nodes: &[Node], rules: &Rules, from: u32) -> String {
    let table = nodes[2].status().table.unwrap();
    let is_elsewhere = |user: &String| {
        let requests = [&[("user", &**user)][..], &[("user", user), ("plan", "gold")]];
        let charges = requests.into_iter().flat_map(|request| make(rules, request).charges);
        charges.into_iter().all(|charge| &**table.owner(SlotId::of(charge.key)) != "n3")
    };
    (from..).map(|user| format!("u{user}")).find(is_elsewhere).unwrap()
}

/// What `n3` is told when it has made a check by these rules.
async fn ask(nodes: &[Node], made: &Made) -> Result<Verdict, Undecided> {
    let router = nodes[2].router();
    let options = CheckOptions { revision: made.revision, request: None, deadline: router.deadline() };
    router.decide_once(0, &mut made.charges.clone(), &made.policies, options, Clock::start().now()).await
}

/// The same for a node that has no newer rules: what `n3` would match again comes again as it was.
async fn ask_stubbornly(nodes: &[Node], made: &Made) -> Verdict {
    for _ in 0..500 {
        match ask(nodes, made).await {
            Ok(verdict) => return verdict,
            Err(undecided) => assert_eq!(undecided, Undecided::RulesChanged),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is never decided");
}

async fn admitted(nodes: &[Node], made: &Made, attempts: usize) -> usize {
    let mut count = 0;
    for _ in 0..attempts {
        count += usize::from(ask_stubbornly(nodes, made).await.allowed);
    }
    count
}

/// Owners that answer late on a busy machine are waited for.
async fn patient_nodes() -> Vec<Node> {
    kit::three_nodes_with(Duration::from_secs(4)).await
}

#[tokio::test]
async fn an_owner_decides_by_its_newer_limit() {
    let nodes = patient_nodes().await;
    let gold = |limit: &str, gold: &str| {
        rule(&format!("limit: {limit}, overrides: [{{ when: {{ plan: gold }}, limit: {gold} }}]"))
    };
    let old = write(&nodes, &gold("100/1h", "40/1h")).await;
    write(&nodes, &gold("5/1h", "7/1h")).await;
    let plain = user_of_others(&nodes, &old, 0);
    let of_plain = make(&old, &[("user", &plain)]);
    assert_eq!(admitted(&nodes, &of_plain, 120).await, 5);
    let last = ask_stubbornly(&nodes, &of_plain).await.answers[0].clone().unwrap();
    assert!(matches!(last.by, DecidedBy::Forwarded(_)) && last.decision.limit == 5, "{last:?}");
    let user = user_of_others(&nodes, &old, 1000);
    assert_eq!(admitted(&nodes, &make(&old, &[("user", &user), ("plan", "gold")]), 60).await, 7);

    // Raised: the limit of the older rules holds nobody back.
    write(&nodes, &gold("300/1d", "7/1h")).await;
    let user = user_of_others(&nodes, &old, 2000);
    assert_eq!(admitted(&nodes, &make(&old, &[("user", &user)]), 310).await, 300);
    // What was admitted meanwhile counts at the owner whichever rules the asker has.
    write(&nodes, &gold("6/1h", "7/1h")).await;
    let user = user_of_others(&nodes, &old, 3000);
    let new = nodes[2].rules.load_full();
    let (old_way, new_way) = (make(&old, &[("user", &user)]), make(&new, &[("user", &user)]));
    let mut sum = 0;
    for _ in 0..20 {
        sum += admitted(&nodes, &old_way, 1).await + admitted(&nodes, &new_way, 1).await;
    }
    assert_eq!(sum, 6);
    stop_all(nodes).await;
}

#[tokio::test]
async fn an_owner_takes_the_mode_and_the_floors_of_its_newer_rules() {
    let nodes = patient_nodes().await;
    let old = write(&nodes, &rule("limit: 4/1h, takeover: zero, mode: shadow")).await;
    write(&nodes, &rule("limit: 4/1h, takeover: zero")).await;
    let user = user_of_others(&nodes, &old, 0);
    assert_eq!(admitted(&nodes, &make(&old, &[("user", &user)]), 20).await, 4);

    let old = write(&nodes, &rule("limit: 1000/1d, takeover: zero")).await;
    write(&nodes, &rule("limit: 1000/1d, takeover: reserve, consistency: strict")).await;
    let complete = || nodes.iter().all(|node| node.stats().floors.complete() > 0);
    until("the successors know all that there is", complete).await;
    let told = || nodes.iter().map(|node| node.stats().floors.told()).sum::<u64>();
    let before = told();
    let user = user_of_others(&nodes, &old, 1000);
    let made = make(&old, &[("user", &user)]);
    assert!(made.policies[0].reserve.is_none() && made.policies[0].consistency == Consistency::Available);
    assert_eq!(admitted(&nodes, &made, 700).await, 700);
    // A quantum is 62 units: it cannot have been told less often.
    until("the successor is told", || told() >= before + 5).await;
    stop_all(nodes).await;
}

#[tokio::test]
async fn what_an_owner_cannot_carry_over_is_to_be_matched_again() {
    let nodes = patient_nodes().await;
    let old = write(&nodes, &rule("limit: 100/1h")).await;
    for newer in [
        rule("limit: 3/1h, overrides: [{ when: { plan: gold }, limit: 9/1h }]"),
        rule("limit: 3/1h, when: { plan: gold }"),
        "rules: [{ name: other, key: [user], limit: 3/1h }]".to_owned(),
        "rules: []".to_owned(),
    ] {
        write(&nodes, &newer).await;
        let user = user_of_others(&nodes, &old, 0);
        let made = make(&old, &[("user", &user)]);
        // It has the newer rules.
        assert_eq!(ask(&nodes, &made).await.unwrap_err(), Undecided::RulesChanged, "{newer}");
        // Nothing was charged, nor is anything given back by a limit that nobody knows.
        let router = nodes[2].router();
        let amended =
            router.amend(0, Amendment::Refund, &made.charges, &made.policies, made.revision).await.unwrap();
        assert!(!amended.is_complete() && !amended.unsure, "{newer}: {amended:?}");
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn an_owner_that_is_behind_decides_by_the_newer_limit_of_the_asker() {
    let nodes = patient_nodes().await;
    let now = write(&nodes, &rule("limit: 100/1h")).await;
    // Rules that the owner does not have yet.
    let founding = nodes[0].ledger().applied().state.founding.clone().unwrap();
    let secret = HashSecret::new(founding.hash_secret);
    let next = now.revision() + 10;
    let lowered = now.with_domain_at(DOMAIN, &rule("limit: 5/1h"), &secret, next).unwrap().at_revision(next);
    let user = user_of_others(&nodes, &now, 0);
    assert_eq!(admitted(&nodes, &make(&lowered, &[("user", &user)]), 20).await, 5);
    let renamed = now
        .with_domain_at(DOMAIN, "rules: [{ name: other, key: [user], limit: 2/1h }]", &secret, next)
        .unwrap()
        .at_revision(next);
    let user = user_of_others(&nodes, &renamed, 0);
    assert_eq!(admitted(&nodes, &make(&renamed, &[("user", &user)]), 20).await, 2);
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_shadow_rule_of_the_asker_denies_nobody_while_no_newer_rule_does() {
    let nodes = patient_nodes().await;
    let old = write(&nodes, &rule("limit: 3/1h, mode: shadow")).await;
    let user = user_of_others(&nodes, &old, 0);
    let made = make(&old, &[("user", &user)]);
    for newer in ["rules: []".to_owned(), rule("limit: 3/1h, mode: shadow, algorithm: fixed_window")] {
        write(&nodes, &newer).await;
        for _ in 0..5 {
            let verdict = ask(&nodes, &made).await.unwrap();
            assert!(verdict.allowed && verdict.answers[0].is_some(), "{newer}: {verdict:?}");
        }
    }
    write(&nodes, &rule("limit: 3/1h, when: { plan: gold }")).await;
    assert_eq!(ask(&nodes, &made).await.unwrap_err(), Undecided::RulesChanged, "that one denies");
    stop_all(nodes).await;
}
