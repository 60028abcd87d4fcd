//! One long-lived stream to a peer, on which this node asks.
//!
//! A link belongs to one worker: the thread that asks is the thread that writes, so that nothing crosses threads. All
//! checks that are queued while the socket is busy go out together with the next write; nothing waits on purpose.
//!
//! What can be exceeded, and what happens then:
//! - the queue ([`QUEUE_LEN`]) and the window of checks in flight ([`runner::MAX_IN_FLIGHT`]): the check is refused at once;
//! - the patience of the asker: it stops waiting by itself; the link forgets the check after [`runner::FORGET_AFTER`];
//! - the patience with the peer: when nothing at all has come back for [`runner::SUSPECT_AFTER`] while checks wait, the link is
//!   *suspect* and refuses at once, asks for a sign of life, and after [`runner::GIVE_UP_AFTER`] opens another stream.

mod job;
mod runner;

use std::{net::SocketAddr, sync::Arc};

use tidegate_proto::peer::{Amendment, Charges};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::job::{Health, Job, State};
use self::runner::{Runner, TAKE_AT_ONCE};
use super::{Reply, handshake::Identity, health::LostSince, in_flight::InFlight};
use crate::{member::MemberId, stats::WorkerStats};

/// Checks that may wait for the socket.
const QUEUE_LEN: usize = 4096;
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
