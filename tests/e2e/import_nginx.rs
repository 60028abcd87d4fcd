//! The promise: rules that are made of a configuration of nginx admit what nginx itself admits with that very file. A real nginx
//! is asked, then a node with the rules, with the same requests. What the rules do not say, `--strict` does.

mod cases;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use self::cases::{Asked, CASES};
use crate::kit::{
    self,
    rules::{PATIENCE, SOON},
};
use serde_json::{Map, Value};
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

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
        for name in ["www", "www/shop", "http.d", "parts"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["www/index.html", "www/slow.html", "www/shop/index.html", "www/shop/index.php"] {
            fs::write(path(name), "found").unwrap();
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
        let method = asked.method;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert!(
            ["200", "204", "301", "302", "403", "404", "405", "418", "429", "502"].contains(&status),
            "{answer}"
        );
        status != "429"
    }

    fn attributes(&self, asked: &Asked) -> Value {
        let mut attributes = Map::new();
        let mut add = |name: &str, value: &str| _ = attributes.insert(name.to_owned(), value.into());
        let real = asked.header.filter(|(name, _)| *name == "x-real");
        add("ip", real.map_or(&*format!("127.0.0.{}", asked.client), |(_, ip)| ip));
        add("host", asked.host);
        add("path", asked.path);
        add("method", asked.method);
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
