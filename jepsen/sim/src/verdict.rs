//! Whether a simulated run kept the promises.

use std::{collections::BTreeMap, time::Duration};

use super::{
    fault::{Aim, Fault, Kind},
    plan::Plan,
    shared::{ChangeOfRules, Did, RuleOperation},
    steps,
    workload::{self, CARVED, CHANGING, END, FAMILIES, GIVEN_BACK, Law, family_of, name_of},
};
use tidegate_jepsen::{
    check::{
        bound::Bound,
        ledger::{self, Lines},
        linear,
    },
    history::{Operation, Outcome, Refund},
};

/// What nodes tell of a domain, by their names.
pub(super) type Histories = BTreeMap<String, Lines>;

/// Steps of the search for an order.
const STEPS: u64 = 2_000_000;
/// After the cluster is whole it may take so long until each node knows it.
const SETTLES_NS: u64 = 500_000_000;
/// Clocks that agree may be so far apart after a minute: windows begin at different times.
const SKEW: Duration = Duration::from_millis(40);
/// After a change of a limit is acknowledged, each owner decides by it within this time: its session is bound to it.
const IN_FORCE_AFTER_MS: u64 = 1_000;
/// What was asked before an owner went on is answered within this time.
const AFTER_STALL_MS: u64 = 1_000;
/// A node that is of no use to others is replaced within this time, also if it was the leader.
const REPLACED_WITHIN_MS: u64 = 7_000;

/// From one instant to another, in nanoseconds.
type Interval = (u64, u64);

/// What is left of a run without these.
fn without(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let (mut left, mut at) = (Vec::new(), 0);
    for (from, to) in intervals {
        if from > at {
            left.push((at, from));
        }
        at = at.max(to);
    }
    left.push((at, u64::MAX));
    left
}

/// Why too much was admitted, if it was, by so many times the law.
fn excess(law: Law, times: u64, operations: &[&Operation], refunds: &[&Refund]) -> Option<String> {
    let of = operations.iter().copied();
    match law {
        Law::Bucket(one) => {
            let bound = Bound { burst: one.burst * times, count: one.count * times, ..one };
            if !refunds.is_empty() {
                let worst = bound.worst_with_refunds(of, refunds);
                let (from, to) = (worst.from as f64 / 1e9, worst.to as f64 / 1e9);
                return (worst.burst > bound.burst).then(|| {
                    format!(
                        "of which units are given back: {} between {from:.3} s and {to:.3} s ({bound:?})",
                        worst.inside
                    )
                });
            }
            let violation = bound.check(of).err()?;
            let at = violation.completed as f64 / 1e9;
            let early = violation.early_by as f64 / 1e6;
            Some(format!("the check answered at {at:.3} s came {early:.3} ms too early ({bound:?})"))
        }
        Law::Log(count, period) => of_steps(steps::check(of, count * times, period, 0)),
        Law::Window(count, period) => of_steps(steps::check(of, count * times, period - SKEW, 1)),
    }
}

fn of_steps(excess: Option<steps::Excess>) -> Option<String> {
    let steps::Excess { from, length, inside, allowed } = excess?;
    let from = from as f64 / 1e9;
    Some(format!("{inside} in {length:?} from {from:.3} s on, {allowed} allowed"))
}

/// In no interval was more admitted than allowed.
pub(super) fn bounds(
    plan: &Plan,
    operations: &[Operation],
    refunds: &[Refund],
    changes: &[ChangeOfRules],
) -> Vec<String> {
    let mut faults = Vec::new();
    let refunds: Vec<&Refund> = refunds.iter().collect();
    let mut by_key: Vec<Vec<&Operation>> = vec![Vec::new(); END as usize];
    operations.iter().for_each(|one| by_key[one.key as usize].push(one));
    let ns = |millis: u64| millis * 1_000_000;
    let cuts: Vec<Interval> =
        plan.cuts().map(|(fault, until)| (ns(fault.at_ms.saturating_sub(100)), ns(until))).collect();
    let is_stun = |fault: &&Fault| matches!(fault.kind, Kind::Stun(_));
    let after_stun = plan.session_ms + 1_000;
    let stuns: Vec<Interval> = plan
        .faults
        .iter()
        .filter(is_stun)
        .map(|fault| (ns(fault.at_ms), ns(fault.ends_ms() + after_stun)))
        .collect();
    // An owner that was stopped for less than a session goes on with its buckets, beside what shares gave meanwhile.
    let is_short_stall =
        |fault: &&Fault| matches!(fault.kind, Kind::Pause(_)) && fault.lasts_ms < plan.session_ms + 500;
    let stalls: Vec<Interval> = plan
        .faults
        .iter()
        .filter(is_short_stall)
        .map(|fault| (ns(fault.at_ms), ns(fault.ends_ms() + AFTER_STALL_MS)))
        .collect();
    for (key, of_key) in (0..END).zip(&by_key) {
        let law = workload::law_of(key);
        let of_key_refunds = if key == GIVEN_BACK { &refunds[..] } else { &[] };
        let mut tell = |what: String, where_: &str| {
            faults.push(format!("too much admitted for the key {}{where_}: {what}", name_of(key)));
        };
        let is_open = family_of(key).is_some_and(|family| FAMILIES[family].is_open);
        // What it says of itself: once for each side.
        let sides = if is_open && !cuts.is_empty() { plan.sides().max(2) } else { 1 };
        // Whoever was stopped with its clock decides for a session more beside its successor.
        let stalls = if is_open { &stalls[..] } else { &[] };
        let times = sides * if stuns.is_empty() && stalls.is_empty() { 1 } else { 2 };
        if let Some(what) = excess(law, times, of_key, of_key_refunds) {
            tell(what, "");
            continue;
        }
        if times > 1 {
            let apart = stuns.iter().chain(stalls).chain(if is_open { &cuts[..] } else { &[] });
            for (from, to) in without(apart.copied().collect()) {
                let part: Vec<&Operation> =
                    of_key.iter().copied().filter(|one| one.invoked >= from && one.completed <= to).collect();
                if let Some(what) = excess(law, 1, &part, of_key_refunds) {
                    tell(what, " where nothing is cut");
                }
            }
        }
        if let Some(side) = only_side(plan).filter(|_| is_open && stuns.is_empty() && stalls.is_empty()) {
            for within in [true, false] {
                let part: Vec<&Operation> = of_key
                    .iter()
                    .copied()
                    .filter(|one| decider(one).is_some_and(|node| (side >> node & 1 == 1) == within))
                    .collect();
                if let Some(what) = excess(law, 1, &part, of_key_refunds) {
                    tell(what, " on one side of the cut");
                }
            }
        }
        if family_of(key) == Some(CHANGING) && stuns.is_empty() {
            for (from, to) in lowered(plan, changes) {
                let part: Vec<&Operation> =
                    of_key.iter().copied().filter(|one| one.invoked >= from && one.completed <= to).collect();
                if let Some(what) = excess(Law::Bucket(workload::lowered()), 1, &part, &[]) {
                    tell(what, " while its limit is lowered");
                }
            }
        }
    }
    faults
}

/// The nodes on one side, if there is one cut, and nothing else that keeps nodes from each other.
fn only_side(plan: &Plan) -> Option<u64> {
    let mut cuts = plan.cuts();
    let (first, _) = cuts.next()?;
    match first.kind {
        _ if cuts.next().is_some() => None,
        Kind::Partition(side) => Some(side),
        Kind::CutOff(Aim::Node(node)) => Some(1 << node),
        _ => None,
    }
}

/// The node that has decided.
fn decider(operation: &Operation) -> Option<usize> {
    let (_, name) = operation.decided_by.as_ref()?;
    let number: usize = name.strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1)
}

/// When each owner decides by the lower limit, and nobody has asked for the higher one yet.
fn lowered(plan: &Plan, changes: &[ChangeOfRules]) -> Vec<Interval> {
    let in_force = (plan.session_ms + IN_FORCE_AFTER_MS) * 1_000_000;
    let mut intervals = Vec::new();
    let mut since = None;
    for change in changes {
        match (change.to.lowered, since) {
            (true, None) => since = change.answered.map(|at| at + in_force),
            (false, Some(from)) => {
                intervals.push((from, change.called));
                since = None;
            }
            _ => {}
        }
    }
    intervals.extend(since.map(|from| (from, u64::MAX)));
    intervals.retain(|(from, to)| from < to);
    intervals
}

/// A node that hangs, that nobody reaches, or that is gone, and nothing else is wrong: its keys have another owner soon.
pub(super) fn owners_are_replaced(plan: &Plan, begun: &[Fault], operations: &[Operation]) -> Vec<String> {
    let mut faults = Vec::new();
    if plan.nodes < 3 || plan.latency_ms.1 > 20 || plan.session_ms > 3_000 {
        return faults;
    }
    for fault in begun {
        let (Kind::HungSync(aim)
        | Kind::Unreachable { aim, .. }
        | Kind::CutOff(aim)
        | Kind::Pause(aim)
        | Kind::Crash { aim, .. }) = fault.kind
        else {
            continue;
        };
        let harmless = |kind: Kind| matches!(kind, Kind::Lowered | Kind::Flood);
        let beside = begun.iter().any(|other| {
            other.place != fault.place
                && !harmless(other.kind)
                && other.at_ms < fault.ends_ms()
                && other.ends_ms() + 8_000 > fault.at_ms
        });
        let from = fault.at_ms + REPLACED_WITHIN_MS;
        if beside || from + 1_000 > fault.ends_ms() {
            continue;
        }
        let is_at = |node: u16| aim == Aim::Node(usize::from(node));
        let interval = from * 1_000_000..fault.ends_ms() * 1_000_000;
        // By key: how often it was asked for, and how often it had no owner.
        let mut keys: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for one in operations.iter().filter(|one| interval.contains(&one.invoked) && !is_at(one.node)) {
            let Some(family) = family_of(one.key) else { continue };
            let no_owner = one.decided_by.as_ref().is_some_and(|(by, _)| by == "fallback");
            if !FAMILIES[family].is_open && family != CARVED && (no_owner || one.decided_by.is_some()) {
                let known = keys.entry(one.key).or_default();
                known.0 += 1;
                known.1 += u64::from(no_owner);
            }
        }
        let orphans = keys.values().filter(|(asked, without)| *asked >= 5 && 2 * without > *asked).count();
        let all = keys.values().filter(|(asked, _)| *asked >= 5).count();
        // Whom nobody reaches may keep what it owns, since it reaches the others; not everything.
        let may_keep = if matches!(fault.kind, Kind::Unreachable { .. }) { all * 3 / 4 } else { 0 };
        if orphans > may_keep {
            faults
                .push(format!("owners are not replaced: {orphans} of {all} keys have none during: {fault}"));
        }
    }
    faults
}

/// A cluster that is whole decides each check at its owner.
pub(super) fn owners_decide(operations: &[Operation], whole_at_ms: u64) -> Option<String> {
    let since = whole_at_ms * 1_000_000 + SETTLES_NS;
    let other = operations.iter().filter(|one| one.invoked >= since).find(|one| {
        let by_owner = |(by, _): &(String, String)| by == "owner" || by == "forwarded";
        match one.outcome {
            Outcome::Admitted => !one.decided_by.as_ref().is_some_and(by_owner),
            // Denied by the other rule of the check, perhaps.
            Outcome::Denied => !one.decided_by.as_ref().is_none_or(by_owner),
            Outcome::Refused | Outcome::Unknown => true,
        }
    })?;
    Some(format!("a whole cluster does not decide as one: {other:?}"))
}

/// Rules are linearizable, and none that was acknowledged is lost.
/// Returns what is broken, and what could not be found out.
pub(super) fn rules(operations: &[RuleOperation], histories: &[Histories]) -> (Vec<String>, Vec<String>) {
    let (mut faults, mut unknown) = (Vec::new(), Vec::new());
    for (domain, histories) in histories.iter().enumerate() {
        let of_domain = || operations.iter().filter(move |one| one.domain == domain);
        let writes: Vec<ledger::Write> = of_domain()
            .filter_map(|one| match one.did {
                Did::Write(value, outcome) => Some(ledger::Write { value, outcome }),
                Did::Read(_) => None,
            })
            .collect();
        if let Err(fault) = ledger::check(&writes, &up_to_the_shortest(histories)) {
            faults.push(format!("rules of d{domain}: {fault:?}"));
        }
        let calls: Vec<linear::Operation> = of_domain()
            .filter(|one| !matches!(one.did, Did::Write(_, ledger::WriteOutcome::NotWritten)))
            .map(|one| linear::Operation { called: one.called, answered: one.answered, act: one.act() })
            .collect();
        match linear::check(&calls, STEPS) {
            linear::Verdict::Linearizable => {}
            linear::Verdict::Undecided => {
                unknown.push(format!(
                    "rules of d{domain}: no order was found in {STEPS} steps, nor that there is none"
                ));
            }
            linear::Verdict::Violated { stuck_at } => {
                let stuck: Vec<_> = stuck_at.iter().take(3).map(|place| &calls[*place]).collect();
                faults
                    .push(format!("rules of d{domain} are not linearizable: none can be next of {stuck:?}"));
            }
        }
    }
    (faults, unknown)
}

/// Rules are written until the end: one node may be a little ahead. Nodes that are behind are compared up to where they
/// are, and what was acknowledged must be at the one that is furthest.
fn up_to_the_shortest(histories: &Histories) -> Histories {
    let longest = histories.values().max_by_key(|lines| lines.last().map(|line| line.0));
    let Some(longest) = longest else { return Histories::new() };
    histories
        .iter()
        .map(|(name, lines)| {
            let last = lines.last().map_or(0, |line| line.0);
            let mut all = lines.clone();
            all.extend(longest.iter().filter(|line| line.0 > last));
            (name.clone(), all)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{plan::Shape, shared::ChangeOfRules, workload::Mode};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn plan(faults: Vec<Fault>) -> Plan {
        Plan { faults, nodes: 5, session_ms: 2_200, latency_ms: (1, 5), ..Plan::of(1, Shape::default()) }
    }

    fn fault(at_ms: u64, lasts_ms: u64, kind: Kind) -> Fault {
        Fault { place: 0, at_ms, lasts_ms, kind }
    }

    fn asked(key: u32, at: u64, outcome: Outcome, by: (&str, &str)) -> Operation {
        let decided_by = Some((by.0.to_owned(), by.1.to_owned()));
        Operation { invoked: at, completed: at + 1_000, key, node: 0, outcome, decided_by }
    }

    fn admitted(family: usize, count: u64, at: u64, by: &str) -> Vec<Operation> {
        let key = family as u32 * workload::KEYS + 1;
        (0..count).map(|n| asked(key, at + n, Outcome::Admitted, ("owner", by))).collect()
    }

    fn broken(plan: &Plan, operations: &[Operation]) -> usize {
        bounds(plan, operations, &[], &[]).len()
    }

    #[test]
    fn an_open_rule_may_have_more_in_a_cut_and_only_there() {
        let cut = plan(vec![fault(20_000, 2_000, Kind::OneWay(1, 2))]);
        let sixteen = |second: u64| admitted(workload::OPEN, 16, second * SECOND, "n1");
        assert_eq!((broken(&cut, &sixteen(21)), broken(&cut, &sixteen(5))), (0, 1));
        assert_eq!(broken(&plan(Vec::new()), &sixteen(21)), 1);
        let strict = admitted(workload::STRICT, 9, 21 * SECOND, "n1");
        assert_eq!(broken(&cut, &strict), 1, "a strict rule may not");
    }

    #[test]
    fn each_side_of_a_cut_may_have_its_bound_once() {
        let cut = plan(vec![fault(20_000, 2_000, Kind::Partition(0b11))]);
        let on = |one: &str, other: &str| {
            let mut all = admitted(workload::OPEN, 8, 21 * SECOND, one);
            all.extend(admitted(workload::OPEN, 8, 21 * SECOND, other));
            broken(&cut, &all)
        };
        assert_eq!((on("n1", "n4"), on("n1", "n2"), on("n3", "n4")), (0, 1, 1));
    }

    #[test]
    fn logs_and_windows_are_held_against_what_they_promise() {
        let calm = plan(Vec::new());
        let log = |count| broken(&calm, &admitted(workload::LOG, count, SECOND, "n1"));
        assert_eq!((log(60), log(61)), (0, 1));
        let window = |count| broken(&calm, &admitted(workload::FIXED, count, SECOND, "n1"));
        assert_eq!((window(40), window(41)), (0, 1));
    }

    #[test]
    fn a_lowered_limit_is_held_from_when_it_is_in_force_until_it_is_raised() {
        let calm = plan(Vec::new());
        let change = |lowered, called: u64, answered| ChangeOfRules {
            to: Mode { lowered, ..Mode::default() },
            called: called * SECOND,
            answered: Some(answered * SECOND),
        };
        let changes = [change(true, 10, 11), change(false, 20, 21)];
        let at = |second: u64| {
            let all = admitted(workload::CHANGING, 15, second * SECOND, "n1");
            bounds(&calm, &all, &[], &changes).len()
        };
        assert_eq!((at(9), at(12), at(16), at(22)), (0, 0, 1, 0));
    }

    #[test]
    fn whoever_was_stopped_with_its_clock_may_decide_beside_its_successor() {
        let stunned = plan(vec![fault(10_000, 2_000, Kind::Stun(Aim::Node(0)))]);
        let at = |second: u64| broken(&stunned, &admitted(workload::STRICT, 16, second * SECOND, "n1"));
        assert_eq!((at(13), at(30)), (0, 1));
    }

    /// Seed 23: the README says so of rules whose shares are not carved.
    #[test]
    fn what_shares_gave_during_a_short_stall_may_come_on_top_and_nothing_else() {
        let stalled = |lasts| plan(vec![fault(10_000, lasts, Kind::Pause(Aim::Node(0)))]);
        let at = |lasts, family, second: u64| {
            broken(&stalled(lasts), &admitted(family, 12, second * SECOND, "n1"))
        };
        assert_eq!((at(900, workload::OPEN, 11), at(900, workload::OPEN, 30)), (0, 1));
        assert_eq!(at(900, workload::STRICT, 11), 1);
        assert_eq!(at(6_000, workload::OPEN, 11), 1, "who was stopped for longer knows it");
    }

    #[test]
    fn keys_without_an_owner_are_found_when_one_node_hangs_for_long() {
        let hangs = fault(10_000, 12_000, Kind::HungSync(Aim::Node(1)));
        let told = |by: &str, faults: &[Fault]| {
            let all: Vec<Operation> =
                (0..20).map(|n| asked(1, 18 * SECOND + n, Outcome::Denied, (by, "n1"))).collect();
            owners_are_replaced(&plan(faults.to_vec()), faults, &all).len()
        };
        assert_eq!((told("fallback", &[hangs]), told("owner", &[hangs])), (1, 0));
        let beside = Fault { place: 1, ..fault(12_000, 1_000, Kind::Restart(2)) };
        assert_eq!(told("fallback", &[hangs, beside]), 0, "two things were wrong");
    }

    #[test]
    fn a_search_that_does_not_end_says_so() {
        // Writes that nobody has answered, of values that are never read, and one read of what nobody wrote: each order must
        // be tried.
        let write = |value: u64| RuleOperation {
            domain: 0,
            called: value,
            answered: None,
            did: Did::Write(value, ledger::WriteOutcome::Nothing),
        };
        let mut all: Vec<RuleOperation> = (1..40).map(write).collect();
        let read = |value, called| RuleOperation {
            domain: 0,
            called,
            answered: Some(called + 1),
            did: Did::Read(Some(value)),
        };
        all.extend((1..30).map(|value| read(value, 1_000 + 10 * value)));
        all.push(read(77, 5_000));
        let (broken, unknown) = rules(&all, &[Histories::new()]);
        assert_eq!((broken.len(), unknown.len()), (0, 1), "{broken:?}");
    }
}
