//! Clients that speak TLS to a plain port. A port with TLS says so to those that speak none (`Acceptor`).

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tidegate_tls::TLS_BEGINS;
use tracing::warn;

use super::Port;

/// Whether a connection that begins like this is one of TLS: a record of a handshake, of any version 3.
pub(crate) fn looks_like_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [TLS_BEGINS] | [TLS_BEGINS, 3, ..])
}

/// Says so in the log, once: the client, which sees nothing but noise, will come again and again.
pub(crate) fn note_tls(port: Port, from: Option<SocketAddr>) {
    static SAID: [AtomicBool; Port::ALL.len()] = [const { AtomicBool::new(false) }; Port::ALL.len()];
    if !SAID[port as usize].swap(true, Relaxed) {
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        warn!(
            protocol = port.as_str(),
            from,
            "a client speaks TLS to a port that has none: give this node a certificate (--tls-cert, --tls-key), or the client http://; this is said once"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_told_from_what_is_spoken_here() {
        assert!(looks_like_tls(b"\x16\x03\x01\x02\x00\x01"));
        assert!(looks_like_tls(b"\x16"));
        for other in [&b""[..], b"GET / HTTP/1.1", b"PRI * HTTP/2.0", b"*1\r\n", b"\x16\x02", b"\x17\x03"] {
            assert!(!looks_like_tls(other), "{other:?}");
        }
    }
}
