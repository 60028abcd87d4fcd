//! What a node counts of the checks it answers. Each worker thread counts for itself, on cache lines of its own; the
//! sums are made when somebody asks.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::check::{Decider, ProblemKind};

/// Upper bounds of the latency histogram's buckets.
pub(crate) const LATENCY_BOUNDS: [Duration; 14] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_micros(1_000),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
];

/// One of each kind of problem, of which there are more than arrays have a default for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByKind<T>(pub(crate) [T; ProblemKind::ALL.len()]);

impl<T: Default> Default for ByKind<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

/// The counters of one worker thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    allowed: [AtomicU64; Decider::ALL.len()],
    denied: [AtomicU64; Decider::ALL.len()],
    shadow_denied: AtomicU64,
    problems: ByKind<AtomicU64>,
    batches: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    latency_nanos: AtomicU64,
}

impl WorkerMetrics {
    /// Counts a check that was answered after `took`.
    pub(crate) fn count_check(&self, allowed: bool, decider: Decider, took: Duration) {
        let results = if allowed { &self.allowed } else { &self.denied };
        results[decider as usize].fetch_add(1, Relaxed);
        self.latency[LATENCY_BOUNDS.partition_point(|bound| *bound < took)].fetch_add(1, Relaxed);
        self.latency_nanos.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// Counts a rule that would have denied, were it enforced.
    pub(crate) fn count_shadow_denial(&self) {
        self.shadow_denied.fetch_add(1, Relaxed);
    }

    /// Counts a request that was refused.
    pub(crate) fn count_problem(&self, kind: ProblemKind) {
        self.problems.0[kind as usize].fetch_add(1, Relaxed);
    }

    /// Counts a batch, besides its checks.
    pub(crate) fn count_batch(&self) {
        self.batches.fetch_add(1, Relaxed);
    }
}

/// The sums over all worker threads.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) allowed: [u64; Decider::ALL.len()],
    pub(crate) denied: [u64; Decider::ALL.len()],
    pub(crate) shadow_denied: u64,
    pub(crate) problems: ByKind<u64>,
    pub(crate) batches: u64,
    pub(crate) latency: [u64; LATENCY_BOUNDS.len() + 1],
    pub(crate) latency_nanos: u64,
}

impl Totals {
    /// Adds the workers up. Each number is right; they need not all be of the same instant.
    pub(crate) fn of(workers: &[WorkerMetrics]) -> Self {
        let mut totals = Self::default();
        for worker in workers {
            add(&mut totals.allowed, &worker.allowed);
            add(&mut totals.denied, &worker.denied);
            add(&mut totals.problems.0, &worker.problems.0);
            add(&mut totals.latency, &worker.latency);
            totals.shadow_denied += worker.shadow_denied.load(Relaxed);
            totals.batches += worker.batches.load(Relaxed);
            totals.latency_nanos += worker.latency_nanos.load(Relaxed);
        }
        totals
    }
}

fn add(totals: &mut [u64], counters: &[AtomicU64]) {
    for (total, counter) in totals.iter_mut().zip(counters) {
        *total += counter.load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_counts_in_the_first_bucket_that_holds_it() {
        let worker = WorkerMetrics::default();
        for took in
            [Duration::ZERO, Duration::from_micros(10), Duration::from_micros(11), Duration::from_secs(9)]
        {
            worker.count_check(true, Decider::Owner, took);
        }
        let totals = Totals::of(&[worker]);
        assert_eq!((totals.latency[0], totals.latency[1], totals.latency[LATENCY_BOUNDS.len()]), (2, 1, 1));
        assert_eq!(totals.latency_nanos, 9_000_021_000);
    }

    #[test]
    fn workers_add_up() {
        let workers = [WorkerMetrics::default(), WorkerMetrics::default()];
        workers[0].count_check(true, Decider::Owner, Duration::ZERO);
        workers[1].count_check(true, Decider::Owner, Duration::ZERO);
        workers[1].count_check(false, Decider::Forwarded, Duration::ZERO);
        workers[1].count_problem(ProblemKind::NotJson);
        let totals = Totals::of(&workers);
        assert_eq!(totals.allowed, [2, 0, 0, 0, 0, 0]);
        assert_eq!(totals.denied, [0, 1, 0, 0, 0, 0]);
        assert_eq!(totals.problems.0.iter().sum::<u64>(), 1);
    }
}
