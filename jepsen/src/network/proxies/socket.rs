//! Which inode a connection's socket has: asked of the system for this one connection, because a machine may have thousands.
//!
//! ```text
//! question: | length u32 | type u16 | flags u16 | sequence u32 | port u32 |   nlmsghdr
//!           | family u8 | protocol u8 | 0 u16 | states u32 |                  inet_diag_req_v2
//!           | port be16 | port be16 | address 16 bytes | address 16 bytes | interface u32 | cookie u64 |
//! answer:   | nlmsghdr 16 bytes | 4 bytes | as above 48 bytes | 16 bytes | inode u32 |
//! ```

use std::{fs, net::SocketAddrV4};

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A process has it.
    Inode(u64),
    /// Nobody has it any more.
    Gone,
}

/// The socket with these two ends, in this network namespace.
pub(super) fn between(here: SocketAddrV4, there: SocketAddrV4) -> Found {
    // Where the system cannot be asked, it has a table of all of them.
    asked(here, there).unwrap_or_else(|| listed(here, there))
}

#[cfg(not(target_os = "linux"))]
fn asked(_here: SocketAddrV4, _there: SocketAddrV4) -> Option<Found> {
    None
}

/// `None`: there is no answer.
#[cfg(target_os = "linux")]
fn asked(here: SocketAddrV4, there: SocketAddrV4) -> Option<Found> {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    };

    const REQUEST: u16 = 1;
    const BY_FAMILY: u16 = 20;
    const ERROR: u16 = 2;
    const NO_SUCH: i32 = -libc::ENOENT;
    const INODE: std::ops::Range<usize> = 84..88;

    let mut question = [0; 72];
    let mut put = |place: usize, bytes: &[u8]| question[place..place + bytes.len()].copy_from_slice(bytes);
    put(0, &72_u32.to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    put(16, &[libc::AF_INET as u8, libc::IPPROTO_TCP as u8]);
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &here.port().to_be_bytes());
    put(26, &there.port().to_be_bytes());
    put(28, &here.ip().octets());
    put(44, &there.ip().octets());
    // No cookie.
    put(64, &[0xff; 8]);

    let flags = SocketFlags::CLOEXEC;
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG)).ok()?;
    send(&socket, &question, SendFlags::empty()).ok()?;
    // It answers while it is asked.
    let mut answer = [0; 512];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    let number = |place: usize| Some(u32::from_ne_bytes(answer.get(place..place + 4)?.try_into().ok()?));
    match u16::from_ne_bytes([answer[4], answer[5]]) {
        BY_FAMILY if length >= INODE.end => Some(found(number(INODE.start)?.into())),
        ERROR if number(16)?.cast_signed() == NO_SUCH => Some(Found::Gone),
        _ => None,
    }
}

/// From the table.
fn listed(here: SocketAddrV4, there: SocketAddrV4) -> Found {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let ends = format!(" {} {} ", hex(here), hex(there));
    let line = table.lines().find(|line| line.contains(&ends));
    let inode = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    found(inode.unwrap_or(0))
}

/// As the table has an address: its bytes as one number of this machine.
fn hex(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

fn found(inode: u64) -> Found {
    // The system has the connection for a while after the process has left it.
    if inode == 0 { Found::Gone } else { Found::Inode(inode) }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;
    use crate::cluster::wait_for;

    #[test]
    fn the_system_names_the_same_socket_when_asked_and_in_its_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(here), SocketAddr::V4(there)) =
            (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
        else {
            panic!("IPv4")
        };
        let Found::Inode(inode) = listed(here, there) else { panic!("it is not listed") };
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut targets = descriptors.filter_map(|one| std::fs::read_link(one.unwrap().path()).ok());
        assert!(targets.any(|target| target.as_os_str() == format!("socket:[{inode}]").as_str()));
        // Where it cannot be asked there is the table.
        assert!(asked(here, there).is_none_or(|found| found == Found::Inode(inode)));
        assert_eq!(between(here, there), Found::Inode(inode));
        drop(stream);
        // A process that another test starts right now has the socket too, until it runs its own program.
        wait_for("the socket is gone", Duration::from_secs(10), || between(here, there) == Found::Gone);
    }
}
