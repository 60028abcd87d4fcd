//! The promise: `--advertise` takes an address, an interface or a name, and what nobody could reach is refused with the reason.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tidegate_jepsen::{
    client::Client,
    cluster::{Cluster, free_ports, signal, wait_for},
};

use crate::kit;

const PATIENCE: Duration = Duration::from_secs(30);

fn member_address(cluster: &Cluster, name: &str) -> String {
    let status = cluster.node("n1").status().unwrap();
    let members = status["members"].as_array().unwrap().clone();
    let member = members.iter().find(|member| member["name"] == name).cloned().unwrap_or_default();
    member["peer"].as_str().unwrap_or_default().to_owned()
}

/// The loopback interface has a name on each machine, and an address of each family.
#[test]
fn nodes_reach_each_other_by_the_address_of_an_interface_and_of_a_host() {
    let mut cluster = Cluster::empty(kit::patient(&kit::per_user("5/1m", 5, "share")));
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    let loopback = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
    for (port, advertise) in ports.iter().zip([loopback, "localhost", "127.0.0.1"]) {
        let flags = ["--bootstrap-expect", "3", "--advertise", advertise].map(str::to_owned);
        cluster.spawn(*port, &ports, &flags);
    }
    cluster.await_ready();
    for (number, port) in ports.iter().enumerate() {
        let name = format!("n{}", number + 1);
        assert_eq!(member_address(&cluster, &name), format!("127.0.0.1:{}", port + 3));
    }
    assert!(cluster.node("n1").log().contains("the name of --advertise stands for this address"));
}

/// A process that is killed when nobody needs it any more.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(base: u16, path: &str) -> Option<(u16, String)> {
    let mut client = Client::new(std::net::SocketAddr::from(([127, 0, 0, 1], base)), Duration::from_secs(2));
    let response = client.get(path).ok()?;
    Some((response.status, response.text()))
}

#[test]
fn nodes_that_listen_on_both_families_reach_each_other_by_either() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("NOT TESTED: this machine has no IPv6");
        return;
    }
    let ports: Vec<u16> = (0..3).map(|_| free_ports()).collect();
    // Each is joined by the other family than the one that it tells.
    let join = |mine: u16| {
        let hosts = ["127.0.0.1", "[::1]", "127.0.0.1"];
        let others = ports.iter().zip(hosts).filter(|(port, _)| **port != mine);
        others.map(|(port, host)| format!("{host}:{}", port + 3)).collect::<Vec<_>>().join(",")
    };
    let nodes: Vec<Killed> = ports
        .iter()
        .zip(["::1", "127.0.0.1", "::1"])
        .map(|(port, advertise)| {
            let mut command = Command::new(kit::binary());
            command
                .args(["serve", "--listen", "::", "--bootstrap-expect", "3", "--advertise", advertise])
                .args([
                    "--name",
                    &format!("n{port}"),
                    "--base-port",
                    &port.to_string(),
                    "--join",
                    &join(*port),
                ])
                .env("TIDEGATE_CLUSTER_KEY", "the key of the black-box tests")
                .env("TIDEGATE_INSECURE", "true")
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            Killed(command.spawn().unwrap())
        })
        .collect();
    wait_for("all are ready", PATIENCE, || {
        ports.iter().all(|port| get(*port, "/readyz").is_some_and(|(status, _)| status == 200))
    });
    let (_, cluster) = get(ports[2], "/v1/cluster").unwrap();
    for (port, host) in ports.iter().zip(["[::1]", "127.0.0.1", "[::1]"]) {
        assert!(cluster.contains(&format!("\"{host}:{}\"", port + 3)), "{cluster}");
    }
    drop(nodes);
}

fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(kit::binary());
    command.args(["serve", "--base-port", &free_ports().to_string()]).args(arguments);
    command.env("TIDEGATE_CLUSTER_KEY", "the key of the black-box tests").env("TIDEGATE_INSECURE", "true");
    command.stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    (output.status.code(), text.replace("│ ", ""))
}

#[test]
fn what_nobody_could_reach_is_refused_with_the_reason() {
    let far = ["--listen", "0.0.0.0", "--join", "192.0.2.1"];
    for (advertise, code, says) in [
        ("0.0.0.0", 2, "0.0.0.0 stands for every address"),
        ("::", 2, ":: stands for every address"),
        ("224.0.0.1", 2, "224.0.0.1 stands for many machines"),
        ("fe80::1", 2, "fe80::1 is only known on one link"),
        ("127.0.0.1", 2, "where 192.0.2.1 cannot"),
        ("10.0.0.1:7803", 2, "has a port"),
        ("10.0.0.0/8", 2, "is no address"),
        ("localhost", 1, "where 192.0.2.1 cannot"),
    ] {
        let (ended, text) = refused(&[&far[..], &["--advertise", advertise]].concat());
        assert_eq!(ended, Some(code), "{advertise}: {text}");
        assert!(text.contains(says) && text.contains("--advertise"), "{advertise}: {text}");
    }
}

#[test]
fn a_name_that_stands_for_nothing_is_waited_for_and_then_named_and_a_signal_ends_the_wait() {
    let (code, text) = refused(&["--listen", "0.0.0.0", "--advertise", "no-such-host.invalid"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no-such-host.invalid names neither a network interface"), "{text}");
    let process = Command::new(kit::binary())
        .args(["serve", "--base-port", &free_ports().to_string(), "--advertise", "no-such-host.invalid"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut process = Killed(process.unwrap());
    std::thread::sleep(Duration::from_secs(1));
    signal(process.0.id(), rustix::process::Signal::TERM);
    let mut ended = None;
    wait_for("it ends", PATIENCE.min(Duration::from_secs(5)), || {
        ended = process.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
}
