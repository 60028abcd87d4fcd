//! The promise: gossip is a hint. Whoever forges it, in a cluster without a key, moves no slot and ends no node.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use crate::kit;
use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, Settings, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// The header of a datagram of this cluster that is not sealed.
fn plain() -> Vec<u8> {
    let tag = blake3::hash(b"tidegate");
    [&b"TGG\x01\x00"[..], &tag.as_bytes()[..8]].concat()
}

fn text(message: &mut Vec<u8>, text: &str) {
    message.extend((text.len() as u16).to_le_bytes());
    message.extend(text.as_bytes());
}

/// A node with its incarnation and its address, as the gossip library writes it.
fn node(message: &mut Vec<u8>, name: &str, incarnation: u64, address: SocketAddr) {
    let SocketAddr::V4(address) = address else { panic!("loopback") };
    text(message, name);
    message.extend(incarnation.to_le_bytes());
    message.push(4);
    message.extend(address.ip().octets());
    message.extend(address.port().to_le_bytes());
}

/// The node that is told of.
#[derive(Clone)]
struct Told {
    name: String,
    incarnation: u64,
    address: SocketAddr,
}

impl Told {
    /// A node as another one tells of it.
    fn by(status: &Value, name: &str) -> Self {
        let known = member(status, name);
        let incarnation = known["incarnation"].as_u64().unwrap();
        let address = known["peer"].as_str().unwrap().parse().unwrap();
        Self { name: name.to_owned(), incarnation, address }
    }

    fn made_up(name: String) -> Self {
        Self { name, incarnation: 1, address: ([127, 0, 0, 1], 1).into() }
    }

    fn write(&self, message: &mut Vec<u8>) {
        node(message, &self.name, self.incarnation, self.address);
    }
}

/// What is told of a node, in the order of versions.
enum Change<'c> {
    Key(&'c str, &'c str, u64),
    Highest(u64),
}

/// That these nodes say this of themselves.
fn tells(told: &[(&Told, &[Change<'_>])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (node, changes) in told {
        all.push(0);
        node.write(&mut all);
        all.extend([0; 16]);
        for change in *changes {
            match change {
                Change::Key(key, value, version) => {
                    all.push(1);
                    text(&mut all, key);
                    text(&mut all, value);
                    all.extend(version.to_le_bytes());
                    all.push(0);
                }
                Change::Highest(version) => {
                    all.push(2);
                    all.extend(version.to_le_bytes());
                }
            }
        }
    }
    let mut message = [plain(), vec![0x53, 0xb0, 0, 2]].concat();
    for block in all.chunks(60_000) {
        message.push(2);
        message.extend((block.len() as u16).to_le_bytes());
        message.extend(block);
    }
    message.push(0);
    message
}

/// That a node says this of itself, in a version that no real one will reach.
fn says(node: &Told, key: &str, value: &str) -> Vec<u8> {
    tells(&[(node, &[Change::Key(key, value, 1 << 40)])])
}

/// That these nodes are alive.
fn lists(nodes: &[Told], heartbeat: u64) -> Vec<u8> {
    let mut message = [plain(), vec![0x53, 0xb0, 0, 0]].concat();
    message.extend((nodes.len() as u16).to_le_bytes());
    for node in nodes {
        node.write(&mut message);
        for number in [heartbeat, 0, 1] {
            message.extend(number.to_le_bytes());
        }
    }
    text(&mut message, "tidegate");
    message
}

fn made_up(numbers: std::ops::Range<u32>) -> Vec<Told> {
    numbers.map(|number| Told::made_up(format!("forged-{number:06}"))).collect()
}

fn member<'s>(status: &'s Value, name: &str) -> &'s Value {
    status["members"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[test]
fn forged_news_made_up_nodes_and_bombs_move_no_slot() {
    let settings = Settings { key: None, ..kit::patient(&kit::per_user("1000/1s", 1000, "deny")) };
    let cluster = Cluster::start(3, settings);
    let n1 = cluster.node("n1");
    let owners = n1.slot_owners();
    let memory = n1.resident_bytes().unwrap();
    let status = n1.status().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |datagram: &[u8]| assert_eq!(socket.send_to(datagram, n1.peer).unwrap(), datagram.len());

    // The others are said to leave, and to stand elsewhere.
    for other in ["n2", "n3"] {
        send(&says(&Told::by(&status, other), "state", "leaving"));
    }
    wait_for("what was forged is believed as far as gossip goes", PATIENCE, || {
        let status = n1.status().unwrap();
        ["n2", "n3"].iter().all(|other| member(&status, other)["state"] == "leaving")
    });
    // Ten thousand nodes that there are not; and what would be 100 MB and more when it is unpacked.
    for hundred in 0..100 {
        let crowd = made_up(hundred * 100..hundred * 100 + 100);
        send(&lists(&crowd, 1));
        send(&lists(&crowd, 2));
        if hundred % 10 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let zeros = zstd::bulk::compress(&[0; 65_535], 19).unwrap();
    let mut bomb = [plain(), vec![0x53, 0xb0, 0, 2]].concat();
    for _ in 0..60_000 / (zeros.len() + 3) {
        bomb.push(1);
        bomb.extend((zeros.len() as u16).to_le_bytes());
        bomb.extend(&zeros);
    }
    bomb.push(0);
    wait_for("it is refused", PATIENCE, || {
        // Not all at once: what the kernel has no room for never gets there.
        (0..2).for_each(|_| send(&bomb));
        n1.metric("tidegate_gossip_rejected_total{reason=\"malformed\"}").unwrap() >= 20.0
    });

    // Longer than a session, and than the leader waits for members to stay the same.
    std::thread::sleep(Duration::from_secs(3));
    for node in &cluster.nodes {
        assert_eq!(node.slot_owners(), owners, "{}", node.name);
        wait_for("all vote", PATIENCE, || {
            let status = node.status().unwrap();
            status["raft"]["voters"] == serde_json::json!(["n1", "n2", "n3"])
        });
        let status = node.status().unwrap();
        assert_eq!((&status["gossip"], &status["slots_moving"]), (&true.into(), &0.into()), "{status}");
    }
    let mut client = n1.client(PATIENCE);
    for user in 0..50 {
        let answer = client.get(&format!("/v1/check?user=u{user}")).unwrap().json();
        assert!(answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded", "{answer}");
    }
    let more = n1.resident_bytes().unwrap().saturating_sub(memory);
    assert!(more < 48 << 20, "{more} bytes more");
}

/// The cluster goes on: nothing has moved, each node decides, and what is written comes to all.
fn goes_on(cluster: &Cluster, owners: &[String], limit: u64) {
    let rules = kit::per_user(&format!("{limit}/1s"), limit, "deny");
    let mut client = cluster.node("n1").client(PATIENCE);
    let answer = client.request("PUT", "/v1/rules/default", &[], &rules).unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    for node in &cluster.nodes {
        wait_for(&format!("the new rules are at {}", node.name), PATIENCE, || {
            let answer = node.client(PATIENCE).get("/v1/check?user=u1");
            answer.is_ok_and(|answer| answer.status == 200 && answer.json()["limit"] == limit)
        });
        let status = node.status().unwrap();
        assert_eq!((&status["gossip"], &status["ready"]), (&true.into(), &true.into()), "{status}");
        assert_eq!(node.slot_owners(), owners, "{}", node.name);
    }
}

#[test]
fn what_ends_the_gossip_library_and_what_takes_names_away_ends_no_node() {
    let settings = Settings { key: None, ..kit::patient(&kit::per_user("1000/1s", 1000, "deny")) };
    let cluster = Cluster::start(3, settings);
    let owners = cluster.node("n1").slot_owners();
    let status = cluster.node("n1").status().unwrap();
    let real: Vec<Told> = ["n1", "n2", "n3"].iter().map(|name| Told::by(&status, name)).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |datagram: &[u8], to: SocketAddr| {
        assert_eq!(socket.send_to(datagram, to).unwrap(), datagram.len());
        std::thread::sleep(Duration::from_millis(2));
    };
    let to_all = |datagram: &[u8]| cluster.nodes.iter().for_each(|node| send(datagram, node.peer));

    // A highest version below that of a key; and the highest that there is, of each node itself.
    for node in &real {
        to_all(&tells(&[(node, &[Change::Key("zone", "a", 1000), Change::Highest(5)])]));
        to_all(&tells(&[(node, &[Change::Key("zone", "a", u64::MAX)])]));
    }
    // Names as long as a datagram; and as many nodes with as much to tell as would leave little room for anything else.
    let long: Vec<Told> =
        (0..4).map(|number| Told::made_up(format!("{number}{}", "x".repeat(15_000)))).collect();
    to_all(&lists(&long, 1));
    let crowd: Vec<Told> = (0..500).map(|number| Told::made_up(format!("{number:064}"))).collect();
    for some in crowd.chunks(50) {
        to_all(&lists(some, 1));
        let zones: Vec<String> =
            some.iter().map(|node| blake3::hash(node.name.as_bytes()).to_hex().repeat(4)).collect();
        let changes: Vec<[Change<'_>; 1]> = zones.iter().map(|zone| [Change::Key("zone", zone, 1)]).collect();
        let told: Vec<(&Told, &[Change<'_>])> =
            some.iter().zip(&changes).map(|(node, changes)| (node, &changes[..])).collect();
        to_all(&tells(&told));
    }
    to_all(&lists(&[], 1));
    wait_for("a part of it is refused", PATIENCE, || {
        cluster.nodes.iter().all(|node| {
            let refused = |reason| format!("tidegate_gossip_rejected_total{{reason=\"{reason}\"}}");
            ["malformed", "in_part"].iter().all(|reason| node.metric(&refused(reason)).unwrap() > 0.0)
        })
    });
    goes_on(&cluster, &owners, 2000);
}

#[test]
fn later_starts_that_there_are_not_end_no_node() {
    let settings = Settings { key: None, ..kit::patient(&kit::per_user("1000/1s", 1000, "deny")) };
    let cluster = Cluster::start(3, settings);
    let owners = cluster.node("n1").slot_owners();
    let status = cluster.node("n1").status().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to_all = |datagram: &[u8]| {
        for node in &cluster.nodes {
            assert_eq!(socket.send_to(datagram, node.peer).unwrap(), datagram.len());
        }
    };

    // Each under the id of its own, and somewhere else; and under one that nobody has.
    let later = |name: &str, more: u64| {
        let real = Told::by(&status, name);
        Told { incarnation: real.incarnation + more, address: ([127, 0, 0, 1], 9).into(), ..real }
    };
    let ids: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.status().unwrap()["raft"]["id"].as_str().unwrap().to_owned())
        .collect();
    let mut forged: Vec<(Told, String)> = Vec::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        forged.push((later(&node.name, 1000), ids[place].clone()));
        forged.push((later(&node.name, 2000), format!("{:016x}", 77 + place)));
    }
    let listed: Vec<Told> = forged.iter().map(|(node, _)| node.clone()).collect();
    for heartbeat in 1..100 {
        to_all(&lists(&listed, heartbeat));
        for (node, id) in &forged {
            to_all(&tells(&[(node, &[Change::Key("state", "serving", 1), Change::Key("node", id, 2)])]));
        }
        std::thread::sleep(Duration::from_millis(100));
        if heartbeat == 50 {
            // Believed as far as gossip goes: longer than a session by now.
            let seen = |of: &str| member(&cluster.node("n1").status().unwrap(), of)["peer"] == "127.0.0.1:9";
            wait_for("n1 believes both", PATIENCE, || seen("n2") && seen("n3"));
            goes_on(&cluster, &owners, 3000);
        }
    }
    goes_on(&cluster, &owners, 4000);
    for node in &cluster.nodes {
        assert!(!node.log().contains("a newer node has this node's name"), "{}", node.name);
    }
}
