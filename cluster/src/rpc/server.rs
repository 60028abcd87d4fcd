//! Answering the calls of other members: which service answers which call, and what a stream of calls may take.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidegate_proto::Kind;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{
    error::CallError,
    message::{Call, Envelope, Reply, Room},
    stream::Wire,
};
use crate::{
    ids::NodeId,
    link::{Peer, PeerStream, Session},
    stats::PeerStats,
};

/// Streams for calls that are answered at one time; more are closed. A leader has one or two from each other node.
const MAX_CALL_STREAMS: usize = 1024;
/// A peer that is silent for so long in the middle of a call, or does not take its answer, is cut off.
const STALLED: Duration = Duration::from_secs(15);
/// A stream without a call for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time for any answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(65);
/// Broken streams are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Answers some calls.
#[async_trait]
pub(crate) trait Service: Send + Sync {
    /// What is answered to this call of that member, which took so many bytes.
    async fn call(&self, from: NodeId, call: Call, bytes: usize) -> Reply;
}

/// Says whether a call is looked at.
#[async_trait]
pub(crate) trait Gate: Send + Sync {
    /// The call, with what its sender may not say taken out; or what is answered instead.
    async fn admit(&self, peer: &Peer, envelope: Envelope) -> Result<Call, Reply>;
}

/// Who answers which calls.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) raft: Arc<dyn Service>,
    pub(crate) rules: Arc<dyn Service>,
    pub(crate) leader: Arc<dyn Service>,
    pub(crate) owner: Arc<dyn Service>,
}

/// Answers the calls of other members.
pub(crate) struct CallServer {
    gate: Arc<dyn Gate>,
    services: Services,
    stats: Arc<PeerStats>,
    open: AtomicUsize,
    logged_broken: Mutex<Option<Instant>>,
}

impl CallServer {
    pub(crate) fn new(gate: Arc<dyn Gate>, services: Services, stats: Arc<PeerStats>) -> Self {
        Self { gate, services, stats, open: AtomicUsize::new(0), logged_broken: Mutex::default() }
    }

    pub(crate) async fn answer(&self, peer: &Peer, envelope: Envelope, bytes: usize) -> Reply {
        let from = envelope.from;
        let call = match self.gate.admit(peer, envelope).await {
            Ok(call) => call,
            Err(reply) => return reply,
        };
        let Services { raft, rules, leader, owner } = &self.services;
        let service = match call.room() {
            Room::Raft => raft,
            Room::Rules => rules,
            Room::Leader => leader,
            Room::Owner => owner,
        };
        service.call(from, call, bytes).await
    }

    /// Whether a broken stream is to be logged; then it is noted.
    fn logs_broken(&self) -> bool {
        let mut last = self.logged_broken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Answers the calls on one stream until it ends.
pub(crate) async fn serve_calls(stream: PeerStream, session: Session, server: Arc<CallServer>, peer: Peer) {
    let mut wire = Wire::accepted(stream, session);
    let member = &peer.member;
    if server.open.fetch_add(1, Relaxed) < MAX_CALL_STREAMS {
        let ended = hold(&mut wire, &server, &peer).await;
        if let Err(fault) = ended
            && let Some(error) = fault.stream_error()
        {
            server.stats.count_broken(error);
            if server.logs_broken() {
                warn!(peer = %member, %fault, "a stream of the Raft group is closed");
            }
        }
    } else {
        warn!(peer = %member, most = MAX_CALL_STREAMS, "too many streams of the Raft group: this one is closed");
    }
    server.open.fetch_sub(1, Relaxed);
}

async fn hold(wire: &mut Wire, server: &CallServer, peer: &Peer) -> Result<(), CallError> {
    loop {
        // Between calls a stream may be idle for long, in the middle of one it may not.
        if !timeout(IDLE, wire.readable()).await.map_err(|_| CallError::Timeout(IDLE))?? {
            return Ok(());
        }
        let call = timeout(STALLED, wire.receive::<Envelope>(Kind::Call)).await;
        let Some((envelope, bytes)) = call.map_err(|_| CallError::Timeout(STALLED))?? else { return Ok(()) };
        #[cfg(feature = "simulation")]
        let hands_over = matches!(envelope.call, Call::HandOver(_));
        let answer = timeout(ANSWER_WITHIN, server.answer(peer, envelope, bytes)).await;
        let reply = answer.unwrap_or_else(|_| Reply::Refused(format!("no answer within {ANSWER_WITHIN:?}")));
        #[cfg(feature = "simulation")]
        if crate::simulation::network::answer_is_lost(hands_over) {
            return Ok(());
        }
        timeout(STALLED, wire.send(&reply)).await.map_err(|_| CallError::Timeout(STALLED))??;
    }
}
