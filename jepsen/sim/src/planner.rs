//! From a seed to a plan: nodes, network and load by chance, and faults and more load by its theme.

use fastrand::Rng;

use super::{
    fault::{Aim, Fault, Kind, Nodes},
    moves::add_moves,
    plan::{Plan, Shape},
    theme::Theme,
    workload::{CARVED, CHANGING, FAMILIES, FIXED, INLINE, LEAKY, LOG, LONG, OPEN, SLIDING, STRICT},
};

/// How long a cluster may take until all of its nodes are there.
const STARTED_MS: u64 = 6_000;
/// How long after the last fault the cluster must be whole again.
const HEALS_MS: u64 = 14_000;

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, shape: Shape) -> Self {
        let mut dice = Rng::with_seed(seed);
        let theme = Theme::of(seed, &mut dice);
        // Small clusters more often: they are quick, and most of what can go wrong needs three.
        let of_seed = theme.nodes(&mut dice);
        let nodes = shape.nodes.unwrap_or(of_seed);
        let late = if nodes >= 4 { dice.usize(..=1) } else { 0 };
        let longest = [3, 5, 10, 20][dice.usize(..4)];
        let clocks = (0..nodes)
            .map(|_| (dice.i64(-3_600_000_000_000..3_600_000_000_000), dice.i64(-500..=500)))
            .collect();
        let length = shape.faults_ms.unwrap_or_else(|| dice.u64(8_000..16_000));
        let starts_ms = (0..nodes).map(|node| if node < nodes - late { 0 } else { 7_000 }).collect();
        let mut plan = Self {
            seed,
            theme,
            nodes,
            starts_ms,
            expecting: nodes - late,
            expect: nodes - late,
            ghosts: 0,
            latency_ms: (1, longest),
            pause_ms: dice.u64(20..100),
            clients: 1 + dice.usize(..2),
            families: (0..2 + dice.usize(..4)).map(|_| dice.usize(..FAMILIES.len())).collect(),
            writers: 1 + dice.usize(..3),
            clocks,
            session_ms: 2_200,
            store_bytes: 4 << 20,
            tick_ms: 1,
            faults: Vec::new(),
            healed_ms: STARTED_MS + length,
            end_ms: 0,
        };
        add_faults(&mut plan, &mut dice, length);
        plan.faults.sort_by_key(|fault| fault.at_ms);
        for (place, fault) in plan.faults.iter_mut().enumerate() {
            fault.place = place;
        }
        plan.healed_ms = plan.faults.iter().map(Fault::ends_ms).max().unwrap_or(0).max(STARTED_MS);
        // Founders ask addresses at which there is nobody for some seconds.
        let asks_ghosts = if plan.ghosts > 0 || plan.theme == Theme::Founding { 12_000 } else { 0 };
        plan.end_ms =
            asks_ghosts + plan.healed_ms + HEALS_MS + 2 * (plan.session_ms - 2_200) + 60 * plan.latency_ms.1;
        plan
    }
}

/// The plan with faults, and with the load that shows what they do.
fn add_faults(plan: &mut Plan, dice: &mut Rng, length: u64) {
    let begin = STARTED_MS + dice.u64(200..1_500);
    let nodes = plan.nodes;
    // Windows lie by the wall clock: what they promise needs clocks that agree.
    if dice.bool() {
        plan.clocks.iter_mut().for_each(|clock| clock.0 = 0);
    }
    let busy = |plan: &mut Plan, dice: &mut Rng, families: &[usize]| {
        plan.families = families.to_vec();
        plan.pause_ms = dice.u64(12..30);
        plan.clients = 2;
    };
    let add = |plan: &mut Plan, at_ms: u64, lasts_ms: u64, kind: Kind| {
        plan.faults.push(Fault { place: 0, at_ms, lasts_ms, kind });
    };
    let crash = |aim: Aim, silent: bool| Kind::Crash { aim, silent, forgets: false };
    match plan.theme {
        Theme::Mixed => mixed(plan, dice, length),
        Theme::Crashes => {
            busy(plan, dice, &[OPEN, LONG, FIXED, SLIDING, LEAKY, INLINE]);
            plan.clocks.iter_mut().for_each(|clock| clock.0 = 0);
            let mut at = begin;
            while at < STARTED_MS + length {
                let lasts = dice.u64(100..3_500);
                let aim = [Aim::Owner(OPEN), Aim::Owner(LONG), Aim::Leader][dice.usize(..3)];
                let kind = match dice.u8(..6) {
                    0..4 => crash(aim, dice.bool()),
                    // Long enough to be replaced: a shorter stall may add what refills in it (README).
                    4 => {
                        add(plan, at, lasts + 2_600, Kind::Pause(aim));
                        at += 2_600 + lasts + dice.u64(2_500..6_000);
                        continue;
                    }
                    _ => Kind::Restart(dice.usize(..nodes)),
                };
                add(plan, at, lasts, kind);
                at += lasts + dice.u64(2_500..6_000);
            }
        }
        Theme::OwningNothing => {
            busy(plan, dice, &[OPEN, OPEN, INLINE]);
            plan.pause_ms = dice.u64(10..20);
            let mut owning: Vec<usize> = (0..nodes).collect();
            dice.shuffle(&mut owning);
            owning.truncate(2);
            let until = begin + 13_000;
            for node in (0..nodes).filter(|node| !owning.contains(node)) {
                add(plan, begin, until - begin, Kind::Drain(node));
            }
            add(
                plan,
                begin + dice.u64(4_000..5_500),
                dice.u64(2_000..4_000),
                crash(Aim::Owner(OPEN), dice.bool()),
            );
        }
        Theme::LonelyOwner => {
            busy(plan, dice, &[CARVED, CARVED, CARVED, STRICT]);
            plan.pause_ms = dice.u64(8..16);
            // A leader shows itself by connections of its own: it goes on, and so does its session. Who only owns gets no more
            // of the log, and its session ends.
            let aim = if dice.u8(..4) == 0 { Aim::Owner(CARVED) } else { Aim::Leader };
            add(plan, begin, dice.u64(5_000..9_000), Kind::Unreachable { aim, resets: true });
            if dice.bool() {
                (1..nodes).step_by(2).for_each(|node| add(plan, begin - 200, 10_000, Kind::Drain(node)));
            }
        }
        Theme::LonelyLeader => {
            busy(plan, dice, &[OPEN, OPEN, STRICT]);
            let resets = dice.u8(..4) != 0;
            add(plan, begin, dice.u64(9_000..12_000), Kind::Unreachable { aim: Aim::Leader, resets });
        }
        Theme::LostAnswers | Theme::LateCalls => {
            busy(plan, dice, &[LOG, LOG, STRICT, FIXED, LONG]);
            let is_late = plan.theme == Theme::LateCalls;
            let rate = dice.u32(200..600);
            let kind = if is_late { Kind::LateCalls(rate) } else { Kind::LostAnswers(rate) };
            add(plan, begin - 100, 11_000, kind);
            // One after the other, so that each slot moves.
            let mut node = dice.usize(..nodes);
            let mut at = begin;
            while at < begin + 10_000 {
                let lasts = dice.u64(1_000..2_500);
                add(plan, at, lasts, Kind::Drain(node));
                at += lasts + dice.u64(400..1_500);
                if dice.u8(..3) != 0 {
                    node = (node + 1) % nodes;
                }
            }
        }
        Theme::HungDisk => {
            busy(plan, dice, &[STRICT, STRICT, LONG]);
            let aim = [Aim::Owner(STRICT), Aim::Leader][usize::from(dice.u8(..4) == 0)];
            add(plan, begin, dice.u64(10_000..13_000), Kind::HungSync(aim));
        }
        Theme::Lowered => {
            busy(plan, dice, &[CHANGING, CHANGING, STRICT]);
            let aim = Aim::Bystander(CHANGING);
            let kind = if dice.bool() { Kind::HungSync(aim) } else { Kind::Disk(aim) };
            add(plan, begin, 10_500, kind);
            add(plan, begin + dice.u64(300..1_000), 9_000, Kind::Lowered);
        }
        Theme::Floors => {
            busy(plan, dice, &[LONG, LONG, LONG, STRICT]);
            let mut at = begin;
            for _ in 0..2 {
                let lasts = dice.u64(1_500..4_000);
                let kind = Kind::NoFloors { shadow: dice.u8(..3) == 0, crash: true };
                add(plan, at, lasts, kind);
                at += lasts + dice.u64(5_500..7_000);
            }
        }
        Theme::StoppedLeader => {
            busy(plan, dice, &[STRICT, STRICT, LONG, CARVED]);
            plan.latency_ms = (1, 3);
            plan.writers = 0;
            let mut at = begin;
            for _ in 0..2 {
                // The expiry of the first follower waits in the log for the second one's disk. Meanwhile the leader is stopped,
                // the first comes back, has a session if the leader has forgotten, and is cut off when the expiry comes to be.
                let back = dice.u64(4_150..4_500);
                add(plan, at, back, Kind::CutOff(Aim::Follower));
                add(plan, at + dice.u64(1_200..1_600), dice.u64(3_600..4_200), Kind::HungSync(Aim::Follower));
                add(plan, at + dice.u64(2_400..2_600), dice.u64(1_520..1_650), Kind::Pause(Aim::Leader));
                let again = dice.u64(300..700);
                add(plan, at + back + again, dice.u64(1_500..2_500), Kind::CutOff(Aim::Follower));
                at += 11_000;
            }
        }
        Theme::Stun => {
            busy(plan, dice, &[STRICT, OPEN, LONG]);
            let aim = [Aim::Owner(STRICT), Aim::Owner(OPEN), Aim::Leader][dice.usize(..3)];
            add(plan, begin, dice.u64(1_000..5_000), Kind::Stun(aim));
        }
        Theme::Memory => {
            busy(plan, dice, &[STRICT, LONG, OPEN, LOG]);
            plan.store_bytes = dice.usize(160..320) << 10;
            add(plan, begin, 9_000, Kind::Flood);
            match dice.u8(..3) {
                0 => add(plan, begin + 4_000, 3_000, crash(Aim::Owner(STRICT), false)),
                1 => add(plan, begin + 4_000, 3_000, Kind::Drain(dice.usize(..nodes))),
                _ => {}
            }
        }
        Theme::Founding => {
            if dice.u8(..3) == 0 && nodes > 1 {
                // Some expect three, and one more is there from the beginning that only joins.
                (plan.expect, plan.expecting) = (3.min(nodes - 1), nodes - 1);
                plan.starts_ms = (0..nodes).map(|_| dice.u64(..400)).collect();
            } else {
                (plan.expect, plan.expecting) = (3.min(nodes), nodes);
                let gap = dice.u64(10..100);
                let wait = dice.u64(500..3_500);
                plan.starts_ms = (0..nodes as u64)
                    .map(|node| if node < 3 { dice.u64(..100) } else { wait + (node - 3) * gap })
                    .collect();
            }
            plan.starts_ms.sort_unstable();
            plan.ghosts = [0, 25, 30][dice.usize(..3)];
            add(plan, 1, dice.u64(1_500..5_000), Kind::Datagrams(dice.u32(0..200)));
        }
        Theme::Far => {
            let far = dice.u64(10..=70);
            plan.latency_ms = (far / 2, far + 5);
            busy(plan, dice, &[STRICT, LONG, OPEN]);
            if far > 30 {
                // Of a bucket with floors a sixteenth can be used in each round trip to its successor: what comes faster waits.
                plan.pause_ms *= 4;
            }
            add(plan, begin + 2_000, dice.u64(1_000..4_000), crash(Aim::Owner(STRICT), dice.bool()));
        }
        Theme::Datagrams => {
            add(plan, begin - 3_000, length.min(10_000), Kind::Datagrams(dice.u32(50..300)));
            add(plan, begin + 1_000, dice.u64(500..4_000), crash(Aim::Owner(STRICT), true));
            add(plan, begin + 1_500, dice.u64(500..4_000), Kind::Restart(dice.usize(..nodes)));
        }
        Theme::Clocks => {
            plan.session_ms = 80_000;
            plan.latency_ms = (1, 3);
            plan.families = vec![STRICT, LONG];
            plan.pause_ms = 200;
            plan.clients = 1;
            let slow = dice.usize(..nodes);
            for (node, clock) in plan.clocks.iter_mut().enumerate() {
                clock.1 = if node == slow { -500 } else { 500 };
            }
            add(plan, begin, 84_000, Kind::CutOff(Aim::Node(slow)));
        }
        Theme::Moves => {
            busy(plan, dice, &[STRICT, OPEN, LONG, LOG, LEAKY, INLINE]);
            add_moves(plan, dice, begin, STARTED_MS + length);
        }
        Theme::Votes => {
            plan.latency_ms = (1, [3, 20][dice.usize(..2)]);
            plan.writers = nodes;
            add(plan, begin, 11_000, Kind::PowerCutsAtVotes);
            let mut at = begin + 200;
            while at < begin + 10_000 {
                let kind = if dice.bool() { crash(Aim::Leader, true) } else { Kind::Pause(Aim::Leader) };
                let lasts = dice.u64(300..2_000);
                add(plan, at, lasts, kind);
                at += lasts + dice.u64(300..1_500);
            }
        }
    }
    // Half of them has something else beside.
    if plan.theme != Theme::Mixed && plan.theme != Theme::Clocks && dice.u8(..4) == 0 {
        let gentle = !plan.faults.iter().any(|fault| fault.kind.cuts());
        let kind = any_fault(plan, dice, gentle);
        let at_ms = begin + dice.u64(..4_000);
        add(plan, at_ms, dice.u64(300..3_000), kind);
    }
    let is_window = |family: &usize| [FIXED, SLIDING].contains(family);
    if plan.families.iter().any(is_window) && plan.clocks.iter().any(|clock| clock.0 != 0) {
        plan.families.retain(|family| !is_window(family));
        plan.families.push(OPEN);
    }
    debug_assert!(plan.families.iter().all(|family| *family < FAMILIES.len()));
}

/// Any faults, of which not two concern one node at one time.
fn mixed(plan: &mut Plan, dice: &mut Rng, length: u64) {
    // One in four has no cuts: there the rules that are `available` promise more.
    let gentle = dice.u8(..4) == 0;
    let wanted = 1 + dice.usize(..7);
    let mut forgot = false;
    let mut faults: Vec<Fault> = Vec::new();
    let healed_ms = STARTED_MS + length;
    for _ in 0..wanted * 4 {
        if faults.len() == wanted {
            break;
        }
        let kind = any_fault(plan, dice, gentle);
        if matches!(kind, Kind::Crash { forgets: true, .. }) && std::mem::replace(&mut forgot, true) {
            // More than one voter that forgets what it promised is more than Raft can bear.
            continue;
        }
        let lasts_ms = match kind {
            Kind::RollingRestart => length,
            Kind::Pause(_) | Kind::Hold(_) => dice.u64(200..6_000),
            Kind::Crash { .. } | Kind::Restart(_) => dice.u64(50..5_000),
            _ => dice.u64(500..8_000),
        };
        let at_ms = STARTED_MS + dice.u64(..length);
        let lasts_ms = lasts_ms.min(healed_ms - at_ms).max(50);
        let fault = Fault { place: 0, at_ms, lasts_ms, kind };
        if faults.iter().all(|other| goes_with(&fault, other)) {
            faults.push(fault);
        }
    }
    plan.faults = faults;
}

fn any_fault(plan: &Plan, dice: &mut Rng, gentle: bool) -> Kind {
    let all: Nodes = (1 << plan.nodes) - 1;
    let node = dice.usize(..plan.nodes);
    let aim = Aim::Node(node);
    let some = |dice: &mut Rng| loop {
        let side = dice.u64(1..=all);
        if side != all || plan.nodes == 1 {
            return side;
        }
    };
    loop {
        let kind = match dice.u8(..28) {
            0..2 => Kind::Partition(some(dice)),
            2 => Kind::Partition(1 << node),
            3..5 => Kind::OneWay(1 << node, all & !(1 << node)),
            5 => Kind::OneWay(some(dice), some(dice)),
            6 => Kind::OneWay(all & !(1 << node), 1 << node),
            7 => Kind::Hold(some(dice)),
            8 => Kind::Slow(some(dice), dice.u64(20..400)),
            9..13 => {
                let forgets = plan.nodes >= 3 && dice.u8(..6) == 0;
                Kind::Crash { aim, silent: dice.bool(), forgets }
            }
            13..15 => Kind::Restart(node),
            15 => Kind::RollingRestart,
            16..18 => Kind::Drain(node),
            18..20 => Kind::Pause(aim),
            20 => Kind::Disk(aim),
            21 => Kind::HungSync(aim),
            22 => Kind::Unreachable { aim, resets: dice.bool() },
            23 => Kind::LostAnswers(dice.u32(50..400)),
            24 => Kind::LateCalls(dice.u32(50..400)),
            25 => Kind::Datagrams(dice.u32(50..200)),
            26 => Kind::Lowered,
            _ => Kind::NoFloors { shadow: dice.bool(), crash: dice.bool() },
        };
        if gentle && kind.cuts() {
            continue;
        }
        return kind;
    }
}

/// Whether both can happen at the same time, or do not.
fn goes_with(one: &Fault, other: &Fault) -> bool {
    // A node that comes back needs a while before the next thing happens to it.
    let apart = one.ends_ms() + 500 < other.at_ms || other.ends_ms() + 500 < one.at_ms;
    let rolls = |fault: &Fault| {
        matches!(fault.kind, Kind::RollingRestart | Kind::MoveAddresses { .. } | Kind::Scale(_))
    };
    let same = one.kind.aim().is_some() && one.kind.aim() == other.kind.aim();
    let of_rules = |fault: &Fault| matches!(fault.kind, Kind::Lowered | Kind::NoFloors { .. });
    let one_rolls = rolls(one) && (rolls(other) || other.kind.aim().is_some())
        || rolls(other) && one.kind.aim().is_some();
    apart || !(same || one_rolls || of_rules(one) && of_rules(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Choice;

    #[test]
    fn a_seed_has_one_plan_and_a_plan_ends() {
        let mut themes = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let plan = Plan::of(seed, Shape::default());
            assert_eq!(plan, Plan::of(seed, Shape::default()));
            themes.insert(plan.theme);
            assert!(plan.faults.iter().all(|fault| fault.ends_ms() <= plan.healed_ms), "{plan:?}");
            assert!(plan.starts_ms.is_sorted() && plan.starts_ms.len() == plan.nodes, "{plan:?}");
            let agree = plan.clocks.iter().all(|clock| clock.0 == 0);
            assert!(
                agree || !plan.families.iter().any(|family| [FIXED, SLIDING].contains(family)),
                "{plan:?}"
            );
            let only = plan.with(&Choice::Only(vec![0]));
            assert_eq!(only.faults, plan.faults.iter().take(1).copied().collect::<Vec<_>>());
        }
        assert_eq!(themes.len(), Theme::ALL.len(), "each theme comes");
    }
}
