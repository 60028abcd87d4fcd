//! The address at which the others reach this node.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::{fabric, names::addresses_of};

/// How long the names of seeds are waited for: a name service that does not answer must not keep a node from starting.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// The address that packets to the seeds leave from; if none of them is known yet, those to the internet. Nothing is sent. `None`:
/// there is no such address but of this machine alone.
///
/// A node that listens on IPv4 addresses only advertises one of these.
pub(super) async fn reachable_address(seeds: &[String], listen: IpAddr) -> Option<IpAddr> {
    // Addresses that are in no network, of both families.
    const SOMEWHERE: [SocketAddr; 2] = [
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
        SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
    ];
    let resolved = join_all(seeds.iter().map(|seed| async move {
        let found = timeout(RESOLVED_WITHIN, addresses_of(seed)).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    }));
    let resolved = resolved.await;
    // Where all seeds are on this machine, so are all nodes. A name of this node's own may be the only one that is known yet.
    let is_here =
        |found: &Vec<SocketAddr>| !found.is_empty() && found.iter().all(|one| one.ip().is_loopback());
    let all_here = !resolved.is_empty() && resolved.iter().all(is_here);
    let targets = resolved.into_iter().flatten().collect::<Vec<_>>();
    for target in targets.into_iter().chain(SOMEWHERE) {
        if let Ok(source) = fabric::source_address_towards(target).await
            && (all_here || !source.is_loopback())
            && !source.is_unspecified()
            && (source.is_ipv4() || listen.is_ipv6())
        {
            return Some(source);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_advertised_address_is_one_that_the_seeds_can_reach() {
        const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(reachable_address(&["127.0.0.1:7803".to_owned()], ANY).await, loopback);
        // A seed elsewhere is not reached from there.
        let far = ["127.0.0.1:7803".to_owned(), "192.0.2.7:7803".to_owned()];
        let far = reachable_address(&far, ANY).await;
        assert!(far.is_none_or(|address| !address.is_loopback()), "{far:?}");
    }
}
