//! The Redis protocol front end beside Redis with the usual script: `cargo bench --bench resp`, or `-- --rounds N`.
//!
//! Both servers have the first processor, redis-benchmark the last one; they take turns, medians are shown. 32 connections,
//! 1,000 keys, each key far from its limit: without pipelining, and 64 commands at once. Needs redis-server, redis-cli and
//! redis-benchmark (packages redis-server and redis-tools). Redis decides by a script for GCRA (EVALSHA), without persistence.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people")]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tidegate_jepsen::cluster::{Cluster, Settings, free_ports, wait_for};

/// The theoretical arrival time of a key, as redis-cell has it: burst 1,000,000, then 1,000,000 a second.
const SCRIPT: &str = "\
local t = redis.call('TIME') \
local now = t[1] * 1000000 + t[2] \
local emission, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2]) \
local tat = tonumber(redis.call('GET', KEYS[1]) or now) \
if tat < now then tat = now end \
local new = tat + emission \
if new - tolerance > now then return {1, 0, math.ceil((new - tolerance - now) / 1000000)} end \
redis.call('SET', KEYS[1], new, 'PX', math.ceil((new - now) / 1000) + 1) \
return {0, math.floor((tolerance - (new - now)) / emission), -1}";

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rounds: usize = match &arguments[..] {
        [] => 5,
        [name, number] if name == "--rounds" => number.parse().unwrap(),
        other => panic!("unknown options {other:?}; there is --rounds N"),
    };
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if let Some(missing) =
        ["redis-server", "redis-cli", "redis-benchmark"].iter().find(|program| !has(program))
    {
        println!("{missing} is missing: install the packages redis-server and redis-tools");
        return;
    }
    let processors: Vec<usize> = {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
    };
    let (for_servers, for_load) = (processors[0], processors[processors.len() - 1]);
    pin_to(for_servers);
    let settings = Settings {
        binary: env!("CARGO_BIN_EXE_tidegate").into(),
        rules: "rules: []\n".to_owned(),
        flags: vec!["--workers".to_owned(), "1".to_owned()],
        key: None,
        keeps_data: false,
    };
    let cluster = Cluster::start(1, settings);
    let redis_port = free_ports().to_string();
    let _redis = Ends(
        Command::new("redis-server")
            .args(["--port", &redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    pin_to(for_load);
    let sha = load_script(&redis_port);
    let tidegate_port = cluster.nodes[0].resp.port().to_string();

    println!("thousand checks a second, one server core, 32 connections, medians of {rounds} rounds");
    for (what, pipeline, count) in [("one at a time", "1", "300000"), ("64 at once", "64", "2000000")] {
        let throttle = ["CL.THROTTLE", "key:__rand_int__", "1000000", "1000000", "1"];
        let script = ["EVALSHA", &sha, "1", "key:__rand_int__", "1", "1000000000000"];
        let mut rates: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            rates[0].push(run(&tidegate_port, pipeline, count, &throttle));
            rates[1].push(run(
                &redis_port,
                pipeline,
                if pipeline == "1" { count } else { "500000" },
                &script,
            ));
        }
        let ratio = median(rates[0].iter().zip(&rates[1]).map(|(ours, theirs)| ours / theirs).collect());
        let [ours, theirs] = rates.map(median);
        println!(
            "  {what:14} tidegate {:7.1}   redis with a script {:7.1}   {ratio:5.2} x",
            ours / 1e3,
            theirs / 1e3
        );
    }
}

fn pin_to(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap();
}

fn load_script(port: &str) -> String {
    let mut sha = String::new();
    wait_for("redis takes the script", Duration::from_secs(10), || {
        let output = Command::new("redis-cli").args(["-p", port, "SCRIPT", "LOAD", SCRIPT]).output().unwrap();
        sha = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        sha.len() == 40
    });
    sha
}

/// Requests a second.
fn run(port: &str, pipeline: &str, count: &str, command: &[&str]) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", port, "-c", "32", "-P", pipeline, "-n", count, "-r", "1000", "--csv"])
        .args(command)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let rate = line.split("\",\"").nth(1).and_then(|field| field.trim_matches('"').parse().ok());
    rate.unwrap_or_else(|| panic!("redis-benchmark said {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
