//! What the benchmarks of servers share: processes that end with them, and a processor for each side.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "each benchmark uses it as its own")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Processes that end with the benchmark.
#[derive(Default)]
pub(crate) struct Children(Vec<Child>);

impl Children {
    pub(crate) fn start(&mut self, command: &mut Command) -> u32 {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.0.push(child);
        pid
    }

    pub(crate) fn node(&mut self, rules: &Path, port: u16, others: &[u16]) -> u32 {
        self.node_with(rules, port, others, &[])
    }

    /// One that finds this in its environment.
    pub(crate) fn node_with(
        &mut self,
        rules: &Path,
        port: u16,
        others: &[u16],
        environment: &[(&str, &str)],
    ) -> u32 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args([
            "serve",
            "--workers",
            "1",
            "--log-level",
            "warn",
            "--base-port",
            &port.to_string(),
            "--rules",
        ]);
        command.arg(rules).envs(environment.iter().copied());
        for other in others {
            command.args(["--join", &format!("127.0.0.1:{}", other + 3), "--bootstrap-expect", "2"]);
        }
        self.start(&mut command)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn processors() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
}

/// This process, and those that it starts from now on.
pub(crate) fn pin_to(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap();
}

pub(crate) fn options() -> (usize, Duration) {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: u64| {
        let place = arguments.iter().position(|argument| argument == name);
        place.map_or(default, |place| {
            arguments.get(place + 1).and_then(|text| text.parse().ok()).expect("a number")
        })
    };
    (value("--rounds", 5) as usize, Duration::from_secs(value("--seconds", 2)))
}
