//! A network of its own for each node: a namespace with an address, on a bridge that the test can reach. What goes from
//! one node to another can be dropped in either direction, silently, by a rule of nftables in the namespace of the one who
//! would receive it: all of it, or a part by chance. It can be doubled, and squeezed through a slow link. Each rule counts,
//! so that a test can tell whether it hit anything. What goes between a node and the test is never touched. Rules name devices, not
//! addresses: a node may get another address while they are in force.
//!
//! Needs root (of a user namespace is enough: [`enter_user_namespace`]), `ip`, `nft` and `tc`.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

/// The table of nftables that holds what is dropped.
const TABLE: &str = "tidegate_test";

/// Namespaces on a bridge; gone when this value is dropped.
#[derive(Debug)]
pub struct Namespaces {
    /// Short, because a device has a name of at most 15 characters.
    prefix: String,
    subnet: [u8; 2],
    nodes: u8,
    /// The last byte of each node's address, the first node's first.
    hosts: Mutex<Vec<u8>>,
}

/// The last byte of the test's address.
const TEST_HOST: u8 = 254;

impl Namespaces {
    /// Makes a network for so many nodes, numbered from 1.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn create(nodes: u8) -> Result<Self, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        needs_tools()?;
        remove_stale();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let seed = (std::process::id() as u8).wrapping_add(number.wrapping_mul(31));
        let net = Self {
            prefix: format!("tg{:x}x{number}", std::process::id()),
            subnet: [64 + seed % 128, seed],
            nodes,
            hosts: Mutex::new((1..=nodes).collect()),
        };
        net.build()?;
        Ok(net)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", self.address_of_test()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 1..=self.nodes {
            let (space, outside, inside) =
                (self.namespace(node), format!("{}o{node}", self.prefix), format!("{}i{node}", self.prefix));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            ip(&["link", "set", &inside, "address", &self.device(node)])?;
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
            self.nft(node, &format!("add chain ip {TABLE} out {{ type filter hook output priority 0; }}"))?;
        }
        Ok(())
    }

    /// Where a node is.
    pub fn address(&self, node: u8) -> Ipv4Addr {
        self.at(self.hosts.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)])
    }

    /// Where the test is.
    pub(crate) fn address_of_test(&self) -> Ipv4Addr {
        self.at(TEST_HOST)
    }

    fn at(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet[0], self.subnet[1], host)
    }

    /// The address of a node's device: it stays the same.
    fn device(&self, node: u8) -> String {
        format!("02:74:67:{:02x}:{:02x}:{node:02x}", self.subnet[0], self.subnet[1])
    }

    /// The last byte of a node's address.
    pub(super) fn host(&self, node: u8) -> u8 {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)]
    }

    /// Gives nodes other addresses: each the one with this last byte. All know at once where they are now.
    pub(super) fn move_to(&self, moves: &[(u8, u8)]) -> Result<(), String> {
        let on_device = |node: u8, how: &str, address: Ipv4Addr| {
            let (address, device) = (format!("{address}/24"), format!("{}i{node}", self.prefix));
            ip(&["-n", &self.namespace(node), "address", how, &address, "dev", &device])
        };
        for (node, _) in moves {
            on_device(*node, "delete", self.address(*node))?;
        }
        for (node, host) in moves {
            on_device(*node, "add", self.at(*host))?;
            self.hosts.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)] = *host;
        }
        // As those that give out addresses announce them.
        ip(&["neigh", "flush", "dev", &self.bridge()])?;
        (1..=self.nodes).try_for_each(|node| {
            ip(&["-n", &self.namespace(node), "neigh", "flush", "dev", &format!("{}i{node}", self.prefix)])
        })
    }

    /// Starts a program in the namespace of a node. It is the process that is started, not a child of it.
    pub(crate) fn command(&self, node: u8, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node)]).arg(program);
        command
    }

    /// Drops what goes from the first of each pair to the second.
    ///
    /// # Panics
    /// When that fails.
    pub fn cut_all(&self, pairs: &[(u8, u8)]) {
        self.on_arrival(pairs, "counter drop");
    }

    /// Ends the streams that other nodes have opened to this port of a node, and refuses new ones. Those that the node opens
    /// itself stay.
    ///
    /// # Panics
    /// When that fails.
    pub fn refuse_streams_to(&self, node: u8, port: u16) {
        let rule = format!(
            "add rule ip {TABLE} in ip saddr != {} tcp dport {port} counter reject with tcp reset",
            self.address_of_test()
        );
        self.nft(node, &rule).expect("the rule can be added");
    }

    /// Drops so many of a hundred packets from the first of each pair to the second, by chance.
    ///
    /// # Panics
    /// When that fails.
    pub fn lose(&self, pairs: &[(u8, u8)], percent: u8) {
        self.on_arrival(pairs, &format!("numgen random mod 100 < {percent} counter drop"));
    }

    /// Delivers what goes from the first of each pair to the second twice.
    ///
    /// # Panics
    /// When that fails.
    pub fn double(&self, pairs: &[(u8, u8)]) {
        for (from, to) in pairs {
            // The copy goes out over loopback and comes in again; it has the same addresses, so it is not copied again.
            let rule = format!(
                "add rule ip {TABLE} in iifname != lo ether saddr {} counter dup to 127.0.0.1 device lo",
                self.device(*from),
            );
            self.nft(*to, &rule).expect("the rule can be added");
        }
    }

    /// Drops what would open a connection from another node to this one.
    ///
    /// # Panics
    /// When that fails.
    pub fn refuse_connections(&self, node: u8) {
        let others = (1..=self.nodes).filter(|other| *other != node);
        let pairs: Vec<(u8, u8)> = others.map(|other| (other, node)).collect();
        self.on_arrival(&pairs, "tcp flags & (syn | ack) == syn counter drop");
    }

    /// Squeezes what a node sends to other nodes through a link of so many kilobits a second. What waits there waits for
    /// 400 ms at most.
    ///
    /// # Panics
    /// When that fails.
    pub fn slow(&self, node: u8, kilobits: u32) {
        let (device, rate) = (format!("{}i{node}", self.prefix), format!("{kilobits}kbit"));
        let commands: [&[&str]; 3] = [
            &["qdisc", "add", "dev", &device, "root", "handle", "1:", "htb", "default", "0"],
            &["class", "add", "dev", &device, "parent", "1:", "classid", "1:10", "htb", "rate", "1gbit"],
            &["qdisc", "add", "dev", &device, "parent", "1:10", "handle", "30:", "tbf", "rate", &rate],
        ];
        for (place, arguments) in commands.into_iter().enumerate() {
            let mut command = self.within(node, "tc");
            command.args(arguments);
            if place == 2 {
                command.args(["burst", "8k", "latency", "400ms"]);
            }
            run(&mut command).expect("the link can be made slow");
        }
        let rule = format!(
            "add rule ip {TABLE} out oifname != lo ip daddr != {} counter meta priority set 1:10",
            self.address_of_test()
        );
        self.nft(node, &rule).expect("the rule can be added");
    }

    fn on_arrival(&self, pairs: &[(u8, u8)], what: &str) {
        for to in 1..=self.nodes {
            let mut rules = String::new();
            for (from, _) in pairs.iter().filter(|pair| pair.1 == to) {
                let _ = writeln!(rules, "add rule ip {TABLE} in ether saddr {} {what}", self.device(*from));
            }
            if !rules.is_empty() {
                self.nft(to, &rules).expect("the rules can be added");
            }
        }
    }

    /// How many packets the rules in force have dropped, doubled or sent over a slow link.
    pub fn packets_hit(&self) -> u64 {
        (1..=self.nodes).map(|node| self.packets_hit_at(node)).sum()
    }

    fn packets_hit_at(&self, node: u8) -> u64 {
        let ended = self.within(node, "nft").args(["-j", "list", "table", "ip", TABLE]).output();
        let listed: serde_json::Value = ended
            .ok()
            .and_then(|ended| serde_json::from_slice(&ended.stdout).ok())
            .unwrap_or(serde_json::Value::Null);
        let rules = listed["nftables"].as_array().cloned().unwrap_or_default();
        let counters = rules.iter().filter_map(|one| one["rule"]["expr"].as_array()).flatten();
        counters.filter_map(|part| part["counter"]["packets"].as_u64()).sum()
    }

    /// Lets all through again.
    ///
    /// # Panics
    /// When that fails.
    pub fn heal(&self) {
        for node in 1..=self.nodes {
            self.nft(node, &format!("flush table ip {TABLE}")).expect("the rules can be removed");
            // There is only one if the link was made slow.
            let device = format!("{}i{node}", self.prefix);
            let _ = run(self.within(node, "tc").args(["qdisc", "delete", "dev", &device, "root"]));
        }
    }

    fn nft(&self, node: u8, rules: &str) -> Result<(), String> {
        run(self.within(node, "nft").arg(rules))
    }

    fn within(&self, node: u8, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node), program]);
        command
    }

    fn namespace(&self, node: u8) -> String {
        format!("{}n{node}", self.prefix)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Whatever of it there is; the other ends of the pairs go with the namespaces.
        for node in 1..=self.nodes {
            let _ = ip(&["netns", "delete", &self.namespace(node)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

/// Removes the networks of programs that were killed before they could.
fn remove_stale() {
    let is_stale = |name: &str| {
        let pid = name.strip_prefix("tg").and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
        let pid = pid.and_then(|pid| u32::from_str_radix(pid, 16).ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let names = |command: &mut Command, field: usize| -> Vec<String> {
        let listed = command.output().map(|ended| ended.stdout).unwrap_or_default();
        let lines = String::from_utf8_lossy(&listed).into_owned();
        lines.lines().filter_map(|line| Some(line.split_whitespace().nth(field)?.to_owned())).collect()
    };
    for space in names(Command::new("ip").args(["netns", "list"]), 0) {
        if is_stale(&space) {
            let _ = ip(&["netns", "delete", &space]);
        }
    }
    for bridge in names(Command::new("ip").args(["-brief", "link", "show", "type", "bridge"]), 0) {
        if is_stale(&bridge) {
            let _ = ip(&["link", "delete", &bridge]);
        }
    }
}

/// Whether this process may make networks.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether networks can be made here, and if not, why.
pub(super) fn are_possible() -> Result<(), String> {
    Namespaces::create(1).map(drop)
}

/// What a user namespace needs before networks can be made in it.
const PREPARE: &str = "mount -t tmpfs tmpfs /run && ip link set lo up";

/// Runs this program again as root of a user, network and mount namespace of its own: there it may make networks, and all
/// of it is gone when it ends. Returns only when that cannot be done, with why.
pub fn enter_user_namespace() -> String {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    // Once this program is replaced there is no way back: all that could fail is tried before.
    if let Err(fault) = needs_tools() {
        return fault;
    }
    if let Err(fault) = run(Command::new("unshare").args(["-Urnm", "sh", "-c", PREPARE])) {
        return format!(
            "this user may not make a user namespace: {fault} (look at the sysctls user.max_user_namespaces and \
             kernel.unprivileged_userns_clone, and at the container's profile)"
        );
    }
    let error = Command::new("unshare")
        .args(["-Urnm", "sh", "-c", &format!("{PREPARE} && exec \"$@\""), "sh"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    format!("unshare: {error}")
}

fn needs_tools() -> Result<(), String> {
    for (tool, version, package) in
        [("ip", "-V", "iproute2"), ("tc", "-V", "iproute2"), ("nft", "--version", "nftables")]
    {
        run(Command::new(tool).arg(version)).map_err(|fault| {
            format!("network namespaces need {tool} (Debian: apt-get install {package}): {fault}")
        })?;
    }
    Ok(())
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
    fn a_plain_user_gets_a_network_too() {
        let test = "network::namespaces::tests::what_is_cut_does_not_arrive_and_the_rest_does";
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(std::env::current_exe().unwrap());
        let ended = command.args(["--exact", test, "--nocapture"]).output();
        let said = match &ended {
            Ok(ended) => String::from_utf8_lossy(&[&*ended.stdout, &ended.stderr].concat()).into_owned(),
            Err(error) => format!("setpriv: {error}"),
        };
        if !said.contains("running 1 test") {
            eprintln!("NOT TESTED: another user cannot run this program: {said}");
            return;
        }
        assert!(ended.unwrap().status.success(), "{said}");
    }

    #[test]
    fn what_is_cut_does_not_arrive_and_the_rest_does() {
        if !is_root() {
            eprintln!("NOT TESTED: {}", enter_user_namespace());
            return;
        }
        let net = match Namespaces::create(2) {
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
        net.cut_all(&[(1, 2)]);
        assert!(!reaches(1, 2));
        assert!(net.packets_hit() > 0);
        net.heal();
        assert!(reaches(1, 2));
        net.double(&[(1, 2)]);
        net.slow(1, 64);
        assert!(reaches(1, 2));
        assert!(net.packets_hit_at(1) > 0 && net.packets_hit_at(2) > 0);
        net.heal();
        net.lose(&[(1, 2)], 50);
        // Half of the packets: so many in a row never all arrive.
        for _ in 0..60 {
            if net.packets_hit_at(2) > 0 {
                break;
            }
            reaches(1, 2);
        }
        assert!(net.packets_hit_at(2) > 0);
        net.heal();
        assert!(reaches(1, 2));

        // Whoever moves takes its faults along; and two change their addresses.
        net.cut_all(&[(1, 2)]);
        net.move_to(&[(1, 77)]).unwrap();
        assert!(net.address(1).to_string().ends_with(".77"));
        assert!(!reaches(1, 2));
        net.heal();
        net.move_to(&[(1, 2), (2, 77)]).unwrap();
        assert_eq!((net.host(1), net.host(2)), (2, 77));
        assert!(reaches(1, 2) && reaches(2, 1));
    }
}
