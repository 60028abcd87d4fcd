//! Whose bucket a slot holds, so that memory is shared out by rule.
//!
//! A *class* is a small number that stands for a rule in this store: the upper bits of a fingerprint choose the shard, so in
//! the shard's table they say nothing, and the class stands in their place. It costs no byte.
//!
//! Limits that come with a check are class 0, whoever sent them. Rules get the others as their first buckets come; those for
//! which none is left share two, one for each [`OnMemoryFull`], so that what a rule was promised holds for it there too.
//!
//! What a rule whose buckets are never refilled has let go is known by *marks*: the latest states, by how far the buckets were in
//! debt. One that is not in memory counts as strict as the latest that it may be.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use crate::{OnMemoryFull, RuleId};

pub(super) const MAX_CLASS_BITS: u32 = 10;
/// Places that are looked at for a rule's class.
const PROBES: usize = 32;
/// No rule.
const NONE: u64 = 0;

/// Debts are told apart by powers of the fourth root of two, from 2^`LEAST_DEBT` ticks (67 ms) on.
const LEAST_DEBT: u32 = 28;
const STEPS: usize = 4;
const BINS: usize = (u64::BITS - LEAST_DEBT) as usize * STEPS;

/// A class: below 2^10.
pub(super) type Class = u16;

pub(super) struct Classes {
    /// By class.
    all: Box<[OfClass]>,
    /// The rules whose buckets are never refilled.
    strict: Mutex<HashSet<RuleId>>,
    /// The latest state of all marks: where it is over, none says anything.
    latest: AtomicU64,
    /// For how long time stood still for some of the states, at most, and until when that has not passed.
    postponed: [AtomicU64; 2],
    is_one: AtomicBool,
}

#[derive(Default)]
struct OfClass {
    rule: AtomicU64,
    is_strict: AtomicBool,
    log_bytes: AtomicUsize,
    /// Of buckets that refill steadily and logs, and of windows.
    marks: [OnceLock<Box<[AtomicU64]>>; 2],
}

/// What is known of buckets that are not in memory any more: none of them is later than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) rule: RuleId,
    pub(super) is_of_window: bool,
    pub(super) state: u64,
}

impl Classes {
    pub(super) const INLINE: Class = 0;

    pub(super) fn new(bits: u32) -> Self {
        let all: Box<[OfClass]> = (0..1 << bits).map(|_| OfClass::default()).collect();
        let last = all.len() - 1;
        all[last].is_strict.store(true, Relaxed);
        all[last].rule.store(RuleId::SHARED_STRICT.get(), Relaxed);
        all[last - 1].rule.store(RuleId::SHARED.get(), Relaxed);
        Self { all, strict: Mutex::default(), latest: AtomicU64::new(0), postponed: Default::default(), is_one: AtomicBool::new(false) }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The class of a rule. Asked with a shard locked; of a rule that has one, it takes no lock.
    pub(super) fn of(&self, rule: RuleId) -> Class {
        match rule {
            RuleId::INLINE => Self::INLINE,
            RuleId::SHARED => self.len() as Class - 2,
            RuleId::SHARED_STRICT => self.len() as Class - 1,
            _ if self.is_one.load(Relaxed) => Self::INLINE,
            _ => self.find(rule).unwrap_or_else(|| self.claim(rule)),
        }
    }

    pub(super) fn share_among_all(&self) {
        self.is_one.store(true, Relaxed);
    }

    /// The rule of a class; of one that several share, a number that leads to such a class elsewhere.
    pub(super) fn rule_of(&self, class: Class) -> RuleId {
        match self.all[usize::from(class)].rule.load(Relaxed) {
            // Its rule was one that is no more, but for now.
            NONE if class != Self::INLINE => RuleId::SHARED,
            rule => RuleId::from_raw(rule),
        }
    }

    /// Where a rule's class is looked for. All of them are looked at: one that was given back does not end the search.
    fn probes(&self, rule: RuleId) -> impl Iterator<Item = Class> {
        let own = self.len() - 3;
        let first = (rule.get() >> 8) as usize % own;
        (0..own.min(PROBES)).map(move |step| (1 + (first + step) % own) as Class)
    }

    fn find(&self, rule: RuleId) -> Option<Class> {
        let is_its = |class: &Class| self.all[usize::from(*class)].rule.load(Acquire) == rule.get();
        self.probes(rule).find(is_its)
    }

    #[cold]
    fn claim(&self, rule: RuleId) -> Class {
        // One at a time, so that no rule gets two.
        let strict = self.strict();
        let is_strict = strict.contains(&rule);
        let free = |class: &Class| self.all[usize::from(*class)].rule.load(Relaxed) == NONE;
        if let Some(class) = self.find(rule).or_else(|| self.probes(rule).find(free)) {
            let of = &self.all[usize::from(class)];
            of.is_strict.store(is_strict, Relaxed);
            of.rule.store(rule.get(), Release);
            return class;
        }
        self.of(if is_strict { RuleId::SHARED_STRICT } else { RuleId::SHARED })
    }

    /// These are all the rules. A rule that is no more gives its class back; buckets that are left of it count as those of the
    /// one that gets it.
    pub(super) fn set_rules(&self, rules: impl Iterator<Item = (RuleId, OnMemoryFull)>) {
        let mut known = HashSet::new();
        let mut strict = self.strict();
        strict.clear();
        for (rule, on_full) in rules {
            known.insert(rule);
            if on_full == OnMemoryFull::Strict {
                strict.insert(rule);
            }
        }
        for of in &self.all[1..self.len() - 2] {
            let rule = RuleId::from_raw(of.rule.load(Relaxed));
            let is_strict = strict.contains(&rule);
            of.is_strict.store(is_strict, Relaxed);
            if !is_strict {
                of.forget_marks();
            }
            if !known.contains(&rule) {
                of.rule.store(NONE, Relaxed);
            }
        }
    }

    pub(super) fn is_strict(&self, class: Class) -> bool {
        self.all[usize::from(class)].is_strict.load(Relaxed)
    }

    /// A bucket of this class in this state is let go. Called with its shard locked, so that the next check of it knows.
    pub(super) fn mark(&self, class: Class, is_of_window: bool, state: u64, now: u64) {
        let marks = &self.all[usize::from(class)].marks[usize::from(is_of_window)];
        let marks = marks.get_or_init(|| (0..BINS).map(|_| AtomicU64::new(0)).collect());
        marks[bin(state.saturating_sub(now))].fetch_max(state, Relaxed);
        self.latest.fetch_max(state, Relaxed);
    }

    /// States lie further ahead than charges made them, by that much at most.
    pub(super) fn postpone(&self, by: u64, now: u64) {
        let [most, until] = &self.postponed;
        until.fetch_max(now.saturating_add(by), Relaxed);
        most.fetch_max(by, Relaxed);
    }

    /// How late the state of a bucket can be that is not in memory, where no charge makes a state further ahead than `horizon`.
    pub(super) fn assumed(&self, class: Class, is_of_window: bool, horizon: u64, now: u64) -> u64 {
        let marks = self.all[usize::from(class)].marks[usize::from(is_of_window)].get();
        // One that was let go later was less far ahead. A floor lies ahead of what was charged, by less than a horizon; and what
        // was postponed by as much as that, until its mark is over.
        let charged = horizon.saturating_mul(2);
        let [by, until] = self.postponed.each_ref().map(|one| one.load(Relaxed));
        let ahead = if until.saturating_add(charged) > now { charged.saturating_add(by) } else { charged };
        let within = |marks: &[AtomicU64]| {
            marks[..=bin(ahead)].iter().map(|mark| mark.load(Relaxed)).max().unwrap_or(0)
        };
        marks.map_or(0, |marks| within(marks))
    }

    /// Whether any mark may say something.
    pub(super) fn has_marks(&self, now: u64) -> bool {
        self.latest.load(Relaxed) > now
    }

    /// All marks that say something.
    pub(super) fn marks(&self, now: u64) -> Vec<Mark> {
        if !self.has_marks(now) {
            return Vec::new();
        }
        let of_class = |of: &OfClass| {
            let rule = RuleId::from_raw(of.rule.load(Relaxed));
            [false, true].map(|is_of_window| {
                let marks = of.marks[usize::from(is_of_window)].get().map_or(&[][..], |marks| marks);
                let states = marks.iter().map(|mark| mark.load(Relaxed)).filter(|state| *state > now);
                states.map(|state| Mark { rule, is_of_window, state }).collect::<Vec<_>>()
            })
        };
        self.all.iter().flat_map(of_class).flatten().collect()
    }

    pub(super) fn count_log_bytes(&self, class: Class, before: usize, after: usize) {
        let bytes = &self.all[usize::from(class)].log_bytes;
        bytes.fetch_add(after, Relaxed);
        bytes.fetch_sub(before, Relaxed);
    }

    /// Bytes of the logs of a class.
    pub(super) fn log_bytes(&self, class: Class) -> usize {
        self.all[usize::from(class)].log_bytes.load(Relaxed)
    }

    /// How many bytes of logs a class may keep, when all of them have `most`.
    pub(super) fn log_level(&self, most: usize) -> usize {
        level(self.all.iter().map(|of| of.log_bytes.load(Relaxed)), most)
    }

    fn strict(&self) -> MutexGuard<'_, HashSet<RuleId>> {
        // Nothing in here is left half done by a panic.
        self.strict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfClass {
    fn forget_marks(&self) {
        for marks in self.marks.iter().filter_map(OnceLock::get) {
            marks.iter().for_each(|mark| mark.store(0, Relaxed));
        }
    }
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classes").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// How many each may keep, so that all of them together keep at most `most`: those that have less keep all that they have, and
/// what they leave is for the others. So who has no more than its part (`most` by the number of those that have any) is not
/// touched, however much others have.
pub fn level(counts: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut counts: Vec<usize> = counts.filter(|count| *count > 0).collect();
    counts.sort_unstable();
    let (mut left, mut others) = (most, counts.len());
    for count in counts {
        if count > left / others {
            return left / others;
        }
        left -= count;
        others -= 1;
    }
    usize::MAX
}

/// Grows with the debt.
fn bin(debt: u64) -> usize {
    let Some(power) = debt.checked_ilog2().and_then(|power| power.checked_sub(LEAST_DEBT)) else { return 0 };
    let step = (debt >> (power + LEAST_DEBT - 2)) & 3;
    power as usize * STEPS + step as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(number: u64) -> RuleId {
        RuleId::from_raw(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1)
    }

    #[test]
    fn rules_have_classes_of_their_own_while_there_are_some_and_then_share_those_of_their_kind() {
        let classes = Classes::new(4);
        let rules = |strict: u64| {
            let on_full =
                move |number| if number < strict { OnMemoryFull::Strict } else { OnMemoryFull::Forget };
            (1..=40).map(move |number| (rule(number), on_full(number)))
        };
        classes.set_rules(rules(20));
        let of: Vec<Class> = (1..=40).map(|number| classes.of(rule(number))).collect();
        let own: HashSet<Class> = of.iter().copied().filter(|class| *class < 14).collect();
        assert_eq!(own.len(), 13, "{of:?}");
        assert!(!own.contains(&Classes::INLINE));
        for (number, class) in (1..).zip(&of) {
            assert_eq!(classes.is_strict(*class), number < 20);
            assert_eq!(classes.of(rule(number)), *class, "it stays");
            let elsewhere = Classes::new(5);
            elsewhere.set_rules(rules(20));
            assert_eq!(elsewhere.is_strict(elsewhere.of(classes.rule_of(*class))), number < 20);
        }
        // A rule that is no more leaves its class to others.
        classes.set_rules(std::iter::empty());
        assert!((100..113).all(|number| classes.of(rule(number)) < 14));
        assert_eq!(classes.of(RuleId::INLINE), Classes::INLINE);
    }

    #[test]
    fn marks_of_buckets_further_in_debt_than_ever_possible_say_nothing() {
        let (classes, now) = (Classes::new(4), 1 << 60);
        let (second, day) = (4_000_000_000, 86_400 * 4_000_000_000);
        classes.mark(3, false, now + day, now);
        assert_eq!(classes.assumed(3, false, second, now), 0);
        assert_eq!(classes.assumed(3, false, day, now), now + day);
        assert_eq!((classes.assumed(3, true, day, now), classes.assumed(4, false, day, now)), (0, 0));
        classes.mark(3, false, now + second, now);
        assert_eq!(classes.assumed(3, false, second, now), now + second);
        assert_eq!(classes.marks(now).len(), 2);
        assert!(classes.has_marks(now) && !classes.has_marks(now + day));
    }

    proptest! {
        #[test]
        fn bins_grow_with_debts(debt in any::<u64>(), more in any::<u64>()) {
            prop_assert!(bin(debt) <= bin(debt.saturating_add(more)));
            prop_assert!(bin(debt) < BINS);
        }

        #[test]
        fn nobody_within_its_part_is_touched_and_all_together_fit(
            counts in prop::collection::vec(0usize..1_000, 1..20), most in 1usize..5_000,
        ) {
            let level = level(counts.iter().copied(), most);
            let kept: usize = counts.iter().map(|count| (*count).min(level)).sum();
            prop_assert!(kept <= most);
            let active = counts.iter().filter(|count| **count > 0).count().max(1);
            prop_assert!(counts.iter().all(|count| *count > most / active || *count <= level));
            if counts.iter().sum::<usize>() > most {
                prop_assert!(most - kept < active, "no room is left over");
            }
        }
    }
}
