//! Consensus and founding, as other members ask for them; and whether a call of theirs is looked at at all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use openraft::raft::AppendEntriesResponse;
use tidegate_proto::MAX_CALL_BYTES;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{handle::Shared, log, running::Running, senders};
use crate::{
    ids::{ClusterId, NodeId},
    link::Peer,
    planted::PlantedBug,
    rpc::{
        message::{Call, Envelope, Introduction, Reply},
        sane,
        server::{Gate, Service},
    },
    stats::{CALL_REFUSALS, CallRefusal},
};

/// Longest time that a read may take at the leader.
const MAX_PATIENCE: Duration = Duration::from_secs(60);
/// How long Raft here may take for an answer: longer than whoever asks waits for it.
const RAFT_WITHIN: Duration = Duration::from_secs(1);
/// The same for a piece of a snapshot.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(11);
/// What may wait for Raft here, in units of [`RAFT_UNIT`] bytes, each call at least one. Raft takes what it is given without a
/// bound, and when its disk hangs it does nothing with it.
const RAFT_ROOM: usize = 2 * MAX_CALL_BYTES / RAFT_UNIT;
const RAFT_UNIT: usize = 256 << 10;
/// Refused calls are logged at most this often, for each reason.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Answers for Raft.
pub(crate) struct RaftService {
    shared: Arc<Shared>,
    raft_room: Arc<Semaphore>,
    logged: Mutex<[Option<Instant>; CALL_REFUSALS.len()]>,
}

/// Whether something is to be logged again; then it is noted.
fn is_due(last: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due = last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
    if is_due {
        *last = Some(now);
    }
    is_due
}

impl RaftService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, raft_room: Arc::new(Semaphore::new(RAFT_ROOM)), logged: Mutex::default() }
    }

    /// Has Raft answer, within this time. What it was given it keeps, and until it has done with that, the room too.
    async fn ask_raft<T: 'static>(
        &self,
        bytes: usize,
        within: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        if PlantedBug::AnswersWithoutDeadline.is_on() {
            return Ok(work.await);
        }
        if let Some(trouble) = self.shared.raft.disk_trouble() {
            return Err(trouble);
        }
        let units = bytes.div_ceil(RAFT_UNIT).clamp(1, RAFT_ROOM) as u32;
        let room = Arc::clone(&self.raft_room).try_acquire_many_owned(units);
        let room = room.map_err(|_| "too many calls wait for Raft at this node".to_owned())?;
        let mut work = Box::pin(work);
        if let Ok(answer) = timeout(within, &mut work).await {
            return Ok(answer);
        }
        tokio::spawn(async move {
            work.await;
            drop(room);
        });
        Err(format!("Raft at this node has not answered within {within:?}"))
    }

    /// Says why a call was not even looked at, and counts it.
    fn refuse(&self, peer: &Peer, refusal: CallRefusal, explained: String) -> Reply {
        self.shared.identity.stats.count_call_refusal(refusal);
        let place = refusal as usize;
        if is_due(&mut self.logged.lock().unwrap_or_else(PoisonError::into_inner)[place]) {
            warn!(peer = %peer.member, reason = CALL_REFUSALS[place], detail = explained, "a call of a peer is refused");
        }
        Reply::Refused(explained)
    }
}

#[async_trait]
impl Gate for RaftService {
    async fn admit(&self, peer: &Peer, envelope: Envelope) -> Result<Call, Reply> {
        let Envelope { cluster, from, to, mut call } = envelope;
        if let Call::Introduce = call {
            return Ok(call);
        }
        if to != self.shared.me {
            return Err(Reply::Refused(format!(
                "this is the node {:016x}, not {to:016x}: it has lost its disk, or is another one of that name",
                self.shared.me
            )));
        }
        let Some(running) = self.shared.raft.running() else {
            return Err(self.shared.raft.not_running());
        };
        // First of all: numbers of another cluster say nothing.
        if let Some(ours) = self.shared.belonging.get()
            && ours != cluster
            && !matches!(call, Call::Found(_) | Call::Release(_) | Call::Reach)
            && !PlantedBug::AdoptionUndecided.is_on()
        {
            return Err(Reply::Refused(format!("this node belongs to the cluster {ours}, not to {cluster}")));
        }
        // In this order: what is absurd must not be looked at, whoever has sent it.
        if let Err(absurd) = sane::call(&running.position(), &call) {
            return Err(self.refuse(peer, CallRefusal::Absurd, absurd.to_string()));
        }
        let applied = Arc::clone(&self.shared.applied.borrow());
        if let Err(error) = senders::check(&applied, &running, peer, from, &mut call) {
            return Err(self.refuse(peer, CallRefusal::Sender, error.to_string()));
        }
        if matches!(call, Call::Found(_) | Call::Release(_) | Call::Reach) {
            return Ok(call);
        }
        if self.shared.belonging.get() != Some(cluster)
            && let Err(reason) = self.shared.join_by(&call, cluster, from, &running).await
        {
            return Err(Reply::Refused(reason));
        }
        Ok(call)
    }
}

#[async_trait]
impl Service for RaftService {
    async fn call(&self, from: NodeId, call: Call, bytes: usize) -> Reply {
        match call {
            Call::Introduce => return Reply::Introduced(self.shared.introduction()),
            Call::Found(proposal) => return Reply::Found(self.shared.accept_founding(proposal, from).await),
            Call::Release(proposed) => {
                self.shared.belonging.release(proposed, from);
                return Reply::Released;
            }
            Call::Reach => return Reply::Reached,
            _ => {}
        }
        let Some(running) = self.shared.raft.running() else { return self.shared.raft.not_running() };
        let raft = &running.raft;
        match call {
            Call::Append(request) => {
                let vote = request.vote;
                let taking_in = self.shared.note_leader(&running, &vote);
                let (raft, shared) = (raft.clone(), Arc::clone(&self.shared));
                // To its end, also when it is given up here: what a slow disk takes in counts as heard.
                let work = async move {
                    let answer = raft.append_entries(request).await;
                    if !matches!(answer, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
                        // openraft counts from here.
                        shared.contacts.note_followed();
                    }
                    drop(taking_in);
                    answer
                };
                let answer = self.ask_raft(bytes, RAFT_WITHIN, work).await;
                answer.map_or_else(Reply::Refused, Reply::Append)
            }
            Call::Vote(request) => {
                let (raft, shared, term) =
                    (raft.clone(), Arc::clone(&self.shared), request.vote.leader_id.term);
                // One that was given up here may still be given.
                let work = async move {
                    let answer = raft.vote(request).await;
                    if answer.as_ref().is_ok_and(|vote| vote.vote_granted) {
                        shared.contacts.note_vote(term);
                    }
                    answer
                };
                let answer = self.ask_raft(bytes, RAFT_WITHIN, work).await;
                answer.map_or_else(Reply::Refused, Reply::Vote)
            }
            Call::Snapshot(request) => {
                let taking_in = self.shared.note_leader(&running, &request.vote);
                let (raft, shared) = (raft.clone(), Arc::clone(&self.shared));
                let work = async move {
                    let (vote, answer) = (request.vote, raft.install_snapshot(request).await);
                    if answer.as_ref().is_ok_and(|answer| answer.vote == vote) {
                        shared.contacts.note_followed();
                    }
                    drop(taking_in);
                    answer
                };
                let answer = self.ask_raft(bytes, SNAPSHOT_WITHIN, work).await;
                answer.map_or_else(Reply::Refused, Reply::Snapshot)
            }
            Call::ReadIndex { patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::ReadIndex(running.read_index_here(patience).await)
            }
            Call::MayStand(question) => {
                Reply::MayStand(self.shared.may_stand(&running, question, from).await)
            }
            _ => Reply::Refused("that is no call of Raft".to_owned()),
        }
    }
}

impl Shared {
    /// Binds this node to the cluster of which Raft is about to be given the first thing, if this call is such a thing.
    ///
    /// **Raft is given nothing of a cluster before the disk says that this node belongs to it, and nothing of another one
    /// ever after**: an answer of yes is final, also after a restart.
    async fn join_by(
        &self,
        call: &Call,
        cluster: ClusterId,
        from: NodeId,
        running: &Running,
    ) -> Result<(), String> {
        let follows = match call {
            Call::Append(request) => {
                if !log::is_in_order(request.prev_log_id, &request.entries) {
                    return Err("these entries are not some of one log".to_owned());
                }
                true
            }
            Call::Snapshot(_) => true,
            Call::Vote(_) => self.belonging.has_promised(cluster, from),
            // It asks before it stands for election: it is answered, and Raft is given nothing.
            Call::MayStand(_) if self.belonging.has_promised(cluster, from) => return Ok(()),
            _ => false,
        };
        if PlantedBug::AdoptionUndecided.is_on() && follows && !running.is_initialized() {
            self.belonging.overwrite(cluster);
            return Ok(());
        }
        match self.belonging.get() {
            None if follows => self.bind(cluster, running, None).await.map_err(|error| error.to_string()),
            ours => {
                let ours = ours.map_or("none yet".to_owned(), |ours| ours.to_string());
                Err(format!("this node belongs to the cluster {ours}, not to {cluster}"))
            }
        }
    }

    /// What this node says of itself to one that asks before it founds a cluster.
    fn introduction(&self) -> Introduction {
        // A log that does not run may have anything in it.
        let has_log = self.raft.running().is_none_or(|running| running.metrics().last_log_index.is_some());
        Introduction {
            id: self.me,
            name: self.identity.me.name.to_string(),
            standing: self.belonging.standing(Instant::now()),
            has_log,
        }
    }
}
