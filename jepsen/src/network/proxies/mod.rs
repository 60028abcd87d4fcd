//! A network that needs no rights: the nodes listen on loopback addresses of their own, and tell each other addresses where a
//! proxy of this program listens for each of them, for streams and for datagrams. What goes from one node to another goes
//! through a proxy, which knows of each part who has sent it, and can lose it, keep it for a while, or send it twice.
//!
//! ```text
//! node 1  127.x.y.1   -- says to be at -->  127.x.(y+1).1  = proxy of node 1 --> 127.x.y.1
//! node 2  127.x.y.2   -- says to be at -->  127.x.(y+1).2  = proxy of node 2 --> 127.x.y.2
//! ```
//!
//! A proxy hands on from the address of the sender's proxy, so that answers come through a proxy too. Who asks a node from
//! outside does it where the node listens, past all proxies.
//!
//! What it is not: a proxy cannot lose a part of a stream, as the system has acknowledged it already. Where packets would be
//! lost the stream waits, as it would for the packet to be sent again. A stream through a cut is silent, not refused, and goes
//! on when the network is healed, if nobody has closed it; one that was opened meanwhile reaches the other side only then.

mod caller;
mod datagrams;
mod faults;
mod passage;
mod socket;
mod streams;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime::Runtime, task::JoinHandle};

pub(super) use self::faults::Link;
use self::passage::Passage;
use crate::ports::{BASE_PORT_APART, PORTS};

/// Networks of other programs may have the same number: then the next one is tried.
const ATTEMPTS: u32 = 32;
/// Networks are numbered up to here: two third bytes each, from 127.16 on.
const NETWORKS: u32 = 200 * 127;
/// How often an address is tried that another proxy had.
const BINDS: u32 = 100;
const BETWEEN_BINDS: Duration = Duration::from_millis(10);

/// Loopback addresses with proxies between them; all is gone when this value is dropped.
#[derive(Debug)]
pub struct Proxies {
    passage: Arc<Passage>,
    /// Runs all proxies, in one thread. Only dropping takes it.
    runtime: Option<Runtime>,
    /// What accepts and receives for each node, the first node's first.
    tasks: Mutex<Vec<Vec<JoinHandle<()>>>>,
}

impl Proxies {
    /// Makes a network for so many nodes, numbered from 1.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn create(nodes: u8) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !cfg!(target_os = "linux") {
            return Err("loopback proxies find out who connects through /proc, which Linux has".to_owned());
        }
        allow_many_descriptors();
        let first = std::process::id().wrapping_mul(37);
        let mut taken = None;
        for _ in 0..ATTEMPTS {
            let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % NETWORKS;
            let place = [16 + (number / 127) as u8, (number % 127) as u8 * 2];
            match Self::at(place, nodes) {
                Ok(proxies) => return Ok(proxies),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = Some(error),
                Err(error) => return Err(format!("proxies on loopback addresses: {error}")),
            }
        }
        let (first, last) = (BASE_PORT_APART, BASE_PORT_APART + PORTS - 1);
        Err(format!(
            "proxies on loopback addresses: {}; does a program listen at 0.0.0.0 on a port of {first} to {last}?",
            taken.map_or_else(String::new, |error| error.to_string()),
        ))
    }

    fn at(place: [u8; 2], nodes: u8) -> io::Result<Self> {
        let passage = Arc::new(Passage::new(place, nodes));
        // The proxies' ports are what keeps other programs off these addresses; the nodes' own are looked at now, so that
        // no node has to fail.
        let mut sockets = Vec::new();
        for node in 1..=nodes {
            let proxy = passage.proxy(node);
            sockets.push((node, TcpListener::bind(proxy)?, UdpSocket::bind(proxy)?));
            for port in BASE_PORT_APART..BASE_PORT_APART + PORTS {
                TcpListener::bind((passage.address(node), port))?;
            }
            UdpSocket::bind(passage.node(node))?;
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("proxies").enable_all().build()?;
        let tasks = Mutex::new((1..=nodes).map(|_| Vec::new()).collect());
        let proxies = Self { passage, runtime: Some(runtime), tasks };
        for (node, listener, datagrams) in sockets {
            proxies.run(node, listener, datagrams)?;
        }
        Ok(proxies)
    }

    /// Runs the proxy of a node.
    fn run(&self, node: u8, listener: TcpListener, datagrams: UdpSocket) -> io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let _entered = runtime.enter();
        listener.set_nonblocking(true)?;
        datagrams.set_nonblocking(true)?;
        let datagrams = Arc::new(tokio::net::UdpSocket::from_std(datagrams)?);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.passage.set_outgoing(node, Some(Arc::clone(&datagrams)));
        let tasks = vec![
            runtime.spawn(streams::pass_on(node, listener, Arc::clone(&self.passage))),
            runtime.spawn(datagrams::pass_on(node, datagrams, Arc::clone(&self.passage))),
        ];
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)] = tasks;
        Ok(())
    }

    /// Gives nodes other addresses: the proxy of each goes to the one with this last byte. Nobody listens at the old one then, unless
    /// it is another one's now.
    pub(super) fn move_to(&self, moves: &[(u8, u8)]) -> io::Result<()> {
        for (node, _) in moves {
            let ended = {
                let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut tasks[usize::from(node - 1)])
            };
            self.passage.set_outgoing(*node, None);
            for task in ended {
                task.abort();
                if let Some(runtime) = &self.runtime {
                    // Its socket is closed when it has ended.
                    let _ = runtime.block_on(task);
                }
            }
        }
        for (node, host) in moves {
            self.passage.set_host(*node, *host);
            let (listener, datagrams) = bind_soon(self.passage.proxy(*node))?;
            self.run(*node, listener, datagrams)?;
        }
        Ok(())
    }

    /// The last byte of the address of a node's proxy.
    pub(super) fn host(&self, node: u8) -> u8 {
        self.passage.host(node)
    }

    /// Where a node listens.
    pub fn address(&self, node: u8) -> Ipv4Addr {
        self.passage.address(node)
    }

    /// Where its proxy listens.
    pub fn address_for_peers(&self, node: u8) -> Ipv4Addr {
        self.passage.proxy_address(node)
    }

    /// From now on this process is that node: what it connects to comes from there.
    pub(super) fn started(&self, node: u8, pid: u32) {
        self.passage.started(node, pid);
    }

    /// Does something to what goes from the first of each pair to the second.
    pub(super) fn set(&self, pairs: &[(u8, u8)], change: impl Fn(&mut Link)) {
        self.passage.faults.set(pairs, change);
    }

    /// Does something to all that a node sends to others.
    pub(super) fn set_all_from(&self, node: u8, change: impl Fn(&mut Link)) {
        let others = (1..=self.passage.nodes).filter(|other| *other != node);
        self.set(&others.map(|other| (node, other)).collect::<Vec<_>>(), change);
    }

    /// Does something to all that others send to a node.
    pub(super) fn set_all_to(&self, node: u8, change: impl Fn(&mut Link)) {
        let others = (1..=self.passage.nodes).filter(|other| *other != node);
        self.set(&others.map(|other| (other, node)).collect::<Vec<_>>(), change);
    }

    /// How many datagrams, and parts of streams, the faults that are on have hit.
    pub fn hits(&self) -> u64 {
        self.passage.faults.hits()
    }

    /// Lets all through again.
    pub fn heal(&self) {
        self.passage.faults.heal();
    }
}

/// Binds what another proxy may have had: a datagram that is late keeps its socket for a moment.
fn bind_soon(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut left = BINDS;
    loop {
        let bound = TcpListener::bind(address).and_then(|streams| Ok((streams, UdpSocket::bind(address)?)));
        left -= 1;
        match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                thread::sleep(BETWEEN_BINDS)
            }
            bound => return bound,
        }
    }
}

/// Each stream between nodes takes two, and nodes with many processors have many streams. The usual limit of 1,024 may be
/// raised by whoever wants to.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised is enough for a small network.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

impl Drop for Proxies {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // No task of it waits for anything but sockets and time.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
