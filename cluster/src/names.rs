//! What the entries of `--join` stand for: an address, a name that has some, or, behind `dnssrv+`, a service whose records (SRV) name
//! hosts with their ports.
//!
//! Hosts are looked up by the system. It has no call for services, so the name servers that its configuration names are asked here.

mod resolver;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use futures_util::future::join_all;
use tokio::net::lookup_host;

use crate::config::{DEFAULT_PEER_PORT, SERVICE_PREFIX};

/// Hosts of a service; more are not looked up.
const MAX_HOSTS: usize = 64;

/// An entry of `--join`, with a port, if it is not a service.
pub(crate) fn with_port(seed: &str) -> String {
    if seed.starts_with(SERVICE_PREFIX) {
        return seed.to_owned();
    }
    let has_port = match seed.strip_prefix('[') {
        Some(v6) => v6.contains("]:"),
        None => seed.matches(':').count() == 1,
    };
    match (has_port, seed.parse::<IpAddr>()) {
        (false, Ok(address)) => SocketAddr::new(address, DEFAULT_PEER_PORT).to_string(),
        (false, Err(_)) => format!("{seed}:{DEFAULT_PEER_PORT}"),
        (true, _) => seed.to_owned(),
    }
}

/// Whether an entry has to be looked up.
pub(crate) fn is_name(seed: &str) -> bool {
    seed.parse::<SocketAddr>().is_err()
}

/// The addresses that an entry with a port, or a service, stands for.
///
/// # Errors
/// When none is known, or the name service does not say.
pub(crate) async fn addresses_of(seed: &str) -> io::Result<Vec<SocketAddr>> {
    let Some(service) = seed.strip_prefix(SERVICE_PREFIX) else {
        return Ok(lookup_host(seed).await?.collect());
    };
    let hosts = resolver::hosts_of(service).await?;
    let found =
        join_all(hosts.iter().take(MAX_HOSTS).map(|(host, port)| lookup_host((&**host, *port)))).await;
    let mut addresses = Vec::new();
    let mut fault = None;
    for one in found {
        match one {
            Ok(found) => addresses.extend(found),
            // Of several hosts, some may be known later than others.
            Err(error) => fault = Some(error),
        }
    }
    match fault {
        Some(fault) if addresses.is_empty() => Err(fault),
        _ => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_join_may_leave_out_the_port() {
        assert_eq!(with_port("node-1"), "node-1:7803");
        assert_eq!(with_port("node-1:9"), "node-1:9");
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:7803");
        assert_eq!(with_port("::1"), "[::1]:7803");
        assert_eq!(with_port("[::1]:9"), "[::1]:9");
        assert_eq!(with_port("dnssrv+_tidegate._udp.example.com"), "dnssrv+_tidegate._udp.example.com");
    }

    #[test]
    fn addresses_are_no_names() {
        assert!(is_name("node-1:7803"));
        assert!(is_name("dnssrv+_tidegate._udp.example.com"));
        assert!(!is_name("10.0.0.1:7803"));
        assert!(!is_name("[::1]:7803"));
    }
}
