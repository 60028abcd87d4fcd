//! The class of each rule that has one, found without a lock.
//!
//! An open table of rules and classes, at most half full. One thread at a time adds to it; where it has to grow, or a rule goes,
//! another one takes its place. A thread that still reads the one before finds what was there.

use std::sync::atomic::{
    AtomicU16, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use sdd::{AtomicShared, Guard, Shared, Tag};

use super::class::Class;
use crate::RuleId;

const FIRST_PLACES: usize = 64;
/// No rule: limits that come with a check are not looked for.
const FREE: u64 = 0;

pub(super) struct Assigned(AtomicShared<Places>);

struct Places {
    /// A power of two of them.
    all: Box<[Place]>,
    used: AtomicUsize,
}

#[derive(Default)]
struct Place {
    rule: AtomicU64,
    class: AtomicU16,
}

impl Default for Assigned {
    fn default() -> Self {
        Self(AtomicShared::new(Places::with(FIRST_PLACES)))
    }
}

impl Assigned {
    pub(super) fn get(&self, rule: RuleId) -> Option<Class> {
        let guard = Guard::new();
        let place = self.0.load(Acquire, &guard).as_ref()?.find(rule.get())?;
        Some(place.class.load(Relaxed))
    }

    /// Only by one thread at a time, as for all that changes it.
    pub(super) fn set(&self, rule: RuleId, class: Class) {
        let places = self.0.get_shared(Acquire, &Guard::new()).expect("there is always one");
        if let Some(place) = places.find(rule.get()) {
            place.class.store(class, Relaxed);
        } else if places.used.load(Relaxed) < places.all.len() / 2 {
            places.add(rule.get(), class);
        } else {
            let mut all = self.all();
            all.push((rule, class));
            self.replace(&all);
        }
    }

    /// All rules, in no order.
    pub(super) fn all(&self) -> Vec<(RuleId, Class)> {
        let places = self.0.get_shared(Acquire, &Guard::new()).expect("there is always one");
        let all = places.all.iter().map(|place| (place.rule.load(Relaxed), place.class.load(Relaxed)));
        all.filter(|(rule, _)| *rule != FREE).map(|(rule, class)| (RuleId::from_raw(rule), class)).collect()
    }

    pub(super) fn replace(&self, all: &[(RuleId, Class)]) {
        let places = Places::with((all.len() * 4).next_power_of_two().max(FIRST_PLACES));
        all.iter().for_each(|(rule, class)| places.add(rule.get(), *class));
        drop(self.0.swap((Some(Shared::new(places)), Tag::None), AcqRel));
    }
}

impl Places {
    fn with(count: usize) -> Self {
        Self { all: (0..count).map(|_| Place::default()).collect(), used: AtomicUsize::new(0) }
    }

    fn find(&self, rule: u64) -> Option<&Place> {
        let places_for = self.places_for(rule);
        // With the rule comes the class that was stored before it.
        places_for
            .map(|place| (place.rule.load(Acquire), place))
            .take_while(|(known, _)| *known != FREE)
            .find_map(|(known, place)| (known == rule).then_some(place))
    }

    fn add(&self, rule: u64, class: Class) {
        let place = self.places_for(rule).find(|place| place.rule.load(Relaxed) == FREE);
        let place = place.expect("half of them are free");
        place.class.store(class, Relaxed);
        place.rule.store(rule, Release);
        self.used.fetch_add(1, Relaxed);
    }

    fn places_for(&self, rule: u64) -> impl Iterator<Item = &Place> {
        // The numbers of rules are random.
        let home = (rule >> 8) as usize & (self.all.len() - 1);
        self.all[home..].iter().chain(&self.all[..home])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_as_there_are_more_and_after_some_have_gone() {
        let assigned = Assigned::default();
        let rule = |number: u64| RuleId::from_raw((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for number in 0..3_000 {
            assert_eq!(assigned.get(rule(number)), None);
            assigned.set(rule(number), number as Class % 1_024);
            assigned.set(rule(number / 2), number as Class / 2 % 1_024);
        }
        let mut all = assigned.all();
        assert_eq!(all.len(), 3_000);
        all.retain(|(_, class)| *class < 512);
        assigned.replace(&all);
        for number in 0..3_000 {
            let class = number as Class % 1_024;
            assert_eq!(assigned.get(rule(number)), (class < 512).then_some(class));
        }
    }
}
