//! Until when this node may rely on what it knows: its session, and that this process was not stopped.

use std::{
    sync::atomic::Ordering::{Relaxed, Release},
    time::Duration,
};

use tidegate_limiter::{Nanos, cluster::Consistency};

use super::{Core, SlotOwnership};
use crate::owner::shares::WITHOUT_CONTACT;

/// Within this time after this process has begun or gone on it has links to all who can be reached.
pub(super) const LINKS_BACK: Duration = Duration::from_secs(1);

impl SlotOwnership {
    /// Asks for a session.
    pub(crate) fn ask(&self, now: Nanos) -> u64 {
        self.core().session.ask(now)
    }

    /// The session that was asked for is granted.
    pub(crate) fn grant(&self, question: u64, index: u64, asked: Nanos) {
        let mut core = self.core();
        let applied = core.node.applied();
        if core.session.grant(question, index, applied) {
            core.granting = Some((index, asked));
        }
        self.note_granted(&mut core);
    }

    /// Goes on as usual once a grant counts, because the log is applied up to where it was confirmed.
    pub(super) fn note_granted(&self, core: &mut Core) {
        self.note_session(core);
        let applied = core.node.applied();
        let Some((index, asked)) = core.granting.take_if(|(index, _)| *index <= applied) else { return };
        if index >= self.behind.load(Relaxed) {
            self.behind.store(0, Relaxed);
        }
        if asked >= core.resumed {
            core.granted = true;
            if self.held.swap(false, Relaxed) {
                // It ran when it asked, and has a session from then on.
                self.awake_until.fetch_max(asked.saturating_add(self.awake()).get(), Release);
            }
        }
    }

    /// Puts the end of the session where checks read it.
    pub(super) fn note_session(&self, core: &Core) {
        let until = core.session.until();
        self.strict_until.store(until.get(), Release);
        if until.get() != 0 {
            self.shares_until.fetch_max(until.saturating_add(WITHOUT_CONTACT).get(), Relaxed);
        }
    }

    /// Up to where this node has applied the log, with all that follows from it for checks.
    pub(crate) fn applied(&self) -> u64 {
        self.core().node.applied()
    }

    /// A leader lives, and gives this node no session before it has applied the log up to this index: others will get its slots, and
    /// it will not know. So with its session ends all that it decides and gives, of `available` rules too.
    pub(crate) fn is_behind(&self, index: u64, now: Nanos) {
        let mut core = self.core();
        self.behind.store(index, Relaxed);
        self.end_with_session(&mut core, now);
    }

    /// The same for a node that does not follow the log: others own its slots, or will, and it hears so again and again for as long
    /// as that is so.
    pub(crate) fn is_taken_over(&self, now: Nanos) {
        self.end_with_session(&mut self.core(), now);
    }

    fn end_with_session(&self, core: &mut Core, now: Nanos) {
        (core.resumed, core.granted) = (now, false);
        self.shares_from.store(u64::MAX, Relaxed);
        // Held until a session is granted; without a leader, for as long as one lasts, once it has applied what it lacked.
        self.held.store(true, Relaxed);
        self.hold_until.store(now.saturating_add(self.timing.leader).get(), Relaxed);
        self.awake_until.fetch_min(self.strict_until.load(Relaxed), Release);
    }

    /// Up to where this node must apply the log to have a session, and up to where it has, if that is what it lacks.
    pub(crate) fn lag(&self, now: Nanos) -> Option<(u64, u64)> {
        let (needed, applied) = (self.behind.load(Relaxed), self.applied());
        (applied < needed && !self.has_session(now)).then_some((needed, applied))
    }

    /// Says that this process runs; to be called several times a second. One that was stopped for long ([`SlotOwnership::awake`])
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
            self.hold_until.store(now.saturating_add(self.timing.leader).get(), Relaxed);
            self.held.store(true, Relaxed);
        }
        core.watched = Some(now);
        if core.node.applied() < self.behind.load(Relaxed) {
            self.end_with_session(&mut core, now);
            self.end_awake_with_session(now.saturating_add(self.awake()).get());
            return;
        }
        // What it has applied by then tells who owns the slots now; or nobody could say what has become of them.
        let knows = core.granted || now >= core.resumed.saturating_add(self.timing.leader);
        if knows && self.shares_from.load(Relaxed) == u64::MAX {
            let links_back = core.resumed.max(core.linked).saturating_add(LINKS_BACK);
            self.shares_from.store(now.max(links_back).get(), Relaxed);
        }
        let awake_until = now.saturating_add(self.awake()).get();
        if !self.held.load(Relaxed) || now.get() >= self.hold_until.load(Relaxed) {
            self.held.store(false, Relaxed);
            // Who reads this reads what shares begin with as well.
            self.awake_until.store(awake_until, Release);
        } else {
            self.end_awake_with_session(awake_until);
        }
    }

    /// While it is held, a node decides rules of either kind for as long as `strict` ones.
    fn end_awake_with_session(&self, awake_until: u64) {
        self.awake_until.store(awake_until.min(self.strict_until.load(Relaxed)), Release);
    }

    /// This node begins to have links to the others.
    pub(crate) fn links_begin(&self, now: Nanos) {
        let mut core = self.core();
        core.linked = now;
        // At the end of time they will be back.
        self.shares_from.fetch_max(now.saturating_add(LINKS_BACK).get(), Relaxed);
    }

    /// Since when shares count of a slot of this node whose [claim](SlotOwnership::claim) has lapsed, because nobody decides about it:
    /// a session after its own has ended, or after it has got the slot; before, that instant lies ahead. Until then a new leader
    /// is likely to grant another one, and what refilled meanwhile is this node's to give.
    pub(crate) fn lapsed_since(&self) -> Nanos {
        let until = self.strict_until.load(Relaxed).max(self.began.load(Relaxed));
        Nanos::new(until).saturating_add(self.timing.node)
    }

    /// This node does not take in what the log says, because its disk has failed: nothing that it knows of owners tells whether
    /// they are lost. A leader, if there is one, tells it whether it still owns its own slots ([`SlotOwnership::is_taken_over`]).
    pub(crate) fn is_blind(&self, now: Nanos) {
        let mut core = self.core();
        (core.resumed, core.granted) = (now, false);
        self.shares_from.store(u64::MAX, Relaxed);
    }

    /// For how long a node that was stopped can rely on what it knew before: renewed in time, its session lasts longer than
    /// that from any moment on.
    fn awake(&self) -> Duration {
        self.timing.node / 2
    }

    /// Whether the session lasts.
    pub(crate) fn has_session(&self, now: Nanos) -> bool {
        self.lasts(Consistency::Strict, now)
    }
}
