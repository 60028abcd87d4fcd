//! The promise: a pipeline over the Redis protocol has one answer for each command, in order, with transactions and without
//! answers as Redis has them. Where a Redis server is installed, it is asked the same.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tidegate_jepsen::cluster::{Cluster, wait_for};

use crate::kit::{
    self,
    resp::{Client, command},
    rules::SOON,
};

const NO_RULES: &str = "rules: []\n";

fn answers(client: &mut Client, pipeline: &[&[&str]], count: usize) -> Vec<String> {
    client.say(&pipeline.iter().map(|words| command(words)).collect::<String>());
    (0..count).map(|_| client.answer()).collect()
}

/// Units left of a bucket of ten.
fn left(client: &mut Client, key: &str) -> String {
    let five = client.ask(&["CL.THROTTLE", key, "9", "1", "3600", "0"]);
    five.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn a_transaction_is_answered_in_its_order_whoever_owns_the_keys() {
    let cluster = kit::patient_nodes(3, NO_RULES);
    let mut client = Client::new(cluster.nodes[0].resp);
    client.say(&command(&["MULTI"]));
    for key in 0..200 {
        let burst = key.to_string();
        client.say(&command(&["CL.THROTTLE", &format!("key-{key}"), &burst, "1", "3600"]));
    }
    client.say(&command(&["EXEC"]));
    assert_eq!(client.answer(), "+OK");
    assert!((0..200).all(|_| client.answer() == "+QUEUED"));
    assert_eq!(client.line(), "*200");
    for key in 0..200 {
        assert_eq!(client.five()[..3], [0, key + 1, key]);
    }
    assert_eq!(client.ask(&["PING"]), "+PONG");
}

#[test]
fn an_error_at_queueing_charges_nothing() {
    let cluster = kit::nodes(1, NO_RULES);
    let mut client = Client::new(cluster.nodes[0].resp);
    let take: &[&str] = &["CL.THROTTLE", "k", "9", "1", "3600"];
    let pipeline: [&[&str]; 5] = [&["MULTI"], take, &["CL.THROTTLE", "k", "9", "x", "60"], take, &["EXEC"]];
    let told = answers(&mut client, &pipeline, 5);
    assert_eq!((&*told[0], &*told[1], &*told[3]), ("+OK", "+QUEUED", "+QUEUED"));
    assert!(told[2].starts_with("-ERR count"), "{told:?}");
    assert!(told[4].starts_with("-EXECABORT "), "{told:?}");
    assert_eq!(left(&mut client, "k"), ":10");
    let told = answers(&mut client, &[&["MULTI"], take, take, &["DISCARD"]], 4);
    assert_eq!(told[3], "+OK");
    assert_eq!(left(&mut client, "k"), ":10");
    let told = answers(&mut client, &[&["MULTI"], take, take, &["EXEC"]], 4);
    assert_eq!(told[3], "[[:0 :10 :9 :-1 :3600] [:0 :10 :8 :-1 :7200]]");
}

#[test]
fn a_transaction_that_is_left_open_charges_nothing_and_one_that_is_too_large_is_refused() {
    let cluster = kit::nodes(1, NO_RULES);
    let node = &cluster.nodes[0];
    let mut client = Client::new(node.resp);
    let take: &[&str] = &["CL.THROTTLE", "k", "9", "1", "3600"];
    answers(&mut client, &[&["MULTI"], take], 2);
    drop(client);
    let mut client = Client::new(node.resp);
    assert_eq!(left(&mut client, "k"), ":10");
    assert_eq!(client.ask(&["MULTI"]), "+OK");
    let before = node.resident_bytes().unwrap();
    let block = command(take).repeat(1_000);
    let mut refused = Vec::new();
    for _ in 0..10 {
        client.say(&block);
        let told = (0..1_000).map(|_| client.answer());
        refused.extend(told.filter(|answer| answer != "+QUEUED"));
    }
    assert!(refused.len() == 1 && refused[0].contains("at most 262144 bytes"), "{refused:?}");
    assert!(node.resident_bytes().unwrap() < before + (16 << 20));
    assert!(client.ask(&["EXEC"]).starts_with("-EXECABORT "));
    assert_eq!(left(&mut client, "k"), ":10");
}

#[test]
fn answers_that_are_not_wanted_are_kept_back_and_the_checks_are_made() {
    let cluster = kit::patient_nodes(2, NO_RULES);
    let mut client = Client::new(cluster.nodes[1].resp);
    let take: &[&str] = &["CL.THROTTLE", "k", "9", "1", "3600"];
    let off: [&[&str]; 6] = [
        &["CLIENT", "REPLY", "OFF"],
        take,
        take,
        &["NONSENSE"],
        &["CLIENT", "REPLY", "ON"],
        &["ECHO", "here"],
    ];
    assert_eq!(answers(&mut client, &off, 2), ["+OK", "here"]);
    assert_eq!(left(&mut client, "k"), ":8");
    let skip: [&[&str]; 3] = [&["CLIENT", "REPLY", "SKIP"], take, &["ECHO", "here"]];
    assert_eq!(answers(&mut client, &skip, 1), ["here"]);
    assert_eq!(left(&mut client, "k"), ":7");
}

/// A Redis server without files.
struct Redis {
    process: Child,
    address: SocketAddr,
}

impl Redis {
    fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            println!("NOT TESTED: redis-server is not installed");
            return None;
        };
        let redis = Self { process, address: (Ipv4Addr::LOCALHOST, port).into() };
        wait_for("Redis listens", SOON, || TcpStream::connect(redis.address).is_ok());
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const COMMANDS: [&str; 18] = [
    "ECHO",
    "ECHO",
    "ECHO",
    "PING",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH k",
    "UNWATCH",
    "RESET",
    "NONSENSE",
    "ECHO a b",
    "SELECT 0",
    "CLIENT REPLY ON",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
];

/// Sends a pipeline in pieces of `piece` bytes, and hears all of its answers; of an error only its kind.
fn heard(address: SocketAddr, lines: &[String], piece: usize) -> Vec<String> {
    let mut client = Client::new(address);
    let words = |line: &String| command(&line.split(' ').collect::<Vec<_>>());
    // After that all answers are wanted again.
    let end = [command(&["RESET"]), command(&["RESET"]), command(&["ECHO", "end"])];
    let bytes: String = lines.iter().map(words).chain(end).collect();
    for piece in bytes.as_bytes().chunks(piece) {
        client.say(std::str::from_utf8(piece).unwrap());
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|answer| answer != "end") {
        let answer = client.answer();
        assert!(!answer.is_empty(), "the connection ended after {told:?} of {lines:?}");
        let is_error = answer.starts_with('-');
        told.push(if is_error { answer.split(' ').next().unwrap().to_owned() } else { answer });
    }
    told
}

/// Numbered, so that each answer tells whose it is. `CLIENT REPLY` in a transaction is left out: it is refused here, and spoils
/// the answers of Redis.
fn lines(commands: &[&str]) -> Vec<String> {
    let mut open = false;
    let mut lines = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        match *command {
            "ECHO" => lines.push(format!("ECHO {at}")),
            reply if reply.starts_with("CLIENT REPLY") && open => {}
            other => {
                open = match other {
                    "MULTI" => true,
                    "EXEC" | "DISCARD" | "RESET" => false,
                    _ => open,
                };
                lines.push(other.to_owned());
            }
        }
    }
    lines
}

#[test]
fn any_pipeline_is_answered_as_redis_answers_it() {
    let cluster: Cluster = kit::nodes(1, NO_RULES);
    let own = cluster.nodes[0].resp;
    let redis = Redis::start();
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let pipelines = (vec(prop::sample::select(&COMMANDS[..]), 0..40), 1_usize..2_000);
    let result = runner.run(&pipelines, |(commands, piece)| {
        let lines = lines(&commands);
        let told = heard(own, &lines, piece);
        if let Some(redis) = &redis {
            prop_assert_eq!(&told, &heard(redis.address, &lines, usize::MAX));
        } else if !lines.iter().any(|line| line.starts_with("CLIENT REPLY")) {
            prop_assert_eq!(told.len(), lines.len() + 3, "{:?}", told);
        }
        Ok(())
    });
    result.unwrap();
}
