//! Limits that are in force for a time: no answer has a wait that goes beyond their end.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_cluster::Answers;
use tidegate_limiter::{Decision, Nanos};

/// Of which charges of a check the limits end, and after how long; counted from when the check was matched. Of nearly no check one does, and then this
/// is empty and takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Ends(SmallVec<[(u32, Duration); 1]>);

impl Ends {
    pub(super) fn add(&mut self, place: usize, until: Nanos, now: Nanos) {
        let rest = until.saturating_since(now);
        // One that is over is asked for by a reset.
        if rest > Duration::ZERO {
            self.0.push((u32::try_from(place).unwrap_or(u32::MAX), rest));
        }
    }

    /// How long the limit of a charge is in force; `None`: it has no end.
    #[inline]
    pub(super) fn of(&self, place: usize) -> Option<Duration> {
        self.0.iter().find(|(known, _)| *known as usize == place).map(|(_, rest)| *rest)
    }

    /// Has decisions tell no wait beyond the ends.
    #[inline]
    pub(super) fn bound(&self, decisions: &mut [Decision]) {
        for (place, rest) in &self.0 {
            if let Some(decision) = decisions.get_mut(*place as usize) {
                *decision = decision.in_force_for(*rest);
            }
        }
    }

    /// The same of answers.
    #[inline]
    pub(super) fn bound_answers(&self, answers: &mut Answers) {
        for (place, rest) in &self.0 {
            if let Some(Some(answer)) = answers.get_mut(*place as usize) {
                answer.decision = answer.decision.in_force_for(*rest);
            }
        }
    }
}
