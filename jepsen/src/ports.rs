//! The ports of nodes, and blocks of them that are free.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Ports of a node: HTTP, gRPC, Redis protocol, peers.
pub(crate) const PORTS: u16 = 4;
/// From the first port of a node to that of the next one, as `tidegate dev` lays them out.
pub const NODE_STEP: u16 = 10;
/// Below the range from which the system takes ports for outgoing connections.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How far the port for gRPC is from that for HTTP.
pub(crate) const GRPC_PORT_OFFSET: u16 = 1;
/// How far the port for the Redis protocol is from that for HTTP.
pub(crate) const RESP_PORT_OFFSET: u16 = 2;
/// How far the port for peers is from that for HTTP.
pub(crate) const PEER_PORT_OFFSET: u16 = 3;

/// The first port of each node that has a network of its own: nodes differ by their addresses there.
pub(crate) const BASE_PORT_APART: u16 = 7800;

/// What stands for a node that has a network of its own where others are named by their first port, by its number there.
pub fn port_apart(number: u8) -> u16 {
    BASE_PORT_APART + u16::from(number - 1) * NODE_STEP
}

/// The number of that node.
pub(crate) fn number_apart(port: u16) -> u8 {
    ((port - BASE_PORT_APART) / NODE_STEP) as u8 + 1
}

/// The first of a node's consecutive ports, all of them free: for TCP, and the last for UDP too.
///
/// # Panics
/// When no ports are free.
pub fn free_ports() -> u16 {
    free_ports_for(1)
}

/// The same for several nodes: the ports of each begin [`NODE_STEP`] after those of the one before.
///
/// # Panics
/// When no ports are free.
pub fn free_ports_for(nodes: u16) -> u16 {
    // No block is given out twice by one program; several programs at the same time each begin somewhere else.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = PORT_RANGE.len() as u16 / NODE_STEP;
    let start = (std::process::id() as u16).wrapping_mul(37);
    for _ in 0..blocks {
        let block = start.wrapping_add(NEXT.fetch_add(nodes, Ordering::Relaxed)) % blocks;
        let base = PORT_RANGE.start + block * NODE_STEP;
        if (0..nodes).all(|node| are_free(base + node * NODE_STEP)) {
            return base;
        }
    }
    panic!("no free ports in {PORT_RANGE:?}")
}

fn are_free(base: u16) -> bool {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (base..base + PORTS).all(is_free) && UdpSocket::bind((Ipv4Addr::LOCALHOST, base + PORTS - 1)).is_ok()
}
