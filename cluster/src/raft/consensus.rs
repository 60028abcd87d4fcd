//! Raft on this node, as its tasks see it: whether it runs, what is wrong with it, and what they want of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::Instant};

use super::{belonging::BindError, running::Running, trial::Trial};
use crate::rpc::message::Reply;

/// Raft on this node, from the first start to the last stop.
#[derive(Default)]
pub(crate) struct Consensus {
    running: ArcSwapOption<Running>,
    trouble: Mutex<Option<String>>,
    trial: Mutex<Trial>,
    /// The disk has failed where Raft does not see it.
    pub(crate) disk_failed: Notify,
    /// This node is to lead no more.
    pub(crate) resigns: Notify,
}

impl Consensus {
    /// Raft runs, and nothing is wrong with it.
    pub(crate) fn runs(&self, running: Running) {
        self.running.store(Some(Arc::new(running)));
        self.set_trouble(None);
    }

    /// Takes out what was running.
    pub(crate) fn take(&self) -> Option<Arc<Running>> {
        self.running.swap(None)
    }

    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.load_full()
    }

    /// Why Raft is not running, or does not go on.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.or_else(|| self.disk_trouble())
    }

    /// Says that the disk hangs, if it does.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        let hangs = self.running()?.log.hangs(Instant::now())?;
        Some(format!("the disk of this node has not finished a write for {} s", hangs.as_secs()))
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// What is answered while Raft does not run.
    pub(crate) fn not_running(&self) -> Reply {
        Reply::Refused(self.trouble().unwrap_or_else(|| "Raft is not running".to_owned()))
    }

    pub(crate) fn trial(&self) -> MutexGuard<'_, Trial> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node's log works, and has worked for a while if it has failed. A node alone has nobody who could have
    /// its slots instead.
    pub(crate) fn log_works(&self, running: &Running) -> bool {
        self.trial().is_over(Instant::now()) && !running.hangs() || running.is_alone()
    }

    /// A disk that fails takes nothing more until it is opened again, and Raft has not written anything yet that would tell.
    pub(crate) fn note_bind_error(&self, error: &BindError) {
        if let BindError::Disk(_) | BindError::Panicked = error {
            self.disk_failed.notify_one();
        }
    }
}
