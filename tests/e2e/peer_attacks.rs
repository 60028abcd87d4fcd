//! The promise: whoever reaches the peer port, or sits on the path between two nodes, ends streams and nothing else.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::kit::{
    self,
    peer::{PATIENCE, Said, Stream, append, envelope, vote},
    relay::{Attack, Relay},
    rules::{SOON, await_limit, await_voters, check, keeping, limit, raft, write},
};
use tidegate_jepsen::cluster::{Cluster, Node, Settings, free_ports, wait_for};

/// That of `kit::settings`.
const KEY: &str = "the key of the black-box tests";

fn id_of(node: &Node) -> u64 {
    u64::from_str_radix(raft(node)["id"].as_str().unwrap(), 16).unwrap()
}

fn refused(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("tidegate_peer_calls_refused_total{{reason=\"{reason}\"}}")).unwrap_or(0.0)
}

fn forged(node: &Node) -> f64 {
    node.metric("tidegate_peer_streams_broken_total{reason=\"seal\"}").unwrap_or(0.0)
}

/// The cluster writes rules, which come to all, and each node decides with them; no term that nobody has come to.
fn assert_alive(cluster: &Cluster, count: u64) {
    write(cluster.node("n2"), "default", &limit(&format!("{count}/1s")));
    await_limit(cluster, "default", count);
    for node in cluster.running() {
        let status = node.status().unwrap();
        assert!(status["raft"]["trouble"].is_null() && status["raft"]["failed"] != true, "{status}");
        assert!(node.metric("tidegate_raft_term").unwrap() < 1e6, "{status}");
        for user in 0..20 {
            // A link that was ended a moment ago may not be there again.
            wait_for("an owner decides", SOON, || {
                let answer = check(node, "default", &format!("after-{count}-{user}"));
                answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded"
            });
        }
    }
}

/// Attack C4 of the review (its `frame.py`): one forged frame ended a cluster permanently.
fn forge(cluster: &Cluster, secret: Option<&str>) {
    for node in &cluster.nodes {
        let mine = raft(node);
        let (group, to) = (mine["cluster"].as_str().unwrap(), id_of(node));
        let evil = Said::stranger(0xEEEE);
        let mut stream = Stream::open(node.peer, &node.name, secret, &evil).unwrap().control();
        let mut ask = |from: u64, call: Vec<u8>| stream.call(envelope(group, from, to, &call)).unwrap();
        let before = (refused(node, "absurd"), refused(node, "sender"));
        for call in [
            append(u64::MAX, 0xEEEE, None),
            append(u64::MAX - 1, 0xEEEE, None),
            vote(u64::MAX, 0xEEEE),
            append(1 << 40, 0xEEEE, None),
            append(3, 0xEEEE, Some((3, u64::MAX))),
            append(3, 0xEEEE, Some((u64::MAX, 3))),
        ] {
            let reason = ask(0xEEEE, call).expect("it is refused");
            assert!(reason.contains("no cluster comes to"), "{reason}");
        }
        // In the name of a member, and with a term that there could be.
        let other = cluster.nodes.iter().find(|other| other.name != node.name).unwrap();
        for call in [append(1000, id_of(other), None), vote(1000, id_of(other))] {
            let reason = ask(id_of(other), call.clone()).expect("it is refused");
            assert!(reason.contains("the stream is that of"), "{reason}");
            let reason = ask(0xEEEE, call).expect("it is refused");
            assert!(reason.contains("as the leader"), "{reason}");
        }
        assert_eq!((refused(node, "absurd"), refused(node, "sender")), (before.0 + 6.0, before.1 + 4.0));
    }
}

#[test]
fn a_forged_term_is_refused_and_the_cluster_goes_on_also_after_a_restart() {
    for key in [None, Some(KEY)] {
        let settings = Settings { key: key.map(str::to_owned), ..keeping() };
        let mut cluster = Cluster::start(3, settings);
        await_voters(&cluster, 3);
        forge(&cluster, key);
        assert_alive(&cluster, 7);
        for name in ["n1", "n2", "n3"] {
            cluster.kill(name);
        }
        for name in ["n1", "n2", "n3"] {
            cluster.restart(name);
        }
        cluster.await_ready();
        assert_alive(&cluster, 8);
    }
}

/// A node that has proved itself speaks for itself only, whatever it knows.
#[test]
fn a_stranger_without_the_key_gets_nowhere() {
    let cluster = Cluster::start(3, kit::patient("rules: []\n"));
    await_voters(&cluster, 3);
    for node in &cluster.nodes {
        for secret in [None, Some("quite another secret of some length")] {
            let reason = Stream::open(node.peer, &node.name, secret, &Said::stranger(1)).err().unwrap();
            assert!(reason.contains("another cluster key"), "{reason}");
        }
    }
    assert_alive(&cluster, 7);
}

/// Three nodes, of which the others reach n1 through a relay only.
fn with_relay() -> (Cluster, Relay) {
    let mut cluster = Cluster::empty(keeping());
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    let relay = Relay::start(ports[0] + 3);
    for (place, port) in ports.iter().enumerate() {
        let mut flags = vec!["--bootstrap-expect".to_owned(), "3".to_owned()];
        if place == 0 {
            flags.extend(["--advertise".to_owned(), "127.0.0.2".to_owned()]);
        }
        cluster.spawn(*port, &ports, &flags);
    }
    cluster.await_ready();
    await_voters(&cluster, 3);
    (cluster, relay)
}

#[test]
fn who_is_on_the_path_ends_streams_and_nothing_else() {
    let (cluster, relay) = with_relay();
    let n1 = cluster.node("n1");
    let (group, to) = (raft(n1)["cluster"].as_str().unwrap().to_owned(), id_of(n1));
    // What the review's attacker wrote behind a handshake that it had passed on.
    let evil = id_of(cluster.node("n3"));
    relay.inject(envelope(&group, evil, to, &append(u64::MAX, evil, None)));
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (stop, n2, n3) = (Arc::clone(&stop), cluster.node("n2").http, cluster.node("n3").http);
        thread::spawn(move || {
            let mut asked = 0;
            while !stop.load(Relaxed) {
                for address in [n2, n3] {
                    let mut client = tidegate_jepsen::client::Client::new(address, PATIENCE);
                    let Ok(answer) = client.get(&format!("/v1/check?user=u{}", asked % 300)) else {
                        // The test has failed, and the nodes are gone.
                        return asked;
                    };
                    assert!(answer.status == 200 || answer.status == 429, "{}", answer.text());
                    asked += 1;
                }
            }
            asked
        })
    };
    let all_forged = || cluster.nodes.iter().map(forged).sum::<f64>();
    for (count, attack) in (20..).zip(Attack::ALL) {
        let before = all_forged();
        relay.set(Some(attack));
        let end = Instant::now() + Duration::from_secs(10);
        while relay.attacks(attack) < 20 && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        relay.set(None);
        assert!(relay.attacks(attack) > 0, "{attack:?} was never made");
        if attack != Attack::Cut {
            wait_for(&format!("{attack:?} is noticed"), PATIENCE, || all_forged() > before);
        }
        wait_for(&format!("the nodes find each other after {attack:?}"), SOON, || {
            cluster.running().all(|node| node.metric("tidegate_session") == Some(1.0))
        });
        assert_alive(&cluster, count);
    }
    stop.store(true, Relaxed);
    assert!(asking.join().unwrap() > 50);
    for node in &cluster.nodes {
        // Nothing that was put in, changed or repeated came as far as to be looked at.
        assert_eq!((refused(node, "absurd"), refused(node, "sender")), (0.0, 0.0), "{}", node.name);
        let lines = node.log().lines().filter(|line| line.contains("a stream of a peer is closed")).count();
        assert!(lines < 500, "{lines} lines");
    }
}

/// Callers that say nothing, or say hello and no more, at all nodes, and more of them than a node takes.
#[test]
fn a_flood_of_callers_that_never_prove_themselves_takes_no_session_and_no_seat() {
    const CALLERS: usize = 4_200;
    let _alone = kit::alone();
    let cluster = Cluster::start(3, kit::patient(&kit::per_user("1000000/1s", 1_000_000, "deny")));
    await_voters(&cluster, 3);
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            let (stop, peer) = (Arc::clone(&stop), node.peer);
            thread::spawn(move || {
                use std::io::Write as _;
                let mut held: Vec<TcpStream> = Vec::new();
                let mut made = 0usize;
                while !stop.load(Relaxed) {
                    let Ok(mut stream) = TcpStream::connect_timeout(&peer, Duration::from_secs(1)) else {
                        continue;
                    };
                    if made.is_multiple_of(2) {
                        let _ = stream.write_all(&tidegate_proto::Greeting::Hello([1; 16]).to_bytes());
                    }
                    if held.len() < CALLERS {
                        held.push(stream);
                    } else {
                        held[made % CALLERS] = stream;
                        // About 2,000 a second: each is closed by the node after two seconds.
                        thread::sleep(Duration::from_micros(300));
                    }
                    made += 1;
                }
                made
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(3));
    let end = Instant::now() + Duration::from_secs(8);
    let (mut looked, mut denied) = (0, 0);
    while Instant::now() < end {
        for node in &cluster.nodes {
            assert_eq!(node.metric("tidegate_session"), Some(1.0), "{} has lost its session", node.name);
            for user in 0..20 {
                let answer = check(node, "default", &format!("u{looked}-{user}"));
                let decided = answer["decided_by"] == "owner" || answer["decided_by"] == "forwarded";
                denied += usize::from(!decided);
            }
            looked += 1;
        }
    }
    // A node that starts now gets in.
    let mut cluster = cluster;
    cluster.kill("n3");
    cluster.restart("n3");
    wait_for("n3 is back through the flood", SOON, || cluster.node("n3").is_ready());
    stop.store(true, Relaxed);
    let made: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    assert!(made > 3 * CALLERS, "{made} callers");
    assert!(looked > 3 && denied * 100 <= looked * 20, "{denied} of {} without an owner", looked * 20);
    let turned_away = |reason: &str| {
        let name = format!("tidegate_peer_streams_refused_total{{reason=\"{reason}\"}}");
        cluster.nodes[0].metric(&name).unwrap_or(0.0)
    };
    assert!(turned_away("too_many") + turned_away("timeout") > 2_000.0, "the flood was no flood");
}
