//! Which nodes this one has heard from, which have answered it and which it could reach. Elections depend on that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_limiter::Nanos;
use tokio::time::Instant;

use crate::ids::NodeId;

/// Nobody votes for another leader before it has been silent for the longer of them. Who stands, and when, is decided in
/// `election`: within half a second after that, if nothing else is wrong. What a dead leader's slots wait for is that, and
/// a session.
pub(crate) const ELECTION: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1000));
/// Who has resigned does not stand for so long: longer than the others take to elect one of them.
pub(crate) const RESIGNED_FOR: Duration = Duration::from_secs(4);
/// A leader that is not heard for so long may be missed soon.
const LOOK_AHEAD_AFTER: Duration = ELECTION.0;
/// A leader reaches a voter that has started within this time: it is not missed before.
const STARTED_WITHIN: Duration = ELECTION.0;
/// Each election in which this node has voted and that has made no leader doubles the time that the next one gets, so often at most: what
/// votes wait for, disks above all, may be slow.
const DOUBLED_AT_MOST: u32 = 3;
/// That a node was reached counts for so long.
const COUNTS_FOR: Duration = Duration::from_secs(2);

/// The nodes that this one has heard from, that have answered it, and that it could reach.
pub(crate) struct Contacts {
    heard: Mutex<Heard>,
    /// Messages of the leader that this node has not taken in yet, because its disk takes a while.
    taking_in: Arc<AtomicUsize>,
    /// Who answers this node's own messages as a leader.
    pub(crate) answered: Arc<Answered>,
    /// To whom this node could open a connection.
    pub(crate) reached: Reached,
}

impl Contacts {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: Mutex::new(Heard::new(now)),
            taking_in: Arc::default(),
            answered: Arc::default(),
            reached: Reached::default(),
        }
    }

    /// What messages that have been taken in say.
    pub(crate) fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for elections.
    pub(crate) fn heard_by_now(&self) -> Heard {
        let mut heard = self.heard();
        if self.taking_in.load(Relaxed) > 0 {
            // It is this node that is slow, and not the leader that is silent.
            heard.note_leader(Instant::now());
        }
        heard
    }

    /// A message of the leader is there. The leader is heard until that is dropped.
    pub(crate) fn take_in(&self) -> TakingIn {
        self.taking_in.fetch_add(1, Relaxed);
        TakingIn(Arc::clone(&self.taking_in))
    }

    pub(crate) fn note_leader(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).note_leader(Instant::now());
    }

    pub(crate) fn note_vote(&self, term: u64) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).note_vote(term, Instant::now());
    }

    /// A message of the leader has been taken in.
    pub(crate) fn note_followed(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.note_leader(Instant::now());
        heard.note_elected();
    }

    pub(crate) fn note_elected(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).note_elected();
    }

    pub(crate) fn note_resigned(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).note_resigned(Instant::now());
    }
}

/// A message of the leader on its way to this node's disk.
pub(crate) struct TakingIn(Arc<AtomicUsize>);

impl Drop for TakingIn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Of whom a node has heard, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    started: Instant,
    leader: Option<Instant>,
    /// It has voted or is about to, and whoever gets the vote may lead by now.
    vote: Option<Instant>,
    /// In how many terms it has voted since there was a leader, and in which last.
    votes: u32,
    voted_in: u64,
    /// It has led, and has resigned.
    resigned: Option<Instant>,
}

impl Heard {
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, leader: None, vote: None, votes: 0, voted_in: 0, resigned: None }
    }

    /// When the leader was last heard of.
    pub(crate) fn leader(&self) -> Option<Instant> {
        self.leader
    }

    /// When a leader was last heard of, or this node was one itself and resigned.
    pub(crate) fn leader_or_led(&self) -> Option<Instant> {
        self.leader.max(self.resigned)
    }

    pub(crate) fn note_leader(&mut self, now: Instant) {
        self.leader = self.leader.max(Some(now));
    }

    /// An election has made a leader: this node has taken in what it sent, or is it.
    pub(crate) fn note_elected(&mut self) {
        self.votes = 0;
    }

    /// It has voted, perhaps for itself. In one term it may be asked again.
    pub(crate) fn note_vote(&mut self, term: u64, now: Instant) {
        self.vote = self.vote.max(Some(now));
        if term != self.voted_in {
            self.voted_in = term;
            self.votes = self.votes.saturating_add(1);
        }
    }

    /// How long whoever has got its vote is waited for.
    fn patience(&self) -> Duration {
        ELECTION.0 * (1 << self.votes.saturating_sub(1).min(DOUBLED_AT_MOST))
    }

    pub(crate) fn note_resigned(&mut self, now: Instant) {
        self.resigned = Some(now);
    }

    /// From when on this node may stand itself: who has just resigned lets others go first.
    pub(crate) fn stands_from(&self) -> Instant {
        let missed = self.missed_from();
        self.resigned.map_or(missed, |at| missed.max(at + RESIGNED_FOR))
    }

    /// From when on it is worth to know who could be reached as the next leader.
    pub(crate) fn looks_ahead_from(&self) -> Instant {
        self.leader.unwrap_or(self.started) + LOOK_AHEAD_AFTER
    }

    /// From when on another leader may be wanted. openraft itself refuses votes while it keeps to a leader, which is the
    /// longer of the two times.
    pub(crate) fn missed_from(&self) -> Instant {
        let heard = self.leader.map(|at| at + ELECTION.1);
        let elected = self.vote.map(|at| at + self.patience());
        (self.started + STARTED_WITHIN).max(heard.max(elected).unwrap_or(self.started))
    }
}

/// When members last answered the leader's own messages: those come by connections that the leader opens.
#[derive(Debug, Default)]
pub(crate) struct Answered(Mutex<BTreeMap<NodeId, Nanos>>);

impl Answered {
    pub(crate) fn note(&self, node: NodeId, now: Nanos) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.entry(node).or_insert(now);
        *at = now.max(*at);
    }

    /// All of them that belong to the group.
    pub(crate) fn among(&self, is_member: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Nanos> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|node, _| is_member(*node));
        known.clone()
    }
}

/// Which nodes this one has reached lately.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<BTreeMap<NodeId, Instant>>);

impl Reached {
    pub(crate) fn note(&self, node: NodeId, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| now.duration_since(*at) < COUNTS_FOR);
        known.insert(node, now);
    }

    pub(crate) fn counts(&self, node: NodeId, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).is_some_and(|at| now.duration_since(*at) < COUNTS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_leader_is_missed_when_openraft_no_longer_keeps_to_it() {
        let start = Instant::now();
        let mut heard = Heard::new(start);
        assert_eq!(heard.missed_from(), start + STARTED_WITHIN, "it may not have reached this node yet");
        heard.note_leader(start + LONG);
        assert_eq!(heard.missed_from(), start + LONG + ELECTION.1);
        // News do not come in order.
        heard.note_leader(start);
        assert_eq!(heard.missed_from(), start + LONG + ELECTION.1);
    }

    #[test]
    fn a_leader_is_not_missed_while_what_it_sent_is_being_written() {
        let contacts = Contacts::new(Instant::now() - LONG);
        let is_missed = || contacts.heard_by_now().missed_from() <= Instant::now();
        assert!(is_missed());
        let (one, other) = (contacts.take_in(), contacts.take_in());
        drop(one);
        assert!(!is_missed());
        drop(other);
        assert!(is_missed());
    }

    #[test]
    fn who_has_voted_waits_for_the_one_who_got_the_vote() {
        let start = Instant::now();
        let mut heard = Heard::new(start);
        heard.note_leader(start);
        heard.note_vote(1, start + LONG);
        assert_eq!(heard.missed_from(), start + LONG + ELECTION.0);
        assert_eq!(heard.leader(), Some(start));
    }

    #[test]
    fn elections_that_make_no_leader_leave_more_time_to_the_next_one() {
        let start = Instant::now() + LONG;
        let mut heard = Heard::new(start - LONG);
        let mut waited = Vec::new();
        for term in 1..=6 {
            heard.note_vote(term, start);
            heard.note_vote(term, start);
            waited.push((heard.missed_from() - start).as_millis());
        }
        assert_eq!(waited, [500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        heard.note_leader(start);
        heard.note_elected();
        heard.note_vote(7, start + LONG);
        assert_eq!(heard.missed_from(), start + LONG + ELECTION.0);
        heard.note_vote(8, start + LONG);
        heard.note_elected();
        heard.note_vote(9, start + LONG);
        assert_eq!(heard.missed_from(), start + LONG + ELECTION.0);
    }

    #[test]
    fn who_has_resigned_lets_others_go_first_and_answers_them_as_before() {
        let start = Instant::now();
        let mut heard = Heard::new(start);
        heard.note_resigned(start + LONG);
        assert_eq!(heard.stands_from(), start + LONG + RESIGNED_FOR);
        assert_eq!(heard.missed_from(), start + STARTED_WITHIN);
        heard.note_leader(start + LONG * 2);
        assert_eq!(heard.stands_from(), heard.missed_from(), "that is over");
    }

    #[test]
    fn that_a_node_was_reached_counts_for_a_while_only() {
        let (reached, start) = (Reached::default(), Instant::now());
        assert!(!reached.counts(1, start));
        reached.note(1, start);
        assert!(reached.counts(1, start + COUNTS_FOR / 2) && !reached.counts(2, start));
        assert!(!reached.counts(1, start + COUNTS_FOR));
        reached.note(2, start + COUNTS_FOR);
        assert_eq!(reached.0.lock().unwrap().len(), 1, "what no longer counts is dropped");
    }

    #[test]
    fn answers_of_others_than_members_are_forgotten_and_none_makes_an_earlier_one_later() {
        let answered = Answered::default();
        answered.note(1, Nanos::new(9));
        answered.note(1, Nanos::new(5));
        answered.note(2, Nanos::new(7));
        assert_eq!(answered.among(|node| node == 1), BTreeMap::from([(1, Nanos::new(9))]));
        assert_eq!(answered.among(|_| true), BTreeMap::from([(1, Nanos::new(9))]));
    }
}
