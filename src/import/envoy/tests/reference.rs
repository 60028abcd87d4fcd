//! What envoyproxy/ratelimit does with a configuration and a descriptor, as its source says (`config_impl.go`, `cache_key.go`),
//! written down once more and in another way than the importer: the rules decide the same, or something is said to be lost.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use smallvec::SmallVec;
use tidegate_limiter::{
    cluster::Rules,
    rules::{Attributes, HashSecret, Mode, Rule},
};

use super::{Sources, read};

/// A descriptor of the configuration.
#[derive(Debug, Clone)]
struct Written {
    key: &'static str,
    value: &'static str,
    limit: Option<Rate>,
    shadow: bool,
    shares: bool,
    below: Vec<Written>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// None: unlimited.
    count: Option<u32>,
    unit: &'static str,
    seconds: u64,
}

impl Written {
    fn json(&self) -> Value {
        let limit = self.limit.map(|Rate { count, unit, .. }| match count {
            Some(count) => json!({ "unit": unit, "requests_per_unit": count }),
            None => json!({ "unlimited": true }),
        });
        let below: Vec<Value> = self.below.iter().map(Self::json).collect();
        json!({ "key": self.key, "value": self.value, "rate_limit": limit, "shadow_mode": self.shadow,
            "share_threshold": self.shares, "descriptors": below })
    }
}

/// What that server makes of it.
#[derive(Debug, Default)]
struct Loaded {
    key: String,
    by_key: BTreeMap<String, Loaded>,
    /// In the order of the file.
    patterns: Vec<String>,
    limit: Option<(Rate, bool)>,
    shares: bool,
}

/// None: it refuses the configuration.
fn load(all: &[Written]) -> Option<Loaded> {
    let mut level = Loaded::default();
    for one in all {
        let joined = if one.value.is_empty() { one.key.to_owned() } else { format!("{}_{}", one.key, one.value) };
        if one.shares && !joined.contains('*') || level.by_key.contains_key(&joined) {
            return None;
        }
        let mut below = load(&one.below)?;
        below.key = one.key.to_owned();
        below.limit = one.limit.map(|rate| (rate, one.shadow));
        below.shares = one.shares;
        if joined.contains('*') {
            level.patterns.push(joined.clone());
        }
        level.by_key.insert(joined, below);
    }
    Some(level)
}

/// Each star takes as much as is possible, then less.
fn fits(pattern: &str, value: &str) -> bool {
    match pattern.chars().next() {
        None => value.is_empty(),
        Some('*') => (0..=value.len()).rev().any(|at| value.is_char_boundary(at) && fits(&pattern[1..], &value[at..])),
        Some(first) => value.strip_prefix(first).is_some_and(|rest| fits(&pattern[first.len_utf8()..], rest)),
    }
}

#[derive(Debug, Default)]
struct Found {
    limit: Option<(Rate, bool)>,
    /// What the counter is known by.
    counter: Vec<(String, String)>,
    /// An entry was taken for a descriptor with another key, because both are joined with their values.
    joined: bool,
}

fn find(root: &Loaded, entries: &[(String, String)]) -> Found {
    let (mut level, mut found) = (root, Found::default());
    for (number, (key, value)) in entries.iter().enumerate() {
        let joined = format!("{key}_{value}");
        let mut counted = value.clone();
        let mut next = level.by_key.get(&joined);
        if next.is_none()
            && let Some(pattern) = level.patterns.iter().find(|pattern| fits(pattern, &joined))
        {
            let one = &level.by_key[pattern];
            if one.shares {
                counted = pattern.strip_prefix(&format!("{key}_")).unwrap_or(pattern).to_owned();
            }
            next = Some(one);
        }
        let Some(next) = next.or_else(|| level.by_key.get(key)) else { return Found { joined: found.joined, ..Found::default() } };
        found.joined |= next.key != *key;
        found.counter.push((key.clone(), counted));
        if number + 1 == entries.len() {
            found.limit = next.limit;
        } else if next.by_key.is_empty() {
            return Found { joined: found.joined, ..Found::default() };
        }
        level = next;
    }
    found
}

/// The sequences of keys that lead to a limit.
fn ways(all: &[Written], before: &[&'static str], found: &mut Vec<Vec<&'static str>>) {
    for one in all {
        let way = [before, &[one.key]].concat();
        ways(&one.below, &way, found);
        if one.limit.is_some() {
            found.push(way);
        }
    }
}

/// The attributes of a descriptor, as the front end for Envoy has them.
struct Descriptor(Vec<(String, String)>);

impl Descriptor {
    fn of(entries: &[(String, String)]) -> Self {
        let mut list = Self(Vec::new());
        for (key, value) in entries {
            let names = std::iter::once(key.clone()).chain((2..).map(|number| format!("{key}.{number}")));
            let name = names.into_iter().find(|name| list.get(name).is_none()).unwrap();
            list.0.push((name, value.clone()));
        }
        list
    }
}

impl Attributes for Descriptor {
    fn get(&self, name: &str) -> Option<&str> {
        self.0[..].get_by_name(name)
    }

    fn may_match(&self, rule: &Rule) -> bool {
        !rule.requires_attributes() || self.0.iter().all(|(name, _)| rule.names(name))
    }
}

trait ByName {
    fn get_by_name(&self, name: &str) -> Option<&str>;
}

impl ByName for [(String, String)] {
    fn get_by_name(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "a_b"];

fn rate() -> impl Strategy<Value = Rate> {
    let count = prop_oneof![1 => Just(None), 8 => (1..9_u32).prop_map(Some), 1 => Just(Some(0))];
    let unit = select(vec![("SECOND", 1), ("minute", 60), ("Hour", 3_600), ("day", 86_400), ("week", 604_800), ("month", 2_592_000)]);
    (count, unit).prop_map(|(count, (unit, seconds))| Rate { count, unit, seconds })
}

fn written(depth: u32) -> BoxedStrategy<Vec<Written>> {
    let values = vec![
        "", "", "x", "xy", "x*", "*y", "x*y", "*", "*x*y*", "!x", "!x*", "10.0.0.0/8", "10.1.2.3", "x**", "b_x", "~", "1.10",
    ];
    let below = if depth == 0 { Just(Vec::new()).boxed() } else { prop_oneof![2 => Just(Vec::new()), 1 => written(depth - 1)].boxed() };
    let one = (select(KEYS.to_vec()), select(values), option::weighted(0.7, rate()), any::<bool>(), any::<bool>(), below).prop_map(
        |(key, value, limit, shadow, shares, below)| Written {
            key,
            value,
            limit,
            shadow,
            shares: shares && value.contains('*'),
            below,
        },
    );
    vec(one, 1..6).boxed()
}

fn entries() -> impl Strategy<Value = Vec<(String, String)>> {
    let values =
        vec!["", "x", "xy", "xzy", "zy", "y", "!x", "!xa", "10.0.0.0/8", "10.1.2.3", "::ffff:10.1.2.3", "x*", "x*y", "z", "~", "1.10", "1.1"];
    let entry = (select(KEYS.to_vec()), select(values)).prop_map(|(key, value)| (key.to_owned(), value.to_owned()));
    vec(entry, 1..4)
}

fn check(tree: &[Written], requests: &[Vec<(String, String)>]) -> Result<bool, TestCaseError> {
    let file = json!({ "domain": "d", "descriptors": tree.iter().map(Written::json).collect::<Vec<_>>() }).to_string();
    let mut sources = Sources::default();
    sources.add("f", file.clone().into_bytes()).unwrap();
    let imported = read(&mut sources).map_err(|fault| TestCaseError::fail(format!("{fault:?}: {file}")))?;
    let Some(loaded) = load(tree) else {
        prop_assert!(imported.has_lost(), "it refuses this: {}", file);
        return Ok(false);
    };
    let yaml = imported.to_yaml(&sources);
    let rules = Rules::from_yaml(&yaml, &HashSecret::new([1; 16]));
    let rules = rules.map_err(|faults| TestCaseError::fail(format!("{faults:?}: {yaml}")))?;
    if imported.has_lost() {
        return Ok(false);
    }
    let mut known_ways = Vec::new();
    ways(tree, &[], &mut known_ways);
    let sorted = |way: &[&str]| {
        let mut way: Vec<String> = way.iter().map(|key| (*key).to_owned()).collect();
        way.sort();
        way
    };
    let (mut by_counter, mut by_bucket) = (HashMap::new(), HashMap::new());
    for entries in requests {
        let found = find(&loaded, entries);
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        // The order of entries does not count here.
        let is_reordered = known_ways.iter().any(|way| *way != keys && sorted(way) == sorted(&keys));
        if found.joined || is_reordered {
            continue;
        }
        let mut matched = SmallVec::new();
        rules.matching("d", &Descriptor::of(entries), &mut matched);
        let limited: Vec<_> = matched.iter().filter_map(|one| Some((one, one.limit?))).collect();
        match found.limit {
            None => prop_assert!(matched.is_empty(), "{entries:?} is not limited: {file}\n{yaml}"),
            Some((Rate { count: None, .. }, _)) => prop_assert!(limited.is_empty(), "{entries:?} is unlimited: {file}\n{yaml}"),
            Some((Rate { count: Some(count), seconds, .. }, shadow)) => {
                prop_assert_eq!(limited.len(), 1, "{:?}: {}\n{}", entries, file, yaml);
                let (one, limit) = limited[0];
                prop_assert_eq!(limit.count(), u64::from(count), "{:?}: {}\n{}", entries, file, yaml);
                prop_assert_eq!(limit.period().length().as_secs(), seconds);
                prop_assert_eq!(one.rule.mode() == Mode::Shadow, shadow);
                let bucket = *by_counter.entry(found.counter.clone()).or_insert(one.key);
                let counter = by_bucket.entry(one.key).or_insert_with(|| found.counter.clone());
                prop_assert!(bucket == one.key && *counter == found.counter, "{entries:?} is counted with others: {file}\n{yaml}");
            }
        }
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn rules_decide_as_that_server_does_or_something_is_lost(tree in written(2), requests in vec(entries(), 1..60)) {
        check(&tree, &requests)?;
    }
}

/// The property would hold if everything were lost.
#[test]
fn most_trees_lose_nothing() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let trees = (0..300).map(|_| {
        let tree = written(1).new_tree(&mut runner).unwrap().current();
        check(&tree, &[]).unwrap()
    });
    let whole = trees.filter(|is_whole| *is_whole).count();
    assert!(whole > 60, "{whole} of 300");
}
