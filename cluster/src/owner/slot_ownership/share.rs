//! Which share of lost buckets this node gives, where checks read it.
//!
//! A check reads it before it charges a share and again afterwards; if it has changed in between, the charge is forfeited. So
//! once [`SlotOwnership::set_share`] has returned nothing more is given by the earlier one, and the leader may be told that the index
//! of the log that has changed it is applied.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use tidegate_limiter::Nanos;

use super::SlotOwnership;

const PARTS_BITS: u32 = 32;

/// What this node may give of buckets whose owner is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Since when this node can know that an owner does not answer, and has had a share as large as this one.
    pub(crate) since: Nanos,
    /// How many equal parts there are, of which this node gives one.
    pub(crate) parts: u32,
    /// How often it has changed.
    pub(crate) changes: u32,
}

impl SlotOwnership {
    /// This node has applied more of the log before it has started: until it has applied it again up to `index`, it gives one of
    /// no fewer parts than these.
    pub(crate) fn hold_share(&self, parts: u32, index: u64) {
        self.core().held_share = Some((parts, index));
    }

    /// Takes in what the log says of this node's share up to this index. To be called before [`SlotOwnership::observe`] with the same
    /// index.
    pub(crate) fn set_share(&self, index: u64, parts: Option<u32>, now: Nanos) {
        let mut core = self.core();
        if core.held_share.is_some_and(|(_, until)| index >= until) {
            core.held_share = None;
        }
        let least = core.held_share.map_or(0, |(parts, _)| parts);
        let parts = u64::from(parts.map_or(0, |parts| parts.max(least)));
        let word = self.share.load(Relaxed);
        let (changes, before) = (word >> PARTS_BITS, word & u64::from(u32::MAX));
        if parts == before {
            return;
        }
        if parts != 0 && (before == 0 || parts < before) {
            // What refilled before was another node's to give.
            self.shares_from.fetch_max(now.get(), SeqCst);
        }
        self.share.store((changes.wrapping_add(1) << PARTS_BITS) | parts, SeqCst);
    }

    /// What this node may give at this instant. `None`: nothing, because the log gives it no share, or it has begun a moment ago,
    /// or was stopped (which it finds out here too, if nobody else has yet), or has had no session for too long.
    pub(crate) fn share(&self, now: Nanos) -> Option<Share> {
        // A share that has become larger is read with the instant from which on it counts.
        let word = self.share.load(SeqCst);
        let is_awake = now.get() < self.awake_until.load(Acquire);
        let from = self.shares_from.load(SeqCst);
        let parts = (word & u64::from(u32::MAX)) as u32;
        let counts = is_awake && parts != 0 && (from..self.shares_until.load(Relaxed)).contains(&now.get());
        counts.then(|| Share { since: Nanos::new(from), parts, changes: (word >> PARTS_BITS) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::ids::NodeStart;
    use crate::owner::{
        session::SessionTiming,
        shares::{WITHOUT_CONTACT, WITHOUT_CONTACT_AT_START},
        slot_ownership::share::*,
        table::Table,
    };

    const TERMS: SessionTiming =
        SessionTiming { node: Duration::from_secs(2), leader: Duration::from_secs(3) };

    fn at(millis: u64) -> Nanos {
        Nanos::new(1_000_000_000 + millis * 1_000_000)
    }

    /// A node that has run long enough to give shares.
    fn ownership() -> SlotOwnership {
        let ownership = SlotOwnership::new(NodeStart { node: 1, incarnation: 1 }, TERMS, at(0));
        for millis in (0..=5_000).step_by(100) {
            ownership.watch(at(millis));
        }
        ownership
    }

    #[test]
    fn a_node_without_a_share_gives_none_and_one_that_becomes_larger_counts_from_then_on() {
        let ownership = ownership();
        assert_eq!(ownership.share(at(5_000)), None);
        ownership.set_share(7, Some(4), at(5_010));
        let first = ownership.share(at(5_020)).unwrap();
        assert_eq!((first.parts, first.since), (4, at(5_010)));
        ownership.set_share(8, Some(5), at(5_030));
        let smaller = ownership.share(at(5_040)).unwrap();
        assert_eq!((smaller.parts, smaller.since), (5, at(5_010)), "it has had as much before");
        ownership.set_share(9, Some(4), at(5_050));
        let again = ownership.share(at(5_060)).unwrap();
        assert_eq!((again.parts, again.since), (4, at(5_050)));
        assert_ne!(again, first);
        ownership.set_share(10, None, at(5_070));
        assert_eq!(ownership.share(at(5_080)), None);
    }

    #[test]
    fn a_share_that_changes_and_is_again_what_it_was_is_another_one() {
        let ownership = ownership();
        ownership.set_share(7, Some(4), at(0));
        let before = ownership.share(at(5_000)).unwrap();
        ownership.set_share(8, Some(6), at(0));
        ownership.set_share(9, Some(4), at(0));
        let after = ownership.share(at(5_000)).unwrap();
        assert!(before.parts == after.parts && before != after, "what was charged in between is forfeited");
    }

    #[test]
    fn until_all_of_the_log_is_applied_again_no_share_is_larger_than_any_that_it_names() {
        let ownership = ownership();
        ownership.hold_share(6, 20);
        ownership.set_share(7, Some(3), at(0));
        assert_eq!(ownership.share(at(5_000)).map(|share| share.parts), Some(6));
        ownership.set_share(19, None, at(0));
        assert_eq!(ownership.share(at(5_000)), None);
        ownership.set_share(19, Some(8), at(0));
        assert_eq!(ownership.share(at(5_000)).map(|share| share.parts), Some(8));
        ownership.set_share(20, Some(3), at(0));
        assert_eq!(ownership.share(at(5_000)).map(|share| share.parts), Some(3));
    }

    #[test]
    fn a_node_without_a_session_for_a_day_gives_none() {
        let ownership = ownership();
        ownership.set_share(1, Some(2), at(0));
        let watched = |at: Nanos| {
            ownership.watch(at);
            // One look later than a stop of the process would be held against it.
            let end = at.saturating_add(TERMS.leader * 2);
            let mut now = at;
            while now < end {
                now = now.saturating_add(Duration::from_millis(100));
                ownership.watch(now);
            }
            ownership.share(now)
        };
        assert!(watched(at(6_000)).is_some());
        assert_eq!(watched(at(0).saturating_add(WITHOUT_CONTACT_AT_START)), None, "it may have been removed");
        let asked = at(0).saturating_add(WITHOUT_CONTACT_AT_START * 2);
        let question = ownership.ask(asked);
        ownership.grant(question, 0, asked);
        assert!(watched(asked.saturating_add(WITHOUT_CONTACT / 2)).is_some());
        let late = asked.saturating_add(WITHOUT_CONTACT + TERMS.node);
        assert_eq!(watched(late), None);
        let asked = late.saturating_add(TERMS.leader * 3);
        let question = ownership.ask(asked);
        ownership.grant(question, 5, asked);
        assert_eq!(watched(asked), None, "what it was granted for is not applied");
        drop(ownership.observe(
            5,
            &std::sync::Arc::new(Table::default()),
            asked,
            crate::owner::slot_ownership::observe::NoBuckets,
        ));
        assert!(watched(asked).is_some());
    }
}
