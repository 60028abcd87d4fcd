//! The promise: through partitions every rule stays inside the worst case that it tells of itself, and soon after there is
//! one count again. Each node has a network of its own, in which nftables drops what should not arrive, or there are proxies between
//! them, which do not hand it on: where there can be no namespaces, and in one test always.

use std::{collections::BTreeMap, fmt::Write as _, thread, time::Duration};

use crate::kit;
use tidegate_jepsen::{
    check::bound::Bound,
    cluster::{Cluster, wait_for},
    history::{History, Outcome, monotonic},
    load::Load,
    network::{Form, Network},
};

/// As `user` is the only attribute that the load sends, a rule is chosen by the key: each has its own part of them.
const RULES: [(&str, &str, &str); 5] = [
    ("strict-deny", "strict", "deny"),
    ("strict-share", "strict", "share"),
    ("strict-carved", "strict", "share, carved: true"),
    ("available-deny", "available", "deny"),
    ("available-share", "available", "share"),
];
const KEYS_OF_EACH: u32 = 12;
const KEYS: u32 = KEYS_OF_EACH * RULES.len() as u32;
const BURST: u64 = 20;
const COUNT: u64 = 30;
/// How long a partition lasts.
const LASTS: Duration = Duration::from_secs(20);
/// Long enough for every session to end, and for slots to be taken over.
const LASTS_SHORT: Duration = Duration::from_secs(9);
/// After it there is one count again within this time.
const HEALS_WITHIN: Duration = Duration::from_secs(2);

fn rules() -> String {
    let mut text = "rules:\n".to_owned();
    for (place, (name, consistency, loss)) in (0u32..).zip(RULES) {
        let users: Vec<String> =
            (0..KEYS).filter(|key| key % RULES.len() as u32 == place).map(|key| format!("u{key}")).collect();
        let _ = writeln!(
            text,
            "  - {{ name: {name}, when: {{ user: [{}] }}, key: [user], limit: {COUNT}/1s, burst: {BURST}, consistency: {consistency}, on_owner_loss: {loss} }}",
            users.join(", ")
        );
    }
    text
}

/// What each rule says of itself: how many times its bound, by situation.
fn worst_cases(cluster: &Cluster) -> BTreeMap<String, f64> {
    let answer = cluster.node("n1").client(Duration::from_secs(5)).get("/v1/rules/default").unwrap().json();
    let rules = answer["rules"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    rules
        .iter()
        .map(|rule| {
            let factor = rule["worst_case"]["partition"].as_f64().unwrap_or_else(|| panic!("{rule}"));
            (rule["name"].as_str().unwrap().to_owned(), factor)
        })
        .collect()
}

fn run(name: &str, net: Network, lasts: Duration, split: impl FnOnce(&Cluster)) {
    let cluster = Cluster::start_apart(3, kit::settings(&rules()), net);
    let worst = worst_cases(&cluster);
    let load = |length: Duration| Load {
        nodes: cluster.nodes.iter().map(|node| node.http).collect(),
        clients: 2,
        keys: KEYS,
        length,
        pause: Duration::from_millis(6),
        deadline: Duration::from_secs(5),
    };
    let (history, healed) = thread::scope(|scope| {
        let running = scope.spawn(|| load(lasts + Duration::from_secs(8)).run());
        thread::sleep(Duration::from_secs(1));
        split(&cluster);
        thread::sleep(lasts);
        assert!(cluster.net().packets_hit() > 0, "{name}: nothing was cut");
        cluster.net().heal();
        let healed = monotonic();
        (running.join().unwrap(), healed)
    });
    assert_eq!(
        history.count(Outcome::Unknown) + history.count(Outcome::Refused),
        0,
        "each check is answered"
    );
    for (place, (name, ..)) in (0u32..).zip(RULES) {
        assert_stays_inside(&history, name, place, worst[name]);
    }
    // One count again: each check is decided by the owner, whichever node is asked.
    let is_alone = |one: &&tidegate_jepsen::history::Operation| {
        one.completed > healed
            && one.decided_by.as_ref().is_none_or(|(how, _)| how != "owner" && how != "forwarded")
    };
    let alone = history.operations.iter().filter(is_alone);
    let last = alone.map(|one| one.invoked.saturating_sub(healed)).max().map(Duration::from_nanos);
    eprintln!("{name}: the last check without an owner was asked {last:?} after the network was healed");
    let has_healed = healed + HEALS_WITHIN.as_nanos() as u64;
    kit::assert_owned(history.operations.iter().filter(|one| one.invoked > has_healed));
    wait_for("all nodes see the same owners again", Duration::from_secs(10), || {
        let mut owners = cluster.running().map(tidegate_jepsen::cluster::Node::slot_owners);
        let first = owners.next();
        owners.all(|others| Some(others) == first)
    });
    let after = load(Duration::from_secs(3)).run();
    for key in 0..KEYS {
        let bound = Bound { burst: BURST, count: COUNT, period: Duration::from_secs(1) };
        bound.check(after.of_key(key)).unwrap_or_else(|violation| panic!("healed: key {key}: {violation:?}"));
    }
    kit::assert_owned(after.operations.iter());
}

fn assert_stays_inside(history: &History, name: &str, place: u32, factor: f64) {
    let times = |number: u64| (number as f64 * factor).ceil() as u64;
    let bound = Bound { burst: times(BURST), count: times(COUNT), period: Duration::from_secs(1) };
    for key in (0..KEYS).filter(|key| key % RULES.len() as u32 == place) {
        bound
            .check(history.of_key(key))
            .unwrap_or_else(|violation| panic!("{name}, {factor} times: key {key}: {violation:?}"));
    }
}

/// The number of the node that leads.
fn leader(cluster: &Cluster) -> u8 {
    let mut found = None;
    wait_for("somebody leads", HEALS_WITHIN * 3, || {
        let status = cluster.node("n1").status().unwrap();
        found = status["raft"]["leader"].as_str().and_then(|name| name[1..].parse().ok());
        found.is_some()
    });
    found.unwrap()
}

fn two_and_one(cluster: &Cluster) {
    let leader = leader(cluster);
    let others: Vec<u8> = (1..=3).filter(|node| *node != leader).collect();
    cluster.net().split(&[&[leader, others[0]], &[others[1]]]);
}

fn the_leader_alone(cluster: &Cluster) {
    let leader = leader(cluster);
    let others: Vec<u8> = (1..=3).filter(|node| *node != leader).collect();
    cluster.net().split(&[&others, &[leader]]);
}

fn each_for_itself(cluster: &Cluster) {
    cluster.net().split(&[&[1], &[2], &[3]]);
}

/// A node that does not lead hears the others, and nobody hears it.
fn one_way(cluster: &Cluster) {
    let other = leader(cluster) % 3 + 1;
    (1..=3).filter(|node| *node != other).for_each(|node| cluster.net().cut(other, node));
}

/// The others hear the leader, and it hears nobody.
fn one_way_to_the_leader(cluster: &Cluster) {
    let leader = leader(cluster);
    (1..=3).filter(|node| *node != leader).for_each(|node| cluster.net().cut(node, leader));
}

/// Cuts the network between the nodes.
type Split = fn(&Cluster);

/// All at the same time, each in networks of its own: most of it is waiting.
#[test]
fn each_rule_keeps_its_worst_case_in_each_split_and_there_is_one_count_soon_after() {
    let _machine = kit::alone();
    let form = kit::network();
    let splits: [(&str, Split); 5] = [
        ("two and one", two_and_one),
        ("the leader alone", the_leader_alone),
        ("each for itself", each_for_itself),
        ("one way", one_way),
        ("one way, to the leader", one_way_to_the_leader),
    ];
    thread::scope(|scope| {
        for (name, split) in splits {
            let net = form.create(3).unwrap();
            let named = thread::Builder::new().name(name.to_owned());
            named.spawn_scoped(scope, move || run(name, net, LASTS, split)).unwrap();
        }
    });
}

/// Also where there are namespaces: so that it is known to be true where there are none.
#[test]
fn a_partition_that_proxies_make_is_one_like_any_other() {
    let _machine = kit::alone();
    // First, because this program may be started again for it.
    kit::network();
    run("by proxies", Form::Proxies.create(3).unwrap(), LASTS_SHORT, the_leader_alone);
}
