//! Nodes of other clusters of this one's name that gossip with it. What they say is not taken in, but that they are there is known:
//! each of the clusters admits every limit by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::message::{entries, parts};
use crate::ids::ClusterId;

/// Addresses that are known at a time; of more nothing is said.
const MAX_ADDRESSES: usize = 32;
/// Who was not heard of for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Addresses of nodes that a node was told of; more are like those of others.
const MAX_SEEDS: usize = 1024;
/// Clusters of these nodes.
const MAX_CLUSTERS: usize = 8;
/// How long a node without a cluster waits for the word of one of them.
const SEEDS_ANSWER_WITHIN: Duration = Duration::from_secs(5);

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

/// Of which clusters a node hears that belongs to none: of those of the nodes that it was told of (`--join`), as soon as one of these
/// has said to which it belongs. Others may know its address from a node that had it before, and their leader would take it in.
#[derive(Debug)]
pub(super) struct Invited {
    /// Where the nodes are that it was told of.
    seeds: Arc<Seeds>,
    clusters: BTreeSet<ClusterId>,
    /// From then on it hears of all, if none of those has said anything: they may seem to be elsewhere.
    at_the_latest: Instant,
}

/// The addresses of the nodes that a node was told of.
#[derive(Debug, Default)]
pub(super) struct Seeds(Mutex<BTreeSet<SocketAddr>>);

impl Seeds {
    pub(super) fn add(&self, address: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_SEEDS {
            known.insert(plain(address));
        }
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&plain(address))
    }
}

impl Invited {
    /// `joins`: it was told of others.
    pub(super) fn new(seeds: Arc<Seeds>, joins: bool, now: Instant) -> Self {
        let at_the_latest = if joins { now + SEEDS_ANSWER_WITHIN } else { now };
        Self { seeds, clusters: BTreeSet::new(), at_the_latest }
    }

    /// Whether to hear what a node of that cluster says.
    pub(super) fn hears(&mut self, from: SocketAddr, cluster: ClusterId, now: Instant) -> bool {
        if self.seeds.has(from) {
            if self.clusters.len() < MAX_CLUSTERS {
                self.clusters.insert(cluster);
            }
            return true;
        }
        self.clusters.contains(&cluster) || self.clusters.is_empty() && now >= self.at_the_latest
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
    fn a_node_of_no_cluster_hears_of_the_clusters_of_those_that_it_was_told_of() {
        let now = Instant::now();
        let seeds = Arc::new(Seeds::default());
        seeds.add(at(1));
        let mut invited = Invited::new(Arc::clone(&seeds), true, now);
        assert!(!invited.hears(at(9), cluster(2), now), "of one that knows its address from somewhere");
        assert!(invited.hears("[::ffff:10.0.0.1]:7803".parse().unwrap(), cluster(1), now));
        assert!(invited.hears(at(5), cluster(1), now), "of another one of that cluster");
        let late = now + SEEDS_ANSWER_WITHIN;
        assert!(!invited.hears(at(9), cluster(2), late));
        // The name of another cluster's node is known late.
        seeds.add(at(9));
        assert!(invited.hears(at(9), cluster(2), late));
        // Nobody that it was told of has said anything: they may be behind something that changes addresses.
        let mut unanswered = Invited::new(seeds, true, now);
        assert!(!unanswered.hears(at(7), cluster(1), late - Duration::from_millis(1)));
        assert!(unanswered.hears(at(7), cluster(1), late));
        assert!(
            Invited::new(Arc::default(), false, now).hears(at(7), cluster(1), now),
            "it was told of nobody"
        );
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
