//! The promise: rules that are made of a configuration of nginx admit what nginx itself admits with that very file. A real nginx
//! is asked, then a node with the rules, with the same requests.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use crate::kit::{
    self,
    rules::{PATIENCE, SOON},
};
use serde_json::{Map, Value};
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

/// What is asked, and how often.
struct Asked {
    /// Which of the two ports.
    port: u16,
    host: &'static str,
    path: &'static str,
    /// The last number of the address of the client.
    client: u8,
    header: Option<(&'static str, &'static str)>,
}

const fn asked(port: u16, host: &'static str, path: &'static str, client: u8) -> Asked {
    Asked { port, host, path, client, header: None }
}

const fn with(header: (&'static str, &'static str), path: &'static str, client: u8) -> Asked {
    Asked { port: 0, host: "any.test", path, client, header: Some(header) }
}

/// A configuration's block of http, `PORT0` and `PORT1` in it, and what is asked. Each file that is asked for is missing, which is
/// answered 404 after the limits.
const CASES: [(&str, &[Asked]); 10] = [
    // As certificate tools write it: the redirect comes last, and is limited by nothing.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { server_name s.test; listen 127.0.0.1:PORT0; location / { limit_req zone=a burst=5 nodelay; } }
server { if ($host = s.test) { return 301 http://$host$request_uri; } listen 127.0.0.1:PORT1; server_name s.test; return 404; }",
        &[asked(0, "s.test", "/", 2), asked(1, "s.test", "/", 3), asked(0, "else.test", "/", 4), asked(1, "else.test", "/", 5)],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location / { try_files $uri @app; }
  location /own { limit_req zone=a burst=1 nodelay; try_files $uri @app; }
  location /none { }
  location /all { error_page 418 = @app; return 418; }
  location = /index.php { limit_req zone=a burst=3 nodelay; }
  location /wp { try_files $uri /index.php?$args; }
  location @app { limit_req zone=a burst=2 nodelay; } }",
        &[asked(0, "x", "/", 2), asked(0, "x", "/own", 3), asked(0, "x", "/none", 4), asked(0, "x", "/all", 5), asked(0, "x", "/wp/a", 6)],
    ),
    (
        "limit_req_zone $binary_remote_addr$http_x_api_key zone=a:1m rate=1r/m;
limit_req_zone $http_x_only zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; limit_req zone=a burst=2 nodelay; limit_req zone=b burst=1 nodelay; }",
        &[
            asked(0, "x", "/", 2),
            with(("x-api-key", "k"), "/", 2),
            with(("x-api-key", "l"), "/", 2),
            with(("x-only", "o"), "/", 3),
            with(("x-only", ""), "/", 4),
        ],
    ),
    (
        "geo $limited { ranges; default 1; 127.0.0.2-127.0.0.3 0; 127.0.0.8-127.0.0.9 0; }
map $limited $key { 0 \"\"; 1 $binary_remote_addr; }
map $http_x_plan $by_plan { \"\" $binary_remote_addr; gold \"\"; default $http_x_plan; }
limit_req_zone $key zone=a:1m rate=1r/m;
limit_req_zone $by_plan zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; location / { limit_req zone=a burst=2 nodelay; } location /plan { limit_req zone=b burst=3 nodelay; } }",
        &[
            asked(0, "x", "/", 8),
            asked(0, "x", "/", 10),
            asked(0, "x", "/plan", 11),
            with(("x-plan", "gold"), "/plan", 12),
            with(("x-plan", "silver"), "/plan", 13),
        ],
    ),
    (
        "geo $limited { default 1; 127.0.0.2/31 0; 127.0.0.3 1; }
map $limited $key { 0 \"\"; default $binary_remote_addr; }
map $uri $by_path { default \"\"; ~^/api/ $binary_remote_addr; /api/free \"\"; ~\\.cgi$ $binary_remote_addr; }
limit_req_zone $key zone=a:1m rate=1r/m;
limit_req_zone $by_path zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name x; limit_req zone=a burst=2 nodelay; }
server { listen 127.0.0.1:PORT0; server_name y; limit_req zone=b burst=1 nodelay; }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "x", "/", 3),
            asked(0, "x", "/", 4),
            asked(0, "y", "/", 5),
            asked(0, "y", "/api/a", 6),
            asked(0, "y", "/api/free", 7),
            asked(0, "y", "/b.cgi", 8),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name none.test; }
server { listen 127.0.0.1:PORT0; server_name *.w.test; limit_req zone=a burst=1 nodelay; }
server { listen 127.0.0.1:PORT0 default_server; server_name .both.test; limit_req zone=a burst=2 nodelay; }
server { listen 127.0.0.1:PORT0; server_name mail.*; limit_req zone=a burst=3 nodelay; }
server { listen 127.0.0.1:PORT0; server_name ~^re[12]\\.test$; limit_req zone=a burst=4 nodelay; }
server { listen 127.0.0.1:PORT0; server_name x.w.test *.deep.w.test; }",
        &[
            asked(0, "none.test", "/", 2),
            asked(0, "else.test", "/", 3),
            asked(0, "b.w.test", "/", 4),
            asked(0, "x.w.test", "/", 5),
            asked(0, "y.deep.w.test", "/", 6),
            asked(0, "deep.w.test", "/", 7),
            asked(0, "both.test", "/", 8),
            asked(0, "mail.org", "/", 9),
            asked(0, "mail.w.test", "/", 10),
            asked(0, "re1.test", "/", 11),
            asked(0, "re3.test", "/", 12),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req zone=a burst=1 nodelay;
server { listen 127.0.0.1:PORT0;
  location /free/ { limit_req_dry_run on; location /free/not { limit_req zone=a burst=2 nodelay; limit_req_dry_run off; } }
  location = /exact { limit_req zone=a burst=3 nodelay; }
  location ^~ /static/ { limit_req zone=a burst=4 nodelay; }
  location ~ \\.php$ { limit_req zone=a burst=5 nodelay; }
  location ~* \\.(png|jpe?g)$ { limit_req zone=a burst=6 nodelay; }
  location ~ ^/(v1|v2)/ { limit_req zone=a burst=7 nodelay; location ~ \\.js$ { limit_req zone=a burst=8 nodelay; } }
  location /x.php { limit_req zone=a burst=9 nodelay; } }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "x", "/free/a", 3),
            asked(0, "x", "/free/not", 4),
            asked(0, "x", "/free/a.php", 5),
            asked(0, "x", "/exact", 6),
            asked(0, "x", "/exact/", 7),
            asked(0, "x", "/static/a.php", 8),
            asked(0, "x", "/a.jpeg", 9),
            asked(0, "x", "/v1/x", 10),
            asked(0, "x", "/v1/x.js", 11),
            asked(0, "x", "/x.js", 12),
            asked(0, "x", "/v1/x.php", 13),
            asked(0, "x", "/x.php", 14),
            asked(0, "x", "/x.php5", 15),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
limit_req zone=a burst=7 nodelay;
server { listen 127.0.0.1:PORT0; server_name x; location /free/ { limit_req zone=b burst=20 nodelay; } location ~ \\.php$ { } }
server { listen 127.0.0.1:PORT1; server_name y; location = /one { } location / { limit_req zone=b burst=20 nodelay; } }",
        // All of one client are counted together.
        &[
            asked(0, "x", "/free/a", 2),
            asked(0, "x", "/free/a.php", 2),
            asked(0, "x", "/", 2),
            asked(1, "y", "/one", 2),
            asked(1, "y", "/one", 3),
        ],
    ),
    (
        "limit_req_zone $server_name zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name a.test www.a.test; limit_req zone=a burst=5 nodelay; }
server { listen 127.0.0.1:PORT0; server_name b.test; limit_req zone=a burst=5 nodelay; }
server { listen 127.0.0.1:PORT1; limit_req zone=a burst=5 nodelay; }",
        &[
            asked(0, "a.test", "/", 2),
            asked(0, "www.a.test", "/", 3),
            asked(0, "b.test", "/", 4),
            asked(0, "else.test", "/", 5),
            // It has no name, so its key is empty.
            asked(1, "c.test", "/", 6),
        ],
    ),
    (
        "include http.d/*.conf;",
        &[asked(0, "x", "/", 2), asked(0, "x", "/deep", 3)],
    ),
];

/// What the last case includes.
const INCLUDED: [(&str, &str); 3] = [
    ("http.d/1.conf", "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m; # Stra\u{df}e }\n"),
    (
        "http.d/2.conf",
        "server { listen 127.0.0.1:PORT0; include parts/limit.conf; location /deep { include parts/deep.conf; } }\n",
    ),
    ("parts/limit.conf", "limit_req zone=a burst=1 nodelay;\n"),
];

const TIMES: usize = 12;

struct Nginx {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Nginx {
    fn start(http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_ports();
        let fill =
            |text: &str| text.replace("PORT0", &port.to_string()).replace("PORT1", &(port + 1).to_string());
        let path = |name: &str| directory.path().join(name);
        for name in ["www", "http.d", "parts"] {
            fs::create_dir(path(name)).unwrap();
        }
        for (name, text) in
            INCLUDED.iter().chain([&("parts/deep.conf", "limit_req zone=a burst=3 nodelay;\n")])
        {
            // Latin-1, as in old files.
            let bytes: Vec<u8> = fill(text).chars().map(|letter| letter as u8).collect();
            fs::write(path(name), bytes).unwrap();
        }
        let own = directory.path().display();
        let text = format!(
            "daemon off;\npid {own}/pid;\nerror_log {own}/log;\nevents {{}}\nhttp {{
access_log off;\nroot {own}/www;\nlimit_req_status 429;\nclient_body_temp_path {own}/body;\nproxy_temp_path {own}/proxy;
fastcgi_temp_path {own}/fastcgi;\nuwsgi_temp_path {own}/uwsgi;\nscgi_temp_path {own}/scgi;\n{}\n}}\n",
            fill(http)
        );
        fs::write(path("nginx.conf"), text).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(path("nginx.conf"))
            .args(["-g", "master_process off;"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { process, directory, port };
        wait_for("nginx listens", SOON, || TcpStream::connect(nginx.address(0)).is_ok());
        nginx
    }

    fn address(&self, port: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.port + port).into()
    }

    fn admits(&self, asked: &Asked) -> bool {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, asked.client], 0)).into()).unwrap();
        socket.connect(&self.address(asked.port).into()).unwrap();
        let mut stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let header = asked.header.map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
        let (path, host) = (asked.path, asked.host);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["301", "403", "404", "418", "429"].contains(&status), "{answer}");
        status != "429"
    }

    fn attributes(&self, asked: &Asked) -> Value {
        let mut attributes = Map::new();
        let mut add = |name: &str, value: &str| _ = attributes.insert(name.to_owned(), value.into());
        add("ip", &format!("127.0.0.{}", asked.client));
        add("host", asked.host);
        add("path", asked.path);
        add("scheme", "http");
        add("server_port", &(self.port + asked.port).to_string());
        if let Some((name, value)) = asked.header {
            add(name, value);
        }
        Value::Object(attributes)
    }

    /// The rules, in a domain of their own.
    fn rules(&self, domain: &str) -> String {
        let output = Command::new(kit::binary())
            .args(["rules", "import", "--from", "nginx"])
            .arg(self.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rules = String::from_utf8(output.stdout).unwrap();
        rules.replacen("domain: default", &format!("domain: {domain}"), 1)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            println!("--- log of nginx:\n{log}");
        }
    }
}

fn admits(cluster: &Cluster, domain: &str, attributes: &Value) -> bool {
    let body = serde_json::json!({ "domain": domain, "attributes": attributes }).to_string();
    let answer = cluster.nodes[0].client(PATIENCE).post("/v1/check", &body).unwrap();
    assert!([200, 429].contains(&answer.status), "{}", answer.text());
    answer.status == 200
}

#[test]
fn rules_admit_what_nginx_admits_with_the_same_file() {
    if Command::new("nginx").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("NOT TESTED: nginx is not installed (package nginx-light; bash .ci/tools-proxies)");
        return;
    }
    let servers: Vec<Nginx> = CASES.iter().map(|(http, _)| Nginx::start(http)).collect();
    let domain = |number: usize| format!("case{number}");
    let rules: Vec<String> =
        servers.iter().enumerate().map(|(number, nginx)| nginx.rules(&domain(number))).collect();
    let cluster = kit::nodes(1, &rules.join("---\n"));
    let mut wrong = Vec::new();
    for (number, (nginx, (_, all))) in servers.iter().zip(CASES).enumerate() {
        for asked in all {
            let by_nginx = (0..TIMES).filter(|_| nginx.admits(asked)).count();
            let attributes = nginx.attributes(asked);
            let by_rules = (0..TIMES).filter(|_| admits(&cluster, &domain(number), &attributes)).count();
            if by_nginx != by_rules {
                wrong.push(format!("{attributes}: nginx {by_nginx}, rules {by_rules}\n{}", rules[number]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
