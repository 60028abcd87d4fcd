//! What h2 has of the answers of one connection and the socket has not taken.
//!
//! The windows of HTTP/2 are the client's: one that says it takes gigabytes, and reads nothing, leaves all of its answers in h2's
//! buffers. So the bytes are counted from the moment when h2 gets them until it drops them, and beyond [`MAX_BACKLOG`] an answer waits
//! outside, where it takes room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

/// Bytes that h2 has when the next answer waits.
const MAX_BACKLOG: usize = 64 << 10;

/// How much h2 has of one connection's answers.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    shrunk: Notify,
}

/// Bytes of an answer, counted until they are dropped.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Bytes,
    /// What they had when h2 got them: a piece keeps its memory until its last byte is written.
    counted: usize,
    backlog: Arc<Backlog>,
}

impl Backlog {
    /// Whether the next answer waits.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) >= MAX_BACKLOG
    }

    /// Until the client has taken enough.
    pub(super) async fn until_shrunk(&self) {
        loop {
            // Before the look: it hears of what shrinks from now on.
            let shrunk = self.shrunk.notified();
            if !self.is_full() {
                return;
            }
            shrunk.await;
        }
    }
}

impl Outgoing {
    pub(super) fn new(bytes: Bytes, backlog: &Arc<Backlog>) -> Self {
        let (counted, backlog) = (bytes.len(), Arc::clone(backlog));
        backlog.bytes.fetch_add(counted, Relaxed);
        Self { bytes, counted, backlog }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let before = self.backlog.bytes.fetch_sub(self.counted, Relaxed);
        if before >= MAX_BACKLOG && before - self.counted < MAX_BACKLOG {
            self.backlog.shrunk.notify_waiters();
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_h2_has_is_counted_until_it_drops_it_and_who_waits_hears_of_it() {
        let backlog = Arc::new(Backlog::default());
        let piece = || Outgoing::new(vec![0; MAX_BACKLOG / 2].into(), &backlog);
        let (mut one, two) = (piece(), piece());
        one.advance(1000);
        assert!(backlog.is_full(), "what is written of a piece keeps its memory");
        let mut waits = Box::pin(backlog.until_shrunk());
        assert!((&mut waits).now_or_never().is_none());
        drop(one);
        assert!(!backlog.is_full() && waits.now_or_never().is_some());
        drop(two);
        assert_eq!(backlog.bytes.load(Relaxed), 0);
    }
}
