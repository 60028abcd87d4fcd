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
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    assigned::Assigned,
    class::Class,
    level::level,
    marks::{ClassMark, Marks},
};
use crate::{OnMemoryFull, RuleId};

/// Classes that are no rule's own: those of limits that come with a check, and those that are shared.
const SHARED_CLASSES: usize = 4;

/// What happens with the buckets of a class for which there is no room.
const FORGETS: u8 = 0;
const STRICT: u8 = 1;
/// The rule is not known yet, or is no more: what is let go of it is marked, and nothing is assumed.
const UNKNOWN: u8 = 2;

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
    marks: Marks,
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
        self.all[usize::from(class)].marks.forget();
        let mut all = self.assigned.all();
        all.retain(|(_, of)| *of != class);
        self.assigned.replace(&all);
        Some(class)
    }

    /// These are all the rules. A rule that is no more, or is not known yet, keeps its class and its marks for as long as there are
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
                Some(OnMemoryFull::Forget) => of.marks.forget(),
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
        self.all[usize::from(class)].marks.note(is_of_window, state, now);
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
        let latest = |class: Class| self.all[usize::from(class)].marks.latest(is_of_window, ahead);
        latest(class).max(latest(self.elsewhere()))
    }

    /// Whether any mark may say something.
    pub(super) fn has_marks(&self, now: u64) -> bool {
        self.latest.load(Relaxed) > now
    }

    /// All marks that say something.
    pub(super) fn marks(&self, now: u64) -> Vec<ClassMark> {
        if !self.has_marks(now) {
            return Vec::new();
        }
        let of_class = |of: &OfClass| {
            let rule = RuleId::from_raw(of.rule.load(Relaxed));
            let marks = of.marks.all().filter(|(_, state)| *state > now);
            marks.map(|(is_of_window, state)| ClassMark { rule, is_of_window, state }).collect::<Vec<_>>()
        };
        self.all.iter().flat_map(of_class).collect()
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

#[cfg(test)]
mod tests;
