//! Nodes of other clusters of this one's name that gossip with it. What they say is not taken in, but that they are there is known:
//! each of the clusters admits every limit by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::message::{entries, parts};
use crate::ids::ClusterId;

/// Addresses that are known at a time; of more nothing is said.
const MAX_ADDRESSES: usize = 32;
/// Who was not heard of for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// When which cluster was heard of at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    cluster: ClusterId,
    at: Instant,
}

/// Who was heard of. Anybody may have said so where there is no cluster key.
#[derive(Debug, Default)]
pub(crate) struct ForeignNodes(watch::Sender<BTreeMap<SocketAddr, Heard>>);

impl ForeignNodes {
    /// Takes in a message of a node of that cluster, and the addresses that it lists: they are most likely those of its cluster. True:
    /// at this address nobody of that cluster was heard of before.
    pub(super) fn hear(&self, from: SocketAddr, cluster: ClusterId, message: &[u8], now: Instant) -> bool {
        let from = plain(from);
        let listed = parts(message)
            .filter(|(parts, _)| parts.has_digest)
            .and_then(|(_, mut rest)| entries(&mut rest))
            .unwrap_or_default();
        let listed = listed.iter().map(|entry| plain(entry.node.gossip_advertise_addr));
        let is_new = self.note(std::iter::once(from).chain(listed), cluster, now);
        is_new.contains(&from)
    }

    /// Takes in that others have told of nodes of that cluster at these addresses. Returns the new ones.
    pub(crate) fn note(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
        cluster: ClusterId,
        now: Instant,
    ) -> BTreeSet<SocketAddr> {
        let mut new = BTreeSet::new();
        self.0.send_if_modified(|known| {
            for address in addresses {
                if !known.contains_key(&address) && known.len() >= MAX_ADDRESSES {
                    known.retain(|_, heard| now.duration_since(heard.at) < FORGOTTEN_AFTER);
                    if known.len() >= MAX_ADDRESSES {
                        continue;
                    }
                }
                let before = known.insert(address, Heard { cluster, at: now });
                let is_known = before.is_some_and(|before| {
                    before.cluster == cluster && now.duration_since(before.at) < FORGOTTEN_AFTER
                });
                if !is_known {
                    new.insert(address);
                }
            }
            !new.is_empty()
        });
        new
    }

    /// Where somebody was heard of lately, and as of which cluster.
    pub(crate) fn heard(&self, now: Instant) -> BTreeMap<SocketAddr, ClusterId> {
        let known = self.0.borrow();
        let lately = known.iter().filter(|(_, heard)| now.duration_since(heard.at) < FORGOTTEN_AFTER);
        lately.map(|(address, heard)| (*address, heard.cluster)).collect()
    }

    /// Signals whom was not heard of before.
    pub(crate) fn watch(&self) -> watch::Receiver<impl Sized + use<>> {
        self.0.subscribe()
    }
}

/// Sockets for both families write an IPv4 address as one of IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatId, Serializable as _};

    use super::*;

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 7803).into()
    }

    fn cluster(byte: u8) -> ClusterId {
        ClusterId::from_bytes([byte; 16])
    }

    #[test]
    fn who_is_heard_of_is_known_for_a_while_with_those_that_are_listed() {
        let nodes = ForeignNodes::default();
        let mut news = nodes.watch();
        let now = Instant::now();
        let mut message = vec![0x53, 0xb0, 0, 0, 2, 0];
        for number in [1, 2] {
            ChitchatId::new(format!("n{number}"), 7, at(number)).serialize(&mut message);
            message.extend([0; 24]);
        }
        "cluster".serialize(&mut message);
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7803".parse().unwrap();
        assert!(nodes.hear(mapped, cluster(1), &message, now));
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        let both = BTreeMap::from([(at(1), cluster(1)), (at(2), cluster(1))]);
        assert_eq!(nodes.heard(now), both);
        let later = now + FORGOTTEN_AFTER - Duration::from_secs(1);
        assert!(!nodes.hear(at(1), cluster(1), &[1, 2, 3], later), "it is known");
        assert!(!news.has_changed().unwrap());
        assert_eq!(nodes.heard(now + FORGOTTEN_AFTER), BTreeMap::from([(at(1), cluster(1))]));
        assert!(nodes.hear(at(1), cluster(2), &[], later), "of another cluster");
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory() {
        let nodes = ForeignNodes::default();
        let now = Instant::now();
        for number in 0..=255 {
            nodes.hear(at(number), cluster(1), &[], now);
        }
        assert_eq!(nodes.heard(now).len(), MAX_ADDRESSES);
        assert!(nodes.hear(at(255), cluster(1), &[], now + FORGOTTEN_AFTER), "the others are forgotten");
    }
}
