//! One long-lived stream to a peer, on which this node asks.
//!
//! A link belongs to one worker: the thread that asks is the thread that writes, so that nothing crosses threads. All
//! checks that are queued while the socket is busy go out together with the next write; nothing waits on purpose.
//!
//! What can be exceeded, and what happens then:
//! - the queue ([`QUEUE_LEN`]) and the window of checks in flight ([`MAX_IN_FLIGHT`]): the check is refused at once;
//! - the patience of the asker: it stops waiting by itself; the link forgets the check after [`FORGET_AFTER`];
//! - the patience with the peer: when nothing at all has come back for [`SUSPECT_AFTER`] while checks wait, the link is
//!   *suspect* and refuses at once, asks for a sign of life, and after [`GIVE_UP_AFTER`] opens another stream.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tidegate_proto::{
    CodecError, Inbox, Kind, Outbox, RecordError, codec,
    peer::{Amend, Amendment, Answer, Charges, Check, Outcome, Ping, Refused, Undo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Reply, Session,
    handshake::{self, HandshakeError, Identity},
    health::LostSince,
    in_flight::{InFlight, Sent},
    stream::{PeerStream, dial},
};
use crate::{
    member::MemberId,
    stats::{StreamError, WorkerStats},
};

/// Checks that may wait for the socket.
const QUEUE_LEN: usize = 4096;
/// Checks that may wait for an answer.
const MAX_IN_FLIGHT: usize = 8192;
/// Bytes that may wait for the socket; beyond that the queue is not read.
const MAX_UNSENT_BYTES: usize = 256 << 10;
/// Room in each direction at the beginning; it grows with what comes.
const ROOM_BYTES: usize = 4 << 10;
/// Jobs that are taken from the queue at once.
const TAKE_AT_ONCE: usize = 256;
/// How often the link looks at the time.
const TICK: Duration = Duration::from_millis(50);
/// Longest silence of a peer that owes answers.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// When a stream with a silent peer is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// When the answer to a check is no longer expected: longer than anybody waits for it.
const FORGET_AFTER: Duration = Duration::from_secs(2);
/// How long checks wait for a stream that is being opened.
const WAIT_FOR_OPENING: Duration = Duration::from_millis(50);
/// Pauses between attempts to open a stream.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(500);

/// A stream that lasted so long was a good one: the next is opened at once.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// Why a check was not even sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// No stream, or a silent one.
    Unreachable,
    /// Too many checks wait.
    Full,
}

/// The asking end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    jobs: mpsc::Sender<Job>,
    health: Arc<Health>,
}

/// What a link is asked to send.
#[derive(Debug)]
enum Job {
    Check {
        charges: Charges,
        revision: u64,
        undoable: bool,
        request: Option<u64>,
        reply: oneshot::Sender<Reply>,
    },
    Amend {
        amendment: Amendment,
        charges: Charges,
        revision: u64,
        reply: oneshot::Sender<Reply>,
    },
    Undo {
        id: u64,
    },
}

impl Link {
    /// Starts a link to `peer` on the runtime that this is called in. It ends when `cancel` is.
    pub(crate) fn start(
        peer: MemberId,
        address: SocketAddr,
        identity: Arc<Identity>,
        stats: Arc<WorkerStats>,
        lost_since: Arc<LostSince>,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE_LEN);
        let health = Arc::new(Health::default());
        let runner = Runner {
            peer,
            address,
            identity,
            stats,
            lost_since,
            queue,
            health: Arc::clone(&health),
            in_flight: InFlight::default(),
            taken: Vec::with_capacity(TAKE_AT_ONCE),
        };
        let run = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = runner.run() => {}
            }
        };
        (Self { jobs, health }, run)
    }

    /// Sends a check. The reply never comes if the peer is lost: wait for it with a deadline.
    pub(crate) fn ask(
        &self,
        charges: Charges,
        revision: u64,
        undoable: bool,
        request: Option<u64>,
    ) -> Result<oneshot::Receiver<Reply>, NotSent> {
        self.must_be_up()?;
        let (reply, answer) = oneshot::channel();
        self.send(Job::Check { charges, revision, undoable, request, reply }).map(|()| answer)
    }

    /// Sends a refund or a reset; otherwise as [`Link::ask`].
    pub(crate) fn amend(
        &self,
        amendment: Amendment,
        charges: Charges,
        revision: u64,
    ) -> Result<oneshot::Receiver<Reply>, NotSent> {
        self.must_be_up()?;
        let (reply, answer) = oneshot::channel();
        self.send(Job::Amend { amendment, charges, revision, reply }).map(|()| answer)
    }

    fn must_be_up(&self) -> Result<(), NotSent> {
        if self.health.takes_checks() { Ok(()) } else { Err(NotSent::Unreachable) }
    }

    fn send(&self, job: Job) -> Result<(), NotSent> {
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotSent::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotSent::Unreachable),
        }
    }

    /// Takes back a check that was allowed. If the queue is full it stays charged, which is strict.
    pub(crate) fn undo(&self, id: u64) {
        let _ = self.jobs.try_send(Job::Undo { id });
    }

    /// Whether the stream is open and the peer answers.
    pub(crate) fn is_up(&self) -> bool {
        self.health.get() == State::Up
    }
}

/// How a link is doing, for those who ask.
#[derive(Debug, Default)]
struct Health(AtomicU8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// The first attempt, or the first after a stream broke, is under way: checks may wait for it.
    Opening = 0,
    Up = 1,
    /// The stream is open, but the peer is silent.
    Suspect = 2,
    /// No stream.
    Down = 3,
}

impl Health {
    fn get(&self) -> State {
        match self.0.load(Ordering::Relaxed) {
            0 => State::Opening,
            1 => State::Up,
            2 => State::Suspect,
            _ => State::Down,
        }
    }

    fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    fn takes_checks(&self) -> bool {
        matches!(self.get(), State::Opening | State::Up)
    }
}

/// The task behind a link.
struct Runner {
    peer: MemberId,
    address: SocketAddr,
    identity: Arc<Identity>,
    stats: Arc<WorkerStats>,
    lost_since: Arc<LostSince>,
    queue: mpsc::Receiver<Job>,
    health: Arc<Health>,
    in_flight: InFlight,
    /// Scratch space for jobs.
    taken: Vec<Job>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("nobody asks any more")]
    NoAskers,
    #[error("the peer closed the stream")]
    Closed,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("an answer cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("an unexpected {0:?} frame")]
    Unexpected(Kind),
    #[error("the peer closed the stream: {0:?}")]
    Refused(String),
    #[error("the stream ended in the middle of a record")]
    CutOff,
    #[error("the peer has been silent for {GIVE_UP_AFTER:?}")]
    Silent,
}

impl Ended {
    /// As what it is counted; `None`: streams end.
    fn error(&self) -> Option<StreamError> {
        match self {
            Self::Record(error) => Some(StreamError::from(*error)),
            Self::Codec(_) => Some(StreamError::Malformed),
            Self::Unexpected(_) => Some(StreamError::Unexpected),
            Self::CutOff => Some(StreamError::CutOff),
            Self::NoAskers | Self::Closed | Self::Io(_) | Self::Refused(_) | Self::Silent => None,
        }
    }
}

impl Runner {
    async fn run(mut self) {
        let mut pause = RETRY.start;
        let mut reported = String::new();
        loop {
            match self.open_soon().await {
                Ok((stream, session)) => {
                    self.health.set(State::Up);
                    self.lost_since.is_up_again();
                    if reported.is_empty() {
                        info!(peer = %self.peer.name, address = %self.address, "linked");
                    }
                    let begun = Instant::now();
                    let ended = self.talk(stream, session).await;
                    if let Some(error) = ended.error() {
                        self.identity.stats.count_broken(error);
                    }
                    let lost = self.in_flight.forget_all();
                    self.stats.lost.add(lost as u64);
                    if matches!(ended, Ended::NoAskers) {
                        return;
                    }
                    let reason = ended.to_string();
                    if reason != reported {
                        info!(peer = %self.peer.name, address = %self.address, lost, reason, "link lost");
                    }
                    if begun.elapsed() < GOOD_STREAM {
                        // A peer that lets us in and ends the stream at once would be asked again at once, for ever.
                        reported = reason;
                        self.health.set(State::Down);
                        self.wait(&mut pause).await;
                        continue;
                    }
                    pause = RETRY.start;
                    reported.clear();
                    // A peer whose process ended may be back at once: checks may wait for the first attempt. One that
                    // was silent will not answer that either.
                    let next = if matches!(ended, Ended::Silent) { State::Down } else { State::Opening };
                    self.health.set(next);
                }
                Err(error) => {
                    self.health.set(State::Down);
                    let reason = error.to_string();
                    if reason != reported {
                        warn!(peer = %self.peer.name, address = %self.address, reason, "no link");
                        reported = reason;
                    }
                    self.wait(&mut pause).await;
                }
            }
        }
    }

    /// Before the next attempt. Who asks meanwhile sees at once that the peer is lost.
    async fn wait(&mut self, pause: &mut Duration) {
        self.refuse_waiting();
        sleep(*pause).await;
        self.refuse_waiting();
        *pause = (*pause * 2).min(RETRY.end);
    }

    /// Opens a stream. When that takes longer than a check would wait, checks stop waiting for it.
    async fn open_soon(&mut self) -> Result<(PeerStream, Session), HandshakeError> {
        let opened = {
            let mut open = pin!(self.open());
            tokio::select! {
                opened = &mut open => return opened,
                () = sleep(WAIT_FOR_OPENING) => {
                    self.health.set(State::Down);
                    open.await
                }
            }
        };
        // Their askers are gone by now.
        self.refuse_waiting();
        opened
    }

    async fn open(&self) -> Result<(PeerStream, Session), HandshakeError> {
        let mut stream = dial(self.address, &self.identity, Some(&self.peer.name)).await?;
        let (_, session) = handshake::call(&mut stream, &self.identity, Some(&self.peer.name)).await?;
        Ok((stream, session))
    }

    /// Drops what was queued while there was no stream: each asker sees at once that it is lost.
    fn refuse_waiting(&mut self) {
        while self.queue.try_recv().is_ok() {}
    }

    /// Asks and listens until the stream ends.
    async fn talk(&mut self, stream: PeerStream, session: Session) -> Ended {
        let (mut reader, mut writer) = stream.into_split();
        let Session { outbox: mut unsent, inbox: mut unread } = session;
        unread.unread().reserve(ROOM_BYTES);
        unsent.reserve(ROOM_BYTES);
        let mut last_heard = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_unsent = !unsent.is_empty();
            let may_take = unsent.len() < MAX_UNSENT_BYTES && self.in_flight.span() < MAX_IN_FLIGHT;
            tokio::select! {
                count = self.queue.recv_many(&mut self.taken, TAKE_AT_ONCE), if may_take => {
                    if count == 0 {
                        return Ended::NoAskers;
                    }
                    if let Err(error) = self.put_jobs(&mut unsent) {
                        return error.into();
                    }
                }
                written = writer.write_buf(unsent.sealed()), if has_unsent => {
                    match written {
                        Ok(0) => return Ended::Closed,
                        Ok(_) => {}
                        Err(error) => return error.into(),
                    }
                }
                read = reader.read_buf(unread.unread()) => {
                    match read {
                        Ok(0) => return if unread.is_empty() { Ended::Closed } else { Ended::CutOff },
                        Ok(_) => {}
                        Err(error) => return error.into(),
                    }
                    last_heard = Instant::now();
                    if self.health.get() == State::Suspect {
                        info!(peer = %self.peer.name, "the peer answers again");
                        self.health.set(State::Up);
                        self.lost_since.is_up_again();
                    }
                    self.lost_since.clear();
                    if let Err(ended) = self.take_answers(&mut unread, &mut unsent) {
                        return ended;
                    }
                }
                // An idle link does not wake anybody.
                _ = tick.tick(), if self.in_flight.span() > 0 || self.health.get() == State::Suspect => {
                    if let Err(ended) = self.look_at_the_time(last_heard, &mut unsent) {
                        return ended;
                    }
                }
            }
        }
    }

    fn put_jobs(&mut self, unsent: &mut Outbox) -> Result<(), CodecError> {
        let sent_at = Instant::now();
        for job in self.taken.drain(..) {
            match job {
                Job::Check { charges, revision, undoable, request, reply } => {
                    if reply.is_closed() {
                        // Its asker has given up: sending it would only charge for nothing.
                        continue;
                    }
                    let id = self.in_flight.add(Sent { reply, sent_at, undoable });
                    unsent.put(&Check { id, undoable, charges, request, revision })?;
                    self.stats.sent.add(1);
                }
                Job::Amend { amendment, charges, revision, reply } => {
                    if reply.is_closed() {
                        continue;
                    }
                    let id = self.in_flight.add(Sent { reply, sent_at, undoable: false });
                    unsent.put(&Amend { id, amendment, charges, revision })?;
                    self.stats.sent.add(1);
                }
                Job::Undo { id } => unsent.put(&Undo { id })?,
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, unread: &mut Inbox, unsent: &mut Outbox) -> Result<(), Ended> {
        while let Some(frame) = unread.first()? {
            match frame.kind {
                Kind::Answer => {
                    let Answer { id, outcome } = codec::decode(frame.payload)?;
                    let allowed = matches!(&outcome, Outcome::Decided(decided) if decided.allowed);
                    if let Some(sent) = self.in_flight.take(id) {
                        let undoable = sent.undoable;
                        let heard = sent.reply.send(Reply { id, outcome }).is_ok();
                        if !heard && allowed && undoable {
                            unsent.put(&Undo { id })?;
                        }
                    }
                }
                Kind::Pong => {}
                Kind::Refused => return Err(Ended::Refused(codec::decode::<Refused>(frame.payload)?.reason)),
                other => return Err(Ended::Unexpected(other)),
            }
            let length = frame.length;
            unread.take(length);
        }
        Ok(())
    }

    fn look_at_the_time(&mut self, last_heard: Instant, unsent: &mut Outbox) -> Result<(), Ended> {
        let now = Instant::now();
        let suspect = self.health.get() == State::Suspect;
        let owes_since = self.in_flight.oldest().map(|sent_at| sent_at.max(last_heard));
        if !suspect && owes_since.is_some_and(|since| now.duration_since(since) > SUSPECT_AFTER) {
            debug!(peer = %self.peer.name, "the peer is silent: its checks are not sent to it for now");
            self.stats.suspected.add(1);
            self.health.set(State::Suspect);
        }
        if self.health.get() == State::Suspect {
            if now.duration_since(last_heard) > GIVE_UP_AFTER {
                return Err(Ended::Silent);
            }
            // At most GIVE_UP_AFTER / TICK of them pile up.
            unsent.put(&Ping { id: 0 })?;
        }
        if let Some(cutoff) = now.checked_sub(FORGET_AFTER) {
            let lost = self.in_flight.forget_before(cutoff);
            self.stats.lost.add(lost as u64);
        }
        Ok(())
    }
}
