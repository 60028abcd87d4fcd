//! The streams on which other nodes ask.
//!
//! All frames that have arrived are decided in one go and answered with one write: a busy peer's checks come in large
//! reads. While a peer does not take its answers, nothing more is read from it, so that it can not make this node
//! hold more than one read's worth of answers.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tidegate_proto::{
    CodecError, FrameError, Kind, MAX_PAYLOAD_BYTES, codec, frame,
    peer::{Amend, Answer, Check, Ping, Pong, Undo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::handshake::{self, Identity};
use crate::{
    fabric,
    raft::{CallServer, serve_calls},
    requests::Taken,
    router::Router,
    stats::{PEER_REFUSALS, PeerStats},
};

/// Streams of peers at one time; more are closed at once.
const MAX_PEER_STREAMS: usize = 4096;
/// A peer that does not take its answers for so long is cut off.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a check can be undone: much longer than its asker waits for the other owners.
const UNDO_WITHIN: Duration = Duration::from_secs(2);
/// Checks of one stream that can be undone at one time; the oldest beyond that stay charged.
const MAX_UNDOABLE: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
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

/// Accepts the streams of peers and hands them to the lanes in turn, until `cancel`.
pub(crate) async fn accept_peers(
    listener: fabric::Listener,
    answering: Arc<Answering>,
    lanes: Vec<Handle>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_PEER_STREAMS));
    let mut next_lane = (0..lanes.len()).cycle();
    let refusals = Arc::new(RefusalLog::default());
    loop {
        let (stream, from) = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back.
                    warn!(%error, "no stream of a peer can be accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            answering.stats.count_refusal("too_many");
            refusals.log(from, "too_many", &format!("{MAX_PEER_STREAMS} streams of peers are open already"));
            continue;
        };
        // The stream moves to the runtime of its lane, whose thread answers it from then on.
        let Ok(stream) = fabric::detach(stream) else { continue };
        let lane = next_lane.next().expect("there is at least one lane");
        let (answering, refusals, cancel) = (Arc::clone(&answering), Arc::clone(&refusals), cancel.clone());
        let serve = async move {
            let _permit: OwnedSemaphorePermit = permit;
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serve_stream(stream, from, lane, &answering, &refusals) => {}
            }
        };
        tasks.spawn_on(serve, &lanes[lane]);
    }
}

async fn serve_stream(
    stream: fabric::Detached,
    from: SocketAddr,
    lane: usize,
    answering: &Answering,
    refusals: &RefusalLog,
) {
    let prepared = fabric::attach(stream).and_then(|stream| fabric::prepare(&stream).map(|()| stream));
    let Ok(mut stream) = prepared else { return };
    let (peer, unread) = match handshake::answer(&mut stream, &answering.identity).await {
        Ok(met) => met,
        Err(error) => {
            answering.stats.count_refusal(error.as_str());
            refusals.log(from, error.as_str(), &error.to_string());
            return;
        }
    };
    answering.stats.count_accepted();
    let mut conversation = Conversation {
        lane,
        router: &answering.router,
        undoable: VecDeque::new(),
        unread,
        ahead: Vec::with_capacity(READ_AHEAD),
        answers: BytesMut::new(),
    };
    match conversation.hold(&mut stream).await {
        Ok(Ended::ForCalls) => {
            let unread = conversation.unread;
            hand_over(stream, unread, answering, peer.name.to_string());
        }
        Ok(Ended::Closed) => debug!(peer = %peer, "the peer closed its stream"),
        Err(Broken::Io(error)) => debug!(peer = %peer, %error, "the stream of the peer broke"),
        Err(broken) => {
            answering.stats.count_broken();
            warn!(peer = %peer, %from, "a stream of a peer is closed: {broken}");
            let _ = timeout(WRITE_DEADLINE, handshake::refuse(&mut stream, broken.to_string())).await;
        }
    }
}

/// A stream for calls moves to the runtime of Raft.
fn hand_over(stream: fabric::Stream, unread: BytesMut, answering: &Answering, peer: String) {
    let Ok(stream) = fabric::detach(stream) else { return };
    let (calls, cancel) = (Arc::clone(&answering.calls), answering.cancel.clone());
    answering.tasks.spawn_on(
        async move {
            let Ok(stream) = fabric::attach(stream) else { return };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serve_calls(stream, unread, calls, peer) => {}
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
    Frame(#[from] FrameError),
    #[error("a message can not be read: {0}")]
    Codec(#[from] CodecError),
    #[error("an unexpected {0:?} frame")]
    Unexpected(Kind),
}

/// What comes after the frames that have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    Calls,
}

struct Conversation<'a> {
    lane: usize,
    router: &'a Router,
    /// Checks that can still be undone, by rising id.
    undoable: VecDeque<(u64, Taken, Instant)>,
    unread: BytesMut,
    /// Checks that were read and are about to be decided.
    ahead: Vec<Check>,
    answers: BytesMut,
}

impl Conversation<'_> {
    async fn hold(&mut self, stream: &mut fabric::Stream) -> Result<Ended, Broken> {
        loop {
            let understood = self.answer_all();
            // What was decided before a faulty frame is still answered.
            if !self.answers.is_empty() {
                let write = timeout(WRITE_DEADLINE, stream.write_all_buf(&mut self.answers));
                write.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            if understood? == Next::Calls {
                return Ok(Ended::ForCalls);
            }
            self.unread.reserve(READ_BYTES);
            if stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(Ended::Closed);
            }
        }
    }

    /// Reads the checks that come next, up to the first frame that is none, or is faulty: that one is looked at when they
    /// are answered. Returns how many bytes they had.
    fn read_ahead(&mut self) -> usize {
        let mut read = 0;
        while self.ahead.len() < READ_AHEAD
            && let Ok(Some(frame)) = frame::first(&self.unread[read..], MAX_PAYLOAD_BYTES)
            && frame.kind == Kind::Check
            && let Ok(check) = codec::decode(frame.payload)
        {
            read += frame.length;
            self.ahead.push(check);
        }
        read
    }

    fn answer_checks(&mut self) -> Result<(), Broken> {
        if self.ahead.len() > 1 {
            self.router.warm_for_peer(&self.ahead);
        }
        for check in self.ahead.drain(..) {
            let (outcome, held) = self.router.decide_for_peer(self.lane, &check);
            if let Some(taken) = held {
                note_undoable(&mut self.undoable, check.id, taken);
            }
            frame::put(&Answer { id: check.id, outcome }, &mut self.answers)?;
        }
        Ok(())
    }

    fn answer_all(&mut self) -> Result<Next, Broken> {
        loop {
            let read = self.read_ahead();
            if read > 0 {
                self.answer_checks()?;
                self.unread.advance(read);
                continue;
            }
            let Some(frame) = frame::first(&self.unread, MAX_PAYLOAD_BYTES)? else { return Ok(Next::More) };
            match frame.kind {
                Kind::Check => {
                    let _: Check = codec::decode(frame.payload)?;
                    unreachable!("it would have been read");
                }
                Kind::Amend => {
                    let amend: Amend = codec::decode(frame.payload)?;
                    let outcome = self.router.amend_for_peer(&amend);
                    frame::put(&Answer { id: amend.id, outcome }, &mut self.answers)?;
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
                    frame::put(&Pong { id }, &mut self.answers)?;
                }
                Kind::Control => {
                    let length = frame.length;
                    self.unread.advance(length);
                    return Ok(Next::Calls);
                }
                other => return Err(Broken::Unexpected(other)),
            }
            let length = frame.length;
            self.unread.advance(length);
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

/// Logs refused streams, for each reason not more often than [`LOG_EVERY`]: whoever dials does not write our log.
#[derive(Default)]
struct RefusalLog(Mutex<[Option<Instant>; PEER_REFUSALS.len()]>);

impl RefusalLog {
    fn log(&self, from: SocketAddr, reason: &str, explained: &str) {
        let Some(place) = PEER_REFUSALS.iter().position(|known| *known == reason) else { return };
        let now = Instant::now();
        let last = &mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[place];
        if last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY) {
            *last = Some(now);
            warn!(%from, reason, "a stream to the peer port is refused: {explained}");
        }
    }
}
