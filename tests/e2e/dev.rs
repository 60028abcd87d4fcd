//! The promise: one command starts a cluster to try, and leaves nothing behind.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use crate::kit;
use rustix::process::Signal;
use tempfile::TempDir;
use tidegate_jepsen::{
    client::Client,
    cluster::{free_ports, free_ports_for, signal, wait_for},
};

const PATIENCE: Duration = Duration::from_secs(40);

/// A running `tidegate dev`, with a temporary directory of its own to see what it leaves there.
struct Dev {
    process: Child,
    base: u16,
    output: PathBuf,
    scratch: TempDir,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap().keep();
        let output = place.join("output");
        let file = File::create(&output).unwrap();
        let base = free_ports_for(3);
        let process = Command::new(kit::binary())
            .args(["dev", "--base-port", &base.to_string()])
            .args(arguments)
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut dev = Self { process, base, output, scratch };
        wait_for("the cluster is ready", PATIENCE, || {
            assert_eq!(dev.process.try_wait().unwrap(), None, "dev has ended by itself");
            dev.text().contains("The cluster is ready")
        });
        dev
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    fn http(&self, node: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.base + 10 * (node - 1)).into()
    }

    /// Name and pid from the table.
    fn pids(&self) -> Vec<(String, u32)> {
        let text = self.text();
        let rows = text
            .lines()
            .filter(|line| line.contains("http://127.0.0.1:") && line.trim_start().starts_with('n'));
        rows.filter_map(|row| {
            let mut words = row.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
    }

    fn interrupt(&mut self) -> ExitStatus {
        signal(self.process.id(), Signal::INT);
        let mut status = None;
        wait_for("dev has ended", PATIENCE, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn assert_nothing_is_left(&self, pids: &[(String, u32)]) {
        for (name, pid) in pids {
            wait_for(&format!("{name} has ended"), PATIENCE, || {
                !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()
            });
        }
        for node in 1..=3 {
            assert!(TcpStream::connect(self.http(node)).is_err(), "node {node} still listens");
        }
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "shown with the failed test")]
            {
                eprintln!("--- output of dev:\n{}", self.text());
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(self.output.parent().unwrap());
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(kit::binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// It must have failed with this code and one message that has the words.
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(!String::from_utf8_lossy(&output.stdout).contains("The cluster is ready"));
}

#[test]
fn three_nodes_share_the_demonstration_limit_and_ctrl_c_leaves_nothing() {
    let _machine = kit::alone();
    let mut dev = Dev::start(&[]);
    let pids = dev.pids();
    assert_eq!(pids.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    assert!(dev.text().contains("curl"), "it says what to try");

    let mut clients: Vec<Client> = (1..=3).map(|node| Client::new(dev.http(node), PATIENCE)).collect();
    let path = "/v1/check?ip=203.0.113.7";
    let answers: Vec<_> = (0..30).map(|n| clients[n % 3].get(path).unwrap()).collect();
    let limit = answers[0].json()["limit"].as_u64().unwrap() as usize;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(statuses[..limit].iter().all(|status| *status == 200), "{statuses:?}");
    assert!(statuses[limit..].iter().all(|status| *status == 429), "{statuses:?}");

    dev.interrupt();
    dev.assert_nothing_is_left(&pids);
}

#[test]
fn a_killed_node_is_reported_and_the_others_go_on() {
    let _machine = kit::alone();
    let mut dev = Dev::start(&[]);
    let pids = dev.pids();
    signal(pids[2].1, Signal::KILL);
    wait_for("the death is reported", PATIENCE, || {
        let text = dev.text();
        text.contains("n3") && text.contains("killed by signal 9")
    });
    let mut client = Client::new(dev.http(1), PATIENCE);
    for address in 0..50 {
        let answer = client.get(&format!("/v1/check?ip=198.51.100.{address}")).unwrap();
        assert!([200, 429].contains(&answer.status), "{}", answer.text());
    }
    wait_for("the others have noticed", PATIENCE, || {
        let members = client.get("/v1/cluster").unwrap().json()["members"].as_array().unwrap().clone();
        members.iter().filter(|member| member["live"] == true).count() == 2
    });
    dev.interrupt();
    dev.assert_nothing_is_left(&pids);
}

#[test]
fn nodes_do_not_outlive_a_dev_that_is_killed() {
    let _machine = kit::alone();
    let mut dev = Dev::start(&[]);
    let pids = dev.pids();
    assert_eq!(pids.len(), 3);
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    for (name, pid) in &pids {
        wait_for(&format!("{name} has ended"), PATIENCE, || {
            // Gone, or a zombie that nobody has waited for: both have no program any more.
            std::fs::read_link(format!("/proc/{pid}/exe")).is_err()
        });
    }
}

#[test]
fn a_port_in_use_is_one_clear_message_and_no_half_started_cluster() {
    let base = free_ports_for(3);
    let _taken = TcpListener::bind(("127.0.0.1", base + 10)).unwrap();
    let output = run(&["dev", "--base-port", &base.to_string()]);
    assert_fails(&output, 1, &[&(base + 10).to_string(), "--base-port"]);
    assert!(TcpStream::connect(("127.0.0.1", base)).is_err(), "no node was started");
}

#[test]
fn a_bad_rule_file_is_shown_with_its_place_and_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.yaml");
    std::fs::write(&rules, "rules:\n  - name: a\n    key: [ip]\n    limit: 0/1m\n    mode: loud\n").unwrap();
    for command in ["dev", "serve"] {
        let base = free_ports_for(3).to_string();
        let output = run(&[command, "--base-port", &base, "--rules", rules.to_str().unwrap()]);
        assert_fails(&output, 1, &["rules.yaml", "0/1m", "loud", "enforce, shadow"]);
    }
    let output = run(&["serve", "--rules", "/no/such/file.yaml"]);
    assert_fails(&output, 1, &["/no/such/file.yaml"]);
}

#[test]
fn an_unknown_flag_is_bad_usage() {
    assert_fails(&run(&["dev", "--bogus"]), 2, &["--bogus"]);
    assert_fails(&run(&["serve", "--base-port", "seventy"]), 2, &["seventy"]);
    assert_fails(&run(&["bogus"]), 2, &["bogus"]);
    let help = run(&["serve", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--bootstrap-expect"));
}

#[test]
fn a_node_whose_peer_port_is_taken_says_which() {
    let base = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", base + 3)).unwrap();
    let output = run(&["serve", "--base-port", &base.to_string()]);
    assert_fails(&output, 1, &[&(base + 3).to_string()]);
}

#[test]
fn the_readme_shows_the_rules_of_the_demonstration() {
    let (title, rules) = include_str!("../../src/dev/demo-rules.yaml").split_once('\n').unwrap();
    assert!(title.starts_with('#'), "{title}");
    assert_eq!(kit::page::block("README.md", "yaml"), rules);
}
