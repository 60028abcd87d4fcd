//! What a node can tell of its cluster.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    member::{Member, MemberId, MemberState},
    router::Router,
    routes::Peer,
    slots::{SlotId, SlotTable},
};

/// A node with a slot table that cannot reach a member for so long after its start is ready all the same: it has an
/// answer for each check, and waiting longer would not help.
const LINKS_EXPECTED_WITHIN: Duration = Duration::from_secs(5);

/// So long after its start a node without a session is ready all the same: those that are there seem to be a quorum, and are none.
const SESSION_EXPECTED_WITHIN: Duration = Duration::from_secs(30);

/// So long after its start a node without a vote is ready all the same: it may be too far behind to get one soon.
const VOTE_EXPECTED_WITHIN: Duration = Duration::from_secs(10);

/// A member that was live.
#[derive(Debug, Clone)]
pub struct Lost {
    /// What was last known of it.
    pub member: Member,
    /// When gossip gave it up.
    pub since: Instant,
}

/// A node's view of its cluster.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// This node.
    pub me: MemberId,
    /// Where this node stands.
    pub state: MemberState,
    /// The nodes that gossip holds for alive, this one among them, by name.
    pub live: Vec<Member>,
    /// A newer node that is said to have this node's name.
    pub(crate) name_conflict: Option<Member>,
    /// Names that several live nodes have, with the addresses of these: for a moment that is so after a restart.
    pub twins: BTreeMap<Arc<str>, Vec<SocketAddr>>,
    /// Those that it held for alive some time ago.
    pub lost: Vec<Lost>,
    /// The slot table in force; none while the node waits for its cluster.
    pub table: Option<Arc<SlotTable>>,
    /// What the node waits for.
    pub waiting_for: Option<String>,
    /// Whether this node has a session with the leader.
    pub has_session: bool,
    /// How many slots are on their way to another owner.
    pub moving: usize,
    /// How many slots are not where they should be, as far as this node can tell.
    pub misplaced: usize,
    /// Whether gossip works.
    pub gossip_alive: bool,
    /// Since when there is a table.
    pub(crate) table_since: Option<Instant>,
    /// Whether the node was ready once: it stays so, whatever happens to others.
    was_ready: Arc<AtomicBool>,
}

/// What a node has not got yet since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ToCome {
    /// A session, which those that are there can give.
    pub(crate) session: bool,
    /// A vote: there are too few.
    pub(crate) vote: bool,
}

/// Whether a node can decide checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot yet (or no longer), for this reason.
    NotReady(String),
}

impl ClusterStatus {
    pub(crate) fn new(me: MemberId) -> Self {
        Self {
            me,
            state: MemberState::Joining,
            live: Vec::new(),
            name_conflict: None,
            twins: BTreeMap::new(),
            lost: Vec::new(),
            table: None,
            waiting_for: Some("the first news from gossip".to_owned()),
            has_session: false,
            moving: 0,
            misplaced: 0,
            gossip_alive: true,
            table_since: None,
            was_ready: Arc::default(),
        }
    }

    /// How many slots each member of the table owns, by name.
    pub fn slots_owned(&self) -> Vec<(Arc<str>, usize)> {
        let Some(table) = &self.table else { return Vec::new() };
        let mut counts = vec![0; table.members().len()];
        SlotId::all().for_each(|slot| counts[table.owner_index(slot)] += 1);
        table.members().iter().cloned().zip(counts).collect()
    }

    /// Whether the node was ready once.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Where it has not been ready since its start, `to_come` says what it still gets, as far as others can give it.
    pub(crate) fn readiness(&self, router: &Router, to_come: ToCome) -> Readiness {
        if self.state == MemberState::Leaving {
            return Readiness::NotReady("this node is leaving the cluster".to_owned());
        }
        if let Some(reason) = &self.waiting_for {
            return Readiness::NotReady(format!("waiting for {reason}"));
        }
        let (Some(routes), Some(since)) = (router.routes(), self.table_since) else {
            return Readiness::NotReady("this node has no slot table yet".to_owned());
        };
        // Others have its slots, or will, and each of its answers may be by rules that are no longer in force.
        if let Some((needed, applied)) = router.lag() {
            return Readiness::NotReady(format!(
                "this node has no session: it has applied the log up to {applied} and must have applied it up to {needed}; if that stays so, its disk does not answer"
            ));
        }
        if self.was_ready.load(Ordering::Relaxed) {
            return Readiness::Ready;
        }
        // Whoever replaces nodes goes on to the next when this one is ready: it has to count.
        if to_come.session && since.elapsed() < SESSION_EXPECTED_WITHIN {
            return Readiness::NotReady(
                "waiting for a session with the leader (`tidegate cluster status`)".to_owned(),
            );
        }
        if to_come.vote && since.elapsed() < VOTE_EXPECTED_WITHIN {
            return Readiness::NotReady("waiting for its vote in the Raft group".to_owned());
        }
        let missing: Vec<&str> = routes
            .peers
            .iter()
            .flatten()
            .filter(|peer| !self.can_decide_with(peer))
            .map(|peer| &*peer.member.id.name)
            .collect();
        if !missing.is_empty() && since.elapsed() < LINKS_EXPECTED_WITHIN {
            return Readiness::NotReady(format!("waiting for links to {}", missing.join(", ")));
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Readiness::Ready
    }

    /// Whether this node can reach the member, and the member says that it serves.
    fn can_decide_with(&self, peer: &Peer) -> bool {
        peer.is_linked()
            && self
                .live
                .iter()
                .any(|member| member.id == peer.member.id && member.state == MemberState::Serving)
    }
}
