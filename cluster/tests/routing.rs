//! Real nodes of one process over real sockets: who decides, and what it costs when somebody denies.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::time::Duration;

use kit::{
    DEADLINE, admitted, charge, config, decide, free_port, key_of, start, stop_all, three_nodes,
    three_nodes_with, until,
};
use tidegate_cluster::{Amendment, Clock, ClusterKey, DecidedBy, Decisions, Local, LossPolicy, Readiness};
use tidegate_limiter::cluster::{Charge, Consistency, LimitRef, OnOwnerLoss};
use tokio::time::Instant;

#[tokio::test]
async fn a_bucket_is_one_bucket_whichever_node_is_asked() {
    let nodes = three_nodes().await;
    let key = key_of(&nodes[0], "n2", 1);
    let one: [Charge; 1] = [charge(key, 10)];
    let mut total = 0;
    for node in nodes.iter().cycle().take(30) {
        let verdict = decide(node, &one, OnOwnerLoss::Deny).await;
        let answer = verdict.answers[0].clone().unwrap();
        let expected =
            if std::ptr::eq(node, &nodes[1]) { DecidedBy::Owner } else { DecidedBy::Forwarded("n2".into()) };
        assert_eq!(answer.by, expected);
        total += usize::from(verdict.allowed);
    }
    assert_eq!(total, 10);

    let mut decisions = Decisions::new();
    let mut mine = one;
    let policies = [LossPolicy {
        on_owner_loss: OnOwnerLoss::Deny,
        consistency: Consistency::Strict,
        carved: false,
        reserve: None,
        limit_ref: LimitRef::INLINE,
    }];
    let local = nodes[1].router().decide_local(&mut mine, &policies, Clock::start().now(), &mut decisions);
    assert!(matches!(local, Local::Decided { allowed: false, .. }), "{local:?}");
    assert_eq!(
        nodes[0].router().decide_local(&mut mine, &policies, Clock::start().now(), &mut decisions),
        Local::Elsewhere
    );
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denied_check_over_several_owners_costs_nothing_anywhere() {
    let nodes = three_nodes().await;
    let (first, second, third) =
        (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n3", 1));
    let all = [charge(first, 50), charge(second, 50), charge(third, 5)];
    assert_eq!(admitted(&nodes[0], &all, 40).await, 5, "the third bucket binds");
    // The denied ones are given back. What is undone at a peer arrives there soon, in order.
    let here = admitted(&nodes[0], &[charge(first, 50)], 60).await;
    assert_eq!(here, 45, "this node's own part was given back");
    let there = admitted(&nodes[0], &[charge(second, 50)], 60).await;
    assert_eq!(there, 45, "the part of another owner was given back");
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denial_at_home_asks_nobody_else() {
    let nodes = three_nodes().await;
    let (mine, theirs) = (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n2", 1));
    let both = [charge(theirs, 100), charge(mine, 1)];
    assert_eq!(admitted(&nodes[0], &both, 20).await, 1);
    let sent: u64 = nodes[0].stats().workers.iter().map(|worker| worker.sent.get()).sum();
    assert_eq!(sent, 1);
    let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
    assert!(verdict.answers[0].is_none() && verdict.answers[1].is_some());
    stop_all(nodes).await;
}

/// Checks of other nodes that a node has decided or refused.
fn asked(node: &kit::Node) -> u64 {
    let workers = &node.stats().workers;
    workers.iter().map(|worker| worker.decided_for_peers.get() + worker.refused_to_peers.get()).sum()
}

#[tokio::test]
async fn what_has_denied_is_asked_first_and_nobody_else_is_charged_for_it() {
    let nodes = three_nodes_with(Duration::from_secs(4)).await;
    // Of one client, at n3; shared by all, at n2 or at the node that is asked.
    let client = key_of(&nodes[0], "n3", 1);
    for shared in [key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n1", 1)] {
        let both = [charge(shared, 100), charge(client, 3)];
        // The first denials are not known before.
        admitted(&nodes[0], &both, 6).await;
        let before = asked(&nodes[1]);
        for _ in 0..50 {
            let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
            assert!(!verdict.allowed && verdict.answers[0].is_none(), "{verdict:?}");
            assert_eq!(verdict.answers[1].as_ref().unwrap().by, DecidedBy::Forwarded("n3".into()));
        }
        assert_eq!(asked(&nodes[1]), before, "n2 was asked for nothing");
        // Other clients are not held up: all owners are asked at the same time.
        let other = key_of(&nodes[0], "n3", 1 << 40);
        assert_eq!(admitted(&nodes[0], &[charge(shared, 100), charge(other, 100)], 10).await, 10);
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denial_that_is_remembered_denies_nothing_by_itself() {
    let nodes = three_nodes().await;
    let (shared, client) = (key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n3", 1));
    let both = [charge(shared, 100), charge(client, 3)];
    assert_eq!(admitted(&nodes[0], &both, 20).await, 3);
    let reset = |amendment| {
        let (client, policy) = ([charge(client, 3)], kit::policy(OnOwnerLoss::Deny));
        let router = nodes[1].router();
        async move { router.amend(0, amendment, &client, &[policy], 0).await.unwrap().is_complete() }
    };
    assert!(reset(Amendment::Refund).await);
    assert_eq!(admitted(&nodes[0], &both, 20).await, 1, "a refund is felt by the next check");
    assert!(reset(Amendment::Reset).await);
    assert_eq!(admitted(&nodes[0], &both, 20).await, 3, "so is a reset");
    // A larger limit, too.
    let raised = [charge(shared, 100), charge(client, 5)];
    assert_eq!(admitted(&nodes[0], &raised, 20).await, 2);
    assert_eq!(admitted(&nodes[0], &[charge(shared, 100)], 120).await, 91, "each denied check gave back");
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_denial_here_still_goes_before_what_is_remembered_of_others() {
    let nodes = three_nodes().await;
    let (shared, mine) = (key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n1", 1));
    let third = key_of(&nodes[0], "n3", 1);
    // The shared bucket is empty, and known for it.
    admitted(&nodes[0], &[charge(shared, 2), charge(third, 100)], 10).await;
    let both = [charge(shared, 2), charge(mine, 1)];
    assert_eq!(admitted(&nodes[0], &[charge(mine, 1)], 2).await, 1);
    let before = asked(&nodes[1]);
    assert_eq!(admitted(&nodes[0], &both, 20).await, 0);
    assert_eq!(asked(&nodes[1]), before);
    stop_all(nodes).await;
}

#[tokio::test]
async fn without_its_owner_a_check_is_answered_in_time_as_its_rule_says() {
    let mut nodes = three_nodes().await;
    let key = key_of(&nodes[0], "n3", 1);
    let table = nodes[0].status().table.unwrap();
    nodes.pop().unwrap().stop().await;
    until("the link is gone", || nodes[0].status().live.len() == 3).await;
    let started = Instant::now();
    let denied = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Deny).await;
    let allowed = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Allow).await;
    let share = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Share).await;
    // Three times the check timeout, and what a busy machine adds.
    assert!(started.elapsed() < Duration::from_millis(300 + 900), "{:?}", started.elapsed());
    if nodes[0].status().table.unwrap() == table {
        assert_eq!(denied.answers[0].as_ref().unwrap().by, DecidedBy::Fallback);
        assert!(!denied.allowed && allowed.allowed);
        assert!(!share.allowed, "a share starts empty");
    }
    until("another node has taken over", || nodes[0].status().table.unwrap().members().len() == 2).await;
    until("both see the same table", || nodes[0].status().table == nodes[1].status().table).await;
    let after = decide(&nodes[0], &[charge(key, 30)], OnOwnerLoss::Deny).await;
    assert!(matches!(after.answers[0].as_ref().unwrap().by, DecidedBy::Owner | DecidedBy::Forwarded(_)));
    assert!(!after.allowed, "a slot that was taken over starts empty");
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_node_that_leaves_hands_over_what_its_buckets_know() {
    let mut nodes = three_nodes().await;
    let last = nodes.pop().unwrap();
    let (key, other) = (key_of(&nodes[0], "n3", 1), key_of(&nodes[0], "n3", 1 << 40));
    assert_eq!(admitted(&nodes[0], &[charge(key, 30)], 10).await, 10);
    assert_eq!(last.leave(Instant::now() + DEADLINE).await, 0, "it owns nothing any more");
    until("the slots are shared out anew", || {
        nodes.iter().all(|node| node.status().table.unwrap().members().len() == 2)
    })
    .await;
    assert!(matches!(last.readiness(), Readiness::NotReady(_)));
    assert_eq!(admitted(&nodes[1], &[charge(key, 30)], 40).await, 20, "neither more nor less than was left");
    assert_eq!(admitted(&nodes[1], &[charge(other, 30)], 40).await, 30, "one that nobody used is full");
    last.stop().await;
    stop_all(nodes).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_key_is_kept_out_and_counted() {
    let port = free_port();
    let one = start(config("n1", port, &[], None)).await;
    let mut foreign = config("n2", free_port(), &[port], None);
    foreign.key = Some(ClusterKey::parse("quite another cluster key").unwrap());
    let foreign = start(foreign).await;
    until("its gossip was refused", || {
        one.stats().gossip.rejected(tidegate_cluster::GossipRejection::WrongKey) > 0
    })
    .await;
    assert_eq!(one.status().live.len(), 1);
    let Readiness::NotReady(reason) = foreign.readiness() else { panic!("it has no cluster") };
    assert!(reason.contains("--bootstrap-expect"), "{reason}");
    stop_all(vec![one, foreign]).await;
}
