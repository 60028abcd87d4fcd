//! The promise: a denied request costs nobody else anything.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::kit::{self, rules::PATIENCE};
use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, Node};

/// `whole` is shared by all clients; honest ones ask for half of it.
const RULES: &str = "
rules:
  - { name: per-ip, key: [ip], limit: 10/10m }
  - { name: whole, key: [], limit: 100/1s, burst: 20 }
";
/// More than the burst of `whole`: while each of these waits for its denial, it would hold one unit of it.
const FLOODERS: usize = 32;
const HONEST_FOR: Duration = Duration::from_secs(6);
const HONEST_EVERY: Duration = Duration::from_millis(20);

fn ask(node: &Node, query: &str) -> Value {
    node.client(PATIENCE).get(&format!("/v1/check?{query}")).unwrap().json()
}

/// The owner of the bucket of `whole`: only that rule is about a request without an address.
fn owner_of_whole(cluster: &Cluster) -> String {
    ask(cluster.node("n1"), "cost=0")["node"].as_str().unwrap().to_owned()
}

/// An address whose bucket is not at this node.
fn address_not_at(cluster: &Cluster, owner: &str) -> String {
    (1..=250)
        .map(|last| format!("198.51.100.{last}"))
        .find(|address| {
            // Fewer units remain of it than of `whole`, so that the answer is about it.
            let answer = ask(cluster.node("n1"), &format!("ip={address}&cost=0"));
            assert_eq!(answer["rule"], "per-ip", "{answer}");
            answer["node"] != owner
        })
        .unwrap()
}

#[derive(Debug, Default)]
struct Honest {
    asked: u32,
    denied_by_whole: u32,
    denied_otherwise: u32,
}

/// Clients with an address each, 50 a second in all, ask the nodes in turn.
fn honest(cluster: &Cluster) -> Honest {
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.client(PATIENCE)).collect();
    let mut seen = Honest::default();
    let begun = Instant::now();
    while begun.elapsed() < HONEST_FOR {
        let number = seen.asked;
        let place = number as usize % clients.len();
        let path = format!("/v1/check?ip=203.0.{}.{}", number / 250, number % 250);
        let answer = clients[place].get(&path).unwrap().json();
        seen.asked += 1;
        // What no owner decided is a matter of a busy machine.
        let decided = answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded";
        if answer["allowed"] == false && decided {
            let by_whole = answer["rule"] == "whole";
            seen.denied_by_whole += u32::from(by_whole);
            seen.denied_otherwise += u32::from(!by_whole);
        }
        // Nothing is caught up after a stall of this machine: that would be a burst.
        thread::sleep(HONEST_EVERY);
    }
    seen
}

/// One address that is denied for minutes floods one node; what becomes of the others meanwhile.
fn under_flood(cluster: &Cluster, target: &str, address: &str) -> (Honest, u64) {
    let path = format!("/v1/check?ip={address}");
    while ask(cluster.node(target), &format!("ip={address}"))["allowed"] == true {}
    // What these took of `whole` is back.
    thread::sleep(Duration::from_secs(1));
    let (wanted, denied) = (AtomicBool::new(true), AtomicU64::new(0));
    let seen = thread::scope(|scope| {
        let end = kit::EndOnDrop(&wanted);
        for _ in 0..FLOODERS {
            scope.spawn(|| {
                let mut client = cluster.node(target).client(PATIENCE);
                while wanted.load(Relaxed) {
                    assert_eq!(client.get(&path).unwrap().status, 429);
                    denied.fetch_add(1, Relaxed);
                }
            });
        }
        let seen = honest(cluster);
        drop(end);
        seen
    });
    (seen, denied.into_inner())
}

#[test]
fn a_client_that_is_denied_for_long_takes_nothing_of_a_rule_that_others_share() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(3, RULES);
    let owner = owner_of_whole(&cluster);
    let address = address_not_at(&cluster, &owner);
    // Where the shared bucket is, where it is not and neither is the other, and where the denied bucket is.
    let denier =
        ask(cluster.node("n1"), &format!("ip={address}&cost=0"))["node"].as_str().unwrap().to_owned();
    let third = cluster.nodes.iter().map(|node| &node.name).find(|name| **name != owner && **name != denier);
    for (what, target) in
        [("the owner of whole", &owner), ("neither owner", third.unwrap()), ("the denier", &denier)]
    {
        let (seen, floods) = under_flood(&cluster, target, &address);
        println!("flood of {floods} at {what}: {seen:?}");
        assert!(floods > 1000, "that was no flood: {floods}");
        assert!(seen.denied_by_whole * 100 <= seen.asked, "more than 1 % at {what}: {seen:?}");
        // Units that were held do not wait for the next round.
        thread::sleep(Duration::from_secs(1));
    }
}
