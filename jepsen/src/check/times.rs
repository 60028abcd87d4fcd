//! When it was how bad: intervals of a run in which a rule may use another part of what it says of itself, or a node has a
//! reason not to answer.

use crate::{
    nemesis::{Fault, Kind, Lane},
    record::Record,
};

/// From one instant to another, in nanoseconds of the history's clock.
pub type Interval = (u64, u64);

/// After the network is whole again, old and new owner may both still decide: sessions, an election, and the time until the
/// members hear of each other.
pub const PARTITION_LINGERS: u64 = 10_000_000_000;
/// A fault begins a little before it is written down, and a node that says that it is ready still meets its peers.
const EDGE: u64 = 300_000_000;

/// Until when a fault does harm to its targets.
fn harm_of(fault: &Fault, end_of_run: u64) -> Interval {
    let ended = fault.recovered.or(fault.ended.map(|at| at + PARTITION_LINGERS)).unwrap_or(end_of_run);
    (fault.begun.saturating_sub(EDGE), ended + EDGE)
}

/// When nodes could not reach each other, or most of them did not run: partitions, as rules say of themselves.
pub fn partitions(record: &Record) -> Vec<Interval> {
    let end = record.times.ended;
    let mut intervals: Vec<Interval> = Vec::new();
    let of_network = record.faults.iter().filter(|fault| fault.kind.lane() == Lane::Network);
    intervals.extend(of_network.map(|fault| {
        let ended = fault.ended.unwrap_or(end);
        (fault.begun.saturating_sub(EDGE), ended + PARTITION_LINGERS)
    }));
    // Where as many nodes are gone as leave no majority.
    let mut edges: Vec<(u64, i32)> = Vec::new();
    for fault in record.faults.iter().filter(|fault| takes_nodes_away(fault.kind)) {
        let (from, to) = harm_of(fault, end);
        edges.extend([(from, 1), (to + PARTITION_LINGERS, -1)]);
    }
    edges.sort_unstable();
    let (mut gone, most) = (0, i32::from(record.setup.nodes.div_ceil(2)));
    let mut since = None;
    for (at, change) in edges {
        gone += change;
        match since {
            None if gone >= most => since = Some(at),
            Some(from) if gone < most => {
                intervals.push((from, at));
                since = None;
            }
            _ => {}
        }
    }
    intervals.extend(since.map(|from| (from, end)));
    merged(intervals)
}

fn takes_nodes_away(kind: Kind) -> bool {
    // Whose disk fails has no session until its log has worked for a while.
    kind.lane() == Lane::Process || matches!(kind, Kind::FullDisk | Kind::FailedFsync)
}

/// When a node had a reason not to answer.
pub fn impaired(record: &Record, node: u16) -> Vec<Interval> {
    let name = format!("n{}", node + 1);
    let of_node = record.faults.iter().filter(|fault| {
        fault.kind.lane() == Lane::Process
            && (fault.targets.contains(&name) || matches!(fault.kind, Kind::Rolling | Kind::Upgrade))
    });
    let mut all: Vec<Interval> = of_node.map(|fault| harm_of(fault, record.times.ended)).collect();
    // One that ended by itself is started again; whether it had a reason is another checker's matter.
    let ends = record.ends.iter().filter(|end| end.node == name && end.code != 0);
    all.extend(ends.map(|end| (end.at.saturating_sub(2 * EDGE), end.at + PARTITION_LINGERS)));
    merged(all)
}

/// When some clock did not run like the others.
pub fn drifts(record: &Record) -> Vec<Interval> {
    let of_clocks =
        record.faults.iter().filter(|fault| matches!(fault.kind, Kind::ClockDrift | Kind::ClockRunaway));
    let interval =
        |fault: &Fault| (fault.begun.saturating_sub(EDGE), fault.ended.unwrap_or(record.times.ended) + EDGE);
    merged(of_clocks.map(interval).collect())
}

/// Sorted, and no two touch.
fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut merged: Vec<Interval> = Vec::new();
    for (from, to) in intervals {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Until when all wall clocks agree: windows lie where their owner's has them, and promise nothing where they do not.
pub fn wall_clocks_agree_until(record: &Record) -> u64 {
    let jumps = record.faults.iter().filter(|fault| fault.kind == Kind::ClockJump);
    jumps.map(|fault| fault.begun).min().unwrap_or(u64::MAX)
}

/// The one and the other.
pub fn both(one: &[Interval], other: &[Interval]) -> Vec<Interval> {
    merged([one, other].concat())
}

/// What is left of a run without these.
pub fn without(intervals: &[Interval], from: u64, to: u64) -> Vec<Interval> {
    let (mut left, mut at) = (Vec::new(), from);
    for (begin, end) in intervals {
        if *begin > at {
            left.push((at, (*begin).min(to)));
        }
        at = at.max(*end);
    }
    if at < to {
        left.push((at, to));
    }
    left.retain(|(from, to)| from < to);
    left
}

/// Whether an interval meets one of these, which are sorted and do not touch.
pub fn meets(intervals: &[Interval], from: u64, to: u64) -> bool {
    let next = intervals.partition_point(|(_, end)| *end < from);
    intervals.get(next).is_some_and(|(begin, _)| *begin <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_merged_taken_away_and_met() {
        let all = merged(vec![(5, 8), (1, 2), (7, 9), (20, 30)]);
        assert_eq!(all, [(1, 2), (5, 9), (20, 30)]);
        assert_eq!(without(&all, 0, 25), [(0, 1), (2, 5), (9, 20)]);
        assert!(meets(&all, 3, 5) && meets(&all, 9, 10) && !meets(&all, 10, 19) && !meets(&all, 31, 40));
    }
}
