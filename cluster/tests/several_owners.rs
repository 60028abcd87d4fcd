//! Checks whose buckets several nodes own: each is one request, and its answer is one answer.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::time::Duration;

use kit::{Node, charge, key_of, policy, stop_all, three_nodes_with};
use tidegate_cluster::{Amendment, CheckOptions, Clock, LossPolicy, Verdict};
use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::{Charge, OnOwnerLoss, Reserve},
    rules::Period,
};

async fn decide(node: &Node, charges: &[Charge], policies: &[LossPolicy], request: Option<u64>) -> Verdict {
    let mut charges = charges.to_vec();
    let router = node.router();
    let options = CheckOptions { revision: 0, request, deadline: router.deadline() };
    router.decide_once(0, &mut charges, policies, options, Clock::start().now()).await.unwrap()
}

async fn left(node: &Node, of: &Charge) -> u64 {
    let look = Charge { cost: Cost::PEEK, ..*of };
    let verdict = decide(node, &[look], &[policy(OnOwnerLoss::Deny)], None).await;
    verdict.answers[0].as_ref().unwrap().decision.remaining
}

#[tokio::test]
async fn two_checks_with_one_request_id_are_two_requests_at_each_owner_if_one_bucket_or_cost_differs() {
    let nodes = three_nodes_with(Duration::from_secs(4)).await;
    let policies = [policy(OnOwnerLoss::Deny); 2];
    for (round, owner) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let from = 1 + ((round as u64) << 40);
        let of_client = charge(key_of(&nodes[0], owner, from), 100);
        let of_path = charge(key_of(&nodes[0], "n2", from + (1 << 30)), 50);
        let of_other = charge(key_of(&nodes[0], "n3", from + (2 << 30)), 50);
        let five = Charge { cost: Cost::new(5).unwrap(), ..of_path };
        let id = 0x9e37_79b9_7f4a_7c15 + round as u64 * (1 << 50);
        // Each of them twice, by another node.
        for node in [&nodes[0], &nodes[2]] {
            for second in [of_path, of_other, five] {
                assert!(decide(node, &[of_client, second], &policies, Some(id)).await.allowed);
            }
        }
        let used = 3;
        assert_eq!(left(&nodes[1], &of_client).await, 100 - used, "{owner}");
        // The id is enough to name all of them, and no other id. A unit that may have refilled is not given back.
        let all = Charge { cost: Cost::new(50).unwrap(), ..of_client };
        for (request, is_named) in [(id + (1 << 44), false), (id, true)] {
            let amendment = Amendment::RefundOf(request);
            let amended = nodes[1].router().amend(0, amendment, &[all], &policies[..1], 0).await.unwrap();
            let remaining = amended.answers[0].as_ref().unwrap().decision.remaining;
            assert!(if is_named { remaining >= 99 } else { remaining == 100 - used }, "{owner}: {remaining}");
        }
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn what_waits_for_a_successor_is_not_named_where_another_owner_denies() {
    let nodes = three_nodes_with(Duration::from_secs(4)).await;
    let limit =
        Limit::new(Algorithm::FixedWindow, 2000, Period::Fixed(Duration::from_secs(3600)), None).unwrap();
    let mut policies = [policy(OnOwnerLoss::Deny); 2];
    policies[1].reserve = Reserve::of_inline(&limit);
    assert!(policies[1].reserve.is_some());
    for round in 0..30 {
        let from = 1 + ((round as u64) << 40);
        let [one, other] = [["n2", "n3"], ["n3", "n1"], ["n1", "n2"]][round % 3];
        let of_client = charge(key_of(&nodes[0], one, from), 1);
        let of_team = Charge { limit, ..charge(key_of(&nodes[0], other, from + (1 << 30)), 1) };
        let with_cost = |cost| [of_client, Charge { cost: Cost::new(cost).unwrap(), ..of_team }];
        assert!(decide(&nodes[0], &with_cost(500), &policies, None).await.allowed);
        // More than the successor knows of, a moment later.
        let verdict = decide(&nodes[0], &with_cost(1000), &policies, None).await;
        let [Some(client), team] = &verdict.answers[..] else { panic!("{verdict:?}") };
        assert!(!verdict.allowed && client.decision.denies(), "{verdict:?}");
        assert!(client.decision.retry_after.unwrap() > Duration::from_secs(3000), "{verdict:?}");
        if let Some(team) = team {
            assert!(team.decision.allowed && team.decision.retry_after.is_none(), "{verdict:?}");
            assert_eq!(team.decision.remaining, 1500, "{verdict:?}");
        }
    }
    stop_all(nodes).await;
}
