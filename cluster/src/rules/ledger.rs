//! Reads and writes what is replicated, from any node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::service::touched;
use crate::{
    fabric,
    ids::{NodeId, NodeStart, Revision},
    owner::leader::is_quorum,
    planted::PlantedBug,
    raft::{handle::Shared, leader_client::LeaderClient, reads::Reads, voters::voter_count},
    rpc::{
        caller::Caller,
        message::{Call, NotServed, Reply},
    },
    rules_in_force::RulesInForce,
    state::{
        applied::Applied,
        audit::Actor,
        command::{Act, Action, Expected, Extent, Origin, Outcome, RuleWrite, Written},
        token::ActError,
    },
};

/// How often something that is not there yet is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Longest that one attempt at a leader may take: another may have been elected meanwhile.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long other nodes are asked how many buckets they know.
const TOUCHED_WITHIN: Duration = Duration::from_secs(1);

/// What is replicated, as this node sees it, and the way to change it.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
    leader: Arc<LeaderClient>,
    rules: Arc<RulesInForce>,
    reads: Arc<Reads>,
}

/// New rules for a domain.
#[derive(Debug, Clone)]
pub struct NewRules {
    /// Whose.
    pub domain: String,
    /// The rules, whole.
    pub text: String,
    /// Where they come from.
    pub origin: Origin,
    /// What must be there.
    pub expected: Expected,
    /// Makes a repeated write happen once.
    pub key: String,
    /// Who writes.
    pub author: String,
    /// Why.
    pub message: String,
    /// How much they change.
    pub extent: Extent,
    /// Who asks for it; `None`: this node does, by itself.
    pub by: Option<Actor>,
}

impl NewRules {
    /// Rules that somebody wrote, whatever was there before.
    pub fn new(domain: &str, text: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            text: text.to_owned(),
            origin: Origin::Apply,
            expected: Expected::Any,
            key: format!("{:032x}", u128::from_be_bytes(fabric::random_bytes())),
            author: String::new(),
            message: String::new(),
            extent: Extent::default(),
            by: None,
        }
    }
}

/// Why rules were not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The rules are not what was expected.
    #[error("the rules are at {}", current.map_or("no revision".to_owned(), |revision| format!("revision {revision}")))]
    Mismatch {
        /// What they are.
        current: Option<Revision>,
    },
    /// The same idempotency key came with another write before.
    #[error("the idempotency key was used for another write before")]
    KeyReused,
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// Who asks may not, or it cannot be done.
    #[error("{0}")]
    NotDone(ActError),
    /// A quorum could not be reached in time.
    #[error("{0}")]
    NoQuorum(NoQuorum),
}

/// Who is missing for a decision of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoQuorum {
    /// Who votes.
    pub voters: Vec<String>,
    /// Those of them that cannot be seen.
    pub missing: Vec<String>,
    /// The leader, if there is one.
    pub leader: Option<String>,
    /// Why Raft does not run at this node, if it does not.
    pub trouble: Option<String>,
    /// Whether the write may have happened all the same.
    pub in_doubt: bool,
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(trouble) = &self.trouble {
            write!(f, "{trouble}")?;
        } else if self.voters.is_empty() {
            write!(f, "this node belongs to no cluster yet")?;
        } else if self.missing.is_empty() {
            let leader =
                self.leader.as_deref().map_or("no leader".to_owned(), |name| format!("the leader {name}"));
            write!(f, "the voters {} did not decide in time ({leader})", self.voters.join(", "))?;
        } else {
            let quorum = self.voters.len() / 2 + 1;
            let (missing, of) = (self.missing.join(", "), self.voters.len());
            write!(f, "{quorum} of {of} voters must be there; missing: {missing}")?;
        }
        if self.in_doubt {
            write!(f, "; whether it was written is not known: repeat it with the same idempotency key")?;
        }
        Ok(())
    }
}

/// Where a revision is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Names of live nodes where it is.
    pub applied_by: Vec<String>,
    /// Names of live nodes where it is not yet.
    pub behind: Vec<String>,
}

/// What one attempt came to.
enum Attempt<T> {
    Done(T),
    /// Nothing was done.
    Not,
    /// It may have been done.
    Unknown,
}

impl Ledger {
    pub(crate) fn new(shared: Arc<Shared>, leader: Arc<LeaderClient>, rules: Arc<RulesInForce>) -> Self {
        Self { shared, leader, rules, reads: Arc::default() }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn node_name(&self) -> &str {
        &self.shared.identity.me.name
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.clock.unix_millis()
    }

    pub(super) fn rules(&self) -> &RulesInForce {
        &self.rules
    }

    /// This node's id in the group.
    pub fn id(&self) -> NodeId {
        self.shared.me
    }

    /// What this node has applied, without asking anybody.
    pub fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.shared.applied.borrow())
    }

    /// Has the leader give all slots of a node to others (`on`), or let it have some again; whether that was written before
    /// the deadline.
    pub async fn drain(&self, start: NodeStart, on: bool, deadline: Instant) -> bool {
        self.leader.write(|| Call::Drain { start, on }, deadline).await
    }

    /// Whether this node has a vote, as far as it knows that for sure: a change that is written and not agreed on is none.
    pub(crate) fn votes(&self) -> bool {
        self.shared.raft.running().is_some_and(|running| running.may_vote(self.shared.me))
    }

    /// Whether these are no quorum without this node, as far as is agreed on.
    pub(crate) fn is_needed(&self, others: &BTreeSet<NodeId>) -> bool {
        let Some(running) = self.shared.raft.running() else { return false };
        running.may_vote(self.shared.me) && !is_quorum(&running.voters(), |id| others.contains(&id))
    }

    /// Whether this node has a session soon if it has none: those that are there are a quorum.
    pub(crate) fn has_quorum_in_sight(&self) -> bool {
        let Some(running) = self.shared.raft.running() else { return false };
        let live: BTreeSet<NodeId> = self.shared.live().iter().filter_map(|member| member.node).collect();
        is_quorum(&running.voters(), |id| id == self.shared.me || live.contains(&id))
    }

    /// Whether this node has no vote while those that are alive should have more votes than there are.
    pub(crate) fn awaits_vote(&self) -> bool {
        let Some(running) = self.shared.raft.running() else { return false };
        let voters = running.voters().pop().unwrap_or_default();
        if voters.contains(&self.shared.me) {
            return false;
        }
        let applied = self.applied();
        let drains = |id: &NodeId| applied.state.draining.iter().any(|start| start.node == *id);
        let live = self.shared.live();
        let staying = live.iter().filter_map(|member| member.node).filter(|id| !drains(id));
        let members: BTreeSet<NodeId> = staying.filter(|id| running.has_member(*id)).collect();
        members.intersection(&voters).count() < voter_count(members.len())
    }

    /// Whether a node has a part in the group: gets the log, or votes.
    pub(crate) fn has_part(&self, node: NodeId) -> bool {
        self.shared.raft.running().is_some_and(|running| running.has_member(node))
    }

    /// How long this node has not heard from the leader; `None`: never.
    pub fn age(&self) -> Option<Duration> {
        if self.shared.raft.running().is_some_and(|running| running.is_leader()) {
            return Some(Duration::ZERO);
        }
        self.shared.contacts.heard().leader_or_led().map(|heard| heard.elapsed())
    }

    /// Why some rules of the log are not in force at this node.
    pub fn broken(&self) -> Vec<String> {
        self.rules.progress.borrow().broken.clone()
    }

    /// Writes at the leader, and returns when the rules are in force at this node too, or at the deadline. A leader that
    /// is lost on the way is followed by the next; the key sees to it that it is written once.
    ///
    /// # Errors
    /// When it was not written, or may not have been.
    pub async fn write(&self, new: NewRules, deadline: Instant) -> Result<Written, WriteError> {
        let NewRules { domain, text, origin, expected, key, author, message, extent, by } = new;
        let write = RuleWrite {
            domain: domain.into(),
            text: text.into(),
            origin,
            expected,
            key,
            author,
            message,
            node: self.shared.identity.me.name.to_string(),
            at_ms: self.shared.clock.unix_millis(),
            extent,
        };
        let outcome = match by {
            Some(actor) => self.act(Act::Write(write), actor, deadline).await?,
            None => {
                self.ask_to_write(|patience_ms| Call::Write { write: write.clone(), patience_ms }, deadline)
                    .await?
            }
        };
        match outcome {
            Outcome::Written(written) => {
                self.reach_here(written.revision, deadline).await;
                Ok(written)
            }
            Outcome::Mismatch { current } => Err(WriteError::Mismatch { current }),
            Outcome::KeyReused => Err(WriteError::KeyReused),
            Outcome::Full(reason) => Err(WriteError::Full(reason)),
            Outcome::NotDone(error) => Err(WriteError::NotDone(error)),
            Outcome::Done => unreachable!("a write is answered as one"),
        }
    }

    /// Has the leader do what somebody asked for. A leader that is lost on the way is followed by the next, and it is done once.
    pub(crate) async fn act(&self, act: Act, actor: Actor, deadline: Instant) -> Result<Outcome, WriteError> {
        let action = Action {
            actor,
            node: self.shared.identity.me.name.to_string(),
            at_ms: self.shared.clock.unix_millis(),
            key: u64::from_be_bytes(fabric::random_bytes()),
            act,
        };
        self.ask_to_write(|patience_ms| Call::Act { action: action.clone(), patience_ms }, deadline).await
    }

    async fn ask_to_write(
        &self,
        call: impl Fn(u64) -> Call,
        deadline: Instant,
    ) -> Result<Outcome, WriteError> {
        let mut in_doubt = false;
        loop {
            if Instant::now() >= deadline {
                return Err(WriteError::NoQuorum(self.no_quorum(in_doubt)));
            }
            match timeout_at(deadline, self.try_write(&call, deadline)).await {
                Ok(Attempt::Done(outcome)) => return Ok(outcome),
                Ok(Attempt::Not) => {}
                Ok(Attempt::Unknown) | Err(_) => in_doubt = true,
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn try_write(&self, call: impl Fn(u64) -> Call, deadline: Instant) -> Attempt<Outcome> {
        let patience = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
        let answer = match self.leader.ask(call(patience.as_millis() as u64), patience + LOOK_EVERY).await {
            Ok(Reply::Write(answer)) => answer,
            Ok(_) => Err(NotServed::Unknown),
            Err(error) => Err(error),
        };
        match answer {
            Ok(outcome) => Attempt::Done(outcome),
            Err(NotServed::NotLeader) => Attempt::Not,
            Err(NotServed::Unknown) => Attempt::Unknown,
        }
    }

    /// All that was acknowledged before this call, whichever node acknowledged it.
    ///
    /// # Errors
    /// When a quorum cannot be reached in time.
    pub async fn latest(&self, deadline: Instant) -> Result<Arc<Applied>, NoQuorum> {
        if PlantedBug::StaleReads.is_on() {
            return Ok(self.applied());
        }
        loop {
            match timeout_at(deadline, self.try_read_index(deadline)).await {
                Ok(Attempt::Done(index)) => {
                    let mut applied = self.shared.applied.subscribe();
                    let reached =
                        timeout_at(deadline, applied.wait_for(|applied| applied.index >= index)).await;
                    if let Ok(Ok(applied)) = reached {
                        return Ok(Arc::clone(&applied));
                    }
                }
                Ok(Attempt::Not | Attempt::Unknown) | Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(self.no_quorum(false));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn try_read_index(&self, deadline: Instant) -> Attempt<u64> {
        let ask = async || {
            let patience = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
            let call = Call::ReadIndex { patience_ms: patience.as_millis() as u64 };
            match self.leader.ask(call, patience + LOOK_EVERY).await {
                Ok(Reply::ReadIndex(answer)) => answer.ok(),
                Ok(_) | Err(_) => None,
            }
        };
        let is_hasty = deadline.saturating_duration_since(Instant::now()) < ATTEMPT;
        self.reads.index(is_hasty, ask).await.map_or(Attempt::Not, Attempt::Done)
    }

    /// Returns when what the log says up to a revision is in force here, or at the deadline.
    async fn reach_here(&self, revision: Revision, deadline: Instant) {
        let mut in_force = self.rules.progress.subscribe();
        let reached = in_force.wait_for(|now| now.index >= revision.get() || !now.broken.is_empty());
        let _ = timeout_at(deadline, reached).await;
    }

    /// Returns when a revision is in force at all nodes that are alive, or at the deadline.
    pub async fn everywhere(&self, revision: Revision, deadline: Instant) -> Spread {
        loop {
            let spread = self.spread(revision);
            if spread.behind.is_empty() || Instant::now() >= deadline {
                return spread;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where a revision is in force, as far as this node has heard.
    pub fn spread(&self, revision: Revision) -> Spread {
        let mut spread = Spread::default();
        let cluster = self.shared.belonging.get();
        let here = self.rules.progress.borrow().index;
        for member in self.shared.live() {
            let me = member.node == Some(self.shared.me);
            if !me && member.group.is_some() && member.group != cluster {
                continue;
            }
            let index = if me { here } else { member.in_force.unwrap_or(0) };
            let names = if index >= revision.get() { &mut spread.applied_by } else { &mut spread.behind };
            names.push(member.id.name.to_string());
        }
        spread
    }

    pub(crate) fn no_quorum(&self, in_doubt: bool) -> NoQuorum {
        let status = self.status();
        let live: Vec<String> = self.shared.live().iter().map(|member| member.id.name.to_string()).collect();
        let missing = status.voters.iter().filter(|name| !live.contains(name)).cloned().collect();
        NoQuorum { voters: status.voters, missing, leader: status.leader, trouble: status.trouble, in_doubt }
    }

    /// For each of some rules of a domain the joined registers of all live nodes; see [`tidegate_limiter::cluster::estimate`].
    pub async fn touched(&self, domain: &str, rules: &[String]) -> Vec<Vec<u8>> {
        let mut joined = touched(&self.rules, domain, rules);
        let others: Vec<_> =
            self.shared.live().into_iter().filter(|member| member.node != Some(self.shared.me)).collect();
        let asked = others.iter().filter_map(|member| {
            let mut caller = Caller::new(&self.shared.calling, member.node?, member.raft_node());
            let call = Call::Touched { domain: domain.to_owned(), rules: rules.to_vec() };
            Some(async move { caller.call(call, TOUCHED_WITHIN).await })
        });
        for answer in futures_util::future::join_all(asked).await {
            let Ok(Reply::Touched(theirs)) = answer else { continue };
            for (ours, theirs) in joined.iter_mut().zip(theirs) {
                join(ours, &theirs);
            }
        }
        joined
    }

    /// The changes of what is replicated.
    pub fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.shared.applied.subscribe()
    }

    /// How far each live node is, by name.
    pub fn in_force_by_node(&self) -> BTreeMap<String, Option<u64>> {
        let here = self.rules.progress.borrow().index;
        let of = |member: &crate::Member| {
            if member.node == Some(self.shared.me) { Some(here) } else { member.in_force }
        };
        self.shared.live().iter().map(|member| (member.id.name.to_string(), of(member))).collect()
    }
}

fn join(ours: &mut Vec<u8>, theirs: &[u8]) {
    if ours.len() < theirs.len() {
        ours.resize(theirs.len(), 0);
    }
    for (our, their) in ours.iter_mut().zip(theirs) {
        *our = (*our).max(*their);
    }
}
