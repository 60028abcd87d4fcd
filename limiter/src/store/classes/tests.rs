use super::*;
use crate::store::class::MAX_CLASS_BITS;

fn rule(number: u64) -> RuleId {
    RuleId::from_raw(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1)
}

#[test]
fn rules_have_classes_of_their_own_while_there_are_some_and_then_share_those_of_their_kind() {
    let classes = Classes::new(4);
    let rules = |strict: u64| {
        let on_full = move |number| if number < strict { OnMemoryFull::Strict } else { OnMemoryFull::Forget };
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
    let rules = |numbers: std::ops::Range<u64>| numbers.map(|number| (rule(number), OnMemoryFull::Strict));
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
fn what_is_let_go_of_before_the_rules_are_known_counts_when_they_are() {
    let classes = Classes::new(4);
    let [strict, forgets, later] = [1, 2, 3].map(|number| classes.of(rule(number)));
    assert!(
        [strict, forgets, later].iter().all(|class| !classes.forgets(*class) && !classes.is_strict(*class))
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
