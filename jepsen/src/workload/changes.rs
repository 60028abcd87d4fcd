//! Limits that change while their buckets are in use: lowered, raised, and what becomes of them when their owner is lost.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    families::{CHANGING, COUNTS, Variant, text_of},
    limits::Limited,
};
use crate::{
    client::{Client, Place},
    history::monotonic,
    timing::SESSION,
};

/// A node is given up after this, and another one asked.
const ATTEMPT: Duration = Duration::from_secs(4);
/// A change is in force at whoever decides about a `strict` rule as soon as a session is over: each is bound to what was
/// applied when it was granted.
const IN_FORCE_AFTER: u64 = SESSION + 300_000_000;

/// A change of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it was first asked for.
    pub called: u64,
    /// When it was acknowledged, if it was.
    pub answered: Option<u64>,
    /// Units a second of the rule `CHANGING` from then on.
    pub count: u64,
    /// What becomes of the buckets of the other rule.
    pub takeover: String,
}

/// Changes the rules until it is told to stop. Each change is asked for until it is acknowledged, under one key, before the next.
pub fn change_until(nodes: &[Place], seed: u64, stop: &AtomicBool) -> Vec<Change> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xc4a6_e500);
    let mut clients: Vec<Client> =
        nodes.iter().map(|node| Client::following(node.clone(), ATTEMPT)).collect();
    let mut changes = Vec::new();
    let mut now = Variant::FIRST;
    for number in 0_u64.. {
        let mut left = random.u64(800..3_500);
        while left > 0 && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
            left = left.saturating_sub(50);
        }
        if stop.load(Relaxed) {
            break;
        }
        // One of them at a time.
        now = match random.bool() {
            true => Variant { takeover: if now.takeover == "zero" { "reserve" } else { "zero" }, ..now },
            false => {
                let others: Vec<u64> = COUNTS.into_iter().filter(|count| *count != now.count).collect();
                Variant { count: others[random.usize(..others.len())], ..now }
            }
        };
        let called = monotonic();
        let answered = put(&mut clients, now, seed, number, &mut random, stop);
        changes.push(Change { called, answered, count: now.count, takeover: now.takeover.to_owned() });
    }
    changes
}

fn put(
    clients: &mut [Client],
    variant: Variant,
    seed: u64,
    number: u64,
    random: &mut fastrand::Rng,
    stop: &AtomicBool,
) -> Option<u64> {
    let key = format!("change-{seed}-{number}");
    while !stop.load(Relaxed) {
        let node = random.usize(..clients.len());
        let path = "/v1/rules/default?message=changed&timeout_ms=3000";
        let answer = clients[node].request("PUT", path, &[("idempotency-key", &key)], &text_of(variant));
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Some(monotonic());
        }
        thread::sleep(Duration::from_millis(random.u64(20..150)));
    }
    None
}

/// Which limits of a rule may have been in force when.
#[derive(Debug, Clone)]
pub struct InForce {
    /// When each may have begun to count, when it was over for certain, and its units. Both times grow.
    times: Vec<(u64, u64, u64)>,
}

impl InForce {
    /// Of a rule of a run.
    pub fn of(changes: &[Change], limited: &Limited) -> Self {
        let first = (0, None, limited.bound.count);
        let all = changes.iter().filter(|_| limited.name == CHANGING);
        let all: Vec<(u64, Option<u64>, u64)> =
            std::iter::once(first).chain(all.map(|one| (one.called, one.answered, one.count))).collect();
        let mut over = u64::MAX;
        let mut times: Vec<(u64, u64, u64)> = Vec::with_capacity(all.len());
        for (called, answered, count) in all.into_iter().rev() {
            times.push((called, over, count));
            if let Some(answered) = answered {
                over = over.min(answered.saturating_add(IN_FORCE_AFTER));
            }
        }
        times.reverse();
        Self { times }
    }

    /// The most units that any limit has that may have been in force between two instants.
    pub fn loosest(&self, from: u64, to: u64) -> u64 {
        let first = self.times.partition_point(|(_, over, _)| *over < from);
        let may = self.times[first..].iter().take_while(|(called, _, _)| *called <= to);
        may.map(|(_, _, count)| *count).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{SECOND, record};

    #[test]
    fn a_limit_counts_from_when_it_was_asked_for_until_the_next_one_is_in_force() {
        let mut limited = record().setup.limits[0].clone();
        limited.name = CHANGING.to_owned();
        let change = |called: u64, answered: Option<u64>, count| Change {
            called: called * SECOND,
            answered: answered.map(|at| at * SECOND),
            count,
            takeover: "zero".to_owned(),
        };
        let changes = [change(10, Some(11), 20), change(20, None, 90), change(30, Some(31), 40)];
        let in_force = InForce::of(&changes, &limited);
        let at = |from: u64, to: u64| in_force.loosest(from * SECOND, to * SECOND);
        assert_eq!((at(5, 6), at(12, 12), at(14, 15)), (200, 200, 20));
        // Nobody knows whether the second one ever came to be, until the third one is there.
        assert_eq!((at(14, 20), at(25, 26), at(32, 33), at(34, 40)), (90, 90, 90, 40));
    }
}
