//! How a slot was begun from floors: what its buckets count as, of which few or no floors are known.

use std::sync::Arc;

use tidegate_limiter::{
    Limit, Nanos,
    cluster::{Formerly, Mark, Reserve, Reserves, RuleId},
};

use crate::planted::PlantedBug;

/// How a slot was begun from floors.
///
/// **A rule that was written since then owes nothing from before.** `rules` are those of the entry of the log that made this node
/// the owner, or of a later one: floors count under no others. A node whose log has a later change of them has that entry too, so no
/// owner before, which was one until then, has charged by it, and nobody has given shares by it for want of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeoverBasis {
    /// The rules then: buckets of those that had no floors count as exhausted.
    pub(crate) rules: Arc<Reserves>,
    /// When the owner before was alive for the last time, as far as its successor knows.
    pub(crate) heard: Nanos,
    pub(crate) begun: Nanos,
    /// When the owner before had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    /// The same two instants of owners before that had begun from floors too, the first of them first. Where the first is after the
    /// second, they are what a wall clock showed before and after it was set back.
    pub(crate) earlier: Vec<(Nanos, Nanos)>,
}

/// How far a bucket counts as used in a slot that was begun from floors, whatever floor of it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::owner) struct Assumed {
    /// It counts as exhausted at this instant.
    pub(in crate::owner) empty_at: Option<Nanos>,
    /// At least so far.
    pub(in crate::owner) at_least: Mark,
}

/// So many are kept apart; of more the first two count as one that has lasted as long as both and what was between them.
const MAX_EARLIER: usize = 8;

/// One takeover that lasted as long as all of these and what was between them: stricter.
pub(crate) fn as_one(earlier: &[(Nanos, Nanos)]) -> Option<(Nanos, Nanos)> {
    Some((earlier.iter().map(|(heard, _)| *heard).min()?, earlier.last()?.1))
}

impl TakeoverBasis {
    /// With the rules of then; `None` if nobody knows them any more: then its buckets count as exhausted.
    pub(crate) fn with(self, rules: Option<Arc<Reserves>>) -> Option<Arc<Self>> {
        Some(Arc::new(Self { rules: rules?, ..self }))
    }

    /// What a bucket of a rule counts as that has such a limit by now; `None`: as exhausted when the slot was begun.
    pub(in crate::owner) fn assumed(
        &self,
        rule: RuleId,
        reserve: Option<Reserve>,
        limit: &Limit,
    ) -> Option<Assumed> {
        match (self.rules.formerly(rule, reserve), reserve) {
            (Formerly::Absent, _) => Some(Assumed::default()),
            (Formerly::Same, Some(reserve)) => {
                let at_least = self.at_least(reserve, limit)?;
                Some(Assumed { empty_at: self.empty_at(reserve), at_least })
            }
            // As many units as may have been consumed under any of its limits.
            (Formerly::Other(former, limits), Some(_)) => {
                let converted = limits.iter().map(|of| {
                    let empty = self.empty_at(former).map(|at| Reserve::converted(of, None, of, at));
                    let mark = self.at_least(former, of).map(|mark| mark.max(empty.unwrap_or_default()));
                    Reserve::converted(of, mark, limit, self.begun)
                });
                Some(Assumed { empty_at: None, at_least: converted.max().unwrap_or_default() })
            }
            _ => None,
        }
    }

    /// When the owner before had counted all buckets as exhausted, as if time had stood still while nobody owned the slot: shares
    /// may have admitted what refilled.
    fn empty_at(&self, reserve: Reserve) -> Option<Nanos> {
        if reserve.refills_for_shares() { self.postponed_before() } else { self.before }
    }

    /// The same for every rule: what this owner sends the next one.
    pub(super) fn postponed_before(&self) -> Option<Nanos> {
        let unheard = self.begun.saturating_since(self.heard);
        self.before.map(|before| before.saturating_add(unheard).min(self.begun))
    }

    /// `None`: the bucket is exhausted when the slot was begun.
    fn at_least(&self, reserve: Reserve, limit: &Limit) -> Option<Mark> {
        // A window that ended between the last answer of an earlier owner and the takeover counts as exhausted, to the next owners
        // too.
        let ended = |(heard, begun): &(Nanos, Nanos)| {
            reserve.at_least(limit, *heard, *begun).is_none() && reserve.is_counted(limit, *begun, self.begun)
        };
        if self.earlier.iter().any(ended) {
            return None;
        }
        if PlantedBug::SharesForgotten.is_on() {
            return reserve.at_least(limit, self.begun, self.begun);
        }
        let mark = reserve.at_least(limit, self.heard, self.begun)?;
        if reserve.is_of_window() {
            return Some(mark);
        }
        // Owners before that had taken over from floors too need not have sent what they assumed themselves. It has stood still
        // in each takeover since.
        let (mut mark, mut unheard) = (mark, self.begun.saturating_since(self.heard));
        // A wall clock that was set back says nothing of buckets.
        for (heard, begun) in self.earlier.iter().rev().filter(|(heard, begun)| heard <= begun) {
            let assumed = reserve.at_least(limit, *heard, *begun).unwrap_or_default();
            mark = mark.max(assumed.postponed(unheard));
            unheard += begun.saturating_since(*heard);
        }
        Some(mark)
    }

    /// The takeovers that the next owner has to know of, this one with them.
    pub(super) fn takeovers(&self) -> Vec<(Nanos, Nanos)> {
        let mut takeovers = self.earlier.clone();
        // Where nobody can have given anything, nothing more is assumed.
        if self.heard != self.begun {
            takeovers.push((self.heard, self.begun));
        }
        if let Some(one) = takeovers.get(..2).filter(|_| takeovers.len() > MAX_EARLIER).and_then(as_one) {
            takeovers.splice(..2, [one]);
        }
        takeovers
    }
}

/// What an owner says when it has sent all floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeoverState {
    /// Of the rules that have floors, as the owner had them.
    pub(crate) fingerprint: u64,
    /// [Since](Since::number) when it had them.
    pub(crate) since: u64,
    /// When the owner had counted all buckets as exhausted.
    pub(crate) before: Option<Nanos>,
    /// As [`TakeoverBasis::earlier`].
    pub(crate) earlier: Vec<(Nanos, Nanos)>,
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{cluster::Rules, rules::HashSecret};

    use super::*;

    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> Nanos {
        Nanos::new((20_000 * DAY + seconds) * 1_000_000_000)
    }

    /// Crashes of a minute at these days: the last.
    fn last_of(rules: &Rules, days: [u64; 3]) -> TakeoverBasis {
        let begin = |day: u64, earlier| TakeoverBasis {
            rules: Arc::clone(rules.reserves()),
            heard: at(DAY * day),
            begun: at(DAY * day + 60),
            before: None,
            earlier,
        };
        let second = begin(days[1], begin(days[0], Vec::new()).takeovers());
        begin(days[2], second.takeovers())
    }

    #[test]
    fn what_was_assumed_at_a_crash_has_refilled_until_one_that_comes_a_month_later() {
        let text = "rules: [{ name: r, key: [], limit: 160/10d, on_owner_loss: share }]";
        let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
        let rule = &rules.rules("default")[0];
        let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
        let third = last_of(&rules, [1, 31, 33]);
        assert_eq!(third.earlier.len(), 2);
        assert_eq!(third.at_least(reserve, &limit), reserve.at_least(&limit, third.heard, third.begun));
        // Told as one, as to a successor, they count as if the first had lasted until the last.
        let told = TakeoverBasis { earlier: as_one(&third.earlier).into_iter().collect(), ..third.clone() };
        assert!(told.at_least(reserve, &limit) > third.at_least(reserve, &limit));
        // Where nobody can have given anything, there is nothing to tell.
        assert_eq!(TakeoverBasis { heard: third.begun, ..third.clone() }.takeovers(), third.earlier);
    }

    #[test]
    fn what_was_written_since_owes_what_its_former_limit_did_and_what_is_new_owes_nothing() {
        let rules = |text: &str| Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
        let then = rules(
            "rules: [{ name: r, key: [], limit: 1000/1d, on_owner_loss: deny }, { name: log, key: [], limit: 10/1d, algorithm: sliding_log }]",
        );
        let (begun, before) = (at(60), Some(at(30)));
        let basis = |before| TakeoverBasis {
            rules: Arc::clone(then.reserves()),
            heard: at(0),
            begun,
            before,
            earlier: Vec::new(),
        };
        let parts = |rules: &Rules| {
            let rule = &rules.rules("default")[0];
            (rule.id(), rule.reserve(), *rule.limit().unwrap())
        };
        let assumed = |before, text: &str| {
            let (id, reserve, limit) = parts(&rules(text));
            basis(before).assumed(id, reserve, &limit)
        };
        let of = |fields: &str| format!("rules: [{{ name: r, key: [], on_owner_loss: deny, {fields} }}]");
        let (_, former, limit) = parts(&then);
        let owed = former.unwrap().at_least(&limit, at(0), begun);
        let same = assumed(before, &of("limit: 1000/1d")).unwrap();
        assert_eq!((same.empty_at, Some(same.at_least)), (before, owed));
        let algorithms = ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"];
        for (fields, algorithm) in
            ["3000/1d", "800/1d", "1600/1h"].iter().flat_map(|l| algorithms.map(|a| (l, a)))
        {
            let text = of(&format!("limit: {fields}, algorithm: {algorithm}"));
            let (_, _, other) = parts(&rules(&text));
            let exhausted = Reserve::converted(&other, None, &other, begun);
            let assumed = |before| assumed(before, &text).unwrap();
            assert_eq!(assumed(None).empty_at, None, "{text}");
            assert_eq!(assumed(None).at_least, Reserve::converted(&limit, owed, &other, begun), "{text}");
            assert!(Mark::default() < assumed(None).at_least && assumed(None).at_least < exhausted, "{text}");
            // Who was before had counted all as exhausted.
            assert!(assumed(before).at_least > assumed(None).at_least, "{text}");
        }
        for new in ["limit: 5/1d", "limit: 5/1d, algorithm: sliding_log", "limit: 5/1s"] {
            let text = format!("rules: [{{ name: new, key: [], {new} }}]");
            assert_eq!(assumed(before, &text), Some(Assumed::default()), "{new}");
        }
        // What had no floors has no limit that says what it owes.
        for fields in ["limit: 10/1d", "limit: 20/1d, algorithm: sliding_log"] {
            assert_eq!(
                assumed(None, &format!("rules: [{{ name: log, key: [], {fields} }}]")),
                None,
                "{fields}"
            );
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_back_matters_to_windows_alone() {
        let text =
            "rules: [{ name: w, key: [], limit: 160/1h, algorithm: fixed_window, on_owner_loss: deny },
                            { name: b, key: [], limit: 160/1h, on_owner_loss: share }]";
        let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
        let reserve = |name: &str| {
            let rule = rules.rules("default").iter().find(|rule| rule.name() == name).unwrap();
            (rule.reserve().unwrap(), *rule.limit().unwrap())
        };
        let of = |heard, begun, earlier| TakeoverBasis {
            rules: Arc::clone(rules.reserves()),
            heard: at(heard),
            begun: at(begun),
            before: None,
            earlier,
        };
        // It showed 01:10, and shows 00:50 now.
        let set_back = vec![(at(4_200), at(3_000))];
        let (plain, back) = (of(2_000, 3_000, Vec::new()), of(2_000, 3_000, set_back.clone()));
        let ((window, per_window), (bucket, per_hour)) = (reserve("w"), reserve("b"));
        assert!(
            plain.at_least(window, &per_window).is_some() && back.at_least(window, &per_window).is_none()
        );
        assert_eq!(back.at_least(bucket, &per_hour), plain.at_least(bucket, &per_hour));
        // Whoever begins later in that window knows it, and after it the window is another one.
        let next = |begun| of(begun, begun, back.takeovers());
        assert!(next(3_500).at_least(window, &per_window).is_none());
        assert!(next(3_700).at_least(window, &per_window).is_some());
        assert_eq!(as_one(&back.takeovers()), Some((at(2_000), at(3_000))));
    }

    #[test]
    fn what_was_assumed_stands_still_in_each_crash_that_follows_and_the_number_of_them_is_bounded() {
        let text = "rules: [{ name: r, key: [], limit: 160/1d, on_owner_loss: share }]";
        let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
        let rule = &rules.rules("default")[0];
        let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
        let of = |heard: u64, begun: u64, earlier| TakeoverBasis {
            rules: Arc::clone(rules.reserves()),
            heard: at(heard),
            begun: at(begun),
            before: None,
            earlier,
        };
        // Out for 10,000 s, there for 100 s, out for 1,000 s, there for 100 s, out for 500 s.
        let second = of(10_100, 11_100, of(0, 10_000, Vec::new()).takeovers());
        let last = of(11_200, 11_700, second.takeovers());
        let assumed = reserve.at_least(&limit, at(0), at(10_000)).unwrap();
        assert_eq!(
            last.at_least(reserve, &limit),
            Some(assumed.postponed(std::time::Duration::from_secs(1_500)))
        );
        let mut known = of(0, 10, Vec::new());
        for crash in 1..50 {
            known = of(crash * 1_000, crash * 1_000 + 10, known.takeovers());
            assert!(known.earlier.len() <= MAX_EARLIER);
        }
        assert_eq!(as_one(&known.takeovers()), Some((at(0), at(49_010))));
    }
}
