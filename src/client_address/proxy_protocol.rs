//! The PROXY protocol, versions 1 and 2: a connection begins with whom it is for.
//!
//! It is looked for only in connections of trusted proxies, and only if this node was told that they send it: the bytes that
//! such a connection begins with would otherwise be the client's.

use std::{io, net::IpAddr, time::Duration};

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};

/// Longest header that is taken, with what proxies add to it (version 1 has at most 107 bytes).
const MAX_HEADER_BYTES: usize = 2048;
/// For the whole of it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Until one looks again at a header that has come in part, at first and at most. Proxies send it in one piece; who does not is looked at
/// less and less often.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(500)];

const VERSION_1: &[u8] = b"PROXY ";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection has no address that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its PROXY header cannot be read: {0}")]
    Header(Error),
    #[error("its PROXY header was not complete after {HEADER_TIMEOUT:?}")]
    Late,
}

/// The address that the connection begins with, which is taken off it. `None`: it begins with none, or with one that says
/// that the proxy asks for itself.
pub(crate) async fn announced(stream: &mut TcpStream) -> Result<Option<IpAddr>, NoAddress> {
    timeout(HEADER_TIMEOUT, read(stream)).await.map_err(|_elapsed| NoAddress::Late)?
}

async fn read(stream: &mut TcpStream) -> Result<Option<IpAddr>, NoAddress> {
    let mut head = vec![0; MAX_HEADER_BYTES];
    let [mut pause, most] = LOOK_AGAIN;
    loop {
        let seen = stream.peek(&mut head).await?;
        match first(&head[..seen])? {
            First::None => return Ok(None),
            First::Header { address, length } => {
                stream.read_exact(&mut vec![0; length]).await?;
                return Ok(address);
            }
            First::Part => {
                sleep(pause).await;
                pause = most.min(2 * pause);
            }
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// No header; or nothing, because the connection has ended.
    None,
    /// A part of one.
    Part,
    /// A whole one, of so many bytes, and the address that it says.
    Header { address: Option<IpAddr>, length: usize },
}

fn first(head: &[u8]) -> Result<First, NoAddress> {
    if head.is_empty() || !begins(head) {
        return Ok(First::None);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(head, config) {
        Ok((header, length)) => {
            let address = header.proxied_address().map(|proxied| proxied.source.ip().to_canonical());
            Ok(First::Header { address, length })
        }
        Err(Error::BufferTooShort) if head.len() < MAX_HEADER_BYTES => Ok(First::Part),
        Err(error) => Err(NoAddress::Header(error)),
    }
}

/// Whether these may be the first bytes of a header; those of an HTTP request never are.
fn begins(head: &[u8]) -> bool {
    [VERSION_1, VERSION_2].iter().any(|start| {
        let length = start.len().min(head.len());
        head[..length] == start[..length]
    })
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
