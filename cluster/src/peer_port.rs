//! The streams on which other nodes ask.
//!
//! All frames that have arrived are decided in one go and answered with one write: a busy peer's checks come in large
//! reads. While a peer does not take its answers, nothing more is read from it, so that it cannot make this node
//! hold more than one read's worth of answers.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate_proto::{
    CodecError, Kind, RecordError, codec,
    peer::{Amend, Answer, Check, Ping, Pong, Undo},
};
use tidegate_tls::Room;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    fabric,
    link::{HandshakeError, Identity, Peer, PeerStream, Session, accept_peer, answer_peer, refuse_peer},
    requests::Taken,
    router::Router,
    rpc::server::{CallServer, serve_calls},
    stats::{PEER_REFUSALS, PeerStats, STREAM_ERRORS, StreamError},
};

/// Streams of peers that have proved themselves, at one time; more are closed at once.
const MAX_PEER_STREAMS: usize = 4096;
/// Callers that may be about to prove themselves at one time: as many as come in two seconds, the deadline of the handshake, at
/// 2,000 a second. So at that rate a caller has all of its time, and at 40,000 still a tenth of a second.
const MAX_STRANGERS: usize = 4096;
/// A peer that does not take its answers for so long is cut off.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a check can be undone: much longer than its asker waits for the other owners.
const UNDO_WITHIN: Duration = Duration::from_secs(2);
/// Checks of one stream that can be undone at one time; the oldest beyond that stay charged.
const MAX_UNDOABLE: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Room for answers at the beginning; it grows with what comes.
const ANSWER_BYTES: usize = 4 << 10;
/// Checks that are read before the first of them is decided, so that their buckets are near when it is their turn.
const READ_AHEAD: usize = 32;
/// Refused streams are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What answering a peer needs.
pub(crate) struct Answering {
    pub(crate) identity: Arc<Identity>,
    pub(crate) router: Arc<Router>,
    pub(crate) stats: Arc<PeerStats>,
    /// Answers on the streams that are for calls of the Raft group, on the runtime where Raft is.
    pub(crate) calls: Arc<CallServer>,
    pub(crate) calls_runtime: Handle,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// Accepts the streams of peers and hands them to the workers in turn, until `cancel`.
pub(crate) async fn accept_peers(
    listener: fabric::Listener,
    answering: Arc<Answering>,
    workers: Vec<Handle>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_PEER_STREAMS));
    let mut strangers = Room::new(MAX_STRANGERS);
    let mut next_worker = (0..workers.len()).cycle();
    let refusals = Arc::new(RefusalLog::default());
    let mut said: Option<Instant> = None;
    loop {
        let (stream, from) = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back.
                    if said.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
                        said = Some(Instant::now());
                        warn!(%error, "no stream of a peer can be accepted (open files: ulimit -n, or LimitNOFILE of systemd)");
                    }
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // The stream moves to the runtime of its worker, whose thread answers it from then on.
        let Ok(stream) = fabric::detach(stream) else { continue };
        let worker = next_worker.next().expect("there is at least one worker");
        let place = strangers.enter();
        let (answering, refusals, cancel) = (Arc::clone(&answering), Arc::clone(&refusals), cancel.clone());
        let room = Arc::clone(&room);
        let serve = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serve_stream(stream, from, worker, &answering, &refusals, place, room) => {}
            }
        };
        tasks.spawn_on(serve, &workers[worker]);
    }
}

async fn serve_stream(
    stream: fabric::Detached,
    from: SocketAddr,
    worker: usize,
    answering: &Answering,
    refusals: &RefusalLog,
    place: CancellationToken,
    room: Arc<Semaphore>,
) {
    let prepared = fabric::attach(stream).and_then(|stream| fabric::prepare(&stream).map(|()| stream));
    let Ok(stream) = prepared else { return };
    let refuse = |reason: &str, explained: &str| {
        answering.stats.count_refusal(reason);
        refusals.log(from, reason, explained);
    };
    let met = tokio::select! {
        biased;
        met = meet(stream, &answering.identity) => met,
        () = place.cancelled() => {
            let explained = format!("{MAX_STRANGERS} later callers have not proved themselves either");
            return refuse("too_many", &explained);
        }
    };
    drop(place);
    let (mut stream, peer, mut session) = match met {
        Ok(met) => met,
        Err(error) => return refuse(error.as_str(), &error.to_string()),
    };
    let Ok(permit) = room.try_acquire_owned() else {
        refuse("too_many", &format!("{MAX_PEER_STREAMS} streams of peers are open already"));
        return refuse_peer(&mut stream, &mut session.outbox, "too many streams of peers".into()).await;
    };
    answering.stats.count_accepted();
    let mut conversation = Conversation {
        worker,
        router: &answering.router,
        undoable: VecDeque::new(),
        session,
        ahead: Vec::with_capacity(READ_AHEAD),
    };
    let broken = match conversation.hold(&mut stream).await {
        Ok(Ended::ForCalls) => {
            let session = conversation.session;
            return hand_over(stream, session, answering, peer, permit);
        }
        Ok(Ended::Closed) => return debug!(peer = %peer.member, "the peer closed its stream"),
        Err(broken) => broken,
    };
    if let Some(error) = broken.error() {
        answering.stats.count_broken(error);
        refusals.log_broken(from, &peer, error, &broken.to_string());
        refuse_peer(&mut stream, &mut conversation.session.outbox, broken.to_string()).await;
    } else {
        debug!(peer = %peer.member, error = %broken, "the stream of the peer broke");
    }
}

/// Lets a caller prove who it is.
async fn meet(
    stream: fabric::Stream,
    identity: &Identity,
) -> Result<(PeerStream, Peer, Session), HandshakeError> {
    let mut stream = accept_peer(stream, identity).await?;
    let certificate = stream.certificate().cloned();
    let (peer, session) = answer_peer(&mut stream, identity, certificate.as_ref()).await?;
    Ok((stream, peer, session))
}

/// A stream for calls moves to the runtime of Raft.
fn hand_over(
    stream: PeerStream,
    session: Session,
    answering: &Answering,
    peer: Peer,
    permit: OwnedSemaphorePermit,
) {
    let Ok(stream) = stream.detach() else { return };
    let (calls, cancel) = (Arc::clone(&answering.calls), answering.cancel.clone());
    answering.tasks.spawn_on(
        async move {
            let _permit = permit;
            let Ok(stream) = stream.attach() else { return };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serve_calls(stream, session, calls, peer) => {}
            }
        },
        &answering.calls_runtime,
    );
}

/// How a conversation ended well.
enum Ended {
    Closed,
    /// It goes on as one of calls of the Raft group.
    ForCalls,
}

/// Why a conversation ended badly.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("a message cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("an unexpected {0:?} frame")]
    Unexpected(Kind),
    #[error("the stream ended in the middle of a record")]
    CutOff,
}

impl Broken {
    /// As what it is counted; `None`: connections break.
    fn error(&self) -> Option<StreamError> {
        Some(match self {
            Self::Io(_) => return None,
            Self::Record(error) => StreamError::from(*error),
            Self::Codec(_) => StreamError::Malformed,
            Self::Unexpected(_) => StreamError::Unexpected,
            Self::CutOff => StreamError::CutOff,
        })
    }
}

/// What comes after the frames that have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    Calls,
}

struct Conversation<'a> {
    worker: usize,
    router: &'a Router,
    /// Checks that can still be undone, by rising id.
    undoable: VecDeque<(u64, Taken, Instant)>,
    session: Session,
    /// Checks that were read and are about to be decided.
    ahead: Vec<Check>,
}

impl Conversation<'_> {
    async fn hold(&mut self, stream: &mut PeerStream) -> Result<Ended, Broken> {
        // A greeting and a welcome took little; answers take this much again and again.
        self.session.outbox.reserve(ANSWER_BYTES);
        loop {
            let understood = self.answer_all();
            // What was decided before a faulty frame is still answered.
            if !self.session.outbox.is_empty() {
                let write = timeout(WRITE_DEADLINE, stream.write_all_buf(self.session.outbox.sealed()));
                write.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            if understood? == Next::Calls {
                return Ok(Ended::ForCalls);
            }
            let unread = self.session.inbox.unread();
            unread.reserve(READ_BYTES);
            if stream.read_buf(unread).await? == 0 {
                return if unread.is_empty() { Ok(Ended::Closed) } else { Err(Broken::CutOff) };
            }
        }
    }

    /// Reads the checks that come next, up to the first frame that is none, or is faulty: that one is looked at when they
    /// are answered.
    fn read_ahead(&mut self) {
        while self.ahead.len() < READ_AHEAD
            && let Ok(Some(frame)) = self.session.inbox.first()
            && frame.kind == Kind::Check
            && let Ok(check) = codec::decode(frame.payload)
        {
            let length = frame.length;
            self.session.inbox.take(length);
            self.ahead.push(check);
        }
    }

    fn answer_checks(&mut self) -> Result<(), Broken> {
        if self.ahead.len() > 1 {
            self.router.warm_for_peer(&self.ahead);
        }
        for check in self.ahead.drain(..) {
            let (outcome, held) = self.router.decide_for_peer(self.worker, &check);
            if let Some(taken) = held {
                note_undoable(&mut self.undoable, check.id, taken);
            }
            self.session.outbox.put(&Answer { id: check.id, outcome })?;
        }
        Ok(())
    }

    fn answer_all(&mut self) -> Result<Next, Broken> {
        loop {
            self.read_ahead();
            if !self.ahead.is_empty() {
                self.answer_checks()?;
                continue;
            }
            let Session { inbox, outbox } = &mut self.session;
            let Some(frame) = inbox.first()? else { return Ok(Next::More) };
            let mut next = Next::More;
            match frame.kind {
                Kind::Check => {
                    let _: Check = codec::decode(frame.payload)?;
                    unreachable!("it would have been read");
                }
                Kind::Amend => {
                    let amend: Amend = codec::decode(frame.payload)?;
                    let outcome = self.router.amend_for_peer(&amend);
                    outbox.put(&Answer { id: amend.id, outcome })?;
                }
                Kind::Undo => {
                    let Undo { id } = codec::decode(frame.payload)?;
                    if let Ok(place) = self.undoable.binary_search_by_key(&id, |(known, _, _)| *known)
                        && let Some((_, taken, _)) = self.undoable.remove(place)
                    {
                        self.router.undo_for_peer(taken);
                    }
                }
                Kind::Ping => {
                    let Ping { id } = codec::decode(frame.payload)?;
                    outbox.put(&Pong { id })?;
                }
                Kind::Control => next = Next::Calls,
                other => return Err(Broken::Unexpected(other)),
            }
            let length = frame.length;
            inbox.take(length);
            if next == Next::Calls {
                return Ok(next);
            }
        }
    }
}

/// Remembers a check that may be undone. A peer whose ids do not rise loses the ability to undo, nothing else.
fn note_undoable(undoable: &mut VecDeque<(u64, Taken, Instant)>, id: u64, taken: Taken) {
    let now = Instant::now();
    while undoable.front().is_some_and(|(_, _, until)| *until < now) || undoable.len() >= MAX_UNDOABLE {
        undoable.pop_front();
    }
    if undoable.back().is_none_or(|(last, _, _)| *last < id) {
        undoable.push_back((id, taken, now + UNDO_WITHIN));
    }
}

/// Logs refused and broken streams, for each reason not more often than [`LOG_EVERY`]: whoever dials, or is on the path, does
/// not write our log.
#[derive(Default)]
struct RefusalLog {
    refused: Mutex<[Option<Instant>; PEER_REFUSALS.len()]>,
    broken: Mutex<[Option<Instant>; STREAM_ERRORS.len()]>,
}

impl RefusalLog {
    fn log(&self, from: SocketAddr, reason: &str, explained: &str) {
        let Some(place) = PEER_REFUSALS.iter().position(|known| *known == reason) else { return };
        if is_due(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner)[place]) {
            warn!(%from, reason, detail = explained, "a stream to the peer port is refused");
        }
    }

    fn log_broken(&self, from: SocketAddr, peer: &Peer, error: StreamError, explained: &str) {
        let place = error as usize;
        if is_due(&mut self.broken.lock().unwrap_or_else(PoisonError::into_inner)[place]) {
            let reason = STREAM_ERRORS[place];
            warn!(%from, peer = %peer.member, reason, detail = explained, "a stream of a peer is closed");
        }
    }
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
