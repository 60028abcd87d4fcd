//! Clusters with TLS, and what it takes to ask them: an authority of `tidegate cert`, and curl.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

use super::{binary, patient};

/// How long a node with TLS may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(40);

/// An authority with the certificates that it has made.
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let one = Self { directory };
        one.cert(&["ca", "--dir", one.dir()]);
        one
    }

    fn dir(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    fn cert(&self, arguments: &[&str]) {
        let output = Command::new(binary()).arg("cert").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a certificate for a node, in a directory of its own below, whose files are `NAME.crt` and `NAME.key`.
    pub fn node(&self, name: &str, to: &str) -> PathBuf {
        let out = self.path(to);
        self.cert(&["node", "--dir", self.dir(), "--out", out.to_str().unwrap(), "--name", name]);
        out
    }

    pub fn client(&self, name: &str) {
        self.cert(&["client", "--dir", self.dir(), "--name", name]);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn ca(&self) -> String {
        self.text("ca.crt")
    }

    pub fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Asks by curl, without a certificate or with one of a client.
    pub fn curl(&self, client: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--cacert", &self.ca()]);
        if let Some(client) = client {
            command.args(["--cert", &self.text(&format!("{client}.crt"))]);
            command.args(["--key", &self.text(&format!("{client}.key"))]);
        }
        command.args(arguments).output().expect("curl is installed (package curl)")
    }

    /// The body of an answer.
    pub fn get(&self, client: Option<&str>, url: &str) -> String {
        let output = self.curl(client, &[url]);
        assert!(output.status.success(), "{url}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A number from the metrics of a node.
    pub fn metric(&self, client: Option<&str>, port: u16, name: &str) -> f64 {
        let page = self.get(client, &format!("https://127.0.0.1:{port}/metrics"));
        number(&page, name)
    }
}

pub fn number(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is in {page}")).trim().parse().unwrap()
}

/// What a program has said on both its outputs.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The same as one line of words, however it was set for a terminal.
pub fn told(output: &Output) -> String {
    said(output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sets what the node that is started next has as its certificate for peers.
pub fn show_peers(cluster: &mut Cluster, authority: &Authority, from: &Path, name: &str) {
    let file = |kind: &str| from.join(format!("{name}.{kind}")).display().to_string();
    cluster.set_environment("TIDEGATE_PEER_TLS_CERT", &file("crt"));
    cluster.set_environment("TIDEGATE_PEER_TLS_KEY", &file("key"));
    cluster.set_environment("TIDEGATE_PEER_TLS_CA", &authority.ca());
}

/// The same for clients.
pub fn show_clients(cluster: &mut Cluster, from: &Path, name: &str) {
    let file = |kind: &str| from.join(format!("{name}.{kind}")).display().to_string();
    cluster.set_environment("TIDEGATE_TLS_CERT", &file("crt"));
    cluster.set_environment("TIDEGATE_TLS_KEY", &file("key"));
}

/// Nodes with TLS everywhere: on all ports for clients, which must show a certificate, and between each other. The files of a node
/// are in the directory of its name. Waits until each sees the others.
pub fn cluster(authority: &Authority, count: usize, rules: &str, client: &str) -> Cluster {
    let mut cluster = Cluster::empty(patient(rules));
    let ports: Vec<u16> = (0..count).map(|_| free_ports()).collect();
    cluster.set_environment("TIDEGATE_TLS_CLIENT_CA", &authority.ca());
    for (place, port) in ports.iter().enumerate() {
        let name = format!("n{}", place + 1);
        let files = authority.node(&name, &name);
        show_clients(&mut cluster, &files, &name);
        show_peers(&mut cluster, authority, &files, &name);
        cluster.spawn(*port, &ports, &["--bootstrap-expect".to_owned(), count.to_string()]);
    }
    for port in ports {
        wait_for("it is ready over TLS, and sees all", READY_WITHIN, || {
            let ready = authority.curl(Some(client), &["-f", &format!("https://127.0.0.1:{port}/readyz")]);
            let status = authority.curl(Some(client), &[&format!("https://127.0.0.1:{port}/v1/cluster")]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            let members = status["members"].as_array().map_or(0, Vec::len);
            let rests = status["slots_to_move"] == 0 && status["slots_moving"] == 0;
            ready.status.success() && members == count && rests
        });
    }
    cluster
}
