//! What all proxies of a network share: where each node and its proxy are, which process is which node, and the faults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::UdpSocket;

use super::faults::Faults;
use crate::ports::{BASE_PORT_APART, PEER_PORT_OFFSET};

/// What all proxies of a network share.
#[derive(Debug)]
pub(super) struct Passage {
    /// The second and the third byte of the nodes' addresses.
    place: [u8; 2],
    pub(super) nodes: u8,
    pub(super) faults: Faults,
    /// The process of each node that was started, the first one's first.
    processes: Mutex<Vec<Option<u32>>>,
    /// The last byte of the address of each node's proxy.
    hosts: Mutex<Vec<u8>>,
    /// What datagrams go out of for each node: the socket of its proxy.
    outgoing: Mutex<Vec<Option<Arc<UdpSocket>>>>,
}

impl Passage {
    pub(super) fn new(place: [u8; 2], nodes: u8) -> Self {
        Self {
            place,
            nodes,
            faults: Faults::new(nodes),
            processes: Mutex::new(vec![None; usize::from(nodes)]),
            hosts: Mutex::new((1..=nodes).collect()),
            outgoing: Mutex::new(vec![None; usize::from(nodes)]),
        }
    }

    /// From now on this process is that node.
    pub(super) fn started(&self, node: u8, pid: u32) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = processes.get_mut(usize::from(node - 1)) {
            *known = Some(pid);
        }
    }

    pub(super) fn address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.place[0], self.place[1], node)
    }

    pub(super) fn proxy_address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.place[0], self.place[1] + 1, self.host(node))
    }

    /// The last byte of the address of a node's proxy.
    pub(super) fn host(&self, node: u8) -> u8 {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)]
    }

    /// A node's proxy is elsewhere from now on.
    pub(super) fn set_host(&self, node: u8, host: u8) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)] = host;
    }

    /// Datagrams of a node go out of this socket from now on.
    pub(super) fn set_outgoing(&self, node: u8, socket: Option<Arc<UdpSocket>>) {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)] = socket;
    }

    pub(super) fn outgoing(&self, node: u8) -> Option<Arc<UdpSocket>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(node - 1)].clone()
    }

    /// Where a node's peer port is.
    pub(super) fn node(&self, node: u8) -> SocketAddr {
        (self.address(node), BASE_PORT_APART + PEER_PORT_OFFSET).into()
    }

    /// Where others look for it.
    pub(super) fn proxy(&self, node: u8) -> SocketAddr {
        (self.proxy_address(node), BASE_PORT_APART + PEER_PORT_OFFSET).into()
    }

    /// The node whose datagrams come from this address.
    pub(super) fn sender(&self, from: SocketAddr) -> Option<u8> {
        (1..=self.nodes).find(|node| self.node(*node) == from)
    }

    /// The nodes' processes, by the nodes' numbers.
    pub(super) fn processes(&self) -> Vec<(u8, u32)> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        (1..).zip(processes.iter()).filter_map(|(node, pid)| Some((node, (*pid)?))).collect()
    }
}
