//! When which fault happens: from a seed, before anything is started.
//!
//! What rules promise outside of partitions can be held against a run only where there is none. So the time of a run is divided
//! into *seasons*: those in which the network is broken, and those in which only processes, members, disks and clocks are. Between
//! two seasons with faults of the network there is one without, and it lasts for longer than a partition lingers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Aim, Kind, Track};
use crate::timing::PARTITION_LINGERS;

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
    /// When it must be over, however late it began; `None`: it does not matter.
    #[serde(default)]
    pub by: Option<Duration>,
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

/// A part of the time in which things are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Season {
    /// From the beginning of the load.
    pub from: Duration,
    /// The same.
    pub to: Duration,
    /// When the last partition has ended and no other follows: from then on rules are exact.
    pub exact_from: Duration,
    /// Whether faults of the network may happen in it.
    pub network: bool,
}

/// How long the network is broken in one go.
const NETWORK_SEASON_MS: std::ops::Range<u64> = 8_500..15_000;
/// How long rules are exact between two such seasons.
const EXACT_MS: std::ops::Range<u64> = 6_500..10_000;
/// What ends right before rules are exact is to be over by then.
const BEFORE_A_START: Duration = Duration::from_secs(1);
/// A run that is broken for less has one season with all that there is.
const SHORTEST: Duration = Duration::from_secs(17);

/// The seasons of a run.
pub fn seasons(kinds: &[Kind], seed: u64, phases: &Phases) -> Vec<Season> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x005e_a504);
    let has = |network: bool| kinds.iter().any(|kind| (kind.track() == Track::Network) == network);
    let season = |from, to, exact_from, network| Season { from, to, exact_from, network };
    let (begin, end) = (phases.calm, phases.heal);
    if !has(true) || !has(false) || end.saturating_sub(begin) < SHORTEST {
        return vec![season(begin, end, if has(true) { end } else { begin }, has(true))];
    }
    let mut seasons = Vec::new();
    let (mut at, mut lingers) = (begin, Duration::ZERO);
    loop {
        let exact_from = at + lingers;
        let to = exact_from + millis(&mut random, EXACT_MS);
        let network_to = to + millis(&mut random, NETWORK_SEASON_MS);
        if to + Duration::from_millis(NETWORK_SEASON_MS.start) > end {
            // What is left is too short for both.
            seasons.push(season(at, end, exact_from.min(end), false));
            return seasons;
        }
        seasons.push(season(at, to, exact_from, false));
        at = network_to.min(end);
        seasons.push(season(to, at, at, true));
        if at == end {
            return seasons;
        }
        lingers = Duration::from_nanos(PARTITION_LINGERS);
    }
}

/// The faults of a run, in the order of their times. Each track goes through its kinds in an order of chance, again and
/// again: so each kind comes, if there is time for it.
pub fn schedule(kinds: &[Kind], seed: u64, phases: &Phases) -> Vec<Planned> {
    let mut random = fastrand::Rng::with_seed(seed);
    let seasons = seasons(kinds, seed, phases);
    let mut planned = Vec::new();
    for track in [Track::Process, Track::Network, Track::Members] {
        let of_track: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.track() == track).collect();
        if of_track.is_empty() {
            continue;
        }
        let mut deck = Deck { of_track, left: Vec::new(), longest_first: true };
        if track == Track::Network {
            for season in seasons.iter().filter(|season| season.network) {
                let at = season.from + millis(&mut random, 0..700);
                planned.extend(
                    deck.deal(at, season.to, &[], &mut random)
                        .into_iter()
                        .map(|one| Planned { by: Some(season.to), ..one }),
                );
            }
        } else {
            // Something happens soon after rules have become exact.
            let starts: Vec<Duration> =
                seasons.iter().filter(|season| !season.network).map(|season| season.exact_from).collect();
            let at = phases.calm + millis(&mut random, 0..1_500);
            planned.extend(deck.deal(at, phases.heal, &starts, &mut random));
        }
    }
    planned.sort_by_key(|one| one.after);
    planned
}

/// The kinds of a track, each once before any comes twice.
struct Deck {
    of_track: Vec<Kind>,
    left: Vec<Kind>,
    longest_first: bool,
}

impl Deck {
    /// Faults one after the other between two instants. None is on at any of the `starts` but those that begin right there.
    fn deal(
        &mut self,
        mut at: Duration,
        end: Duration,
        starts: &[Duration],
        random: &mut fastrand::Rng,
    ) -> Vec<Planned> {
        let mut planned = Vec::new();
        loop {
            if self.left.is_empty() {
                self.left.clone_from(&self.of_track);
                random.shuffle(&mut self.left);
                if self.longest_first {
                    // At the end of a short run there may be no room for it.
                    self.left.sort_by_key(|kind| matches!(kind, Kind::Rolling | Kind::Upgrade));
                    self.longest_first = false;
                }
            }
            let lengths: Vec<Duration> = self.left.iter().map(|kind| lasts(*kind, random)).collect();
            // The last one comes first, unless there is no room for it here and for another one there is.
            let fits = |at: Duration, end: Duration| {
                (0..lengths.len()).rev().find(|place| at + lengths[*place] <= end)
            };
            let start = starts.iter().copied().find(|start| *start > at).unwrap_or(end);
            let place = match fits(at, start.saturating_sub(BEFORE_A_START).min(end)) {
                Some(place) => place,
                None if start >= end => match fits(at, end) {
                    Some(place) => place,
                    None => return planned,
                },
                None => {
                    at = start + millis(random, 0..900);
                    continue;
                }
            };
            let (kind, lasts) = (self.left.remove(place), lengths[place]);
            let aim = match random.u32(..20) {
                0..7 => Aim::HotOwner,
                7..12 => Aim::Leader,
                12..16 => Aim::Moving,
                _ => Aim::Random,
            };
            planned.push(Planned { after: at, lasts, kind, aim, seed: random.u64(..), by: None });
            at += lasts + millis(random, 400..2_000);
        }
    }
}

pub(super) fn lasts(kind: Kind, random: &mut fastrand::Rng) -> Duration {
    match kind {
        Kind::Kill | Kind::Wipe => millis(random, 300..4_500),
        // From shorter than anything notices to longer than every session: as many of each.
        Kind::Pause => Duration::from_secs_f64(0.1 * 100_f64.powf(random.f64())),
        Kind::VmStop => millis(random, 600..6_000),
        Kind::Restart | Kind::Replace => millis(random, 500..2_000),
        Kind::Rolling | Kind::Upgrade => Duration::from_secs(9),
        Kind::FullDisk => millis(random, 2_000..4_000),
        Kind::HungFsync => millis(random, 3_000..7_000),
        Kind::Drain => millis(random, 2_500..5_000),
        Kind::ClockJump | Kind::TornWrite => millis(random, 1_000..4_000),
        Kind::FailedFsync => millis(random, 2_000..4_000),
        Kind::ClockDrift | Kind::ClockRunaway => millis(random, 5_000..9_000),
        Kind::Join | Kind::Flood | Kind::StalledLog => millis(random, 5_000..8_000),
        Kind::MoveAddresses => millis(random, 300..3_000),
        Kind::ReuseAddress => millis(random, 4_000..7_000),
        Kind::LateDns => millis(random, 2_000..6_000),
        Kind::Scale => millis(random, 6_000..9_000),
        _ => millis(random, 2_500..7_000),
    }
}

fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACKS: [Track; 3] = [Track::Process, Track::Network, Track::Members];

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        let phases = Phases::of(Duration::from_secs(60));
        let of = |seed| schedule(&Kind::ALL, seed, &phases);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn faults_of_a_track_do_not_overlap_and_all_are_over_in_time() {
        for (seed, length) in (0..200).zip([45, 60, 90].into_iter().cycle()) {
            let phases = Phases::of(Duration::from_secs(length));
            let planned = schedule(&Kind::ALL, seed, &phases);
            assert!(
                planned.iter().all(|one| one.after >= phases.calm && one.after + one.lasts <= phases.heal)
            );
            for track in TRACKS {
                let of_track: Vec<_> = planned.iter().filter(|one| one.kind.track() == track).collect();
                assert!(
                    of_track.len() >= if track == Track::Network { 1 } else { 2 },
                    "seed {seed} {track:?}"
                );
                assert!(of_track.windows(2).all(|two| two[0].after + two[0].lasts < two[1].after));
            }
        }
    }

    #[test]
    fn there_are_times_without_faults_of_the_network_in_which_processes_and_members_break() {
        for (seed, length) in (0..300).zip([45, 60, 120, 600].into_iter().cycle()) {
            let phases = Phases::of(Duration::from_secs(length));
            let planned = schedule(&Kind::ALL, seed, &phases);
            let seasons = seasons(&Kind::ALL, seed, &phases);
            assert_eq!((seasons[0].from, seasons.last().unwrap().to), (phases.calm, phases.heal));
            assert!(
                seasons.windows(2).all(|two| two[0].to == two[1].from && two[0].network != two[1].network)
            );
            let mut exact = Duration::ZERO;
            for season in seasons.iter().filter(|season| !season.network) {
                let of_network = planned.iter().filter(|one| one.kind.track() == Track::Network);
                for one in of_network {
                    let apart = one.after + one.lasts <= season.from || one.after >= season.to;
                    assert!(apart, "seed {seed}: {one:?} in {season:?}");
                }
                let is_in = |one: &&Planned| one.after >= season.exact_from && one.after < season.to;
                exact += season.to - season.exact_from;
                if season.to - season.exact_from < Duration::from_secs(6) {
                    continue;
                }
                for track in [Track::Process, Track::Members] {
                    let of_track = planned.iter().filter(|one| one.kind.track() == track);
                    // A fault that is too long for what is left of the run is not begun.
                    let fits = season.exact_from + Duration::from_secs(13) < phases.heal;
                    assert!(
                        !fits || of_track.filter(is_in).count() > 0,
                        "seed {seed}: {track:?} in {season:?}"
                    );
                }
            }
            let part = exact.as_secs_f64() / (phases.heal - phases.calm).as_secs_f64();
            assert!(part > 0.25, "seed {seed}: {part}");
        }
    }

    #[test]
    fn in_seven_minutes_each_kind_comes() {
        for seed in 0..20 {
            let planned = schedule(&Kind::ALL, seed, &Phases::of(Duration::from_secs(420)));
            for kind in Kind::ALL {
                assert!(planned.iter().any(|one| one.kind == kind), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_run_of_one_track_is_one_season() {
        let phases = Phases::of(Duration::from_secs(60));
        for (kinds, network) in [(vec![Kind::Kill], false), (vec![Kind::Alone], true)] {
            let seasons = seasons(&kinds, 1, &phases);
            assert_eq!((seasons.len(), seasons[0].network), (1, network));
            assert!(schedule(&kinds, 1, &phases).len() >= 3);
        }
    }
}
