//! A node's session with the leader: the time for which nobody else gets its slots.
//!
//! Two sides measure it, each on its own clock: the node from the moment at which it *asked*, and a little shorter than it
//! is; the leader from the moment at which it *granted*, and a little longer. A grant counts only once the node has
//! applied the log up to where it was when the grant was confirmed: what took slots from the node before that, it knows.

use std::time::Duration;

use tidegate_limiter::Nanos;

use crate::planted::PlantedBug;

/// Grants that wait for the log to be applied; a node that is so far behind gains nothing by one more.
const MAX_WAITING: usize = 3;

/// How long a session lasts, for either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionTiming {
    /// For the node, from asking.
    pub(crate) node: Duration,
    /// For the leader, from granting.
    pub(crate) leader: Duration,
}

impl SessionTiming {
    /// How much faster or slower than another one a clock may run, in parts per million: twice what an adjustment of the
    /// system's clock may do.
    const DRIFT_PPM: u32 = 1000;
    /// For what a clock is too coarse to show.
    const SLACK: Duration = Duration::from_millis(50);

    /// A session of that length, with margins for clocks.
    pub(crate) fn of(length: Duration) -> Self {
        if PlantedBug::NoClockMargin.is_on() {
            return Self { node: length, leader: length };
        }
        let drift = length * Self::DRIFT_PPM / 1_000_000;
        Self { node: (length - drift).saturating_sub(Self::SLACK), leader: length + drift + Self::SLACK }
    }

    /// Whether a session that was granted at `last`, or earlier, must have ended: by the leader's clock.
    pub(crate) fn has_lapsed(&self, last: Nanos, now: Nanos) -> bool {
        let leader = if PlantedBug::NoSessionWait.is_on() { self.leader / 2 } else { self.leader };
        now >= last.saturating_add(leader)
    }
}

/// The node's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    timing: SessionTiming,
    last: u64,
    /// The question that is not answered, and when it was asked.
    asked: Option<(u64, Nanos)>,
    /// Granted until then, once the log is applied up to this index.
    granted: [Option<(u64, Nanos)>; MAX_WAITING],
    until: Nanos,
}

impl Session {
    pub(crate) fn new(timing: SessionTiming) -> Self {
        Self { timing, last: 0, asked: None, granted: [None; MAX_WAITING], until: Nanos::new(0) }
    }

    /// Asks for more time. An earlier question is given up: its answer will not count.
    pub(crate) fn ask(&mut self, now: Nanos) -> u64 {
        self.last += 1;
        self.asked = Some((self.last, now));
        self.last
    }

    /// The answer to that question: granted, confirmed at this index of the log. False: it comes too late.
    pub(crate) fn grant(&mut self, question: u64, index: u64, applied: u64) -> bool {
        let Some((_, asked)) = self.asked.take_if(|(asked, _)| *asked == question) else { return false };
        let until = asked.saturating_add(self.timing.node);
        let index = if PlantedBug::RenewalNotBound.is_on() { 0 } else { index };
        if let Some(free) = self.granted.iter_mut().find(|waiting| waiting.is_none()) {
            *free = Some((index, until));
        }
        self.applied(applied);
        true
    }

    /// The log is applied, and in force, up to this index.
    pub(crate) fn applied(&mut self, index: u64) {
        for waiting in &mut self.granted {
            if let Some((_, until)) = waiting.take_if(|(needed, _)| *needed <= index) {
                self.until = self.until.max(until);
            }
        }
    }

    /// The number of the last question.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.last
    }

    /// Begins to count anew, when nothing is asked: for who compares what may happen, not how often it did.
    #[cfg(test)]
    pub(super) fn forget_count(&mut self) {
        (self.last, self.asked) = (0, None);
    }

    /// Until when the node may decide.
    pub(crate) fn until(&self) -> Nanos {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Nanos {
        Nanos::new(secs * 1_000_000_000)
    }

    fn session() -> Session {
        Session::new(SessionTiming { node: Duration::from_secs(2), leader: Duration::from_secs(3) })
    }

    #[test]
    fn the_node_ends_before_the_leader_whatever_their_clocks_do() {
        let timing = SessionTiming::of(Duration::from_secs(3));
        assert_eq!(timing.node, Duration::from_millis(2947));
        assert_eq!(timing.leader, Duration::from_millis(3053));
    }

    #[test]
    fn it_counts_from_the_question_and_for_its_answer_only() {
        let mut session = session();
        let first = session.ask(at(10));
        let second = session.ask(at(11));
        session.grant(first, 0, 0);
        assert_eq!(session.until(), at(0));
        session.grant(second, 0, 0);
        assert_eq!(session.until(), at(13));
        session.ask(at(20));
        session.grant(second, 0, 0);
        assert_eq!(session.until(), at(13), "an answer that comes twice counts once");
    }

    #[test]
    fn a_grant_waits_until_the_log_is_applied_that_far() {
        let mut session = session();
        let question = session.ask(at(10));
        session.grant(question, 7, 6);
        assert_eq!(session.until(), at(0));
        session.applied(7);
        assert_eq!(session.until(), at(12));
    }
}
