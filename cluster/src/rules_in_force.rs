//! The rules that this node decides by, and of which revision they are.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tidegate_limiter::cluster::Rules;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// A snapshot of the rules, swapped whole, and its revision where a check reads it without taking the snapshot.
#[derive(Debug)]
pub(crate) struct RulesInForce {
    rules: Arc<ArcSwap<Rules>>,
    /// **Never ahead of the rules**: whoever reads a revision here finds rules of it, or of a later one.
    revision: AtomicU64,
    /// Of the last change of any domain that is in force, where another one is not: never behind the rules.
    newest: AtomicU64,
    changed: Notify,
    pub(crate) progress: watch::Sender<InForce>,
}

impl RulesInForce {
    pub(crate) fn new(rules: Arc<ArcSwap<Rules>>) -> Self {
        let revision = AtomicU64::new(rules.load().revision());
        let newest = AtomicU64::new(rules.load().newest());
        Self { rules, revision, newest, changed: Notify::new(), progress: watch::Sender::default() }
    }

    pub(crate) fn load(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    pub(crate) fn load_full(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// All that was written up to this revision is in force.
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Acquire)
    }

    /// Rules of no domain are newer than that.
    #[inline]
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Acquire)
    }

    pub(crate) fn put(&self, rules: Rules) {
        let (revision, newest) = (rules.revision(), rules.newest());
        self.newest.store(newest, Release);
        self.rules.store(Arc::new(rules));
        self.revision.store(revision, Release);
        self.changed.notify_waiters();
    }

    /// Waits until rules of this revision are in force; false: they are not before the deadline.
    pub(crate) async fn reach(&self, revision: u64, deadline: Instant) -> bool {
        loop {
            // Before the revision is read, so that no change is missed.
            let changed = self.changed.notified();
            let rest = deadline.saturating_duration_since(Instant::now());
            if self.revision() >= revision || rest == Duration::ZERO {
                return self.revision() >= revision;
            }
            let _ = timeout(rest, changed).await;
        }
    }
}

/// What is in force at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// All of the log up to here.
    pub(crate) index: u64,
    /// Whether the node has what it needs to decide: the cluster's secret and its rules.
    pub(crate) complete: bool,
    /// The domains that are not what the log says, and why.
    pub(crate) broken: Vec<String>,
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::rules::HashSecret;

    use super::*;

    fn rules(revision: u64) -> Rules {
        Rules::empty(&HashSecret::new([1; 16])).at_revision(revision)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_revision_waits_for_no_longer_than_told() {
        let in_force = Arc::new(RulesInForce::new(Arc::new(ArcSwap::from_pointee(rules(4)))));
        let soon = || Instant::now() + Duration::from_millis(75);
        assert!(in_force.reach(4, soon()).await && in_force.reach(3, Instant::now()).await);
        let begun = Instant::now();
        assert!(!in_force.reach(5, soon()).await);
        assert_eq!(begun.elapsed().as_millis(), 75);
        let waiting = tokio::spawn({
            let (in_force, deadline) = (Arc::clone(&in_force), soon());
            async move { in_force.reach(6, deadline).await }
        });
        tokio::task::yield_now().await;
        in_force.put(rules(5));
        tokio::task::yield_now().await;
        in_force.put(rules(6));
        assert!(waiting.await.unwrap());
        assert_eq!(in_force.load().revision(), 6);
    }
}
