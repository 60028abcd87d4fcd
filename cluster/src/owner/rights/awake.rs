//! Until when this node may rely on what it knows: its session, and that this process was not stopped.

use std::{
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
    time::Duration,
};

use tidegate_limiter::{Consistency, Nanos};

use super::Rights;

/// Within this time after this process has begun or gone on it has links to all who can be reached.
pub(super) const LINKS_BACK: Duration = Duration::from_secs(1);

impl Rights {
    /// Asks for a session.
    pub(crate) fn ask(&self, now: Nanos) -> u64 {
        self.core().session.ask(now)
    }

    /// The session that was asked for is granted.
    pub(crate) fn grant(&self, question: u64, index: u64, asked: Nanos) {
        let mut core = self.core();
        let applied = core.node.applied();
        core.session.grant(question, index, applied);
        self.strict_until.store(core.session.until().get(), Release);
        if asked >= core.resumed && index <= applied {
            self.held.store(false, Relaxed);
        }
    }

    /// Says that this process runs; to be called several times a second. One that was stopped for long ([`Rights::awake`])
    /// decides nothing more until it has a session again; without a quorum, after as long.
    pub(crate) fn watch(&self, now: Nanos) {
        let mut core = self.core();
        let stopped = core.watched.is_some_and(|last| now.saturating_since(last) >= self.awake());
        if stopped {
            core.resumed = now;
            self.hold_until.store(now.saturating_add(self.terms.leader).get(), Relaxed);
            self.held.store(true, Relaxed);
            self.shares_from.store(now.saturating_add(LINKS_BACK).get(), Relaxed);
        }
        core.watched = Some(now);
        let holds = self.held.load(Relaxed) && now.get() < self.hold_until.load(Relaxed);
        if !holds {
            if self.held.swap(false, Relaxed) {
                // Nobody could say what has become of its slots, nor of the owners.
                self.shares_from.fetch_max(now.get(), Relaxed);
            }
            // Who reads this reads what shares begin with as well.
            self.awake_until.store(now.saturating_add(self.awake()).get(), Release);
        }
    }

    /// For how long a node that was stopped can rely on what it knew before: renewed in time, its session lasts longer than
    /// that from any moment on.
    fn awake(&self) -> Duration {
        self.terms.node / 2
    }

    /// Since when this node can know that an owner does not answer, so that shares of what it may admit count from then on. `None`:
    /// it can not, because it has begun a moment ago, or was stopped (which it finds out here too, if nobody else has yet).
    pub(crate) fn shares_since(&self, now: Nanos) -> Option<Nanos> {
        let is_awake = now.get() < self.awake_until.load(Acquire);
        let from = self.shares_from.load(Relaxed);
        (is_awake && now.get() >= from).then(|| Nanos::new(from))
    }

    /// Whether the session lasts.
    pub(crate) fn has_session(&self, now: Nanos) -> bool {
        self.lasts(Consistency::Strict, now)
    }
}
