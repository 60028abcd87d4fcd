//! The promise: a node is closed by default where others reach it, and no secret is where others can see it: neither in the
//! command line, nor in a log, nor in a file that they can read.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output},
};

use serde_json::json;
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

use super::access::{ADMIN, ask, guarded, make};
use crate::kit::{self, rules::SOON};

const KEY: &str = "the key of the black-box tests";

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(kit::binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// What was said, in one line.
fn said(output: &Output) -> String {
    let said = [&*output.stdout, &*output.stderr].concat();
    let said = String::from_utf8_lossy(&said).replace(['\n', '│'], " ");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_node_that_others_reach_is_not_open_unless_that_is_said() {
    let port = free_ports().to_string();
    let serve = ["serve", "--base-port", &port, "--listen", "0.0.0.0"];
    let key = [("TIDEGATE_CLUSTER_KEY", KEY)];
    let refused = run(&serve, &key);
    assert_eq!(refused.status.code(), Some(2));
    for way in ["--admin-token-file", "TIDEGATE_ADMIN_TOKEN", "--admin-listen 127.0.0.1:", "--insecure"] {
        assert!(said(&refused).contains(way), "{}", said(&refused));
    }
    // A secret is no flag, and no file of others.
    for flag in ["--cluster-key", "--admin-token"] {
        let shown = run(&[&serve[..], &[flag, ADMIN]].concat(), &key);
        assert_eq!(shown.status.code(), Some(2));
        assert!(said(&shown).contains("ps") && !said(&shown).contains(ADMIN), "{}", said(&shown));
    }
    let files = tempfile::tempdir().unwrap();
    for flag in ["--cluster-key-file", "--admin-token-file"] {
        let path = files.path().join("secret");
        write(&path, ADMIN, 0o644);
        let name = path.to_str().unwrap();
        let open = run(&["serve", "--base-port", &port, flag, name], &[]);
        assert_eq!(open.status.code(), Some(2), "{}", said(&open));
        assert!(said(&open).contains("chmod 600") && !said(&open).contains(ADMIN), "{}", said(&open));
    }
    let config = files.path().join("node.toml");
    write(&config, &format!("admin-token = \"{ADMIN}\""), 0o644);
    let open = run(&["serve", "--base-port", &port, "--config", config.to_str().unwrap()], &[]);
    assert!(said(&open).contains("chmod 600"), "{}", said(&open));
}

#[test]
fn a_node_shows_no_secret_and_keeps_its_data_to_itself() {
    let mut cluster = Cluster::empty(kit::rules::keeping());
    cluster.set_environment("TIDEGATE_ADMIN_TOKEN", ADMIN);
    cluster.set_environment("TIDEGATE_LOG_LEVEL", "trace");
    let port = free_ports();
    let data = cluster.data_dir(port);
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    cluster.spawn(port, &[port], &[]);
    let node = &cluster.nodes[0];
    wait_for("the node is ready", SOON, || node.is_ready());
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    let (_, token) = make(node, Some(ADMIN), json!({"name": "ops", "roles": ["admin"]}));
    assert_eq!(ask(node, "GET", "/v1/rules", Some(&token), "").status, 200);
    assert_eq!(ask(node, "GET", "/v1/rules", Some(&token[..80]), "").status, 401);
    let command_line = fs::read_to_string(format!("/proc/{}/cmdline", node.pid().unwrap())).unwrap();
    let told = [node.log(), command_line].concat();
    for secret in [ADMIN, KEY, &token[20..80]] {
        assert!(!told.contains(secret), "{told}");
    }
    for entry in fs::read_dir(&data).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        let has = |secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!has(&token[20..]) && !has(ADMIN), "only hashes are kept");
    }
}

#[test]
fn commands_present_a_token_from_a_file_or_the_environment() {
    let cluster = guarded(&[("TIDEGATE_ADMIN_TOKEN", ADMIN), ("TIDEGATE_REQUIRE_TOKEN", "all")]);
    let node = format!("http://{}", cluster.nodes[0].http);
    let files = tempfile::tempdir().unwrap();
    let saved = files.path().join("ops.token");
    let saved = saved.to_str().unwrap();
    let on = |arguments: &[&str], environment: &[(&str, &str)]| {
        run(&[arguments, &["--node", &node]].concat(), environment)
    };
    let needs = on(&["cluster", "status"], &[]);
    assert_eq!(needs.status.code(), Some(1));
    assert!(
        said(&needs).contains("--token-file") && said(&needs).contains("TIDEGATE_TOKEN"),
        "{}",
        said(&needs)
    );
    let wrong = on(&["cluster", "status"], &[("TIDEGATE_TOKEN", "nonsense")]);
    assert!(said(&wrong).contains("no token of the cluster"), "{}", said(&wrong));

    let admin = [("TIDEGATE_TOKEN", ADMIN)];
    let create = ["token", "create", "ops", "--role", "admin", "--save", saved];
    let made = on(&create, &admin);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    assert!(!said(&made).contains("tg_"), "{}", said(&made));
    assert_eq!(fs::metadata(saved).unwrap().mode() & 0o777, 0o600);
    assert_eq!(on(&create, &admin).status.code(), Some(1), "the file is there");

    let file = ["--token-file", saved];
    let with = |arguments: &[&str]| on(&[arguments, &file].concat(), &[]);
    let shop = with(&["token", "create", "shop", "--role", "check", "--domain", "shop", "--expires", "90d"]);
    assert_eq!(shop.status.code(), Some(0), "{}", said(&shop));
    let shop = String::from_utf8_lossy(&shop.stdout).trim().to_owned();
    assert!(shop.starts_with("tg_") && shop.len() == 84, "nothing else is printed: {shop}");
    for arguments in [
        &["cluster", "status"][..],
        &["rules", "get"],
        &["rules", "history"],
        &["check", "user=a"],
        &["token", "list"],
    ] {
        let done = with(arguments);
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", said(&done));
        assert!(!said(&done).contains(&shop[20..]), "{}", said(&done));
    }
    let by_shop = [("TIDEGATE_TOKEN", &*shop)];
    assert_eq!(on(&["check", "user=a", "--domain", "shop"], &by_shop).status.code(), Some(0));
    let other = on(&["check", "user=a"], &by_shop);
    assert!(other.status.code() == Some(1) && said(&other).contains("domains shop"), "{}", said(&other));
    let lacks = on(&["cluster", "drain", "n1"], &by_shop);
    assert!(said(&lacks).contains("this needs operate"), "{}", said(&lacks));
    let rules = files.path().join("rules.yaml");
    fs::write(&rules, "rules: []\n").unwrap();
    let applied = with(&["rules", "apply", "-f", rules.to_str().unwrap(), "--author", "mallory"]);
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    assert!(said(&with(&["rules", "history"])).contains("token ops"));

    let revoked = with(&["token", "revoke", "shop"]);
    assert_eq!(revoked.status.code(), Some(0), "{}", said(&revoked));
    assert_eq!(on(&["check", "user=a", "--domain", "shop"], &by_shop).status.code(), Some(1));

    for command in [&["cluster", "status"][..], &["token", "list"], &["check", "user=a"]] {
        let shown = on(&[command, &["--token", &shop]].concat(), &[]);
        assert_eq!(shown.status.code(), Some(2), "{}", said(&shown));
        assert!(
            said(&shown).contains("other users of this machine") && !said(&shown).contains(&shop),
            "{}",
            said(&shown)
        );
    }
    fs::set_permissions(saved, fs::Permissions::from_mode(0o644)).unwrap();
    let open = with(&["cluster", "status"]);
    assert!(said(&open).contains("chmod 600"), "{}", said(&open));
}

#[test]
fn administration_with_an_address_of_its_own_is_answered_there_only() {
    let mut cluster = Cluster::empty(kit::settings("rules: []\n"));
    let port = free_ports();
    let admin = format!("127.0.0.1:{}", free_ports());
    cluster.spawn(port, &[port], &["--admin-listen".to_owned(), admin.clone()]);
    let node = &cluster.nodes[0];
    wait_for("the node is ready", SOON, || node.is_ready());
    let mut inside = tidegate_jepsen::client::Client::new(admin.parse::<SocketAddr>().unwrap(), SOON);
    for (method, path) in [
        ("GET", "/v1/rules"),
        ("POST", "/v1/cluster/drain/n9"),
        ("GET", "/metrics"),
        ("POST", "/v1/reset"),
        ("GET", "/v1/tokens"),
    ] {
        let outside = ask(node, method, path, None, "{}");
        assert_eq!(outside.status, 403, "{path}");
        assert!(outside.text().contains("--admin-listen"), "{}", outside.text());
        let answer = inside.request(method, path, &[("content-type", "application/json")], "{}").unwrap();
        assert!(![401, 403].contains(&answer.status), "{path}: {}", answer.text());
    }
    for path in ["/v1/check?user=a", "/healthz", "/readyz"] {
        assert_eq!(ask(node, "GET", path, None, "").status, 200, "{path}");
        assert_eq!(inside.get(path).unwrap().status, 200, "{path}");
    }
    let mut redis = kit::resp::Client::new(node.resp);
    assert!(redis.ask(&["CL.RESET", "k", "9", "10", "60"]).starts_with("-NOPERM "));
    assert!(redis.ask(&["CL.THROTTLE", "k", "9", "10", "60"]).starts_with("[:0 "));
}

#[test]
fn clients_that_connect_to_administration_and_ask_nothing_keep_no_operator_out() {
    let mut cluster = Cluster::empty(kit::settings("rules: []\n"));
    let port = free_ports();
    let admin = SocketAddr::from(([127, 0, 0, 1], free_ports()));
    cluster.spawn(port, &[port], &["--admin-listen".to_owned(), admin.to_string()]);
    wait_for("the node is ready", SOON, || cluster.nodes[0].is_ready());
    let connect = |from: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, from], 0)).into()).unwrap();
        socket.connect(&admin.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /v1/rules HTTP/1.1\r\nhost: n\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    // From as many addresses as it takes to have all seats, and from one that has as many as one may have.
    for flood in [vec![3, 4, 5, 6], vec![7]] {
        let idle: Vec<TcpStream> = (0..64).map(|number| connect(flood[number % flood.len()])).collect();
        let mut operator = connect(2);
        let answer = ask(&mut operator);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // Whoever has shown who they are stays, whatever comes.
        let more: Vec<TcpStream> = (0..64).map(|number| connect(flood[number % flood.len()])).collect();
        let answer = ask(&mut operator);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // And whoever shares their address gets in.
        let answer = ask(&mut connect(flood[0]));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        drop((idle, more));
    }
    assert!(cluster.nodes[0].log().contains("no seat left"), "{}", cluster.nodes[0].log());
}
