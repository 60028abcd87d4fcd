//! Real nodes of one process over real sockets: who decides, and what it costs when somebody denies.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kit;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use kit::{
    DEADLINE, admitted, charge, config, decide, free_port, key_of, start, stop_all, three_nodes,
    three_nodes_with, until,
};
use tidegate_cluster::{
    Amendment, Clock, ClusterKey, DecidedBy, Decisions, KeyRing, Local, LossPolicy, Readiness,
};
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
async fn a_denial_at_home_charges_nobody_else_and_says_what_is_left_there() {
    let nodes = three_nodes().await;
    let (mine, theirs) = (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n2", 1));
    let both = [charge(theirs, 100), charge(mine, 1)];
    assert_eq!(admitted(&nodes[0], &both, 20).await, 1);
    // The last unit but one: one of these that charged it would be seen by another.
    let both = [charge(theirs, 2), charge(mine, 1)];
    let verdicts = join_all((0..50).map(|_| decide(&nodes[0], &both, OnOwnerLoss::Deny))).await;
    for verdict in verdicts {
        let [Some(there), Some(here)] = &verdict.answers[..] else { panic!("{verdict:?}") };
        assert_eq!(there.by, DecidedBy::Forwarded("n2".into()));
        assert!(there.decision.allowed && there.decision.remaining == 1, "{there:?}");
        assert!(!verdict.allowed && !here.decision.allowed, "{here:?}");
    }
    assert_eq!(admitted(&nodes[0], &[charge(theirs, 2)], 5).await, 1);
    stop_all(nodes).await;
}

#[tokio::test]
async fn whichever_owner_denies_all_of_them_say_what_they_would_and_what_is_left() {
    let nodes = three_nodes().await;
    for (number, owners) in
        [["n1", "n2"], ["n2", "n1"], ["n2", "n3"], ["n3", "n2"], ["n1", "n1"]].into_iter().enumerate()
    {
        let from = 1 + (number as u64) * (1 << 40);
        let (first, second) =
            (key_of(&nodes[0], owners[0], from), key_of(&nodes[0], owners[1], from + (1 << 30)));
        let both = [charge(first, 3), charge(second, 100)];
        assert_eq!(admitted(&nodes[0], &both, 3).await, 3);
        // The first denial is not known before, and is given back at the other; later ones are asked first.
        for round in 0..20 {
            let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
            let [Some(denies), Some(other)] = &verdict.answers[..] else { panic!("{owners:?} {verdict:?}") };
            assert!(
                !verdict.allowed && !denies.decision.allowed && other.decision.allowed,
                "{owners:?} {verdict:?}"
            );
            assert_eq!(other.decision.remaining, 97, "{owners:?}, round {round}");
        }
        // Both are exhausted: each says how long to wait.
        let both = [charge(first, 3), charge(second, 1)];
        for _ in 0..20 {
            let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
            let waits = verdict.answers.iter().flatten().filter_map(|answer| answer.decision.retry_after);
            assert_eq!(waits.count(), 2, "{owners:?} {verdict:?}");
        }
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn of_a_lost_owner_a_denial_says_what_the_rule_says_and_takes_no_share() {
    let mut nodes = three_nodes().await;
    let (mine, lost) = (key_of(&nodes[0], "n1", 1), key_of(&nodes[0], "n3", 1));
    let both = [charge(mine, 1), charge(lost, 100)];
    // On a busy machine an answer can come too late.
    let deadline = Instant::now() + DEADLINE;
    while admitted(&nodes[0], &both, 1).await == 0 {
        assert!(Instant::now() < deadline, "nothing is admitted");
    }
    nodes.pop().unwrap().stop().await;
    for (loss, allows) in [(OnOwnerLoss::Deny, false), (OnOwnerLoss::Allow, true)] {
        let verdict = decide(&nodes[0], &both, loss).await;
        let other = verdict.answers[1].as_ref().unwrap();
        // Until it is noticed that the owner is gone, and after the slot has another one, that one says it.
        if other.by == DecidedBy::Fallback {
            assert_eq!(other.decision.allowed, allows, "{verdict:?}");
        }
        assert!(!verdict.allowed);
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn what_has_denied_is_asked_first_and_nobody_else_is_charged_for_it() {
    let nodes = three_nodes_with(Duration::from_secs(4)).await;
    // Of one client, at n3; shared by all, at n2 or at the node that is asked.
    let client = key_of(&nodes[0], "n3", 1);
    for shared in [key_of(&nodes[0], "n2", 1), key_of(&nodes[0], "n1", 1)] {
        let both = [charge(shared, 100), charge(client, 3)];
        // The first denials are not known before.
        let used = admitted(&nodes[0], &both, 6).await as u64;
        // The last units: one of these that charged them would be seen by another.
        let last = [charge(shared, 4), charge(client, 3)];
        for verdict in join_all((0..50).map(|_| decide(&nodes[0], &last, OnOwnerLoss::Deny))).await {
            let [Some(shared), Some(denies)] = &verdict.answers[..] else { panic!("{verdict:?}") };
            assert!(
                !verdict.allowed && shared.decision.allowed && shared.decision.remaining == 4 - used,
                "{verdict:?}"
            );
            assert_eq!(denies.by, DecidedBy::Forwarded("n3".into()));
        }
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
    // What is remembered is not asked alone, and waited for: the denial here is certain.
    let verdict = decide(&nodes[0], &both, OnOwnerLoss::Deny).await;
    assert!(verdict.answers.iter().flatten().all(|answer| !answer.decision.allowed), "{verdict:?}");
    assert_eq!(admitted(&nodes[0], &both, 20).await, 0);
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
    foreign.keys = Arc::new(KeyRing::new(vec![ClusterKey::parse("quite another cluster key").unwrap()]));
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
