#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::{HashSecret, Nanos};

const START: u64 = 1 << 60;

fn compiled(rules: &str) -> Rules {
    Rules::from_yaml(&format!("rules: [{rules}]"), &HashSecret::new([7; 16])).unwrap()
}

fn rule(name: &str, limits: &[u64]) -> String {
    let special = |(place, count): (usize, &u64)| format!("{{ when: {{ p: p{place} }}, limit: {count}/1h }}");
    let overrides: Vec<String> = limits[1..].iter().enumerate().map(special).collect();
    format!("{{ name: {name}, key: [user], limit: {}/1h, overrides: [{}] }}", limits[0], overrides.join(", "))
}

/// What the counts of the others are; -1: nothing is looked for.
fn others(known: &KnownLimits, rules: &Rules, place: Option<usize>, now: u64) -> Vec<i64> {
    let rule = &rules.rules("default")[0];
    let Some(others) = known.others(rule.id(), rule.limit_at(place).unwrap(), now) else { return vec![-1] };
    let mut counts: Vec<i64> = others.iter().map(|limit| limit.count() as i64).collect();
    counts.sort_unstable();
    counts
}

fn hours(count: u64) -> u64 {
    Nanos::new(0).saturating_add(Duration::from_secs(3600 * count)).ticks()
}

#[test]
fn each_limit_of_a_rule_has_former_ones_of_its_own() {
    let known = KnownLimits::default();
    let changed =
        |step: u64| compiled(&rule("r", &(0..50).map(|own| 100 * own + step + 1).collect::<Vec<_>>()));
    for step in 0..=MAX_FORMER as u64 {
        known.set(&changed(step), START + step);
    }
    let last = changed(MAX_FORMER as u64);
    for place in 0..50_u64 {
        let all: Vec<i64> = (0..MAX_FORMER as i64).map(|step| 100 * place as i64 + step + 1).collect();
        let found = others(&known, &last, place.checked_sub(1).map(|place| place as usize), START + 100);
        assert_eq!(found, all, "limit {place}");
    }
    // The one that ended first goes first.
    let more = changed(90);
    known.set(&more, START + 90);
    let found = others(&known, &more, None, START + 100);
    assert_eq!((found.len(), found[0]), (MAX_FORMER, 2));
}

#[test]
fn a_limit_that_says_nothing_any_more_goes_before_one_that_still_does() {
    let known = KnownLimits::default();
    let day = compiled("{ name: r, key: [user], limit: 7/1d }");
    known.set(&day, START);
    // More short ones than are kept, each long over when the last one ends.
    for count in 1..=2 * MAX_FORMER as u64 {
        known.set(&compiled(&rule("r", &[count])), START + hours(count) / 10);
    }
    let end = START + hours(2 * MAX_FORMER as u64) / 10;
    let last = compiled(&rule("r", &[1_000]));
    known.set(&last, end);
    let found = others(&known, &last, None, end + 1);
    assert!(found.contains(&7), "{found:?}");
    assert!(found.len() < 15, "an hour of them: {found:?}");
    assert_eq!(others(&known, &last, None, end + hours(24)), [-1]);
}

#[test]
fn all_former_limits_together_have_a_bound_and_the_oldest_go_first() {
    let known = KnownLimits::default();
    let two = |a: &[u64], b: &[u64]| compiled(&format!("{}, {}", rule("a", a), rule("b", b)));
    known.set_within(&two(&[1, 2, 3], &[4]), START, 4);
    known.set_within(&two(&[1, 2, 3], &[5]), START + 1, 4);
    known.set_within(&two(&[11, 12, 13], &[5]), START + 2, 4);
    let last = two(&[21, 22, 23], &[5]);
    known.set_within(&last, START + 3, 4);
    // Those that ended together stay together.
    assert_eq!(others(&known, &last, None, START + 4), [1, 11]);
    assert_eq!(others(&known, &last, Some(1), START + 4), [3, 13]);
    let b = &last.rules("default")[1];
    assert!(known.others(b.id(), b.limit_at(None).unwrap(), START + 4).unwrap().is_empty());
}

#[test]
fn overrides_with_one_limit_look_once_under_the_one_that_all_had() {
    let known = KnownLimits::default();
    known.set(&compiled(&rule("r", &[&[1][..], &[20; 300]].concat())), START);
    let after = compiled(&rule("r", &[&[1][..], &[30; 300]].concat()));
    known.set(&after, START + 1);
    assert_eq!(others(&known, &after, Some(7), START + 2), [20]);
    assert_eq!(others(&known, &after, None, START + 2), Vec::<i64>::new());
    // Where each had another one, a check looks under the latest of them.
    let many: Vec<u64> = (0..2 * MAX_TRIED as u64).map(|own| 1_000 + own).collect();
    known.set(&compiled(&rule("r", &many)), START + 3);
    let after = compiled(&rule("r", &[&[1][..], &vec![30; many.len() - 1]].concat()));
    known.set(&after, START + 4);
    assert_eq!(others(&known, &after, Some(7), START + 5).len(), MAX_TRIED);
}

#[test]
fn what_other_nodes_ask_by_takes_no_place_of_what_a_rule_had() {
    let known = KnownLimits::default();
    known.set(&compiled(&rule("r", &[1, 2])), START);
    let rules = compiled(&rule("r", &[3, 4]));
    known.set(&rules, START + 1);
    let id = rules.rules("default")[0].id();
    for count in 0..3 * MAX_FORMER as u64 {
        let newer = compiled(&rule("r", &[100 + count]));
        known.others(id, newer.rules("default")[0].limit_at(None).unwrap(), START + 2).unwrap();
    }
    let found = others(&known, &rules, None, START + 3);
    assert!(found.contains(&1) && found.len() == MAX_FORMER + 1, "{found:?}");
}
