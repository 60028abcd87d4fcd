//! A check that was matched and not decided yet: what the rules have charged for it, without a hold on the rules.
//!
//! The first look hands it on to those who wait for the owners, so that a check is matched and hashed once. It is for the
//! rules that it was matched by: where others are in force when it goes on, it is matched anew (decision 15). It is
//! large, so it lies in a box: it is handed on several times, and each task that may wait would keep room for it.

use smallvec::SmallVec;
use tidegate_cluster::LossPolicy;
use tidegate_limiter::{
    Cost,
    cluster::{Charge, Rules},
};

use super::{charges::Charges, ends::Ends, request::CheckRequest};

/// A check to be decided wherever its slots are owned.
pub(crate) struct Prepared {
    pub(super) charges: SmallVec<[Charge; 4]>,
    pub(super) policies: SmallVec<[LossPolicy; 4]>,
    /// A number for what the client calls its request.
    pub(super) request: Option<u64>,
    pub(super) ends: Ends,
    names: Names,
    rules: Snapshot,
}

/// Which rules something was made by. Two snapshots can have one revision: where the rules of a domain cannot be used,
/// those of others change without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Snapshot {
    address: usize,
    revision: u64,
}

impl Snapshot {
    fn of(rules: &Rules) -> Self {
        Self { address: std::ptr::from_ref(rules).addr(), revision: rules.revision() }
    }
}

impl Prepared {
    /// Of what `rules` have charged for a request.
    pub(super) fn new(rules: &Rules, request: &CheckRequest<'_>, limited: &mut Charges<'_>) -> Self {
        let mut charges = std::mem::take(&mut limited.charges);
        // A look charges nothing, and tells what is so now.
        let takes = charges.iter().any(|charge| charge.cost != Cost::PEEK);
        let id = request.id.as_deref().filter(|_| takes);
        // The first look fills in those of slots that may be another node's by now.
        charges.iter_mut().for_each(|charge| charge.floor = None);
        Self {
            charges,
            policies: std::mem::take(&mut limited.policies),
            request: id.map(|id| rules.request_number(&request.domain, id)),
            ends: std::mem::take(&mut limited.ends),
            names: limited.names.iter().copied().collect(),
            rules: Snapshot::of(rules),
        }
    }

    /// Whether it was matched by these rules.
    pub(super) fn is_by(&self, rules: &Rules) -> bool {
        self.rules == Snapshot::of(rules)
    }

    /// Of the rules that the charges were made by.
    pub(super) fn revision(&self) -> u64 {
        self.rules.revision
    }

    /// The name of the rule of a charge; none: the limit came with the check.
    pub(super) fn name(&self, place: usize) -> Option<&str> {
        self.names.get(place)
    }
}

/// Names of rules, one behind the other. Those of nearly all checks fit without a piece of memory of their own; no rule has
/// an empty one.
#[derive(Debug, Default)]
struct Names {
    text: SmallVec<[u8; 128]>,
    ends: SmallVec<[u32; 4]>,
}

impl Names {
    fn get(&self, place: usize) -> Option<&str> {
        let start = place.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let name = self.text.get(start as usize..*self.ends.get(place)? as usize)?;
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
    }
}

impl<'r> FromIterator<Option<&'r str>> for Names {
    fn from_iter<I: IntoIterator<Item = Option<&'r str>>>(all: I) -> Self {
        let mut names = Self::default();
        for name in all {
            names.text.extend_from_slice(name.unwrap_or_default().as_bytes());
            // Names are short, and the rules that match are few.
            names.ends.push(u32::try_from(names.text.len()).unwrap_or(u32::MAX));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use tidegate_limiter::{Algorithm, Limit, Nanos, rules::HashSecret};

    use super::{
        super::{
            charges::{Purpose, Ruling, rule},
            request::{Costs, Subject},
        },
        *,
    };

    #[test]
    fn names_are_found_at_their_places() {
        let long = "x".repeat(128);
        let names: Names = [Some("per-ip"), None, Some(&*long), Some("ä")].into_iter().collect();
        assert_eq!(names.get(0), Some("per-ip"));
        assert_eq!(names.get(1), None, "it came with the check");
        assert_eq!(names.get(2), Some(&*long));
        assert_eq!(names.get(3), Some("ä"));
        assert_eq!(names.get(4), None);
        assert_eq!(Names::default().get(0), None);
    }

    #[test]
    fn it_holds_for_the_rules_that_it_was_matched_by() {
        let rules = |revision| Rules::empty(&HashSecret::new([7; 16])).at_revision(revision);
        let (own, same_revision, newer) = (rules(4), rules(4), rules(5));
        let request = |id, cost| CheckRequest {
            domain: Cow::Borrowed("default"),
            subject: Subject::Inline {
                key: Cow::Borrowed("k"),
                limit: Limit::parse("5/1s", None, Algorithm::TokenBucket).unwrap(),
            },
            cost,
            costs: Costs::default(),
            id,
        };
        let prepared = |request: &CheckRequest<'_>| {
            let mut limited = Charges::default();
            assert!(matches!(
                rule(&own, request, Nanos::new(0), Purpose::Change, &mut limited),
                Ruling::Limited
            ));
            Prepared::new(&own, request, &mut limited)
        };
        let one = prepared(&request(None, Cost::ONE));
        assert!(one.is_by(&own) && !one.is_by(&same_revision) && !one.is_by(&newer));
        assert_eq!((one.revision(), one.name(0), one.request), (4, None, None));
        assert_eq!((one.charges.len(), one.policies.len()), (1, 1));
        let named = prepared(&request(Some(Cow::Borrowed("r1")), Cost::ONE));
        assert_eq!(named.request, Some(own.request_number("default", "r1")));
        let look = prepared(&request(Some(Cow::Borrowed("r1")), Cost::PEEK));
        assert_eq!(look.request, None);
    }
}
