//! Streams for calls: opened once for each peer, and used again by whoever calls it next.
//!
//! Opening one takes three round trips, more than a call of Raft may take where the network is slow. So **opening is not part
//! of a call**: a task of its own does it, and when the caller has given up meanwhile, the stream waits for the next one.
//! What can be exceeded:
//!
//! - streams that wait for a call ([`MAX_IDLE`] a peer, for [`IDLE`]): further ones are closed;
//! - streams that are being opened ([`MAX_OPENING`] a peer) and callers that wait for one ([`MAX_WAITING`]): refused.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{error::CallError, round_trip::RoundTrip, stream::Wire};
use crate::{
    ids::{NodeId, RaftNode},
    link::{Identity, dial},
};

/// Streams to one peer that wait for the next call.
const MAX_IDLE: usize = 4;
/// For how long: less than the peer keeps a stream without a call.
const IDLE: Duration = Duration::from_secs(40);
const MAX_OPENING: usize = 4;
const MAX_WAITING: usize = 64;
/// Opening a stream may take so long, the handshake included.
pub(crate) const OPEN_WITHIN: Duration = Duration::from_millis(1500);
/// How often streams are closed to peers that are not called any more.
const SWEEP_EVERY: Duration = Duration::from_secs(20);
/// Up to this round trip the timing of sessions and elections is tested.
const SUPPORTED: Duration = Duration::from_millis(150);

/// Where a member of this id and name was last heard of, if it was.
pub(crate) type LastHeard = dyn Fn(NodeId, &str) -> Option<SocketAddr> + Send + Sync;

/// The streams of this node to all others.
pub(crate) struct Connections {
    identity: Arc<Identity>,
    last_heard: Arc<LastHeard>,
    peers: Mutex<Peers>,
}

struct Peers {
    known: HashMap<(NodeId, SocketAddr), Arc<Peer>>,
    swept: Instant,
}

/// The streams to one peer.
pub(crate) struct Peer {
    id: NodeId,
    /// As the log names it.
    node: RaftNode,
    identity: Arc<Identity>,
    last_heard: Arc<LastHeard>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<(Wire, Instant)>,
    waiting: VecDeque<oneshot::Sender<Result<Wire, CallError>>>,
    opening: usize,
    /// How long answers that are given at once have taken: a busy disk of the peer makes them late, too.
    answers: RoundTrip,
    /// How long the network alone takes.
    network: RoundTrip,
    is_slow: bool,
    /// Which of its addresses the next stream is opened to.
    turn: Turn,
}

/// Addresses are hints, and the handshake proves who answers there. What gossip heard last comes first: who started again
/// elsewhere is found by it before a leader has written that into the log, and where there is no leader to write it. Then the
/// other one, after each stream that was not opened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Turn {
    #[default]
    LastHeard,
    Logged,
}

impl Turn {
    fn next(self) -> Self {
        match self {
            Self::LastHeard => Self::Logged,
            Self::Logged => Self::LastHeard,
        }
    }
}

impl Connections {
    pub(crate) fn new(identity: Arc<Identity>, last_heard: Arc<LastHeard>) -> Self {
        let peers = Mutex::new(Peers { known: HashMap::new(), swept: Instant::now() });
        Self { identity, last_heard, peers }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        // Nothing in here is left half done by a panic.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams to this peer.
    pub(crate) fn to(&self, id: NodeId, node: &RaftNode) -> Arc<Peer> {
        let mut peers = self.peers();
        let now = Instant::now();
        if now.duration_since(peers.swept) >= SWEEP_EVERY {
            peers.swept = now;
            peers.known.retain(|_, peer| Arc::strong_count(peer) > 1 || peer.close_old(now));
        }
        let peer = peers.known.entry((id, node.peer)).or_insert_with(|| {
            let (node, identity) = (node.clone(), Arc::clone(&self.identity));
            let last_heard = Arc::clone(&self.last_heard);
            Arc::new(Peer { id, node, identity, last_heard, state: Mutex::default() })
        });
        Arc::clone(peer)
    }

    /// The peer with the longest round trip, where that is longer than what is supported.
    pub(crate) fn slowest(&self) -> Option<String> {
        let peers = self.peers();
        let measured = peers.known.values().map(|peer| (peer.state().network.measured(), peer));
        let (round_trip, peer) = measured.max_by_key(|(round_trip, _)| *round_trip)?;
        (round_trip > SUPPORTED).then(|| peer.too_slow(round_trip))
    }
}

impl Peer {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream to the peer: one that is there, or the next that is opened. Whoever drops this loses nothing.
    pub(crate) async fn stream(self: &Arc<Self>) -> Result<Wire, CallError> {
        let opened = {
            let mut state = self.state();
            let now = Instant::now();
            while let Some((mut wire, since)) = state.idle.pop() {
                if now.duration_since(since) < IDLE && is_open(&mut wire) {
                    return Ok(wire);
                }
            }
            state.waiting.retain(|one| !one.is_closed());
            if state.waiting.len() >= MAX_WAITING {
                return Err(CallError::Io(io::Error::from(io::ErrorKind::WouldBlock)));
            }
            let (opened, stream) = oneshot::channel();
            state.waiting.push_back(opened);
            self.open_for_waiting(&mut state);
            stream
        };
        opened.await.unwrap_or_else(|_| Err(CallError::Io(io::Error::from(io::ErrorKind::NotConnected))))
    }

    /// A stream that is opened now.
    pub(crate) async fn new_stream(&self) -> Result<Wire, CallError> {
        self.dial().await
    }

    /// The exchange on this stream was whole: it may be used again.
    pub(crate) fn give_back(&self, wire: Wire) {
        self.state().give(wire);
    }

    /// A call has failed: what else is open to the peer probably leads nowhere too.
    pub(crate) fn failed(self: &Arc<Self>) {
        let mut state = self.state();
        state.idle.clear();
        state.answers.missed();
        self.open_for_waiting(&mut state);
    }

    /// As long as somebody waits for a stream, one is being opened: nobody waits for one that another caller has lost.
    fn open_for_waiting(self: &Arc<Self>, state: &mut State) {
        state.waiting.retain(|one| !one.is_closed());
        // A call may be dropped where its runtime ends: there nobody waits any more.
        let Ok(runtime) = Handle::try_current() else { return };
        while state.opening < state.waiting.len().min(MAX_OPENING) {
            state.opening += 1;
            runtime.spawn(Arc::clone(self).open());
        }
    }

    /// The peer has answered a call at once.
    pub(crate) fn answered(&self, after: Duration, is_of_network: bool) {
        self.state().answers.answered(after);
        if is_of_network {
            self.note_network(after);
        }
    }

    /// How long an answer of the peer may take that it gives at once.
    pub(crate) fn patience(&self) -> Duration {
        self.state().answers.patience()
    }

    /// The same as far as it was measured, whatever was not answered since.
    pub(crate) fn usual_patience(&self) -> Duration {
        self.state().answers.usual_patience()
    }

    async fn open(self: Arc<Self>) {
        let guard = Opening(&self);
        let outcome = timeout(OPEN_WITHIN, self.dial()).await;
        let outcome = outcome.unwrap_or(Err(CallError::Timeout(OPEN_WITHIN)));
        guard.end(outcome);
    }

    async fn dial(&self) -> Result<Wire, CallError> {
        let attempt = Attempt { peer: self, turn: self.state().turn, has_succeeded: false };
        let address = match attempt.turn {
            Turn::LastHeard => (self.last_heard)(self.id, &self.node.name).unwrap_or(self.node.peer),
            Turn::Logged => self.node.peer,
        };
        let stream = dial(address, &self.identity, Some(&self.node.name)).await?;
        let asked = Instant::now();
        let mut wire = Wire::open(stream, &self.identity, &self.node.name).await?;
        let after = asked.elapsed();
        self.state().answers.answered(after);
        self.note_network(after);
        // On a stream that waits for a call nothing must come.
        wire.flush().await?;
        wire.welcomed().await?;
        attempt.succeed();
        Ok(wire)
    }

    fn note_network(&self, after: Duration) {
        let mut state = self.state();
        state.network.answered(after);
        let measured = state.network.measured();
        let was_slow = std::mem::replace(&mut state.is_slow, measured > SUPPORTED);
        if state.is_slow && !was_slow {
            let (measured_ms, supported_ms) = (measured.as_millis(), SUPPORTED.as_millis());
            warn!(peer = %self.node, measured_ms, supported_ms, "round trips take longer than is supported: elections and sessions may fail");
        }
    }

    fn too_slow(&self, round_trip: Duration) -> String {
        format!(
            "the round trip to {} takes {} ms: up to {} ms is supported, with more elections and sessions may fail",
            self.node.name,
            round_trip.as_millis(),
            SUPPORTED.as_millis()
        )
    }

    /// Closes what has been idle for long; whether anything is left.
    fn close_old(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.idle.retain(|(_, since)| now.duration_since(*since) < IDLE);
        !state.idle.is_empty() || state.opening > 0
    }
}

impl State {
    fn give(&mut self, mut wire: Wire) {
        while let Some(next) = self.waiting.pop_front() {
            match next.send(Ok(wire)) {
                Ok(()) => return,
                Err(unsent) => match unsent {
                    Ok(back) => wire = back,
                    Err(_) => return,
                },
            }
        }
        let now = Instant::now();
        self.idle.retain(|(_, since)| now.duration_since(*since) < IDLE);
        if self.idle.len() < MAX_IDLE {
            self.idle.push((wire, now));
        }
    }

    fn refuse(&mut self, fault: CallError) {
        let next = std::iter::from_fn(|| self.waiting.pop_front()).find(|one| !one.is_closed());
        if let Some(next) = next {
            let _ = next.send(Err(fault));
        }
        if self.opening == 0 {
            // Nobody else would bring them one. Dropped, they know.
            self.waiting.clear();
        }
    }
}

/// A stream that is being opened to one of a peer's addresses. If it is not, or not waited for any longer, the other is next.
struct Attempt<'p> {
    peer: &'p Peer,
    turn: Turn,
    has_succeeded: bool,
}

impl Attempt<'_> {
    fn succeed(mut self) {
        self.has_succeeded = true;
        self.peer.state().turn = self.turn;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.peer.state();
        // Several that fail at the same time are one turn.
        if !self.has_succeeded && state.turn == self.turn {
            state.turn = self.turn.next();
        }
    }
}

/// A stream that is being opened, until that has ended, whichever way.
struct Opening<'p>(&'p Arc<Peer>);

impl Opening<'_> {
    fn end(self, outcome: Result<Wire, CallError>) {
        let mut state = self.0.state();
        state.opening -= 1;
        match outcome {
            Ok(wire) => state.give(wire),
            Err(fault) => {
                state.answers.missed();
                state.refuse(fault);
            }
        }
        drop(state);
        std::mem::forget(self);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.opening -= 1;
        state.refuse(CallError::Io(io::Error::from(io::ErrorKind::NotConnected)));
    }
}

/// Whether the peer has neither closed an idle stream nor said anything on it.
fn is_open(wire: &mut Wire) -> bool {
    wire.readable().now_or_never().is_none()
}
