//! Which node to ask: a state machine of values, with time as an argument: how long ago the layer was made.
//!
//! Of the nodes that may be asked two are drawn, and the one with fewer checks under way is taken (Mitzenmacher: "The
//! power of two choices in randomized load balancing", 2001). **A node that did not answer is left alone for a while**,
//! longer each time, so that requests do not wait for it; then one request at a time tries it again.

use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

/// How long a node is left alone after its first failure; twice as long after each further one.
const FIRST_REST: Duration = Duration::from_millis(100);
/// At most so long.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// What is known of a node.
#[derive(Debug, Default)]
pub(super) struct Health {
    in_flight: AtomicU32,
    /// Failures since it answered the last time.
    failures: AtomicU32,
    /// It is not asked before this instant, in nanoseconds; 0: it may be.
    rests_until: AtomicU64,
}

/// A check that is under way at a node; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Asking<'h>(&'h Health);

impl Health {
    pub(super) fn begin(&self) -> Asking<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        Asking(self)
    }

    /// It has answered. Whether that is news.
    pub(super) fn answered(&self) -> bool {
        if self.failures.load(Relaxed) == 0 {
            return false;
        }
        self.rests_until.store(0, SeqCst);
        self.failures.swap(0, SeqCst) > 0
    }

    /// It has not. Whether that is news.
    pub(super) fn failed(&self, now: Duration) -> bool {
        let before = self.failures.fetch_add(1, SeqCst);
        let rest = FIRST_REST.saturating_mul(1 << before.min(16)).min(LONGEST_REST);
        self.rests_until.store(nanos(now.saturating_add(rest)), SeqCst);
        before == 0
    }

    /// Whether it may be asked. Of those who find that a rest is over, one gets to try: the others see the next rest.
    fn may_be_asked(&self, now: Duration) -> bool {
        let until = self.rests_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let next = nanos(now.saturating_add(FIRST_REST));
        until <= nanos(now) && self.rests_until.compare_exchange(until, next, SeqCst, Relaxed).is_ok()
    }
}

/// Enough for 584 years.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The node to ask, by its place; none if all rest, or were tried. `draw(n)` is a number below n.
pub(super) fn choose(
    nodes: &[Health],
    tried: Option<usize>,
    now: Duration,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<usize> {
    // A node whose rest is over is tried with the next request, whatever the others do: it must come back some time.
    let rested = |place: &usize| nodes[*place].rests_until.load(Relaxed) != 0;
    let all = || (0..nodes.len()).filter(|place| Some(*place) != tried);
    if let Some(place) = all().find(|place| rested(place) && nodes[*place].may_be_asked(now)) {
        return Some(place);
    }
    let up: usize = all().filter(|place| !rested(place)).count();
    let nth = |n: usize| all().filter(|place| !rested(place)).nth(n);
    if up == 0 {
        return None;
    }
    let first = draw(up);
    let second = if up > 1 { (first + 1 + draw(up - 1)) % up } else { first };
    let (first, second) = (nth(first), nth(second));
    let busy = |place: Option<usize>| place.map_or(u32::MAX, |place| nodes[place].in_flight.load(Relaxed));
    if busy(second) < busy(first) { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000 + millis)
    }

    fn nodes(count: usize) -> Vec<Health> {
        (0..count).map(|_| Health::default()).collect()
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let nodes = nodes(2);
        let _busy = nodes[0].begin();
        for first in 0..2 {
            assert_eq!(choose(&nodes, None, at(0), |below| first % below), Some(1));
        }
        let _busier = [nodes[1].begin(), nodes[1].begin()];
        assert_eq!(choose(&nodes, None, at(0), |_| 0), Some(0));
    }

    #[test]
    fn a_check_that_is_over_is_not_counted() {
        let nodes = nodes(1);
        drop(nodes[0].begin());
        assert_eq!(nodes[0].in_flight.load(Relaxed), 0);
    }

    #[test]
    fn who_did_not_answer_is_left_alone_and_then_tried_once() {
        let nodes = nodes(2);
        assert!(nodes[0].failed(at(0)), "that is news");
        for millis in 0..100 {
            assert_eq!(choose(&nodes, None, at(millis), |below| below - 1), Some(1));
        }
        assert_eq!(choose(&nodes, None, at(100), |_| 0), Some(0), "one tries");
        assert_eq!(choose(&nodes, None, at(100), |_| 0), Some(1), "and only one");
        assert!(!nodes[0].failed(at(110)), "no news");
        assert_eq!(choose(&nodes, None, at(300), |_| 0), Some(1), "twice as long");
        assert_eq!(choose(&nodes, None, at(310), |_| 0), Some(0));
        assert!(nodes[0].answered());
        assert_eq!(choose(&nodes, None, at(311), |_| 0), Some(0));
        assert!(!nodes[0].answered());
    }

    #[test]
    fn the_rest_has_an_end() {
        let nodes = nodes(1);
        (0..40).for_each(|_| {
            nodes[0].failed(at(0));
        });
        assert_eq!(choose(&nodes, None, at(4_999), |_| 0), None);
        assert_eq!(choose(&nodes, None, at(5_000), |_| 0), Some(0));
    }

    #[test]
    fn the_second_attempt_goes_to_another_node() {
        let nodes = nodes(3);
        for draw in 0..3 {
            assert_ne!(choose(&nodes, Some(1), at(0), |below| draw % below), Some(1));
        }
        assert_eq!(choose(&nodes[..1], Some(0), at(0), |_| 0), None);
    }
}
