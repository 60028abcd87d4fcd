//! The promise: the configurations that the documentation shows put Tidegate in front of a service, with the real proxies.
//! Requests pass until the limit, then clients get 429 and when to come back; nobody gets another bucket by what it writes
//! into headers or into the URL; and when no node answers it is as the configuration says.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON},
};
use tidegate_jepsen::{
    client::Response,
    cluster::{Cluster, Settings, free_ports, wait_for},
};

const RULES: &str = "rules:
  - { name: per-ip, when: { path: /shop }, key: [ip], limit: 3/1h }
  - { name: posts, when: { path: /posts, method: POST, host: shop.example }, key: [ip], limit: 1/1h }
";

/// What spoofs an address, a path, a method, or the query that the node is asked with.
const SPOOFS: [&str; 7] = [
    "X-Forwarded-For: 8.8.8.8",
    "X-Forwarded-For: 127.0.0.1, 8.8.4.4",
    "X-Real-IP: 8.8.8.8",
    "Forwarded: for=8.8.8.8",
    "X-Forwarded-Uri: /free",
    "X-Original-URI: /free",
    "X-Original-URL: http://shop.example/free",
];

fn documented(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies").join(name);
    fs::read_to_string(path).unwrap()
}

/// Whether a program is there; says so if not.
fn is_there(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("NOT TESTED: {program} is not installed (package {package}; bash .ci/tools-proxies)");
    }
    found.is_ok()
}

/// The service that is protected: it answers whatever it is asked, with what it was asked.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let mut unread = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        unread.extend_from_slice(&buffer[..count]);
        while let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            unread.drain(..end + 4);
            let body = "the service";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Sends a request from an address of this machine, and reads the answer to the end of the connection.
fn ask(from: &str, to: SocketAddr, method: &str, target: &str, headers: &[&str]) -> Option<Response> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).ok()?;
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Some(Response { status, headers, body: answer[end + 4..].to_vec() })
}

/// A proxy with the documented configuration, but for ports and paths.
struct Proxy {
    process: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Proxy {
    /// Writes the files and starts the program. `files` are names and texts, in which the documented addresses are
    /// replaced; `command` is given the directory.
    fn start(cluster: &Cluster, files: &[(&str, String)], command: impl Fn(&Path) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_ports();
        let service = service();
        let second = cluster.nodes.get(1).map_or(port + 9, |node| node.http.port());
        for (name, text) in files {
            let text = text
                .replace("127.0.0.1:7800", &cluster.nodes[0].http.to_string())
                .replace("127.0.0.1:7810", &format!("127.0.0.1:{second}"))
                .replace("127.0.0.1:7799", &format!("127.0.0.1:{}", port + 1))
                .replace("127.0.0.1:3000", &service.to_string())
                .replace("8080", &port.to_string())
                .replace("/etc/haproxy/", &format!("{}/", directory.path().display()))
                .replace("DIRECTORY", &directory.path().display().to_string());
            fs::write(directory.path().join(name), text).unwrap();
        }
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = command(directory.path())
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let proxy = Self { process, address: ([127, 0, 0, 1], port).into(), directory };
        wait_for("the proxy listens", SOON, || {
            proxy.ask("127.0.0.9", "/free", &[]).is_some_and(|answer| answer.status == 200)
        });
        proxy
    }

    fn ask(&self, from: &str, target: &str, headers: &[&str]) -> Option<Response> {
        ask(from, self.address, "GET", target, headers)
    }

    fn status(&self, from: &str, target: &str, headers: &[&str]) -> u16 {
        self.ask(from, target, headers).unwrap().status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            println!("--- log of the proxy:\n{log}");
        }
    }
}

fn nodes(count: usize, more: &[&str]) -> Cluster {
    let flags = ["--trusted-proxies", "127.0.0.1"].iter().chain(more).map(|flag| (*flag).to_owned());
    Cluster::start(count, Settings { flags: flags.collect(), ..kit::settings(RULES) })
}

fn nginx(cluster: &Cluster) -> Proxy {
    let around = "daemon off;
pid DIRECTORY/pid;
error_log DIRECTORY/log;
events {}
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    include DIRECTORY/tidegate.conf;
}
";
    let files = [("nginx.conf", around.to_owned()), ("tidegate.conf", documented("nginx.conf"))];
    Proxy::start(cluster, &files, |directory| {
        let mut command = Command::new("nginx");
        // Without a master process, so that the one that is ended is the one that serves.
        command.arg("-c").arg(directory.join("nginx.conf")).args(["-g", "master_process off;"]);
        command
    })
}

fn caddy(cluster: &Cluster) -> Proxy {
    let alone = "{\n\tadmin off\n\tauto_https off\n}\n";
    let files = [("Caddyfile", format!("{alone}{}", documented("Caddyfile")))];
    Proxy::start(cluster, &files, |_| {
        let mut command = Command::new("caddy");
        command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
        command
    })
}

fn haproxy(cluster: &Cluster) -> Proxy {
    let files = [("haproxy.cfg", documented("haproxy.cfg")), ("tidegate.lua", documented("tidegate.lua"))];
    Proxy::start(cluster, &files, |_| {
        let mut command = Command::new("haproxy");
        command.args(["-f", "haproxy.cfg"]);
        command
    })
}

fn requests_pass_until_the_limit(proxy: &Proxy) {
    for left in [2, 1, 0] {
        let answer = proxy.ask("127.0.0.2", "/shop?page=1", &[]).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "the service"));
        let limit = answer.header("ratelimit").unwrap();
        assert!(limit.starts_with(&format!("\"per-ip\";r={left};t=")), "{limit}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"per-ip\";q=3;w=3600"));
    }
    let denied = proxy.ask("127.0.0.2", "/shop", &[]).unwrap();
    assert_eq!(denied.status, 429, "{}", denied.text());
    let wait: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    assert!((1_100..=1_200).contains(&wait), "{wait}");
    assert!(denied.header("ratelimit").unwrap().starts_with("\"per-ip\";r=0;t="));
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    let problem = denied.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["status"], 429);
    // Others have their own, and other paths have none.
    assert_eq!(proxy.status("127.0.0.3", "/shop", &[]), 200);
    let free = proxy.ask("127.0.0.2", "/free", &[]).unwrap();
    assert_eq!((free.status, free.header("ratelimit").unwrap_or_default()), (200, ""));
    // Method and host of the client's request arrive, not those of the proxy's.
    assert_eq!(
        ask("127.0.0.2", proxy.address, "POST", "/posts", &["Content-Length: 0"]).unwrap().status,
        200
    );
    assert_eq!(
        ask("127.0.0.2", proxy.address, "POST", "/posts", &["Content-Length: 0"]).unwrap().status,
        429
    );
    assert_eq!(proxy.status("127.0.0.2", "/posts", &[]), 200);
}

fn nobody_gets_another_bucket(proxy: &Proxy) {
    // 127.0.0.2 has used its own up.
    for spoof in SPOOFS {
        assert_eq!(proxy.status("127.0.0.2", "/shop", &[spoof]), 429, "{spoof}");
    }
    assert_eq!(proxy.status("127.0.0.2", "/shop", &SPOOFS), 429);
    for target in [
        "/shop?cost=0",
        "/shop?domain=other",
        "/shop?deny_status=200",
        "/%73hop",
        "//shop",
        "/a/../shop",
        "/shop?ip=9.9.9.9",
        "/shop/",
        "/shop;jsessionid=1",
        "/shop%2f",
    ] {
        assert_eq!(proxy.status("127.0.0.2", target, &[]), 429, "{target}");
    }
    // And nobody can use up another one's.
    for _ in 0..5 {
        proxy.status("127.0.0.2", "/shop", &["X-Forwarded-For: 127.0.0.4"]);
    }
    assert_eq!(proxy.status("127.0.0.4", "/shop", &[]), 200);
}

/// With two nodes the other one answers; with none it is as the configuration says.
/// What a node would not take is no fault of the proxy, and what it does not need it is not sent.
fn odd_requests_are_answered_as_what_they_are(proxy: &Proxy) {
    let large = format!("Cookie: {}", "x".repeat(7_000));
    assert_eq!(proxy.status("127.0.0.10", "/free", &[&large, &large]), 200, "large cookies");
    let many: Vec<String> = (0..80).map(|number| format!("X-Own-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(proxy.status("127.0.0.10", "/free", &many), 200, "many headers");
    for target in ["/a/..%2fb".to_owned(), format!("/{}", "a".repeat(5_000))] {
        assert_eq!(proxy.status("127.0.0.10", &target, &[]), 400, "{}", &target[..9]);
    }
}

fn nodes_go_down(cluster: &mut Cluster, proxy: &Proxy, then: &[u16]) {
    let name = cluster.nodes[0].name.clone();
    cluster.kill(&name);
    // The rules say what happens to buckets whose owner is lost; what nothing limits is let through.
    wait_for("the other node is asked", SOON, || proxy.status("127.0.0.5", "/free", &[]) == 200);
    wait_for("the limit holds again", SOON, || proxy.status("127.0.0.2", "/shop", &[]) == 429);
    let name = cluster.nodes[1].name.clone();
    cluster.kill(&name);
    wait_for("it is as the configuration says", SOON, || {
        then.contains(&proxy.status("127.0.0.5", "/free", &[]))
    });
    assert!(then.contains(&proxy.status("127.0.0.2", "/shop", &[])));
}

fn all_of_it(program: &str, package: &str, start: impl Fn(&Cluster) -> Proxy, then: &[u16]) {
    if !is_there(program, package) {
        return;
    }
    let mut cluster = nodes(2, &[]);
    let proxy = start(&cluster);
    requests_pass_until_the_limit(&proxy);
    nobody_gets_another_bucket(&proxy);
    nodes_go_down(&mut cluster, &proxy, then);
}

#[test]
fn nginx_asks_before_it_lets_a_request_through() {
    all_of_it("nginx", "nginx-light", nginx, &[200]);
    if is_there("nginx", "nginx-light") {
        odd_requests_are_answered_as_what_they_are(&nginx(&nodes(1, &[])));
    }
}

#[test]
fn caddy_asks_before_it_lets_a_request_through() {
    all_of_it("caddy", "caddy", caddy, &[502, 503]);
}

#[test]
fn haproxy_asks_before_it_lets_a_request_through() {
    all_of_it("haproxy", "haproxy", haproxy, &[200]);
}

#[test]
fn the_documentation_shows_the_files_that_are_tested_here() {
    for (page, files) in [
        ("nginx.md", &["nginx.conf"][..]),
        ("caddy.md", &["Caddyfile"]),
        ("haproxy.md", &["haproxy.cfg", "tidegate.lua"]),
    ] {
        let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
        let text = fs::read_to_string(path).unwrap();
        for file in files {
            assert!(
                text.contains(&documented(file)),
                "docs/{page} has not docs/proxies/{file} word for word"
            );
        }
    }
}
