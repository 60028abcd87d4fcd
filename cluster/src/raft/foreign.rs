//! A second cluster of the same name: found, and said.
//!
//! It should not come to be, but can: when no node of the first cluster could be reached while the second one was founded, or
//! when a data directory of another cluster is started here. Each of the two admits every limit by itself, so every node of
//! both that meets one of the other says so, in its log, in `/readyz` and as `trouble`. Gossip names addresses; who is there is asked
//! before it counts, and known for as long as it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::handle::Shared;
use crate::{
    ids::{ClusterId, NodeId},
    member::Member,
    raft::belonging::Foreign,
    rpc::{
        caller::{Asked, introduce},
        message::Standing,
    },
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Addresses that are asked each time.
const MAX_ASKED: usize = 64;
/// Nodes that a message names.
const MAX_NAMED: usize = 5;

/// Runs until it is dropped.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut news = shared.foreign.watch();
    // Where nodes of other clusters were the last time.
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            // It lives as long as this task.
            _ = news.changed() => {}
        }
        let found = match shared.belonging.get() {
            Some(ours) => find(&shared, ours, &mut known).await,
            None => None,
        };
        shared.founding.foreign.send_if_modified(|known| {
            let is_news = *known != found;
            if is_news {
                match &found {
                    Some(found) => error!(trouble = found.text, "foreign_cluster_found"),
                    None => info!("foreign_cluster_gone"),
                }
                *known = found;
            }
            is_news
        });
    }
}

async fn find(shared: &Shared, ours: ClusterId, known: &mut BTreeSet<SocketAddr>) -> Option<Foreign> {
    let heard = shared.foreign.heard(Instant::now());
    known.extend(heard.into_keys());
    let asked = known.iter().take(MAX_ASKED).map(|address| async move {
        match introduce(&shared.identity, *address).await {
            Asked::Introduced(found) => match found.standing {
                Standing::Bound(theirs) if theirs != ours => Some((*address, found.id, theirs, found.name)),
                _ => None,
            },
            _ => None,
        }
    });
    let found: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    *known = found.iter().map(|(address, ..)| *address).collect();
    // One may have several addresses.
    let theirs: BTreeMap<NodeId, (ClusterId, String)> =
        found.into_iter().map(|(_, id, cluster, name)| (id, (cluster, name))).collect();
    describe(&shared.identity.cluster, ours, &shared.live(), theirs.into_values().collect())
}

fn describe(
    name: &str,
    ours: ClusterId,
    live: &[Member],
    theirs: Vec<(ClusterId, String)>,
) -> Option<Foreign> {
    let mut clusters: BTreeMap<ClusterId, Vec<String>> = BTreeMap::new();
    for (cluster, node) in theirs {
        clusters.entry(cluster).or_default().push(node);
    }
    let (cluster, nodes) = clusters.into_iter().max_by_key(|(_, nodes)| nodes.len())?;
    let with_us = live.iter().filter(|member| member.group == Some(ours)).count().max(1);
    let named = nodes[..nodes.len().min(MAX_NAMED)].join(", ");
    let more = if nodes.len() > MAX_NAMED { ", ..." } else { "" };
    let is_larger = nodes.len() > with_us;
    let stays = if is_larger { "the other one, which is larger" } else { "this one" };
    let text = format!(
        "a second cluster named {name:?} is there: {} nodes ({named}{more}) belong to {cluster}, {with_us} with this node to {ours}, and each admits every limit by itself. Keep one, most likely {stays}: stop the nodes of the other and start them again with an empty --data-dir and with --join naming nodes of the one that stays",
        nodes.len()
    );
    Some(Foreign { text, is_larger })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Weight,
        member::{MemberId, MemberState},
    };

    fn member(number: u8, group: ClusterId) -> Member {
        Member {
            id: MemberId { name: format!("n{number}").into(), incarnation: 1 },
            state: MemberState::Serving,
            peer: ([10, 0, 0, number], 7803).into(),
            http: None,
            grpc: None,
            zone: None,
            weight: Weight::default(),
            node: Some(number.into()),
            group: Some(group),
            in_force: None,
            expects: true,
        }
    }

    #[test]
    fn both_sides_name_the_other_and_the_smaller_one_knows_that_it_is() {
        let (one, two) = (ClusterId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16]));
        let live: Vec<Member> = (1..=3).map(|number| member(number, one)).chain([member(4, two)]).collect();
        assert_eq!(describe("c", one, &live, Vec::new()), None);
        let seen = describe("c", one, &live, vec![(two, "n4".to_owned())]).unwrap();
        assert!(!seen.is_larger && seen.text.contains("(n4)") && seen.text.contains("this one"), "{seen:?}");
        let theirs = (1..=3).map(|number| (one, format!("n{number}"))).collect();
        let seen = describe("c", two, &live, theirs).unwrap();
        assert!(seen.is_larger && seen.text.contains("n1, n2, n3"), "{seen:?}");
        assert!(seen.text.contains("--data-dir"));
    }
}
