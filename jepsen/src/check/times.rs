//! When it was how bad: intervals of a run in which a rule may use another part of what it says of itself, or a node has a
//! reason not to answer.

use crate::{
    history::Operation,
    nemesis::{Cuts, Fault, Kind, Track},
    record::Record,
    timing::{PARTITION_LINGERS, SESSION},
};

/// From one instant to another, in nanoseconds of the history's clock.
pub type Interval = (u64, u64);

/// An owner that hangs for longer is replaced.
const REPLACED_AFTER: u64 = PARTITION_LINGERS;
/// A node that ended is back within this time, if nobody said when.
const BACK_WITHIN: u64 = 10_000_000_000;
/// A fault begins a little before it is written down, and a node that says that it is ready still meets its peers.
pub const EDGE: u64 = 300_000_000;

/// Until when a fault does harm to its targets.
fn harm_of(fault: &Fault, end_of_run: u64) -> Interval {
    let ended = fault.recovered.or(fault.ended.map(|at| at + BACK_WITHIN)).unwrap_or(end_of_run);
    (fault.begun.saturating_sub(EDGE), ended + EDGE)
}

/// A time in which rules may admit what they say of themselves for partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// When it began.
    pub from: u64,
    /// When the last of it is over: it has lingered.
    pub to: u64,
    /// How many cuts it is made of: each may leave a bucket more than there was.
    pub cuts: u64,
}

/// When nodes could not reach each other, or most of them did not run: partitions, as rules say of themselves.
pub fn partitions(record: &Record) -> Vec<Partition> {
    let mut all: Vec<Interval> = cuts(record)
        .into_iter()
        .map(|fault| (fault.begun.saturating_sub(EDGE), over(record, fault)))
        .collect();
    all.extend(without_majority(record));
    all.sort_unstable();
    let mut partitions: Vec<Partition> = Vec::new();
    for (from, to) in all {
        match partitions.last_mut() {
            Some(last) if from <= last.to => (last.to, last.cuts) = (last.to.max(to), last.cuts + 1),
            _ => partitions.push(Partition { from, to, cuts: 1 }),
        }
    }
    partitions
}

/// The faults that cut who can reach whom.
pub fn cuts(record: &Record) -> Vec<&Fault> {
    let mut without_owner: Option<Vec<u64>> = None;
    let mut is_cut = |fault: &&Fault| match fault.kind.cuts() {
        Cuts::Always => true,
        Cuts::Never => false,
        Cuts::IfLinksAreLost => {
            let times = without_owner.get_or_insert_with(|| decided_without_owner(record));
            let (from, to) = (fault.begun, fault.ended.unwrap_or(record.times.ended) + EDGE);
            let next = times.partition_point(|at| *at < from);
            times.get(next).is_some_and(|at| *at <= to)
        }
    };
    record.faults.iter().filter(|fault| is_cut(fault)).collect()
}

/// When the nodes that were asked held an owner for lost.
fn decided_without_owner(record: &Record) -> Vec<u64> {
    let is_without = |one: &&Operation| {
        one.decided_by.as_ref().is_some_and(|(how, _)| how == "share" || how == "fallback")
    };
    let mut times: Vec<u64> =
        record.history.operations.iter().filter(is_without).map(|one| one.completed).collect();
    times.sort_unstable();
    times
}

/// When a cut has lingered.
pub fn over(record: &Record, fault: &Fault) -> u64 {
    fault.ended.unwrap_or(record.times.ended).saturating_add(PARTITION_LINGERS)
}

/// When as many nodes were gone as leave no majority.
pub(super) fn without_majority(record: &Record) -> Vec<Interval> {
    let end = record.times.ended;
    let mut edges: Vec<(u64, i32)> = Vec::new();
    for fault in record.faults.iter().filter(|fault| takes_nodes_away(fault.kind)) {
        let (from, to) = harm_of(fault, end);
        let count = at_once(fault);
        edges.extend([(from, count), (to, -count)]);
    }
    edges.sort_unstable();
    let (mut gone, most) = (0, i32::from(record.setup.nodes.div_ceil(2)));
    let mut since = None;
    let mut intervals = Vec::new();
    for (at, change) in edges {
        gone += change;
        match since {
            None if gone >= most => since = Some(at),
            Some(from) if gone < most => {
                intervals.push((from, at + PARTITION_LINGERS));
                since = None;
            }
            _ => {}
        }
    }
    intervals.extend(since.map(|from| (from, end)));
    intervals
}

/// When an owner may have hung for less than it takes to replace it, and gone on: with for how long.
pub fn stalls(record: &Record) -> Vec<(Interval, u64)> {
    let of_pauses = record.faults.iter().filter(|fault| fault.kind == Kind::Pause);
    let stall = |fault: &Fault| {
        let ended = fault.ended.unwrap_or(record.times.ended);
        let long = ended.saturating_sub(fault.begun);
        (long <= REPLACED_AFTER).then(|| {
            let window = (fault.begun.saturating_sub(EDGE), ended + EDGE);
            (window, long.min(SESSION) + EDGE)
        })
    };
    of_pauses.filter_map(stall).collect()
}

/// When a node whose machine had been stopped may have believed in a session that was over: nothing tells it, and no limiter can
/// be strict then.
pub fn stale_sessions(record: &Record) -> Vec<Interval> {
    let stopped = record.faults.iter().filter(|fault| fault.kind == Kind::VmStop);
    let stale = |fault: &Fault| {
        let went_on = fault.ended.unwrap_or(record.times.ended);
        (went_on.saturating_sub(EDGE), went_on + SESSION + EDGE)
    };
    merged(stopped.map(stale).collect())
}

fn takes_nodes_away(kind: Kind) -> bool {
    // Whose disk fails has no session until its log has worked for a while.
    kind.track() == Track::Process
        || matches!(kind, Kind::FullDisk | Kind::FailedFsync | Kind::HungFsync | Kind::Scale)
}

/// How many nodes a fault takes away at the same time.
fn at_once(fault: &Fault) -> i32 {
    match fault.kind {
        Kind::MoveAddresses => fault.targets.len() as i32,
        // Those that leave by plan are not missed, if they were seen to have left nothing behind.
        Kind::Scale if fault.evidence.is_some() => 0,
        Kind::Scale => fault.targets.len() as i32,
        _ => 1,
    }
}

/// When a node had a reason not to answer.
pub fn impaired(record: &Record, node: u16) -> Vec<Interval> {
    let name = format!("n{}", node + 1);
    let of_node = record.faults.iter().filter(|fault| {
        (fault.kind.track() == Track::Process || fault.kind == Kind::Scale)
            && (fault.targets.contains(&name) || matches!(fault.kind, Kind::Rolling | Kind::Upgrade))
    });
    let mut all: Vec<Interval> = of_node.map(|fault| harm_of(fault, record.times.ended)).collect();
    // One that ended by itself is started again; whether it had a reason is another checker's matter.
    let ends = record.ends.iter().filter(|end| end.node == name && end.code != 0);
    all.extend(ends.map(|end| (end.at.saturating_sub(2 * EDGE), end.at + BACK_WITHIN)));
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
    let jumps = record.faults.iter().filter(|fault| matches!(fault.kind, Kind::ClockJump | Kind::VmStop));
    jumps.map(|fault| fault.begun).min().unwrap_or(u64::MAX)
}

/// Whether an interval meets one of these, which are sorted and do not touch.
pub fn meets(intervals: &[Interval], from: u64, to: u64) -> bool {
    let next = intervals.partition_point(|(_, end)| *end < from);
    intervals.get(next).is_some_and(|(begin, _)| *begin <= to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{SECOND, admitted, fault, record};

    #[test]
    fn intervals_are_merged_and_met() {
        let all = merged(vec![(5, 8), (1, 2), (7, 9), (20, 30)]);
        assert_eq!(all, [(1, 2), (5, 9), (20, 30)]);
        assert!(meets(&all, 3, 5) && meets(&all, 9, 10) && !meets(&all, 10, 19) && !meets(&all, 31, 40));
    }

    #[test]
    fn what_keeps_nobody_from_reaching_another_is_no_partition_unless_owners_were_held_for_lost() {
        let mut record = record();
        record.setup.nodes = 5;
        for kind in [Kind::Slow, Kind::Loss, Kind::Double, Kind::FarApart, Kind::Kill, Kind::VmStop] {
            record.faults.push(fault(kind, "n1", 20, 25));
        }
        assert_eq!(partitions(&record), []);
        let share = |at| Operation { decided_by: Some(("share".into(), "n2".into())), ..admitted(0, at) };
        record.history.operations.push(share(26 * SECOND));
        assert_eq!(partitions(&record), [], "it was afterwards");
        record.history.operations.push(share(22 * SECOND));
        assert_eq!(
            cuts(&record).iter().map(|cut| cut.kind).collect::<Vec<_>>(),
            [Kind::Slow, Kind::Loss, Kind::FarApart]
        );
        let [Partition { from, to, cuts: 3 }] = partitions(&record)[..] else { panic!("one of three") };
        assert_eq!((from, to), (20 * SECOND - EDGE, 25 * SECOND + PARTITION_LINGERS));
    }

    #[test]
    fn nodes_that_are_gone_one_after_the_other_leave_a_majority() {
        let mut record = record();
        record.setup.nodes = 5;
        for (place, node) in ["n1", "n2", "n3", "n4"].into_iter().enumerate() {
            record.faults.push(fault(Kind::Kill, node, 20 + 3 * place as u64, 22 + 3 * place as u64));
        }
        assert_eq!(partitions(&record), []);
        record.faults.push(fault(Kind::FullDisk, "n5", 19, 30));
        assert_eq!(partitions(&record), []);
        record.faults.push(fault(Kind::FailedFsync, "n1", 23, 24));
        assert_eq!(partitions(&record).len(), 1);
    }
}
