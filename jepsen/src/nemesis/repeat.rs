//! What was planned and seen by nobody is done once more, some times at most: a run of which one fault missed would prove nothing.

use super::{Aim, Kind, Planned, Track, actions, driver::Driver, schedule::lasts, state::State};
use crate::history::monotonic;

/// So often at most.
const ROUNDS: u32 = 2;
/// A node is asked several times in as long.
const READY_WITHIN: u64 = 3_000_000_000;
/// Between two faults of a track.
const BETWEEN: u64 = 800_000_000;

impl Driver<'_> {
    /// Whether a fault of this kind may be done to this node.
    pub(super) fn may_be_hit(&self, kind: Kind, name: &str) -> bool {
        match kind {
            // It owns nothing as it is.
            Kind::Drain => self.special.idle.iter().all(|idle| idle != name),
            Kind::Flood => self.special.small.iter().any(|small| small == name),
            // Who ended by itself and is not back counts as one that is gone: with the others' data the quorum would go too, and what
            // that breaks would hide what was wrong. So does who runs and is not ready: it may be waiting for this very node.
            Kind::Wipe | Kind::Replace => {
                let ended = self.ends.iter().any(|end| {
                    end.node != name
                        && end.wrong.is_some()
                        && actions::number(&end.node) <= self.nodes
                        && !self.is_ready(&end.node, end.at)
                });
                let founders = |node: &&String| **node != name && actions::number(node) <= self.nodes;
                let others = self.seen.keys().filter(founders);
                let lately = monotonic().saturating_sub(READY_WITHIN);
                let troubled = others.filter(|node| !self.is_ready(node, lately)).count();
                !ended && troubled < usize::from(self.nodes.saturating_sub(1)) / 2
            }
            _ => true,
        }
    }

    /// The kinds that were planned and of which nothing was seen.
    pub(super) fn unseen(&self) -> Vec<Kind> {
        let seen =
            |kind: Kind| self.faults.iter().any(|fault| fault.kind == kind && fault.evidence.is_some());
        self.wanted.iter().copied().filter(|kind| !seen(*kind)).collect()
    }

    /// Plans what was seen by nobody once more, from now on, if that was not done too often. Returns when all of it is to be over.
    pub fn repeat_unseen(&mut self) -> Option<u64> {
        let unseen = self.unseen();
        let all_over = |driver: &Self| driver.active.iter().all(|active| active.state == State::Over);
        if unseen.is_empty() || self.repeated >= ROUNDS || !all_over(self) {
            return None;
        }
        self.repeated += 1;
        let now = monotonic();
        let mut random = fastrand::Rng::with_seed(now);
        let mut end = now;
        for track in [Track::Process, Track::Network, Track::Members] {
            let mut at = now + BETWEEN / 2;
            for kind in unseen.iter().copied().filter(|kind| kind.track() == track) {
                let lasts = lasts(kind, &mut random);
                let seed = random.u64(..);
                let after = std::time::Duration::from_nanos(at);
                self.planned
                    .push_back((at, Planned { after, lasts, kind, aim: Aim::Random, seed, by: None }));
                at += lasts.as_nanos() as u64 + BETWEEN;
            }
            end = end.max(at);
        }
        self.planned.make_contiguous().sort_by_key(|(due, _)| *due);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        cluster::{Cluster, Settings},
        nemesis::{Builds, Phases, Special, schedule},
        record::tests::fault,
        sampler::Watched,
    };

    #[test]
    fn what_nobody_saw_is_done_again_twice_at_most_and_what_was_seen_is_not() {
        let settings = Settings {
            binary: "/nowhere".into(),
            rules: String::new(),
            flags: Vec::new(),
            key: None,
            keeps_data: false,
        };
        let (mut cluster, watched) = (Cluster::empty(settings), Watched::default());
        let planned = schedule(&[Kind::Kill, Kind::Drain], 1, &Phases::of(Duration::from_secs(60)));
        let builds = Builds::new("/nowhere".into(), None);
        let special = Special { idle: vec!["n5".to_owned()], small: vec!["n1".to_owned()] };
        let mut driver =
            Driver::new(&mut cluster, BTreeMap::new(), &watched, builds, special, planned, monotonic());
        assert!(driver.may_be_hit(Kind::Drain, "n1") && !driver.may_be_hit(Kind::Drain, "n5"));
        assert!(driver.may_be_hit(Kind::Flood, "n1") && !driver.may_be_hit(Kind::Flood, "n2"));
        driver.nodes = 5;
        assert!(driver.may_be_hit(Kind::Wipe, "n1"));
        driver.note_end("n2", 1, Some("it ended by itself".to_owned()));
        assert!(!driver.may_be_hit(Kind::Wipe, "n1") && driver.may_be_hit(Kind::Wipe, "n2"));
        assert!(driver.may_be_hit(Kind::Kill, "n1"));
        driver.faults.extend([fault(Kind::Kill, "n1", 1, 2), fault(Kind::Drain, "n1", 1, 2)]);
        driver.faults[1].evidence = None;
        for _ in 0..ROUNDS {
            driver.planned.clear();
            let end = driver.repeat_unseen().unwrap();
            let again: Vec<_> = driver.planned.iter().map(|(due, one)| (*due, one.kind, one.lasts)).collect();
            let [(due, Kind::Drain, lasts)] = again[..] else { panic!("{again:?}") };
            assert!(due > monotonic() - BETWEEN && due + lasts.as_nanos() as u64 <= end);
        }
        assert_eq!(driver.repeat_unseen(), None);
        driver.repeated = 0;
        driver.faults[1].evidence = Some("its slots fell to 0".to_owned());
        assert_eq!(driver.repeat_unseen(), None);
    }
}
