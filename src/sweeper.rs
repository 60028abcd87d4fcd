//! The thread that removes idle buckets, a few at a time, and forgets which were used lately.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_cluster::{Clock, Router};
use tidegate_limiter::cluster::Rules;

/// The pause between two steps, each of which looks at some thousand buckets. Shorter ones would be felt on a node with
/// one processor; what comes faster than this sweeps is swept when its table is full.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a bucket counts as one of its rule's after it was used, at least; at most twice as long.
const TOUCHED_FOR: Duration = Duration::from_secs(300);

/// The sweeping thread; it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Sweeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sweeper {
    pub(crate) fn start(router: Arc<Router>, rules: Arc<ArcSwap<Rules>>, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let sweep = move || {
            let mut touched_since = clock.now();
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(PAUSE) {
                let now = clock.now();
                router.sweep(now);
                if now >= touched_since.saturating_add(TOUCHED_FOR) {
                    touched_since = now;
                    rules.load().forget_touched();
                }
            }
        };
        let thread = thread::Builder::new().name("sweeper".to_owned()).spawn(sweep)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by its thread.
            let _ = thread.join();
        }
    }
}
