//! The task behind a link: it opens the stream, writes what is asked, and gives answers to those who wait.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tidegate_proto::{
    CodecError, Inbox, Kind, Outbox, RecordError, codec,
    peer::{Amend, Answer, Check, Outcome, Ping, Refused, Undo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use super::job::{Health, Job, State};
use crate::{
    link::{
        Reply, Session,
        handshake::{self, HandshakeError, Identity},
        health::LostSince,
        in_flight::{InFlight, Sent},
        stream::{PeerStream, dial},
    },
    member::MemberId,
    stats::{StreamError, WorkerStats},
};

/// Checks that may wait for an answer.
pub(super) const MAX_IN_FLIGHT: usize = 8192;
/// Bytes that may wait for the socket; beyond that the queue is not read.
const MAX_UNSENT_BYTES: usize = 256 << 10;
/// Room in each direction at the beginning; it grows with what comes.
const ROOM_BYTES: usize = 4 << 10;
/// Jobs that are taken from the queue at once.
pub(super) const TAKE_AT_ONCE: usize = 256;
/// How often the link looks at the time.
const TICK: Duration = Duration::from_millis(50);
/// Longest silence of a peer that owes answers.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// When a stream with a silent peer is given up.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// When the answer to a check is no longer expected: longer than anybody waits for it.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(2);
/// How long checks wait for a stream that is being opened.
const WAIT_FOR_OPENING: Duration = Duration::from_millis(50);
/// Pauses between attempts to open a stream.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(500);

/// A stream that lasted so long was a good one: the next is opened at once.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// The task behind a link.
pub(super) struct Runner {
    pub(super) peer: MemberId,
    pub(super) address: SocketAddr,
    pub(super) identity: Arc<Identity>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) lost_since: Arc<LostSince>,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) health: Arc<Health>,
    pub(super) in_flight: InFlight,
    /// Scratch space for jobs.
    pub(super) taken: Vec<Job>,
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
    pub(super) async fn run(mut self) {
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
