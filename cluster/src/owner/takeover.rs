//! How a slot was begun from floors: what its buckets count as, of which few or no floors are known.

use std::sync::Arc;

use tidegate_limiter::{
    Algorithm, Limit, Nanos,
    cluster::{Mark, Reserve, Reserves},
};

use crate::planted::PlantedBug;

/// How a slot was begun from floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeoverBasis {
    /// The rules that had floors then: buckets of others count as exhausted.
    pub(crate) rules: Arc<Reserves>,
    /// When the owner before was alive for the last time, as far as its successor knows.
    pub(crate) heard: Nanos,
    pub(crate) begun: Nanos,
    /// When the owner before had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    /// The same two instants of the owner before, if it had begun from floors too.
    pub(crate) earlier: Option<(Nanos, Nanos)>,
}

impl TakeoverBasis {
    /// With the rules in force; `None` if those of that fingerprint were others: then its buckets count as exhausted.
    pub(crate) fn with(self, fingerprint: u64, rules: Arc<Reserves>) -> Option<Arc<Self>> {
        (rules.fingerprint() == fingerprint).then(|| Arc::new(Self { rules, ..self }))
    }

    /// When the owner before had counted all buckets as exhausted, as if time had stood still while nobody owned the slot: shares
    /// may have admitted what refilled.
    pub(super) fn empty_at(&self, reserve: Reserve) -> Option<Nanos> {
        if reserve.refills_for_shares() { self.postponed_before() } else { self.before }
    }

    /// The same for every rule: what this owner sends the next one.
    pub(super) fn postponed_before(&self) -> Option<Nanos> {
        let unheard = self.begun.saturating_since(self.heard);
        self.before.map(|before| before.saturating_add(unheard).min(self.begun))
    }

    /// `None`: the bucket is exhausted when the slot was begun.
    pub(super) fn at_least(&self, reserve: Reserve, limit: &Limit) -> Option<Mark> {
        if !self.rules.contains(reserve) {
            return None;
        }
        // A window that ended between the last answer of an earlier owner and the takeover counts as exhausted, to the next owner
        // too.
        if let Some((heard, begun)) = self.earlier
            && reserve.at_least(limit, heard, begun).is_none()
            && reserve.at_least(limit, begun, self.begun).is_some()
        {
            return None;
        }
        if PlantedBug::SharesForgotten.is_on() {
            return reserve.at_least(limit, self.begun, self.begun);
        }
        let mark = reserve.at_least(limit, self.heard, self.begun)?;
        // The owner before, if it had taken over from floors too, need not have sent what it assumed itself.
        let assumed = self.earlier.and_then(|(heard, begun)| reserve.at_least(limit, heard, begun));
        let is_of_window = limit.algorithm() == Algorithm::FixedWindow;
        let assumed = assumed.filter(|_| !is_of_window).unwrap_or_default();
        Some(mark.max(assumed.postponed(self.begun.saturating_since(self.heard))))
    }
}

/// What an owner says when it has sent all floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakeoverState {
    /// Of the rules that have floors, as the owner had them.
    pub(crate) fingerprint: u64,
    /// [Since](Since::number) when it had them.
    pub(crate) since: u64,
    /// When the owner had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    pub(crate) earlier: Option<(Nanos, Nanos)>,
}
