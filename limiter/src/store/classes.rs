//! Whose bucket a slot holds, so that memory is shared out by rule.
//!
//! A *class* is a small number that stands for a rule in this store: the upper bits of a fingerprint choose the shard, so in
//! the shard's table they say nothing, and the class stands in their place. It costs no byte.
//!
//! Limits that come with a check are class 0, whoever sent them. Rules get the others as their first buckets come, and keep them;
//! those for which none is left share two, one for each [`OnMemoryFull`], so that what a rule was promised holds for it there too.
//! A rule that is removed may come back, and then its buckets are still of its class: another rule gets that only when all others
//! are taken.
//!
//! Of buckets of other stores it may not be known whose they are but that they are of a strict rule which had no class there. They
//! have a class of their own here, and what is let go of it may be any strict rule's.
//!
//! What a rule whose buckets are never refilled has let go is known by *marks*: the latest states, by how far the buckets were in
//! debt. One that is not in memory counts as strict as the latest that it may be.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{assigned::Assigned, level::level};
use crate::{OnMemoryFull, RuleId};

pub(super) const MAX_CLASS_BITS: u32 = 10;
/// Classes that are no rule's own: those of limits that come with a check, and those that are shared.
const SHARED_CLASSES: usize = 4;

/// What happens with the buckets of a class for which there is no room.
const FORGETS: u8 = 0;
const STRICT: u8 = 1;
/// The rule was not told yet, or is no more: what is let go of it is marked, and nothing is assumed.
const UNKNOWN: u8 = 2;

/// Debts are told apart by powers of the fourth root of two, from 2^`LEAST_DEBT` ticks (67 ms) on.
const LEAST_DEBT: u32 = 28;
const STEPS: usize = 4;
const BINS: usize = (u64::BITS - LEAST_DEBT) as usize * STEPS;

/// A class: below 2^10.
pub(super) type Class = u16;

pub(super) struct Classes {
    /// By class.
    all: Box<[OfClass]>,
    assigned: Assigned,
    known: Mutex<Known>,
    /// The latest state of all marks: where it is over, none says anything.
    latest: AtomicU64,
    /// For how long time stood still for some of the states, at most, and until when that has not passed.
    postponed: [AtomicU64; 2],
    is_one: AtomicBool,
}

/// Which rules there are, and which classes are left for them.
#[derive(Default)]
struct Known {
    rules: HashMap<RuleId, OnMemoryFull>,
    /// Classes that some rule has got.
    taken: usize,
    /// Those of rules that are no more, in the order in which they went.
    vacant: VecDeque<Class>,
}

#[derive(Default)]
struct OfClass {
    rule: AtomicU64,
    on_full: AtomicU8,
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
        all[last].on_full.store(UNKNOWN, Relaxed);
        all[last].rule.store(RuleId::SHARED_STRICT.get(), Relaxed);
        all[last - 1].on_full.store(STRICT, Relaxed);
        all[last - 1].rule.store(RuleId::SHARED_STRICT.get(), Relaxed);
        all[last - 2].rule.store(RuleId::SHARED.get(), Relaxed);
        let (assigned, known) = (Assigned::default(), Mutex::default());
        Self {
            all,
            assigned,
            known,
            latest: AtomicU64::new(0),
            postponed: Default::default(),
            is_one: AtomicBool::new(false),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Of rules that forget and have none.
    fn shared(&self) -> Class {
        self.len() as Class - 3
    }

    /// Of rules that are strict and have none.
    fn shared_strict(&self) -> Class {
        self.len() as Class - 2
    }

    /// Of strict rules that have none in another store, or of rules that are not known and for which there is none.
    fn elsewhere(&self) -> Class {
        self.len() as Class - 1
    }

    /// The class of a rule. Asked with a shard locked; of a rule that has one, it takes no lock.
    pub(super) fn of(&self, rule: RuleId) -> Class {
        match rule {
            RuleId::INLINE => Self::INLINE,
            RuleId::SHARED => self.shared(),
            RuleId::SHARED_STRICT => self.elsewhere(),
            _ if self.is_one.load(Relaxed) => Self::INLINE,
            _ => self.assigned.get(rule).unwrap_or_else(|| self.claim(rule)),
        }
    }

    pub(super) fn share_among_all(&self) {
        self.is_one.store(true, Relaxed);
    }

    /// The rule of a class; of one that several share, a number that leads to such a class elsewhere.
    pub(super) fn rule_of(&self, class: Class) -> RuleId {
        RuleId::from_raw(self.all[usize::from(class)].rule.load(Relaxed))
    }

    #[cold]
    fn claim(&self, rule: RuleId) -> Class {
        // One at a time, so that no rule gets two.
        let mut known = self.known();
        if let Some(class) = self.assigned.get(rule) {
            return class;
        }
        let on_full = known.rules.get(&rule).copied();
        let Some(class) = self.free(&mut known) else {
            return match on_full {
                Some(on_full) => {
                    let class = self.shared_by(on_full);
                    self.assigned.set(rule, class);
                    class
                }
                None => self.elsewhere(),
            };
        };
        let of = &self.all[usize::from(class)];
        of.on_full.store(on_full.map_or(UNKNOWN, number_of), Relaxed);
        of.rule.store(rule.get(), Relaxed);
        self.assigned.set(rule, class);
        class
    }

    fn shared_by(&self, on_full: OnMemoryFull) -> Class {
        match on_full {
            OnMemoryFull::Forget => self.shared(),
            OnMemoryFull::Strict => self.shared_strict(),
        }
    }

    /// A class that no rule has: one that none ever had, or that of the rule that is no more for the longest.
    fn free(&self, known: &mut Known) -> Option<Class> {
        if known.taken < self.len() - SHARED_CLASSES {
            known.taken += 1;
            return Some(known.taken as Class);
        }
        let class = known.vacant.pop_front()?;
        self.all[usize::from(class)].forget_marks();
        let mut all = self.assigned.all();
        all.retain(|(_, of)| *of != class);
        self.assigned.replace(&all);
        Some(class)
    }

    /// These are all the rules. A rule that is no more, or is not told yet, keeps its class and its marks for as long as there are
    /// classes for others. Buckets that are left of it when it loses that count as those of the one that gets it.
    pub(super) fn set_rules(&self, rules: impl Iterator<Item = (RuleId, OnMemoryFull)>) {
        let mut known = self.known();
        known.rules = rules.collect();
        let mut vacant: HashSet<Class> = HashSet::new();
        for class in 1..=known.taken as Class {
            let of = &self.all[usize::from(class)];
            let on_full = known.rules.get(&RuleId::from_raw(of.rule.load(Relaxed))).copied();
            of.on_full.store(on_full.map_or(UNKNOWN, number_of), Relaxed);
            match on_full {
                Some(OnMemoryFull::Strict) => {}
                Some(OnMemoryFull::Forget) => of.forget_marks(),
                None => _ = vacant.insert(class),
            }
        }
        known.vacant.retain(|class| vacant.remove(class));
        let mut vacant: Vec<Class> = vacant.into_iter().collect();
        vacant.sort_unstable();
        known.vacant.extend(vacant);
        for (rule, class) in self.assigned.all() {
            if usize::from(class) > known.taken
                && let Some(on_full) = known.rules.get(&rule)
            {
                self.assigned.set(rule, self.shared_by(*on_full));
            }
        }
    }

    /// Whether what a class has let go of is assumed of its buckets that are not in memory.
    pub(super) fn is_strict(&self, class: Class) -> bool {
        self.all[usize::from(class)].on_full.load(Relaxed) == STRICT
    }

    /// Whether it need not be known what a class has let go of.
    pub(super) fn forgets(&self, class: Class) -> bool {
        self.all[usize::from(class)].on_full.load(Relaxed) == FORGETS
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
        // One that was let go later was less far ahead. A floor lies ahead of what was charged, by less than a horizon; and what
        // was postponed by as much as that, until its mark is over.
        let charged = horizon.saturating_mul(2);
        let [by, until] = self.postponed.each_ref().map(|one| one.load(Relaxed));
        let ahead = if until.saturating_add(charged) > now { charged.saturating_add(by) } else { charged };
        let latest = |class: Class| {
            let marks = self.all[usize::from(class)].marks[usize::from(is_of_window)].get();
            let marks = marks.map_or(&[][..], |marks| &marks[..=bin(ahead)]);
            marks.iter().map(|mark| mark.load(Relaxed)).max().unwrap_or(0)
        };
        latest(class).max(latest(self.elsewhere()))
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

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here is left half done by a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfClass {
    fn forget_marks(&self) {
        for marks in self.marks.iter().filter_map(OnceLock::get) {
            marks.iter().for_each(|mark| mark.store(0, Relaxed));
        }
    }
}

fn number_of(on_full: OnMemoryFull) -> u8 {
    match on_full {
        OnMemoryFull::Forget => FORGETS,
        OnMemoryFull::Strict => STRICT,
    }
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classes").field("len", &self.len()).finish_non_exhaustive()
    }
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
        let own: HashSet<Class> = of.iter().copied().filter(|class| *class < 13).collect();
        assert_eq!(own.len(), 12, "{of:?}");
        assert!(!own.contains(&Classes::INLINE));
        for (number, class) in (1..).zip(&of) {
            assert_eq!(classes.is_strict(*class), number < 20);
            assert_eq!(classes.of(rule(number)), *class, "it stays");
            let elsewhere = Classes::new(5);
            elsewhere.set_rules(rules(20));
            assert_eq!(elsewhere.forgets(elsewhere.of(classes.rule_of(*class))), number >= 20);
        }
        assert_eq!(classes.of(RuleId::INLINE), Classes::INLINE);
    }

    #[test]
    fn as_many_rules_as_there_are_classes_have_one_whatever_their_numbers_are() {
        let classes = Classes::new(MAX_CLASS_BITS);
        let numbers = (1..=1_020).map(|number: u64| RuleId::from_raw(number << 40));
        classes.set_rules(numbers.clone().map(|rule| (rule, OnMemoryFull::Strict)));
        let own: HashSet<Class> = numbers.map(|rule| classes.of(rule)).collect();
        assert!(own.len() == 1_020 && own.iter().all(|class| (1..=1_020).contains(class)));
    }

    /// Found by review: a rule that shared a class got one of its own when another rule went, and nothing of what it had let go of
    /// was known there; and one that came back found its class taken.
    #[test]
    fn a_rule_keeps_its_class_while_others_go_and_when_it_comes_back_while_there_are_others() {
        let classes = Classes::new(4);
        let rules =
            |numbers: std::ops::Range<u64>| numbers.map(|number| (rule(number), OnMemoryFull::Strict));
        classes.set_rules(rules(1..14));
        let of: Vec<Class> = (1..14).map(|number| classes.of(rule(number))).collect();
        let shared = *of.last().unwrap();
        assert_eq!(shared, classes.shared_strict());
        classes.set_rules(rules(9..14));
        assert_eq!(classes.of(rule(13)), shared);
        classes.mark(of[0], false, 900, 100);
        classes.set_rules(rules(1..14));
        assert_eq!(classes.of(rule(1)), of[0]);
        assert_eq!(classes.assumed(of[0], false, 1 << 40, 100), 900, "and so do its marks");
        // One that comes when all are taken gets the class of the rule that went first, and none of its marks.
        classes.set_rules(rules(2..14));
        classes.set_rules(rules(3..14));
        classes.set_rules(rules(3..16));
        assert_eq!([14, 15].map(|number| classes.of(rule(number))), [of[0], of[1]]);
        assert_eq!(classes.assumed(of[0], false, 1 << 40, 100), 0);
        classes.set_rules(rules(1..16));
        assert_eq!(classes.of(rule(1)), shared);
    }

    #[test]
    fn what_is_let_go_of_before_the_rules_are_told_counts_when_they_are() {
        let classes = Classes::new(4);
        let [strict, forgets, later] = [1, 2, 3].map(|number| classes.of(rule(number)));
        assert!(
            [strict, forgets, later]
                .iter()
                .all(|class| !classes.forgets(*class) && !classes.is_strict(*class))
        );
        [strict, forgets, later].iter().for_each(|class| classes.mark(*class, false, 900, 100));
        let known = [(rule(1), OnMemoryFull::Strict), (rule(2), OnMemoryFull::Forget)];
        classes.set_rules(known.into_iter());
        let assumed =
            |class| if classes.is_strict(class) { classes.assumed(class, false, 1 << 40, 100) } else { 0 };
        assert_eq!([strict, forgets, later].map(assumed), [900, 0, 0]);
        classes.set_rules(known.into_iter().chain([(rule(3), OnMemoryFull::Strict)]));
        assert_eq!([strict, forgets, later].map(assumed), [900, 0, 900]);
    }

    #[test]
    fn what_another_store_has_let_go_of_without_knowing_whose_it_was_may_be_any_strict_rules() {
        let classes = Classes::new(4);
        classes.set_rules([(rule(1), OnMemoryFull::Strict)].into_iter());
        let elsewhere = classes.of(RuleId::SHARED_STRICT);
        classes.mark(elsewhere, false, 900, 100);
        assert_eq!(classes.assumed(classes.of(rule(1)), false, 1 << 40, 100), 900);
        // What rules of this store share is these rules' own.
        classes.mark(classes.shared_strict(), false, 1_900, 100);
        assert_eq!(classes.assumed(classes.of(rule(1)), false, 1 << 40, 100), 900);
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
    }
}
