//! Where nodes are: the ports of `--join`, and the address at which the others reach this node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::{config::DEFAULT_PEER_PORT, fabric};

/// An entry of `--join`, with a port.
pub(super) fn with_port(seed: &str) -> String {
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

/// The address that packets to the first seed leave from; without seeds, those to the internet. Nothing is sent.
pub(super) async fn reachable_address(seeds: &[String]) -> IpAddr {
    const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    for seed in seeds {
        let Ok(mut addresses) = lookup_host(seed).await else { continue };
        if let Some(target) = addresses.next()
            && let Ok(source) = fabric::source_address_towards(target).await
        {
            return source;
        }
    }
    fabric::source_address_towards(SOMEWHERE).await.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
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
    }

    #[tokio::test]
    async fn an_advertised_address_is_one_that_the_seeds_can_reach() {
        assert_eq!(reachable_address(&["127.0.0.1:7803".to_owned()]).await, Ipv4Addr::LOCALHOST);
    }
}
