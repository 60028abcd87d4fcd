//! The address at which other nodes reach this one, found by the name of a network interface or of a host.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use if_addrs::{Interface, get_if_addrs};
use tokio::{
    net::lookup_host,
    time::{Instant, sleep, timeout},
};
use tracing::info;

/// How long an interface without an address, and a name that is not known, is waited for: both may come a little after the node.
const WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a name stands for no address that can be told to others.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// The interface is there.
    #[error(
        "the network interface {name} has no address that other nodes could use and that this node listens on at {listen}: it has {has} (--advertise)"
    )]
    Interface {
        /// Its name.
        name: String,
        /// Where the node listens.
        listen: IpAddr,
        /// Its addresses.
        has: String,
    },
    /// There is none.
    #[error(
        "{name} names neither a network interface of this machine ({interfaces}) nor a host of which an address is known after {WITHIN:?}: {reason} (--advertise)"
    )]
    Nothing {
        /// The name.
        name: String,
        /// What there is.
        interfaces: String,
        /// What the name service says.
        reason: String,
    },
}

/// The address that a name stands for: the first one of the interface, or of the host, of a family that is listened on.
pub(crate) async fn address_of(name: &str, listen: IpAddr) -> Result<IpAddr, NotFound> {
    let begun = Instant::now();
    loop {
        let found = look(name, listen).await;
        match found {
            Ok(address) => {
                info!(name, %address, "the name of --advertise stands for this address");
                return Ok(address);
            }
            Err(not_found) if begun.elapsed() >= WITHIN => return Err(not_found),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

async fn look(name: &str, listen: IpAddr) -> Result<IpAddr, NotFound> {
    let all = get_if_addrs().unwrap_or_default();
    let own: Vec<IpAddr> = all.iter().filter(|one| one.name == name).map(Interface::ip).collect();
    if !own.is_empty() {
        return first(&own, listen).ok_or_else(|| NotFound::Interface {
            name: name.to_owned(),
            listen,
            has: own.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        });
    }
    let reason = match timeout(WITHIN, lookup_host((name, 0))).await {
        Ok(Ok(found)) => {
            let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            match first(&found, listen) {
                Some(address) => return Ok(address),
                None => format!("it stands for {found:?}, and this node listens on {listen}"),
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the name service does not answer".to_owned(),
    };
    let names: BTreeSet<&str> = all.iter().map(|one| &*one.name).collect();
    let interfaces = names.into_iter().collect::<Vec<_>>().join(", ");
    Err(NotFound::Nothing { name: name.to_owned(), interfaces, reason })
}

/// The first that others can use, of IPv4 before IPv6: where both are listened on, that is the family that more nodes have. A
/// loopback address is better than none.
fn first(addresses: &[IpAddr], listen: IpAddr) -> Option<IpAddr> {
    let is_listened_on = |address: &&IpAddr| {
        address.is_ipv4() == listen.is_ipv4() || listen.is_ipv6() && listen.is_unspecified()
    };
    let usable = addresses.iter().filter(is_listened_on).filter(|address| can_be_told(**address).is_ok());
    usable.min_by_key(|address| (address.is_loopback(), address.is_ipv6())).copied()
}

/// Whether an address means the same to another node as to this one; else what it is.
pub(crate) fn can_be_told(address: IpAddr) -> Result<(), &'static str> {
    match address {
        _ if address.is_unspecified() => Err("stands for every address"),
        _ if address.is_multicast() => Err("stands for many machines"),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("stands for many machines"),
        // Without the name of an interface it means nothing. Those of IPv4 some clouds route.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err("is only known on one link"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_usable_address_of_a_family_that_is_listened_on_is_told() {
        let all = ["fe80::1", "2001:db8::7", "fd00::7", "10.0.0.7", "10.0.0.8"].map(address);
        for (listen, expected) in [
            ("0.0.0.0", Some("10.0.0.7")),
            ("10.0.0.8", Some("10.0.0.7")),
            ("::", Some("10.0.0.7")),
            ("2001:db8::7", Some("2001:db8::7")),
        ] {
            assert_eq!(first(&all, address(listen)), expected.map(address), "{listen}");
        }
        assert_eq!(first(&all[..3], address("::")), Some(address("2001:db8::7")), "one with IPv6 only");
        assert_eq!(first(&all[..3], address("0.0.0.0")), None);
        assert_eq!(first(&all[..1], address("::")), None, "a link-local address means nothing elsewhere");
        let with_loopback = ["127.0.0.1", "::1", "2001:db8::7"].map(address);
        assert_eq!(first(&with_loopback, address("::")), Some(address("2001:db8::7")));
        assert_eq!(first(&with_loopback[..2], address("0.0.0.0")), Some(address("127.0.0.1")));
    }

    #[tokio::test]
    async fn interfaces_and_hosts_are_found_and_what_is_neither_is_said() {
        let loopback =
            get_if_addrs().unwrap().into_iter().find(|one| one.ip() == address("127.0.0.1")).unwrap();
        assert_eq!(look(&loopback.name, address("0.0.0.0")).await.unwrap(), address("127.0.0.1"));
        assert_eq!(look("localhost", address("127.0.0.1")).await.unwrap(), address("127.0.0.1"));
        let said = look("no-such-host.invalid", address("0.0.0.0")).await.unwrap_err().to_string();
        assert!(said.contains("neither a network interface") && said.contains(&loopback.name), "{said}");
    }
}
