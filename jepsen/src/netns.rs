//! A network of its own for each node: a namespace with an address, on a bridge that the test can reach. What goes from
//! one node to another can be dropped in either direction, silently, by a rule of nftables in the namespace of the one who
//! would receive it.
//!
//! Needs root, `ip` and `nft`.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

/// The table of nftables that holds what is dropped.
const TABLE: &str = "tidegate_test";

/// Namespaces on a bridge; gone when this value is dropped.
#[derive(Debug)]
pub struct Net {
    /// Short, because a device has a name of at most 15 characters.
    prefix: String,
    subnet: [u8; 2],
    nodes: u8,
}

impl Net {
    /// Makes a network for so many nodes, numbered from 1.
    ///
    /// # Errors
    /// Why that can not be done here.
    pub fn create(nodes: u8) -> Result<Self, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        run(Command::new("nft").arg("--version")).map_err(|fault| {
            format!("network namespaces with nftables are needed: {fault} (Debian: apt-get install nftables)")
        })?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let seed = (std::process::id() as u8).wrapping_add(number.wrapping_mul(31));
        let net = Self {
            prefix: format!("tg{:x}{number}", std::process::id()),
            subnet: [64 + seed % 128, seed],
            nodes,
        };
        net.build()?;
        Ok(net)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", self.address(254)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 1..=self.nodes {
            let (space, outside, inside) =
                (self.namespace(node), format!("{}o{node}", self.prefix), format!("{}i{node}", self.prefix));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            ip(&["link", "set", &inside, "netns", &space])?;
            let address = format!("{}/24", self.address(node));
            for arguments in [
                &["address", "add", &address, "dev", &inside][..],
                &["link", "set", &inside, "up"],
                &["link", "set", "lo", "up"],
            ] {
                ip(&[&["-n", &space], arguments].concat())?;
            }
            self.nft(node, &format!("add table ip {TABLE}"))?;
            self.nft(node, &format!("add chain ip {TABLE} in {{ type filter hook input priority 0; }}"))?;
        }
        Ok(())
    }

    /// Where a node is; 254 is the test.
    pub fn address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet[0], self.subnet[1], node)
    }

    /// Starts a program in the namespace of a node. It is the process that is started, not a child of it.
    pub(crate) fn command(&self, node: u8, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node)]).arg(program);
        command
    }

    /// Drops what goes from one node to another from now on.
    ///
    /// # Panics
    /// When that fails.
    pub fn cut(&self, from: u8, to: u8) {
        let rule = format!("add rule ip {TABLE} in ip saddr {} drop", self.address(from));
        self.nft(to, &rule).expect("the rule can be added");
    }

    /// Drops what goes between the nodes of different groups.
    ///
    /// # Panics
    /// When that fails.
    pub fn split(&self, groups: &[&[u8]]) {
        for (place, group) in groups.iter().enumerate() {
            for other in groups.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, g)| *g)
            {
                group.iter().for_each(|node| self.cut(*node, *other));
            }
        }
    }

    /// Lets all through again.
    ///
    /// # Panics
    /// When that fails.
    pub fn heal(&self) {
        for node in 1..=self.nodes {
            self.nft(node, &format!("flush chain ip {TABLE} in")).expect("the rules can be removed");
        }
    }

    fn nft(&self, node: u8, rule: &str) -> Result<(), String> {
        run(Command::new("ip").args(["netns", "exec", &self.namespace(node), "nft", rule]))
    }

    fn namespace(&self, node: u8) -> String {
        format!("{}n{node}", self.prefix)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Whatever of it there is; the other ends of the pairs go with the namespaces.
        for node in 1..=self.nodes {
            let _ = ip(&["netns", "delete", &self.namespace(node)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), String> {
    let ended = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&ended.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_does_not_arrive_and_the_rest_does() {
        let net = match Net::create(2) {
            Ok(net) => net,
            Err(reason) => {
                eprintln!("NOT TESTED: {reason}");
                return;
            }
        };
        let reaches = |from: u8, to: u8| {
            // A connection that is refused has arrived; one that is dropped has not.
            let address = format!("/dev/tcp/{}/9", net.address(to));
            let mut command = net.command(from, Path::new("timeout"));
            command.args(["0.5", "bash", "-c", &format!("exec 3<>{address}")]);
            command.stderr(Stdio::null()).status().unwrap().code() != Some(124)
        };
        assert!(reaches(1, 2) && reaches(2, 1));
        net.cut(1, 2);
        assert!(!reaches(1, 2));
        net.heal();
        assert!(reaches(1, 2));
    }
}
