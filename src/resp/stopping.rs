//! How connections are told that the server stops.
//!
//! Waiting for a [`CancellationToken`] takes a lock that all connections share, each time that one waits for its next
//! command. So a connection asks the token once, to be woken, and looks at a flag from then on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Waker},
};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::ending::Ending;

/// Whether the server closes, or stops. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stopping {
    ending: Ending,
    /// It is set before anybody is woken: who was woken together with something else sees it at the next look.
    stops: Arc<AtomicBool>,
    wakes: CancellationToken,
}

pin_project! {
    /// One connection's wait for the end.
    pub(super) struct Told<'s> {
        ending: &'s Ending,
        stops: &'s AtomicBool,
        #[pin]
        wakes: WaitForCancellationFuture<'s>,
        known: Option<Waker>,
    }
}

impl Stopping {
    pub(super) fn of(ending: Ending) -> Self {
        Self { ending, ..Self::default() }
    }

    /// Tells all connections when the server stops, and ends.
    pub(super) async fn follow(&self) {
        self.ending.stopped().cancelled().await;
        self.stops.store(true, Release);
        self.wakes.cancel();
    }

    pub(super) fn told(&self) -> Told<'_> {
        Told { ending: &self.ending, stops: &self.stops, wakes: self.wakes.cancelled(), known: None }
    }
}

impl Told<'_> {
    /// Whether the client is to ask elsewhere from now on.
    pub(super) fn has_come(&self) -> bool {
        self.ending.is_closing()
    }

    /// Whether the server stops; if not, the task is woken when it does.
    pub(super) fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> bool {
        let this = self.project();
        // A task has one waker, so this is the first time only.
        if !this.known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *this.known = Some(context.waker().clone());
            if this.wakes.poll(context).is_ready() {
                return true;
            }
        }
        this.stops.load(Acquire)
    }
}
