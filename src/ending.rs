//! How the front ends of a node end, in two steps, so that no client loses a request:
//!
//! 1. **Closing**: the node goes on answering, and lets each client know that it should ask elsewhere from now on: `Connection: close`
//!    (HTTP), GOAWAY (gRPC), or the end of the connection behind a check's answer (Redis). New connections are taken as before.
//! 2. **Stop**: nobody is let in any more, what is being asked is answered, and what is idle is closed.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use tokio_util::sync::CancellationToken;

/// How far the end is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    /// Looked at for each request; a token takes a lock for that, which all connections share.
    closes: AtomicBool,
    closing: CancellationToken,
    stop: CancellationToken,
}

impl Ending {
    /// The first step.
    pub fn close(&self) {
        self.0.closes.store(true, Release);
        self.0.closing.cancel();
    }

    /// The second one, and the first if that was left out.
    pub fn stop(&self) {
        self.close();
        self.0.stop.cancel();
    }

    /// Whether clients are to ask elsewhere.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closes.load(Acquire)
    }

    /// Returns when clients are to ask elsewhere.
    pub(crate) async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Is cancelled when nobody is served any more who does not wait for an answer.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.0.stop
    }
}
