//! What stands behind `--join`, asked before a cluster is founded: another one may be there already.
//!
//! Each address is asked over the peer port, with the proof of the cluster key on both sides, whether its node belongs to a
//! cluster. **A new cluster is founded only when every address has answered that it does not, or has not answered for
//! [`ABSENT_AFTER`]**: nodes that are started later with the same arguments find the first cluster that way, as long as any
//! of its nodes can be reached. Of two nodes that want to found at the same time, each says so before it asks, so that at
//! least one of them learns of the other.
//!
//! Each entry of `--join` has one task, which looks its name up, asks, and waits: a name service that hangs holds one
//! look-up for each entry, and not more with time.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::belonging::Belonging;
use crate::{
    ids::{ClusterId, NodeId},
    link::Identity,
    names::addresses_of,
    rpc::{
        caller::{Asked, introduce},
        message::{Introduction, Standing},
    },
};

/// An address that has not answered for so long counts as one where no node is.
pub(crate) const ABSENT_AFTER: Duration = Duration::from_secs(5);
/// The same for an address where a node of a cluster has answered before: it is likely to come back.
const CLUSTER_ABSENT_AFTER: Duration = Duration::from_secs(30);
/// How often an address is asked, and how much longer for each entry of `--join`.
const ASK_EVERY: Duration = Duration::from_millis(300);
const ASK_EVERY_FOR_EACH: Duration = Duration::from_millis(10);
/// Addresses that are asked at one time.
const ASKED_AT_ONCE: usize = 64;
/// Addresses that a name may stand for; more are not asked.
const MAX_ADDRESSES: usize = 256;
/// How many addresses a message names.
const MAX_NAMED: usize = 4;

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Contact {
    /// It does not answer, since then. `knew`: a node of a cluster did before.
    Silent {
        since: Instant,
        knew: bool,
    },
    /// It is this node's.
    Myself,
    /// A node of Tidegate answers, and will not talk to this one.
    Refuses(String),
    Introduced(Introduction),
}

/// An entry of `--join`.
#[derive(Debug)]
struct Entry {
    text: String,
    /// Since when its name stands for no address.
    unresolved: Option<Instant>,
    contacts: BTreeMap<SocketAddr, Contact>,
}

/// The node that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) belonging: &'a Belonging,
    /// Its own peer port.
    pub(crate) peer: SocketAddr,
}

/// What stands behind `--join`.
#[derive(Debug)]
pub(crate) struct Survey {
    entries: Mutex<Vec<Entry>>,
    asking: Semaphore,
}

/// Why no cluster is founded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// One is there.
    Cluster { at: SocketAddr, name: String, cluster: ClusterId },
    /// A node will not talk to this one.
    Refuses { at: SocketAddr, why: String },
    /// Another node founds one.
    Founding { at: SocketAddr, name: String },
    /// These do not answer, yet.
    Silent(Vec<String>),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster { at, name, cluster } => write!(
                f,
                "{name} at {at} belongs to the cluster {cluster} already: its leader has to take this node in"
            ),
            Self::Refuses { at, why } => {
                write!(f, "a node at {at} refuses this one, and may belong to the cluster: {why}")
            }
            Self::Founding { at, name } => write!(f, "{name} at {at} is about to found a cluster"),
            Self::Silent(silent) => {
                let named = silent[..silent.len().min(MAX_NAMED)].join(", ");
                let more = silent.len().saturating_sub(MAX_NAMED);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                write!(
                    f,
                    "no answer from {named}{more} of --join: each is asked for {ABSENT_AFTER:?} whether there is a cluster already"
                )
            }
        }
    }
}

impl Survey {
    /// Nobody has been asked.
    pub(crate) fn new(join: &[String], now: Instant) -> Self {
        let entry =
            |text: &String| Entry { text: text.clone(), unresolved: Some(now), contacts: BTreeMap::new() };
        Self { entries: Mutex::new(join.iter().map(entry).collect()), asking: Semaphore::new(ASKED_AT_ONCE) }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks again and again, as long as this node belongs to no cluster. Runs until it is dropped.
    pub(crate) async fn keep(&self, asker: Asker<'_>) {
        let count = self.entries().len();
        let every = ASK_EVERY.max(ASK_EVERY_FOR_EACH * count as u32);
        let keep = |place| async move {
            loop {
                if asker.belonging.get().is_none() {
                    self.resolve(place).await;
                    self.ask(place, asker).await;
                }
                sleep(every).await;
            }
        };
        join_all((0..count).map(keep)).await;
    }

    /// Asks all addresses that are known once more, at the same time.
    pub(crate) async fn ask_all(&self, asker: Asker<'_>) {
        let count = self.entries().len();
        join_all((0..count).map(|place| self.ask(place, asker))).await;
    }

    async fn resolve(&self, place: usize) {
        let text = self.entries()[place].text.clone();
        let mut addresses = addresses_of(&text).await.unwrap_or_default();
        addresses.truncate(MAX_ADDRESSES);
        self.take_addresses(place, &addresses, Instant::now());
    }

    fn take_addresses(&self, place: usize, addresses: &[SocketAddr], now: Instant) {
        let entry = &mut self.entries()[place];
        if addresses.is_empty() {
            // Whoever was there may still be.
            entry.unresolved.get_or_insert(now);
            return;
        }
        entry.unresolved = None;
        entry.contacts.retain(|address, _| addresses.contains(address));
        for address in addresses {
            entry.contacts.entry(*address).or_insert(Contact::Silent { since: now, knew: false });
        }
    }

    async fn ask(&self, place: usize, asker: Asker<'_>) {
        let addresses: Vec<SocketAddr> = self.entries()[place].contacts.keys().copied().collect();
        join_all(addresses.into_iter().map(|address| async move {
            // It is never closed.
            let Ok(_permit) = self.asking.acquire().await else { return };
            let asked =
                if address == asker.peer { Asked::Myself } else { introduce(asker.identity, address).await };
            self.note(place, address, asked, Instant::now());
        }))
        .await;
    }

    fn note(&self, place: usize, address: SocketAddr, asked: Asked, now: Instant) {
        let mut entries = self.entries();
        let Some(contact) = entries[place].contacts.get_mut(&address) else { return };
        *contact = match asked {
            Asked::Myself => Contact::Myself,
            Asked::Introduced(introduction) => Contact::Introduced(introduction),
            Asked::Refuses(why) => Contact::Refuses(why),
            // It may be a node of the cluster: as likely to answer later as one that has answered before.
            Asked::Mute => match contact {
                Contact::Silent { since, .. } => Contact::Silent { since: *since, knew: true },
                _ => Contact::Silent { since: now, knew: true },
            },
            Asked::Silent => match contact {
                Contact::Silent { .. } => return,
                Contact::Introduced(before) => {
                    Contact::Silent { since: now, knew: matches!(before.standing, Standing::Bound(_)) }
                }
                _ => Contact::Silent { since: now, knew: false },
            },
        };
    }

    /// Whether nothing that is known speaks against a cluster that `proposer` founds.
    pub(crate) fn verdict(&self, proposer: NodeId, now: Instant) -> Result<(), Obstacle> {
        let entries = self.entries();
        let contacts = || entries.iter().flat_map(|entry| &entry.contacts);
        for (at, contact) in contacts() {
            if let Contact::Introduced(Introduction { standing: Standing::Bound(cluster), name, .. }) =
                contact
            {
                return Err(Obstacle::Cluster { at: *at, name: name.clone(), cluster: *cluster });
            }
        }
        for (at, contact) in contacts() {
            let found = match contact {
                Contact::Refuses(why) => return Err(Obstacle::Refuses { at: *at, why: why.clone() }),
                Contact::Introduced(found) => found,
                Contact::Silent { .. } | Contact::Myself => continue,
            };
            let founds = match found.standing {
                Standing::Proposing => found.id != proposer,
                Standing::Promised(to) => to != proposer,
                Standing::Free | Standing::Bound(_) => false,
            };
            if founds {
                return Err(Obstacle::Founding { at: *at, name: found.name.clone() });
            }
        }
        let silent: Vec<String> = entries
            .iter()
            .flat_map(|entry| {
                let unresolved = entry.unresolved.filter(|since| now.duration_since(*since) < ABSENT_AFTER);
                let silent = entry.contacts.iter().filter_map(|(address, contact)| {
                    let Contact::Silent { since, knew } = contact else { return None };
                    let absent_after = if *knew { CLUSTER_ABSENT_AFTER } else { ABSENT_AFTER };
                    (now.duration_since(*since) < absent_after).then(|| address.to_string())
                });
                unresolved.map(|_| entry.text.clone()).into_iter().chain(silent).collect::<Vec<_>>()
            })
            .collect();
        if silent.is_empty() { Ok(()) } else { Err(Obstacle::Silent(silent)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = 7;

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 7803).into()
    }

    fn introduced(id: NodeId, standing: Standing) -> Asked {
        Asked::Introduced(Introduction { id, name: format!("n{id}"), standing, has_log: false })
    }

    /// Two entries, of which the second stands for two addresses.
    fn survey(now: Instant) -> Survey {
        let survey = Survey::new(&["one:1".to_owned(), "two:1".to_owned()], now);
        survey.take_addresses(0, &[at(1)], now);
        survey.take_addresses(1, &[at(2), at(3)], now);
        survey
    }

    #[test]
    fn a_cluster_is_founded_when_all_have_answered_that_they_have_none() {
        let now = Instant::now();
        let survey = survey(now);
        survey.note(0, at(1), Asked::Myself, now);
        survey.note(1, at(2), introduced(2, Standing::Free), now);
        let Err(Obstacle::Silent(silent)) = survey.verdict(ME, now) else { panic!("one was not asked") };
        assert_eq!(silent, ["10.0.0.3:7803"]);
        survey.note(1, at(3), introduced(3, Standing::Promised(ME)), now);
        assert_eq!(survey.verdict(ME, now), Ok(()));
        // For another proposer n3 is taken.
        assert!(matches!(survey.verdict(2, now), Err(Obstacle::Founding { .. })));
    }

    #[test]
    fn who_does_not_answer_is_waited_for_and_who_had_a_cluster_for_longer() {
        let start = Instant::now();
        let survey = survey(start);
        for (place, last) in [(0, 1), (1, 2), (1, 3)] {
            survey.note(place, at(last), Asked::Silent, start);
        }
        assert!(survey.verdict(ME, start + ABSENT_AFTER - Duration::from_millis(1)).is_err());
        assert_eq!(survey.verdict(ME, start + ABSENT_AFTER), Ok(()));
        // It answers once, and goes: the time begins again, and is longer.
        let cluster = ClusterId::from_bytes([9; 16]);
        let later = start + ABSENT_AFTER;
        survey.note(0, at(1), introduced(1, Standing::Bound(cluster)), later);
        assert!(matches!(survey.verdict(ME, later), Err(Obstacle::Cluster { .. })));
        survey.note(0, at(1), Asked::Silent, later);
        assert!(survey.verdict(ME, later + ABSENT_AFTER).is_err());
        assert_eq!(survey.verdict(ME, later + CLUSTER_ABSENT_AFTER), Ok(()));
        // A node that is too busy to answer is one that may have a cluster.
        survey.note(1, at(3), Asked::Mute, later);
        assert!(survey.verdict(ME, later + ABSENT_AFTER).is_err());
        assert_eq!(survey.verdict(ME, later + CLUSTER_ABSENT_AFTER), Ok(()));
        survey.note(1, at(3), Asked::Silent, later + ABSENT_AFTER);
        // One that has another key will have it tomorrow.
        survey.note(1, at(2), Asked::Refuses("another key".to_owned()), later);
        assert!(matches!(
            survey.verdict(ME, later + Duration::from_secs(86_400)),
            Err(Obstacle::Refuses { .. })
        ));
    }

    #[test]
    fn a_name_that_stands_for_nothing_is_waited_for_and_one_that_moves_is_asked_where_it_is() {
        let start = Instant::now();
        let survey = Survey::new(&["one:1".to_owned()], start);
        assert_eq!(survey.verdict(ME, start), Err(Obstacle::Silent(vec!["one:1".to_owned()])));
        survey.take_addresses(0, &[], start);
        assert_eq!(survey.verdict(ME, start + ABSENT_AFTER), Ok(()));
        let later = start + ABSENT_AFTER;
        survey.take_addresses(0, &[at(1)], later);
        survey.note(0, at(1), introduced(1, Standing::Free), later);
        survey.take_addresses(0, &[at(2)], later);
        assert_eq!(survey.verdict(ME, later), Err(Obstacle::Silent(vec![at(2).to_string()])));
        // What answers to one who was dropped meanwhile is nobody's.
        survey.note(0, at(1), introduced(1, Standing::Bound(ClusterId::from_bytes([1; 16]))), later);
        assert_eq!(survey.verdict(ME, later + ABSENT_AFTER), Ok(()));
    }

    #[test]
    fn of_two_that_propose_each_sees_the_other() {
        let now = Instant::now();
        let survey = Survey::new(&["one:1".to_owned()], now);
        survey.take_addresses(0, &[at(1)], now);
        survey.note(0, at(1), introduced(1, Standing::Proposing), now);
        assert!(matches!(survey.verdict(ME, now), Err(Obstacle::Founding { .. })));
        assert_eq!(survey.verdict(1, now), Ok(()), "who answers the proposer's own question");
    }
}
