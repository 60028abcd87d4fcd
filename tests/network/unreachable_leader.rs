//! The promise: a leader to which nobody can open a connection does not lead on, and takes nobody's slots.

use std::{collections::BTreeMap, thread, time::Duration};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{Cluster, Node, wait_for},
    history::{Outcome, monotonic},
    load::Load,
    network::Form,
};

const KEYS: u32 = 12;
const BURST: u64 = 12;
/// How long the leader stays unreachable.
const LASTS: Duration = Duration::from_secs(25);
/// A session, an election, and a session again for those that are lost, on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(14);

/// Whom the nodes other than that one hold for the leader, and the term.
fn seen_by_others(cluster: &Cluster, but: &str) -> BTreeMap<String, (Option<String>, u64)> {
    let others = cluster.running().filter(|node| node.name != but);
    let seen = others.filter_map(|node| {
        let raft = node.status().ok()?["raft"].clone();
        let leader = raft["leader"].as_str().map(str::to_owned);
        Some((node.name.clone(), (leader, raft["term"].as_u64()?)))
    });
    seen.collect()
}

/// Review H2: 29,300 units of 9,833, and the leader owned all 4,096 slots.
#[test]
fn a_leader_that_nobody_can_connect_to_makes_way_for_one_that_can_be_reached() {
    let _machine = kit::alone();
    let form = kit::network();
    if form != Form::Namespaces {
        eprintln!("NOT TESTED: only network namespaces can cut connections in one direction");
        return;
    }
    let rules = kit::per_user("30/1s", BURST, "share");
    let cluster = Cluster::start_apart(6, kit::settings(&rules), form.create(6).unwrap());
    kit::rules::await_voters(&cluster, 5);
    let cut = kit::rules::leader(&cluster);
    let load = Load {
        nodes: cluster.running().map(|node| node.http).collect(),
        clients: 2,
        keys: KEYS,
        length: LASTS,
        pause: Duration::from_millis(6),
        deadline: Duration::from_secs(5),
    };
    let history = thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        thread::sleep(Duration::from_secs(1));
        let begun = monotonic();
        cluster.net().refuse_streams_to(cut[1..].parse().unwrap(), cluster.node(&cut).peer.port());
        let mut next = (None, 0);
        wait_for("the others have one leader, and it can be reached", SETTLED_WITHIN, || {
            let seen = seen_by_others(&cluster, &cut);
            next = seen.values().next().cloned().unwrap_or_default();
            let agree = seen.len() == 5 && seen.values().all(|one| *one == next);
            agree && next.0.as_ref().is_some_and(|name| *name != cut)
        });
        let elected = Duration::from_nanos(monotonic() - begun);
        wait_for("the others own all slots", SETTLED_WITHIN, || {
            cluster.running().filter(|node| node.name != cut).all(|node| {
                let owners = node.slot_owners();
                !owners.is_empty() && owners.iter().all(|owner| *owner != cut)
            })
        });
        let settled = Duration::from_nanos(monotonic() - begun);
        eprintln!("another leader after {elected:?}, all slots at nodes that can be asked after {settled:?}");
        // It stays so: the one that was cut can still open connections, and asks for votes by them.
        while monotonic() < begun + (LASTS - Duration::from_secs(3)).as_nanos() as u64 {
            let seen = seen_by_others(&cluster, &cut);
            assert!(seen.values().all(|one| *one == next), "{seen:?} instead of {next:?}");
            thread::sleep(Duration::from_millis(200));
        }
        running.join().unwrap()
    });
    assert!(cluster.net().packets_hit() > 0, "nothing was refused");
    assert_eq!(history.count(Outcome::Unknown), 0, "each check is answered");
    // It is a partition for the one that is cut.
    let bound = Bound { burst: 2 * BURST, count: 60, period: Duration::from_secs(1) };
    kit::assert_within(&history, &bound, KEYS);
    let end = history.operations.iter().map(|one| one.invoked).max().unwrap_or(0);
    let late = history.operations.iter().filter(|one| one.invoked + 5_000_000_000 > end);
    kit::assert_owned(late.filter(|one| cluster.nodes[usize::from(one.node)].name != cut));
    cluster.net().heal();
    wait_for("all nodes see the same owners, all six of them", Duration::from_secs(20), || {
        let owners: Vec<Vec<String>> = cluster.running().map(Node::slot_owners).collect();
        owners.iter().all(|one| *one == owners[0]) && owners[0].contains(&cut)
    });
}
