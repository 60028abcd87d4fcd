//! The threads that answer checks: one runtime each, so that a check stays on the thread that read it.

use std::{io, thread, time::Duration};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Threads for what waits for the disk or takes long end when they have had nothing to do for so long.
pub(crate) const BLOCKING_IDLE: Duration = Duration::from_secs(1);

/// The worker threads; they end when this value is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// When the system gives no more threads or files.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self { handles: Vec::new(), threads: Vec::new(), stop: CancellationToken::new() };
        for number in 0..count {
            let runtime =
                Builder::new_current_thread().thread_keep_alive(BLOCKING_IDLE).enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            let run = move || {
                runtime.block_on(stop.cancelled());
                // Work with rules that has begun cannot be ended, and keeps no process alive.
                runtime.shutdown_background();
            };
            workers.threads.push(thread.spawn(run)?);
        }
        Ok(workers)
    }

    /// Their runtimes: worker i is thread i.
    pub fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}
