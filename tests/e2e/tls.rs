//! The promise: real clients of all three protocols get along with nodes over TLS, whoever has not the right certificate gets
//! nothing, and certificates change while the cluster works.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tidegate_jepsen::{
    cluster::{Cluster, free_ports, signal, wait_for},
    history::monotonic,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::kit::{
    self, EndOnDrop,
    page::{block, with},
    rules::SOON,
    secure::{self, Authority, number, said, show_clients, told},
};

const RULES: &str = "rules:\n  - { name: per-user, key: [user], limit: 10/1d, algorithm: fixed_window }\n";
const CLIENT: Option<&str> = Some("deploy");

fn authority() -> Authority {
    let authority = Authority::new();
    authority.client("deploy");
    authority
}

/// One node, with a certificate for clients only, and these flags.
fn one_node(authority: &Authority, flags: &[&str]) -> Cluster {
    let mut settings = kit::patient(RULES);
    settings.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut cluster = Cluster::empty(settings);
    let files = authority.node("n1", "n1");
    show_clients(&mut cluster, &files, "n1");
    let port = free_ports();
    cluster.spawn(port, &[port], &[]);
    let ready = format!("https://127.0.0.1:{port}/readyz");
    wait_for("it is ready over TLS", SOON * 3, || authority.curl(CLIENT, &["-f", &ready]).status.success());
    cluster
}

#[test]
fn curl_the_commands_redis_and_tonic_share_one_limit_of_a_secured_cluster() {
    let authority = authority();
    let cluster = secure::cluster(&authority, 3, RULES, "deploy");
    let https = |node: usize| format!("https://127.0.0.1:{}", cluster.nodes[node].http.port());

    let mut allowed = 0;
    for turn in 0..6 {
        let body = authority.get(CLIENT, &format!("{}/v1/check?user=ada", https(turn % 3)));
        allowed += u32::from(body.contains("\"allowed\":true"));
    }
    // Over the same limit by the command line.
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(kit::binary());
        command.args(arguments).output().unwrap()
    };
    let url = https(1);
    let (crt, key, ca) = (authority.text("deploy.crt"), authority.text("deploy.key"), authority.ca());
    let shown = ["--ca-file", &*ca, "--client-cert", &*crt, "--client-key", &*key, "--node", &*url];
    let asked = cli(&[&["check", "user=ada"], &shown[..]].concat());
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    allowed += 1;
    let status = cli(&[&["cluster", "status"], &shown[..]].concat());
    assert!(status.status.success() && said(&status).contains("n3"), "{}", said(&status));

    // tonic, over HTTP/2.
    let grpc = cluster.nodes[2].grpc.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..6 {
        allowed += u32::from(runtime.block_on(ask_by_tonic(&authority, grpc, Some("deploy"))).unwrap());
    }
    assert_eq!(allowed, 10, "whichever way it is asked, it is one limit");
    assert!(runtime.block_on(ask_by_tonic(&authority, grpc, None)).is_err(), "without a certificate");

    redis(&authority, cluster.nodes[0].resp.port());
    redis_py(&authority, cluster.nodes[0].resp.port());
}

/// Whether Envoy's service allows it, asked by a client of tonic.
pub(super) async fn ask_by_tonic(
    authority: &Authority,
    port: u16,
    client: Option<&str>,
) -> Result<bool, String> {
    use tidegate_proto::grpc::envoy::{
        extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
        service::ratelimit::v3::{RateLimitRequest, RateLimitResponse},
    };
    let read = |file: &str| std::fs::read(authority.path(file)).unwrap();
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt"))).domain_name("localhost");
    if let Some(client) = client {
        tls =
            tls.identity(Identity::from_pem(read(&format!("{client}.crt")), read(&format!("{client}.key"))));
    }
    let endpoint =
        Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap();
    let channel: Channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| format!("{error:?}"))?;
    let entry = Entry { key: "user".to_owned(), value: "ada".to_owned() };
    let request = RateLimitRequest {
        domain: "default".to_owned(),
        descriptors: vec![RateLimitDescriptor { entries: vec![entry], ..Default::default() }],
        hits_addend: 1,
    };
    let path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<RateLimitRequest, RateLimitResponse>::default();
    let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
    Ok(answer.map_err(|error| format!("{error:?}"))?.into_inner().overall_code == 1)
}

fn redis(authority: &Authority, port: u16) {
    let ask = |extra: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(extra);
        command.args(["CL.THROTTLE", "secure", "15", "30", "60"]).output()
    };
    let (ca, crt, key) = (authority.ca(), authority.text("deploy.crt"), authority.text("deploy.key"));
    let with = ["--tls", "--cacert", &*ca, "--cert", &*crt, "--key", &*key];
    let Ok(output) = ask(&with) else {
        println!("NOT TESTED: redis-cli is not installed (package redis-tools)");
        return;
    };
    let words = said(&output);
    assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["0", "16", "15", "-1", "2"], "{words}");
    let plain = said(&ask(&[]).unwrap());
    assert!(plain.contains("this port speaks TLS"), "{plain}");
    let without = ask(&["--tls", "--cacert", &ca]).unwrap();
    assert!(!said(&without).contains("16"), "{}", said(&without));
}

const REDIS_PY: &str = "
import sys, redis
port, ca, crt, key = int(sys.argv[1]), *sys.argv[2:]
client = redis.Redis(host='localhost', port=port, ssl=True, ssl_ca_certs=ca, ssl_certfile=crt, ssl_keyfile=key)
assert client.execute_command('CL.THROTTLE', 'python', 15, 30, 60) == [0, 16, 15, -1, 2]
pipe = client.pipeline(transaction=False)
for number in range(2000):
    pipe.execute_command('CL.THROTTLE', 'key-%d' % number, 15, 30, 60)
assert all(answer[:2] == [0, 16] for answer in pipe.execute())
bare = redis.Redis(host='localhost', port=port, ssl=True, ssl_ca_certs=ca)
try:
    bare.ping()
    sys.exit('without a certificate')
except redis.exceptions.ConnectionError:
    pass
print('fine')
";

fn redis_py(authority: &Authority, port: u16) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/redis-py/bin/python");
    if !python.exists() {
        println!("NOT TESTED: redis-py is not in target/tools (bash .ci/tools-redis)");
        return;
    }
    let output = Command::new(python)
        .args(["-c", REDIS_PY, &port.to_string(), &authority.ca()])
        .args([authority.text("deploy.crt"), authority.text("deploy.key")])
        .output()
        .unwrap();
    assert_eq!(said(&output).trim(), "fine");
}

#[test]
fn who_shows_nothing_or_something_else_gets_nothing_and_is_told_why() {
    let (ours, others) = (authority(), authority());
    let ca = ours.ca();
    let cluster = one_node(&ours, &["--tls-client-ca", &ca]);
    let port = cluster.nodes[0].http.port();
    let url = format!("https://127.0.0.1:{port}/v1/check?user=bob");

    let none = ours.curl(None, &[&url]);
    assert!(!none.status.success() && none.stdout.is_empty(), "{}", said(&none));
    let foreign = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--cacert", &ca, &url])
        .args(["--cert", &others.text("deploy.crt"), "--key", &others.text("deploy.key")])
        .output()
        .unwrap();
    assert!(!foreign.status.success() && foreign.stdout.is_empty(), "{}", said(&foreign));
    let distrusting = others.curl(CLIENT, &[&url]);
    assert!(!distrusting.status.success(), "{}", said(&distrusting));
    let old = ours.curl(CLIENT, &["--tlsv1.0", "--tls-max", "1.1", &url]);
    assert!(!old.status.success() && old.stdout.is_empty(), "{}", said(&old));
    // Only what the port does not speak.
    let h2 = format!("openssl s_client -alpn h2 -connect 127.0.0.1:{port} </dev/null");
    assert!(!Command::new("sh").args(["-c", &h2]).output().unwrap().status.success());
    // To speak plainly is answered so that it can be mended.
    let plain = ours.curl(None, &[&format!("http://127.0.0.1:{port}/v1/check?user=bob")]);
    assert!(said(&plain).contains("this port speaks TLS: ask it by https://"), "{}", said(&plain));
    let grpc = ours.curl(None, &[&format!("http://127.0.0.1:{}/", port + 1)]);
    assert!(said(&grpc).contains("over TLS"), "{}", said(&grpc));

    for (versions, version) in
        [(["--tlsv1.2", "--tls-max", "1.2"], "1.2"), (["--tlsv1.3", "--tls-max", "1.3"], "1.3")]
    {
        let output = ours.curl(CLIENT, &[&versions[..], &["-w", " %{http_version}", &url]].concat());
        assert!(said(&output).ends_with(" 1.1"), "TLS {version}: {}", said(&output));
    }
    let count = |result: &str| {
        ours.metric(
            CLIENT,
            port,
            &format!("tidegate_tls_handshakes_total{{port=\"http\",result=\"{result}\"}}"),
        )
    };
    assert_eq!((count("no_certificate"), count("bad_certificate"), count("plain_text")), (1.0, 1.0, 1.0));
    assert!(count("incompatible") >= 1.0 && count("refused_by_client") >= 1.0 && count("full") >= 3.0);
    let days =
        ours.metric(CLIENT, port, "tidegate_certificate_expires_in_seconds{shown_to=\"clients\"}") / 86_400.0;
    assert!((364.0..=365.0).contains(&days), "{days}");

    // The command line says what is missing.
    let cli = |arguments: &[&str]| {
        let output = Command::new(kit::binary())
            .args(["cluster", "status", "--timeout", "3s"])
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        told(&output)
    };
    let node = format!("https://127.0.0.1:{port}");
    let unknown = cli(&["--node", &node]);
    assert!(unknown.contains("--ca-file"), "{unknown}");
    let bare = cli(&["--node", &node, "--ca-file", &ca]);
    assert!(bare.contains("--client-cert"), "{bare}");
    let (crt, key) = (others.text("deploy.crt"), others.text("deploy.key"));
    let foreign = cli(&["--node", &node, "--ca-file", &ca, "--client-cert", &crt, "--client-key", &key]);
    assert!(foreign.contains("refuses the certificate"), "{foreign}");
    let plain = cli(&["--node", &format!("http://127.0.0.1:{port}")]);
    assert!(plain.contains("this port speaks TLS"), "{plain}");
    let log = cluster.nodes[0].log();
    assert!(log.contains("the client has shown no certificate"), "{log}");
}

#[test]
fn a_host_that_is_not_in_the_certificate_is_named_with_those_that_are() {
    let authority = authority();
    let files = authority.node("n1", "n1");
    let port = free_ports();
    let node = Command::new(kit::binary())
        .args(["serve", "--listen", "127.0.0.2", "--base-port", &port.to_string(), "--exit-with-stdin"])
        .env("TIDEGATE_TLS_CERT", files.join("n1.crt"))
        .env("TIDEGATE_TLS_KEY", files.join("n1.key"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut node = node.unwrap();
    wait_for("it listens", SOON, || TcpStream::connect(("127.0.0.2", port)).is_ok());
    let asked = Command::new(kit::binary())
        .args([
            "check",
            "user=a",
            "--ca-file",
            &authority.ca(),
            "--node",
            &format!("https://127.0.0.2:{port}"),
        ])
        .output()
        .unwrap();
    let _ = node.kill();
    let _ = node.wait();
    assert_eq!(asked.status.code(), Some(1));
    let told = told(&asked);
    assert!(told.contains("not for 127.0.0.2") && told.contains("localhost"), "{told}");
}

#[test]
fn certificates_change_under_load_and_a_bad_file_changes_nothing() {
    let authority = authority();
    let cluster =
        one_node(&authority, &["--tls-client-ca", &authority.ca(), "--tls-client-auth", "optional"]);
    let node = &cluster.nodes[0];
    let port = node.http.port();
    let (goes_on, checks) = (AtomicBool::new(true), AtomicU64::new(0));
    thread::scope(|scope| {
        let _end = EndOnDrop(&goes_on);
        for user in 0..2 {
            let (goes_on, checks, authority) = (&goes_on, &checks, &authority);
            scope.spawn(move || {
                // A new connection for each: none meets a moment without a certificate.
                while goes_on.load(Ordering::Relaxed) {
                    let url = format!("https://localhost:{port}/v1/check?user=load-{user}&cost=0");
                    let output = authority.curl(None, &["-f", &url]);
                    assert!(output.status.success(), "{}", said(&output));
                    checks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let serial = || {
            let command = format!(
                "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial"
            );
            said(&Command::new("sh").args(["-c", &command]).output().unwrap())
        };
        let reloads = |result: &str| {
            let page = authority.get(None, &format!("https://127.0.0.1:{port}/metrics"));
            number(&page, &format!("tidegate_certificate_reloads_total{{result=\"{result}\"}}"))
        };
        let first = serial();
        assert!(first.starts_with("serial="), "{first}");
        for round in 1..=3 {
            let before = serial();
            let fresh = authority.node("n1", &format!("fresh-{round}"));
            // First the key, then the certificate: between the two they do not fit each other, and nothing happens.
            for file in ["n1.key", "n1.crt"] {
                std::fs::rename(fresh.join(file), authority.path("n1").join(file)).unwrap();
                thread::sleep(Duration::from_millis(if round == 2 { 2_500 } else { 0 }));
            }
            wait_for("the new certificate is shown", SOON, || serial() != before);
        }
        assert!(reloads("in_force") >= 3.0 && reloads("refused") >= 1.0);
        let last = serial();
        std::fs::write(authority.path("n1").join("n1.crt"), "nonsense\n").unwrap();
        let refused = reloads("refused");
        wait_for("the bad file is noticed", SOON, || reloads("refused") > refused);
        signal(node.pid().unwrap(), Signal::HUP);
        wait_for("and again when asked", SOON, || reloads("refused") > refused + 1.0);
        assert_eq!(serial(), last);
    });
    assert!(checks.load(Ordering::Relaxed) > 10);
    assert!(node.log().contains("changed files cannot be used"), "{}", node.log());
}

#[test]
fn callers_that_never_finish_their_handshake_keep_nobody_out() {
    let _alone = kit::alone();
    super::connections::raise_open_file_limit();
    let authority = authority();
    let cluster = one_node(&authority, &[]);
    let node = &cluster.nodes[0];
    let (address, port) = (node.http, node.http.port());
    let before = node.resident_bytes().unwrap();
    // Twice as many as may be in the middle of a handshake: half of them say nothing, half begin and stop.
    let mut callers = Vec::new();
    for number in 0..2_048 {
        let Ok(mut caller) = TcpStream::connect(address) else { continue };
        if number % 2 == 0 {
            let _ = caller.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
        callers.push(caller);
    }
    let start = monotonic();
    for _ in 0..5 {
        let output =
            authority.curl(None, &["-f", &format!("https://127.0.0.1:{port}/v1/check?user=flood&cost=0")]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert!(monotonic() - start < 10_000_000_000, "{} ms", (monotonic() - start) / 1_000_000);
    let held = node.resident_bytes().unwrap().saturating_sub(before);
    assert!(held < 96 << 20, "{held} bytes");
    // Each of them is closed in the end.
    let deadline = Duration::from_secs(20);
    for caller in &mut callers {
        caller.set_read_timeout(Some(deadline)).unwrap();
        let mut rest = [0; 64];
        while matches!(caller.read(&mut rest), Ok(1..)) {}
    }
    let count = |result: &str| {
        authority.metric(
            None,
            port,
            &format!("tidegate_tls_handshakes_total{{port=\"http\",result=\"{result}\"}}"),
        )
    };
    assert!(count("too_many") >= 900.0, "{}", count("too_many"));
    assert!(count("timeout") >= 500.0, "{}", count("timeout"));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_mends_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = authority();
    let files = authority.node("n1", "n1");
    let key = files.join("n1.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(kit::binary())
        .args(["serve", "--name", "n1", "--base-port", &free_ports().to_string()])
        .arg("--tls-cert")
        .arg(files.join("n1.crt"))
        .arg("--tls-key")
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("chmod 600"), "{}", said(&output));
}

#[test]
fn envoy_asks_over_tls_and_shows_its_own_certificate() {
    let Some(binary) = super::envoy::binary() else { return };
    let authority = authority();
    let rules = block("docs/envoy.md", "yaml rules");
    let mut settings = kit::patient(&rules);
    settings.flags.extend(["--tls-client-ca".to_owned(), authority.ca()]);
    settings.flags.extend(["--tls-ports".to_owned(), "grpc".to_owned()]);
    let mut cluster = Cluster::empty(settings);
    let files = authority.node("n1", "n1");
    show_clients(&mut cluster, &files, "n1");
    let port = free_ports();
    cluster.spawn(port, &[port], &[]);
    cluster.await_ready();
    let tls = with(
        &block("docs/security-transport.md", "yaml envoy-tls"),
        &[
            ("/etc/envoy/ca.crt", &authority.ca()),
            ("/etc/envoy/envoy.crt", &authority.text("deploy.crt")),
            ("/etc/envoy/envoy.key", &authority.text("deploy.key")),
            ("n1.example.com", "localhost"),
        ],
    );
    let below = "    - name: tidegate\n";
    let envoy = super::envoy::Envoy::start(
        &binary,
        cluster.nodes[0].grpc,
        super::envoy::application(),
        &[(below, &format!("{below}{tls}"))],
    );
    super::envoy::await_limits(&envoy);
    assert_eq!(envoy.passing("/login", &[], 5), 3);
    let full = cluster.nodes[0].metric("tidegate_tls_handshakes_total{port=\"grpc\",result=\"full\"}");
    assert!(full >= Some(1.0), "{full:?}");
}
