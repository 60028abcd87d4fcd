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
            core.granted = true;
            self.held.store(false, Relaxed);
        }
    }

    /// Says that this process runs; to be called several times a second. One that was stopped for long ([`Rights::awake`])
    /// decides nothing more until it has a session again; without a quorum, after as long.
    pub(crate) fn watch(&self, now: Nanos) {
        let mut core = self.core();
        let begins = core.watched.is_none();
        let stopped = core.watched.is_some_and(|last| now.saturating_since(last) >= self.awake());
        if begins || stopped {
            (core.resumed, core.granted) = (now, false);
            self.shares_from.store(u64::MAX, Relaxed);
        }
        if stopped {
            self.hold_until.store(now.saturating_add(self.terms.leader).get(), Relaxed);
            self.held.store(true, Relaxed);
        }
        core.watched = Some(now);
        // What it has applied by then tells who owns the slots now; or nobody could say what has become of them.
        let knows = core.granted || now >= core.resumed.saturating_add(self.terms.leader);
        if knows && self.shares_from.load(Relaxed) == u64::MAX {
            let links_back = core.resumed.max(core.linked).saturating_add(LINKS_BACK);
            self.shares_from.store(now.max(links_back).get(), Relaxed);
        }
        if !self.held.load(Relaxed) || now.get() >= self.hold_until.load(Relaxed) {
            self.held.store(false, Relaxed);
            // Who reads this reads what shares begin with as well.
            self.awake_until.store(now.saturating_add(self.awake()).get(), Release);
        }
    }

    /// This node begins to have links to the others.
    pub(crate) fn links_begin(&self, now: Nanos) {
        let mut core = self.core();
        core.linked = now;
        // At the end of time they will be back.
        self.shares_from.fetch_max(now.saturating_add(LINKS_BACK).get(), Relaxed);
    }

    /// Since when shares count of a slot of this node whose [claim](Rights::claim) has lapsed, because nobody decides about it:
    /// a session after its own has ended, or after it has got the slot; before, that instant lies ahead. Until then a new leader
    /// is likely to grant another one, and what refilled meanwhile is this node's to give.
    pub(crate) fn lapsed_since(&self) -> Nanos {
        let until = self.strict_until.load(Relaxed).max(self.began.load(Relaxed));
        Nanos::new(until).saturating_add(self.terms.node)
    }

    /// This node does not take in what the log says, because its disk has failed: nothing that it knows of owners tells whether
    /// they are lost.
    pub(crate) fn is_blind(&self, now: Nanos) {
        let mut core = self.core();
        (core.resumed, core.granted) = (now, false);
        self.shares_from.store(u64::MAX, Relaxed);
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
