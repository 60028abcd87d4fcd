//! When which fault happens: from a seed, before anything is started.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Aim, Kind, Lane};

/// A fault to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// From the beginning of the load.
    pub after: Duration,
    /// Until it is undone.
    pub lasts: Duration,
    /// What.
    pub kind: Kind,
    /// At whom.
    pub aim: Aim,
    /// What chance begins with where the fault has more to choose.
    pub seed: u64,
}

/// How long nothing is done in the beginning and in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Before the first fault.
    pub calm: Duration,
    /// When the last fault is undone.
    pub heal: Duration,
    /// When the load ends.
    pub end: Duration,
}

impl Phases {
    /// A tenth of the time, and 6 s at least, is calm; a sixth, and 10 s at least, is for healing; neither more than a
    /// minute.
    pub fn of(length: Duration) -> Self {
        let minute = Duration::from_secs(60);
        let calm = (length / 10).clamp(Duration::from_secs(6), minute);
        let healing = (length / 6).clamp(Duration::from_secs(10), minute);
        let end = length.max(calm + healing + Duration::from_secs(4));
        Self { calm, heal: end - healing, end }
    }
}

/// The faults of a run, in the order of their times. Each lane goes through its kinds in an order of chance, again and
/// again: so each kind comes, if there is time for it.
pub fn schedule(kinds: &[Kind], seed: u64, phases: &Phases) -> Vec<Planned> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut planned = Vec::new();
    for lane in [Lane::Process, Lane::Network, Lane::Members] {
        let mut left: Vec<Kind> = Vec::new();
        let mut at = phases.calm + millis(&mut random, 0..1_500);
        let of_lane: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.lane() == lane).collect();
        let mut longest_first = true;
        while !of_lane.is_empty() {
            if left.is_empty() {
                left.clone_from(&of_lane);
                random.shuffle(&mut left);
                if longest_first {
                    // At the end of a short run there may be no room for it.
                    left.sort_by_key(|kind| matches!(kind, Kind::Rolling | Kind::Upgrade));
                    longest_first = false;
                }
            }
            let Some(kind) = left.pop() else { break };
            let lasts = lasts(kind, &mut random);
            if at + lasts > phases.heal {
                break;
            }
            let aim = match random.u32(..20) {
                0..7 => Aim::HotOwner,
                7..12 => Aim::Leader,
                12..16 => Aim::Moving,
                _ => Aim::Random,
            };
            planned.push(Planned { after: at, lasts, kind, aim, seed: random.u64(..) });
            at += lasts + millis(&mut random, 400..2_000);
        }
    }
    planned.sort_by_key(|one| one.after);
    planned
}

fn lasts(kind: Kind, random: &mut fastrand::Rng) -> Duration {
    match kind {
        Kind::Kill | Kind::Wipe => millis(random, 300..4_500),
        // From shorter than anything notices to longer than every session: as many of each.
        Kind::Pause => Duration::from_secs_f64(0.1 * 100_f64.powf(random.f64())),
        Kind::Restart => millis(random, 500..2_000),
        Kind::Rolling | Kind::Upgrade => Duration::from_secs(9),
        Kind::FullDisk => millis(random, 2_000..4_000),
        Kind::Drain => millis(random, 2_500..5_000),
        Kind::ClockJump | Kind::TornWrite => millis(random, 1_000..4_000),
        Kind::FailedFsync => millis(random, 2_000..4_000),
        Kind::ClockDrift | Kind::ClockRunaway => millis(random, 5_000..9_000),
        Kind::Join => millis(random, 5_000..8_000),
        _ => millis(random, 2_500..7_000),
    }
}

fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        let phases = Phases::of(Duration::from_secs(60));
        let of = |seed| schedule(&Kind::ALL, seed, &phases);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn faults_of_a_lane_do_not_overlap_and_all_are_over_in_time() {
        for seed in 0..200 {
            let phases = Phases::of(Duration::from_secs(60));
            let planned = schedule(&Kind::ALL, seed, &phases);
            assert!(
                planned.iter().all(|one| one.after >= phases.calm && one.after + one.lasts <= phases.heal)
            );
            for lane in [Lane::Process, Lane::Network, Lane::Members] {
                let of_lane: Vec<_> = planned.iter().filter(|one| one.kind.lane() == lane).collect();
                assert!(of_lane.len() >= 3, "seed {seed}");
                assert!(of_lane.windows(2).all(|two| two[0].after + two[0].lasts < two[1].after));
            }
        }
    }

    #[test]
    fn in_five_minutes_each_kind_comes() {
        let planned = schedule(&Kind::ALL, 1, &Phases::of(Duration::from_secs(300)));
        for kind in Kind::ALL {
            assert!(planned.iter().any(|one| one.kind == kind), "{kind:?}");
        }
    }
}
