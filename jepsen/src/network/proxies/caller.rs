//! Which node has opened a connection. A node binds no address when it connects, so that the connection itself does not
//! tell; but the system knows which process has it.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use tokio::time::sleep;

use super::Passage;

/// A node that was started a moment ago may not be known yet.
const ATTEMPTS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(10);

/// The node that has opened the connection from `caller` to `proxy`. `None`: it has closed it already, or it is no node.
pub(super) async fn of(caller: SocketAddr, proxy: SocketAddr, passage: &Passage) -> Option<u8> {
    let (SocketAddr::V4(caller), SocketAddr::V4(proxy)) = (caller, proxy) else { return None };
    for _ in 0..ATTEMPTS {
        // The table is read in pieces while it changes: what is in it may be missed once.
        if let Some(inode) = inode_of(caller, proxy)
            && let Some(node) = holder_of(inode, &passage.processes())
        {
            return Some(node);
        }
        sleep(BETWEEN).await;
    }
    None
}

/// The inode of the socket with these two ends.
fn inode_of(here: SocketAddrV4, there: SocketAddrV4) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let ends = format!(" {} {} ", hex(here), hex(there));
    let line = table.lines().find(|line| line.contains(&ends))?;
    // Of a socket that is no longer anybody's it is 0.
    line.split_whitespace().nth(9)?.parse().ok().filter(|inode| *inode != 0)
}

/// As the system writes an address: its bytes as one number of this machine.
fn hex(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

/// Which of these processes has the socket.
fn holder_of(inode: u64, processes: &[(u8, u32)]) -> Option<u8> {
    let socket = format!("socket:[{inode}]");
    let has_it = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .map(|one| one.path())
            .any(|path| fs::read_link(path).is_ok_and(|target| target.as_path() == Path::new(&socket)))
    };
    processes.iter().find(|(_, pid)| has_it(*pid)).map(|(node, _)| *node)
}
