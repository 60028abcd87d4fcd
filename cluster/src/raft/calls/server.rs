//! Answering the calls of other members.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_proto::{Kind, MAX_CALL_BYTES};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{Call, CallFault, Envelope, Reply, sane, senders, wire::Wire};
use crate::{fabric, ids::{ClusterId, NodeId}, link::{Peer, Session}, planted::PlantedBug, raft::{group::Shared, log, running::Running, survey::Introduction}, stats::{CALL_REFUSALS, CallRefusal}};

/// Streams for calls that are answered at one time; more are closed. A leader has one or two from each other node.
const MAX_CALL_STREAMS: usize = 1024;
/// A peer that is silent for so long in the middle of a call, or does not take its answer, is cut off.
const STALLED: Duration = Duration::from_secs(15);
/// A stream without a call for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time that a change may take at the leader.
const MAX_PATIENCE: Duration = Duration::from_secs(60);
/// How long Raft here may take for an answer: longer than whoever asks waits for it.
const RAFT_WITHIN: Duration = Duration::from_secs(1);
/// The same for a piece of a snapshot.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for any answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(65);
/// What may wait for Raft here, in units of [`RAFT_UNIT`] bytes, each call at least one. Raft takes what it is given without a
/// bound, and when its disk hangs it does nothing with it.
const RAFT_ROOM: usize = 2 * MAX_CALL_BYTES / RAFT_UNIT;
const RAFT_UNIT: usize = 256 << 10;

/// Refused calls are logged at most this often, for each reason.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Answers the calls of other members.
pub(crate) struct CallServer {
    shared: Arc<Shared>,
    open: AtomicUsize,
    raft_room: Arc<Semaphore>,
    logged: Mutex<[Option<Instant>; CALL_REFUSALS.len()]>,
    logged_broken: Mutex<Option<Instant>>,
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

impl CallServer {
    pub(in crate::raft) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: AtomicUsize::new(0),
            raft_room: Arc::new(Semaphore::new(RAFT_ROOM)),
            logged: Mutex::default(),
            logged_broken: Mutex::default(),
        }
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
        if let Some(trouble) = self.shared.disk_trouble() {
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
            warn!(peer = %peer.member, reason = CALL_REFUSALS[place], "a call of a peer is refused: {explained}");
        }
        Reply::Refused(explained)
    }

    pub(super) async fn answer(&self, peer: &Peer, envelope: Envelope, bytes: usize) -> Reply {
        let Envelope { cluster, from, to, mut call } = envelope;
        if let Call::Introduce = call {
            return Reply::Introduced(self.shared.introduction());
        }
        if to != self.shared.me {
            return Reply::Refused(format!(
                "this is the node {:016x}, not {to:016x}: it has lost its disk, or is another one of that name",
                self.shared.me
            ));
        }
        let Some(running) = self.shared.running() else {
            return Reply::Refused(self.shared.trouble().unwrap_or_else(|| "Raft is not running".to_owned()));
        };
        let raft = &running.raft;
        // First of all: numbers of another cluster say nothing.
        if let Some(ours) = self.shared.belonging.get()
            && ours != cluster
            && !matches!(call, Call::Found(_) | Call::Release(_))
            && !PlantedBug::AdoptionUndecided.is_on()
        {
            return Reply::Refused(format!("this node belongs to the cluster {ours}, not to {cluster}"));
        }
        // In this order: what is absurd must not be looked at, whoever has sent it.
        if let Err(absurd) = sane::call(&running.position(), &call) {
            return self.refuse(peer, CallRefusal::Absurd, absurd.to_string());
        }
        if let Err(error) = senders::check(&self.shared, &running, peer, from, &mut call) {
            return self.refuse(peer, CallRefusal::Sender, error.to_string());
        }
        if let Call::Found(proposal) = call {
            return Reply::Found(self.shared.accept_founding(proposal, from).await);
        }
        if let Call::Release(proposed) = call {
            self.shared.belonging.release(proposed, from);
            return Reply::Released;
        }
        if self.shared.belonging.get() != Some(cluster)
            && let Err(reason) = self.shared.join_by(&call, cluster, from, &running).await
        {
            return Reply::Refused(reason);
        }
        match call {
            Call::Append(request) => {
                let vote = request.vote;
                self.shared.note_leader(&running, &vote);
                let raft = raft.clone();
                let work = async move { raft.append_entries(request).await };
                let answer = self.ask_raft(bytes, RAFT_WITHIN, work).await;
                if answer.is_ok() {
                    // openraft counts from here.
                    self.shared.note_leader(&running, &vote);
                }
                answer.map_or_else(Reply::Refused, Reply::Append)
            }
            Call::Vote(request) => {
                let raft = raft.clone();
                let answer = self.ask_raft(bytes, RAFT_WITHIN, async move { raft.vote(request).await }).await;
                // One that was given up may still be given.
                if answer.as_ref().map_or(true, |answer| answer.as_ref().is_ok_and(|vote| vote.vote_granted))
                {
                    self.shared.note_vote();
                }
                answer.map_or_else(Reply::Refused, Reply::Vote)
            }
            Call::Snapshot(request) => {
                let vote = request.vote;
                self.shared.note_leader(&running, &vote);
                let raft = raft.clone();
                let work = async move { raft.install_snapshot(request).await };
                let answer = self.ask_raft(bytes, SNAPSHOT_WITHIN, work).await;
                if answer.is_ok() {
                    self.shared.note_leader(&running, &vote);
                }
                answer.map_or_else(Reply::Refused, Reply::Snapshot)
            }
            Call::Write { write, patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::Write(running.write_here(write, patience).await)
            }
            Call::ReadIndex { patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::ReadIndex(running.read_index_here(patience).await)
            }
            Call::Renew { row, wants, applied } => {
                Reply::Renew(self.shared.renew_here(&running, row, wants, applied).await)
            }
            Call::Moved(moves) => Reply::Written(self.shared.moved_here(&running, moves).await),
            Call::Drain { holder, on } => Reply::Written(self.shared.drain_here(&running, holder, on).await),
            Call::Evict(node) => Reply::Written(self.shared.evict_here(&running, node).await),
            Call::MayStand(question) => {
                Reply::MayStand(self.shared.may_stand(&running, question, from).await)
            }
            Call::Reach => Reply::Reached,
            Call::Refuse(moves) => Reply::Refuse(self.shared.rights.refuse(&moves)),
            Call::HandOver(part) => Reply::HandOver(self.shared.take_over(part)),
            Call::Tell(words) => Reply::Told(self.shared.hear(words)),
            Call::Strike { successor, slots } => {
                Reply::Written(self.shared.strike_here(&running, successor, slots).await)
            }
            Call::Touched { domain, rules } => Reply::Touched(self.shared.touched_here(&domain, &rules)),
            Call::Found(_) | Call::Release(_) | Call::Introduce => {
                Reply::Refused("founding is answered above".to_owned())
            }
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
        let has_log = self.running().is_none_or(|running| running.metrics().last_log_index.is_some());
        Introduction {
            id: self.me,
            name: self.identity.me.name.to_string(),
            standing: self.belonging.standing(Instant::now()),
            has_log,
        }
    }
}

/// Answers the calls on one stream until it ends.
pub(crate) async fn serve_calls(
    stream: fabric::Stream,
    session: Session,
    server: Arc<CallServer>,
    peer: Peer,
) {
    let mut wire = Wire::accepted(stream, session);
    let member = &peer.member;
    if server.open.fetch_add(1, Relaxed) < MAX_CALL_STREAMS {
        let ended = hold(&mut wire, &server, &peer).await;
        if let Err(fault) = ended
            && let Some(error) = fault.stream_error()
        {
            server.shared.identity.stats.count_broken(error);
            if is_due(&mut server.logged_broken.lock().unwrap_or_else(PoisonError::into_inner)) {
                warn!(peer = %member, "a stream of the Raft group is closed: {fault}");
            }
        }
    } else {
        warn!(peer = %member, "more than {MAX_CALL_STREAMS} streams of the Raft group: this one is closed");
    }
    server.open.fetch_sub(1, Relaxed);
}

async fn hold(wire: &mut Wire, server: &CallServer, peer: &Peer) -> Result<(), CallFault> {
    loop {
        // Between calls a stream may be idle for long, in the middle of one it may not.
        if !timeout(IDLE, wire.readable()).await.map_err(|_| CallFault::Timeout(IDLE))?? {
            return Ok(());
        }
        let call = timeout(STALLED, wire.receive::<Envelope>(Kind::Call)).await;
        let Some((envelope, bytes)) = call.map_err(|_| CallFault::Timeout(STALLED))?? else { return Ok(()) };
        #[cfg(feature = "simulation")]
        let hands_over = matches!(envelope.call, Call::HandOver(_));
        let answer = timeout(ANSWER_WITHIN, server.answer(peer, envelope, bytes)).await;
        let reply = answer.unwrap_or_else(|_| Reply::Refused(format!("no answer within {ANSWER_WITHIN:?}")));
        #[cfg(feature = "simulation")]
        if crate::simulation::network::answer_is_lost(hands_over) {
            return Ok(());
        }
        timeout(STALLED, wire.send(&reply)).await.map_err(|_| CallFault::Timeout(STALLED))??;
    }
}
