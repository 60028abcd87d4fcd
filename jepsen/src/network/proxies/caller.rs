//! Which node has opened a connection. A node binds no address when it connects, so that the connection itself does not
//! tell; but the system knows which process has it.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tokio::time::sleep;

use super::{
    passage::Passage,
    socket::{self, Found},
};

/// A node that was started a moment ago may not be known yet.
const ATTEMPTS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(10);

/// The node that has opened the connection from `caller` to `proxy`. `None`: it has closed it already, or it is no node.
pub(super) async fn of(caller: SocketAddr, proxy: SocketAddr, passage: &Passage) -> Option<u8> {
    let (SocketAddr::V4(caller), SocketAddr::V4(proxy)) = (caller, proxy) else { return None };
    let Found::Inode(inode) = socket::between(caller, proxy) else { return None };
    for _ in 0..ATTEMPTS {
        let caller = node_with_socket(inode, &passage.processes());
        if caller.is_some() {
            return caller;
        }
        sleep(BETWEEN).await;
    }
    None
}

/// The node whose process has this socket open.
fn node_with_socket(inode: u64, processes: &[(u8, u32)]) -> Option<u8> {
    let socket = format!("socket:[{inode}]");
    let has_socket = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .map(|one| one.path())
            .any(|path| fs::read_link(path).is_ok_and(|target| target.as_path() == Path::new(&socket)))
    };
    processes.iter().find(|(_, pid)| has_socket(*pid)).map(|(node, _)| *node)
}
