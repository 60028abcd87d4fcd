//! How the group is founded, once.
//!
//! Only nodes that were told to expect others (`--bootstrap-expect`) found a cluster; a node that only joins neither founds one
//! nor is waited for. When enough of them see each other, the one with the lowest id says that it is about to found a cluster
//! and asks all of `--join` whether there is one ([`Survey`](super::survey::Survey)). Then it proposes a new cluster to all
//! that shall vote. Each of them asks its own `--join`, and promises, on its disk, if nothing speaks against it. Only when all
//! have promised does the proposer write the first entry, and within [`FOUND_WITHIN`]: promises last much longer.
//!
//! A node is bound to a cluster when Raft is given the first thing of it ([`Belonging`](super::belonging::Belonging)), and
//! from then on never founds or follows another one. What a crash in the middle leaves behind is finished after the restart,
//! or found out to be dead ([`abandon`](super::abandon)).

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{belonging::Promise, handle::Shared, running::Running, voters::voter_count};
use crate::{
    fabric,
    ids::{ClusterId, NodeId, RaftNode},
    member::{Member, MemberState},
    planted::PlantedBug,
    rpc::{
        caller::Caller,
        error::CallError,
        message::{Call, Proposal, Reply},
    },
};

/// How long another node is waited for: it asks all of its own `--join` before it answers, and syncs its disk.
const PATIENCE: Duration = Duration::from_millis(2500);
/// From the first question to the first entry.
const FOUND_WITHIN: Duration = Duration::from_secs(4);
/// The founders must have been the same for so long: who starts together is seen together.
const SETTLE: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After an attempt that came to nothing, between nothing and so long: two that hinder each other do not do so again.
const SPREAD: Duration = Duration::from_millis(400);

const _: () = assert!(
    FOUND_WITHIN.as_millis() * 2 < super::belonging::PROMISE_LASTS.as_millis(),
    "no promise may be over before its proposer has given up"
);

/// Founds a cluster with the others, if this node expects others and there is none. Runs until it is dropped.
pub(crate) async fn form(shared: Arc<Shared>) {
    let Some(expect) = shared.founding.expect else { return };
    tokio::join!(shared.founding.survey.keep(shared.asker()), found_when_enough(&shared, expect));
}

async fn found_when_enough(shared: &Shared, expect: u32) {
    let mut founders: Vec<NodeId> = Vec::new();
    let mut since = Instant::now();
    let mut said = String::new();
    loop {
        sleep(LOOK_EVERY).await;
        let Some(running) = shared.raft.running() else { continue };
        if shared.belonging.get().is_some() {
            shared.founding.set_obstacle(None);
            finish(shared, &running).await;
            sleep(SETTLE).await;
            continue;
        }
        let live = shared.live();
        let waiting = waiting_nodes(&live);
        let lowest = waiting.first().map(|(id, _)| *id);
        let seen: Vec<NodeId> = waiting.iter().map(|(id, _)| *id).collect();
        if seen != founders {
            (founders, since) = (seen, Instant::now());
        }
        let settled = founders.len() == 1 || since.elapsed() >= SETTLE;
        if waiting.len() < expect as usize || !settled || live.iter().any(|member| member.group.is_some()) {
            shared.founding.set_obstacle(None);
            continue;
        }
        let obstacle = match lowest {
            Some(lowest) if lowest == shared.me => found(shared, &running, waiting).await,
            Some(lowest) => {
                shared.founding.survey.verdict(lowest, Instant::now()).map_err(|one| one.to_string())
            }
            None => Ok(()),
        };
        let Err(reason) = obstacle else { continue };
        if said != reason {
            info!(waits_for = reason, "cluster_not_founded_yet");
            said.clone_from(&reason);
        }
        shared.founding.set_obstacle(Some(reason));
        sleep(LOOK_EVERY + random(SPREAD)).await;
    }
}

/// Those that expect others and belong to no cluster, by id.
fn waiting_nodes(live: &[Member]) -> Vec<(NodeId, RaftNode)> {
    let waits = |member: &&Member| {
        let counts = member.expects || PlantedBug::JoinersCount.is_on();
        counts && member.state == MemberState::Joining && member.group.is_none()
    };
    let mut waiting: Vec<(NodeId, RaftNode)> =
        live.iter().filter(waits).filter_map(|member| Some((member.node?, member.raft_node()))).collect();
    waiting.sort_unstable_by_key(|(id, _)| *id);
    waiting
}

async fn found(shared: &Shared, running: &Running, waiting: Vec<(NodeId, RaftNode)>) -> Result<(), String> {
    let Some(right) = shared.belonging.begin_founding() else {
        return Err("an answer to another node that would found a cluster".to_owned());
    };
    shared.belonging.may_promise(shared.me, Instant::now())?;
    // First said, then asked: of two that do so, at least one hears of the other.
    let _proposing = shared.belonging.propose(right);
    if !PlantedBug::FoundsUnasked.is_on() {
        shared.founding.survey.ask_all(shared.asker()).await;
        shared.founding.survey.verdict(shared.me, Instant::now()).map_err(|obstacle| obstacle.to_string())?;
    }
    let voters = voter_count(waiting.len());
    let founders = waiting.into_iter().take(voters).collect();
    let proposal = Proposal { cluster: ClusterId::random(), founders };
    let begun = Instant::now();
    let agreed = ask_founders(shared, &proposal).await;
    let agreed = agreed.and_then(|()| match begun.elapsed() < FOUND_WITHIN {
        true => Ok(()),
        false => Err("the founders took too long to agree".to_owned()),
    });
    if let Err(reason) = agreed {
        // From here on it cannot be founded any more.
        release(shared, &proposal).await;
        return Err(reason);
    }
    let own = Promise { proposal: proposal.clone(), to: shared.me };
    shared.bind(proposal.cluster, running, Some(own)).await.map_err(|error| error.to_string())?;
    let names: Vec<&str> = proposal.founders.values().map(|node| &*node.name).collect();
    info!(cluster = %proposal.cluster, voters = names.join(", "), "a new cluster is founded");
    running.raft.initialize(proposal.founders).await.map_err(|error| error.to_string())
}

async fn ask_founders(shared: &Shared, proposal: &Proposal) -> Result<(), String> {
    let others = proposal.founders.iter().filter(|(id, _)| **id != shared.me);
    let asked = others.map(|(id, node)| async move {
        let mut caller = Caller::new(&shared.calling, *id, node.clone());
        match caller.call(Call::Found(proposal.clone()), PATIENCE).await {
            Ok(Reply::Found(Ok(()))) => Ok(()),
            Ok(Reply::Found(Err(reason))) => Err(format!("{node}: {reason}")),
            Ok(_) => Err(format!("{node}: {}", CallError::Mismatch)),
            Err(fault) => Err(format!("{node}: {fault}")),
        }
    });
    join_all(asked).await.into_iter().collect()
}

/// Tells the founders that this proposal is given up; who does not hear it waits until its promise is over.
async fn release(shared: &Shared, proposal: &Proposal) {
    let others = proposal.founders.iter().filter(|(id, _)| **id != shared.me);
    let released = others.map(|(id, node)| async move {
        let mut caller = Caller::new(&shared.calling, *id, node.clone());
        let _ = caller.call(Call::Release(proposal.cluster), PATIENCE / 4).await;
    });
    join_all(released).await;
}

/// Writes the first entry of a cluster that this node was about to found when it ended: nobody else can have written it.
async fn finish(shared: &Shared, running: &Running) {
    let (Some(cluster), Some(own)) = (shared.belonging.get(), shared.belonging.promise()) else { return };
    if own.to != shared.me || own.proposal.cluster != cluster || running.is_initialized() {
        return;
    }
    let metrics = running.metrics();
    let is_untouched = metrics.current_term == 0 && metrics.last_log_index.is_none();
    if is_untouched && let Err(error) = running.raft.initialize(own.proposal.founders).await {
        warn!(%cluster, %error, "a founding that was begun before the restart could not be finished");
    }
}

fn random(below: Duration) -> Duration {
    below * u32::from(u16::from_be_bytes(fabric::random_bytes())) / u32::from(u16::MAX)
}

impl Shared {
    /// Whether this node promises to found that cluster together with the one that asks.
    pub(crate) async fn accept_founding(&self, proposal: Proposal, from: NodeId) -> Result<(), String> {
        let running = self.raft.running().ok_or("Raft is not running")?;
        if self.founding.expect.is_none() {
            return Err("this node only joins (it was started without --bootstrap-expect)".to_owned());
        }
        if !proposal.founders.contains_key(&self.me) || !proposal.founders.contains_key(&from) {
            return Err("this node or the proposer is not among the founders".to_owned());
        }
        let lower = || waiting_nodes(&self.live()).into_iter().find(|(id, _)| *id < from);
        if let Some((lower, node)) = lower() {
            return Err(format!("{node} is there too and has a lower id ({lower:016x})"));
        }
        let Some(_right) = self.belonging.begin_founding() else {
            return Err("this node is about to found a cluster, or answers another proposal".to_owned());
        };
        self.belonging.may_promise(from, Instant::now())?;
        if !PlantedBug::FoundsUnasked.is_on() {
            // What was answered before may be as old as a name service is slow.
            self.founding.survey.ask_all(self.asker()).await;
            self.founding.survey.verdict(from, Instant::now()).map_err(|obstacle| obstacle.to_string())?;
        }
        let kept = self.belonging.keep_promise(Promise { proposal, to: from }, &running.disk).await;
        kept.map_err(|error| {
            self.raft.note_bind_error(&error);
            error.to_string()
        })
    }
}
