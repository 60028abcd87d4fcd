//! What a link is asked, and how it is doing: what passes between those who ask and its task.

use std::sync::atomic::{AtomicU8, Ordering};

use tidegate_proto::peer::{Amendment, Charges};
use tokio::sync::oneshot;

use crate::link::Reply;

/// What a link is asked to send.
#[derive(Debug)]
pub(super) enum Job {
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

/// How a link is doing, for those who ask.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// The first attempt, or the first after a stream broke, is under way: checks may wait for it.
    Opening = 0,
    Up = 1,
    /// The stream is open, but the peer is silent.
    Suspect = 2,
    /// No stream.
    Down = 3,
}

impl Health {
    pub(super) fn get(&self) -> State {
        match self.0.load(Ordering::Relaxed) {
            0 => State::Opening,
            1 => State::Up,
            2 => State::Suspect,
            _ => State::Down,
        }
    }

    pub(super) fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn takes_checks(&self) -> bool {
        matches!(self.get(), State::Opening | State::Up)
    }
}
