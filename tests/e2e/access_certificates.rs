//! The promise: a client certificate stands for the token that was made for its name, over each protocol, and for nothing else; it
//! is listed, expires and is revoked as any token, and a token that is presented goes first.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

use super::{access::ADMIN, tls::ask_by_tonic};
use crate::kit::{
    self,
    rules::SOON,
    secure::{Authority, said, show_clients, told},
};

const RULES: &str = "domain: default\nrules:\n  - { name: per-user, key: [user], limit: 1000/1m }\n---\ndomain: shop\nrules:\n  - { name: per-user, key: [user], limit: 1000/1m }\n";

/// One node with TLS for clients, whose certificates are optional, and an admin token; checks need one too.
fn one_node(authority: &Authority) -> Cluster {
    let mut cluster = Cluster::empty(kit::patient(RULES));
    let files = authority.node("n1", "n1");
    show_clients(&mut cluster, &files, "n1");
    cluster.set_environment("TIDEGATE_TLS_CLIENT_CA", &authority.ca());
    cluster.set_environment("TIDEGATE_TLS_CLIENT_AUTH", "optional");
    cluster.set_environment("TIDEGATE_ADMIN_TOKEN", ADMIN);
    cluster.set_environment("TIDEGATE_REQUIRE_TOKEN", "all");
    let port = free_ports();
    cluster.spawn(port, &[port], &[]);
    let ready = format!("https://127.0.0.1:{port}/readyz");
    wait_for("it is ready over TLS", SOON * 3, || authority.curl(None, &["-f", &ready]).status.success());
    cluster
}

/// The status of an answer, and what it says.
fn call(authority: &Authority, client: Option<&str>, url: &str, more: &[&str]) -> (u16, Value) {
    let output = authority.curl(client, &[&["-w", "\n%{http_code}", url][..], more].concat());
    assert!(output.status.success(), "{url}: {}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

/// A command of `tidegate`, with the admin token or the certificate of a client.
fn tidegate(authority: &Authority, url: &str, client: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(kit::binary());
    command.args(arguments).args(["--node", url, "--ca-file", &authority.ca()]);
    match client {
        None => command.env("TIDEGATE_TOKEN", ADMIN),
        Some(name) => command.args([
            "--client-cert",
            &authority.text(&format!("{name}.crt")),
            "--client-key",
            &authority.text(&format!("{name}.key")),
        ]),
    };
    command.output().unwrap()
}

/// A connection over TLS that is kept, by openssl.
struct Kept {
    child: Child,
    into: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Kept {
    fn new(authority: &Authority, client: &str, port: u16) -> Self {
        let file = |kind: &str| authority.text(&format!("{client}.{kind}"));
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .args(["-CAfile", &authority.ca(), "-cert", &file("crt"), "-key", &file("key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed (package openssl)");
        let (into, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, into, from: BufReader::new(from) }
    }

    fn line(&mut self, say: &str) -> String {
        self.into.write_all(say.as_bytes()).unwrap();
        self.into.flush().unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The status of a check over HTTP.
    fn check(&mut self, domain: &str) -> u16 {
        let asked =
            format!("GET /v1/check?domain={domain}&user=a&cost=0 HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let status = self.line(&asked);
        let mut length = 0;
        loop {
            let line = self.line("").to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.from.read_exact(&mut body).unwrap();
        status.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_has_the_roles_of_the_token_that_was_made_for_its_name() {
    let authority = Authority::new();
    ["deploy", "shop", "nobody"].iter().for_each(|name| authority.client(name));
    let cluster = one_node(&authority);
    let node = &cluster.nodes[0];
    let base = format!("https://127.0.0.1:{}", node.http.port());
    let at = |client: Option<&str>, path: &str, more: &[&str]| {
        call(&authority, client, &format!("{base}{path}"), more)
    };
    let status = |client: Option<&str>, path: &str| at(client, path, &[]).0;

    let made = tidegate(
        &authority,
        &base,
        None,
        &["token", "create", "deployment", "--role", "operate", "--for-certificate", "deploy"],
    );
    assert!(made.status.success() && !said(&made).contains("tg_"), "{}", said(&made));
    assert!(told(&made).contains("\"deploy\" stands for the token deployment (operate)"), "{}", told(&made));
    let shop =
        ["token", "create", "shop", "--role", "check", "--domain", "shop", "--for-certificate", "shop"];
    let made = tidegate(&authority, &base, None, &shop);
    assert!(made.status.success(), "{}", said(&made));

    // Each has its role, and nothing else.
    assert_eq!(status(Some("deploy"), "/v1/cluster"), 200);
    let (refused, problem) = at(Some("deploy"), "/v1/rules/default", &["-X", "PUT", "-d", "rules: []"]);
    assert_eq!((refused, problem["role"].as_str()), (403, Some("admin")), "{problem}");
    assert_eq!(status(Some("deploy"), "/v1/check?user=a&cost=0"), 403);
    assert_eq!(status(Some("shop"), "/v1/check?domain=shop&user=a&cost=0"), 200);
    assert_eq!(status(Some("shop"), "/v1/check?user=a&cost=0"), 403, "another domain");
    assert_eq!(status(Some("shop"), "/v1/cluster"), 403);
    let (refused, problem) = at(Some("nobody"), "/v1/cluster", &[]);
    let detail = problem["detail"].as_str().unwrap();
    assert!(refused == 401 && detail.contains("--for-certificate") && detail.contains("nobody"), "{problem}");
    let (refused, problem) = at(None, "/v1/cluster", &[]);
    assert!(refused == 401 && !problem["detail"].as_str().unwrap().contains("certificate"), "{problem}");

    // The commands show one, and the audit trail names it.
    let drained = tidegate(&authority, &base, Some("deploy"), &["cluster", "status"]);
    assert!(drained.status.success(), "{}", said(&drained));
    let (reset, _) = at(Some("deploy"), "/v1/reset", &["--json", r#"{"attributes": {"user": "a"}}"#]);
    assert_eq!(reset, 200);
    wait_for("the reset is noted", SOON, || {
        let (_, trail) = at(Some("deploy"), "/v1/audit", &[]);
        let who = &trail["entries"][0]["identity"];
        (&who["kind"], &who["name"], &who["certificate"])
            == (&json!("certificate"), &json!("deployment"), &json!("deploy"))
    });

    // A token that is presented goes first, and alone.
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let (right, _) = at(Some("nobody"), "/v1/rules", &["-H", &bearer(ADMIN)]);
    let (wrong, _) = at(Some("deploy"), "/v1/rules", &["-H", &bearer("tg_0000000000000000_00")]);
    assert_eq!((right, wrong), (200, 401));

    let listed = tidegate(&authority, &base, None, &["token", "list"]);
    assert!(
        told(&listed).contains("certificate deploy") && told(&listed).contains("only shop"),
        "{}",
        said(&listed)
    );
    let again = tidegate(
        &authority,
        &base,
        None,
        &["token", "create", "x", "--role", "read", "--for-certificate", "shop"],
    );
    assert!(!again.status.success() && told(&again).contains("has a token already"), "{}", told(&again));
    let saved = ["token", "create", "x", "--role", "read", "--for-certificate", "x", "--save", "x.token"];
    assert_eq!(tidegate(&authority, &base, None, &saved).status.code(), Some(2), "there is nothing to save");

    // Revoked, it is nothing: on connections that were there, too.
    let mut kept = Kept::new(&authority, "shop", node.http.port());
    assert_eq!((kept.check("shop"), kept.check("shop"), kept.check("default")), (200, 200, 403));
    let revoked = tidegate(&authority, &base, None, &["token", "revoke", "shop"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert_eq!(kept.check("shop"), 401);
    assert_eq!(status(Some("shop"), "/v1/check?domain=shop&user=a&cost=0"), 401);
    // The name is free again, and it may expire.
    let short = [&shop[..], &["--expires", "2s"]].concat();
    assert!(tidegate(&authority, &base, None, &short).status.success());
    assert_eq!(kept.check("shop"), 200);
    wait_for("it expires", Duration::from_secs(6), || kept.check("shop") == 401);
}

#[test]
fn a_certificate_counts_over_grpc_and_the_redis_protocol_as_over_http() {
    let authority = Authority::new();
    ["asks", "resets", "nobody"].iter().for_each(|name| authority.client(name));
    let cluster = one_node(&authority);
    let node = &cluster.nodes[0];
    let base = format!("https://127.0.0.1:{}", node.http.port());
    for (name, role) in [("asks", "check"), ("resets", "operate,check")] {
        let made = ["token", "create", name, "--role", role, "--for-certificate", name];
        let made = tidegate(&authority, &base, None, &made);
        assert!(made.status.success(), "{}", said(&made));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let grpc = |client| runtime.block_on(ask_by_tonic(&authority, node.grpc.port(), client));
    assert_eq!(grpc(Some("asks")), Ok(true));
    assert!(grpc(Some("nobody")).unwrap_err().contains("--for-certificate"));
    assert!(grpc(None).unwrap_err().contains("needs a token"));

    const THROTTLE: &str = "CL.THROTTLE k 9 10 60\r\n";
    const RESET: &str = "CL.RESET k 9 10 60\r\n";
    let connect = |client| Kept::new(&authority, client, node.resp.port());
    let five = |client: &mut Kept, command| {
        let first = client.line(command);
        if first == "*5" {
            (0..5).for_each(|_| drop(client.line("")));
        }
        first
    };
    let mut asks = connect("asks");
    assert_eq!(five(&mut asks, THROTTLE), "*5");
    assert!(five(&mut asks, RESET).starts_with("-NOPERM "));
    assert_eq!(asks.line("PING\r\n"), "+PONG");
    let mut resets = connect("resets");
    assert_eq!(five(&mut resets, RESET), "*5");
    let mut nobody = connect("nobody");
    assert!(five(&mut nobody, THROTTLE).starts_with("-NOAUTH "));
    // A token goes first until RESET, and a wrong one changes nothing, as in Redis.
    assert!(asks.line("AUTH nonsense\r\n").starts_with("-WRONGPASS "));
    assert_eq!(five(&mut asks, THROTTLE), "*5");
    assert_eq!(asks.line(&format!("AUTH {ADMIN}\r\n")), "+OK");
    assert_eq!(five(&mut asks, RESET), "*5");
    assert_eq!(asks.line("RESET\r\n"), "+RESET");
    assert!(five(&mut asks, RESET).starts_with("-NOPERM "), "it is its certificate again");
    let revoked = tidegate(&authority, &base, None, &["token", "revoke", "asks"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert!(
        five(&mut asks, THROTTLE).starts_with("-NOAUTH "),
        "the connection is as good as its certificate"
    );
}
