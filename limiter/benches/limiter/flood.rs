//! A hundred million distinct keys against a budget of 256 MB, at a million a second of simulated time.

use std::time::Instant;

use hdrhistogram::Histogram;
use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

use crate::{
    contender::{Kind, Random, write_key},
    memory::resident_bytes,
};

const KEYS: u64 = 100_000_000;
const BUDGET: usize = 256_000_000;
const START: u64 = 1_800_000_000_000_000_000;
/// Keys that go on all the while, each of them each 100,000 checks of the flood: ten times a second.
const REGULARS: u64 = 1_000;

struct Flood {
    store: Store,
    rules: Rules,
    rule: RuleId,
    limit: Limit,
    key: String,
}

impl Flood {
    fn check(&mut self, number: u64, cost: Cost, now: u64) -> bool {
        write_key(&mut self.key, number);
        let key: KeyHash = self.rules.inline_key("default", &self.key, &self.limit);
        let charge = Charge {
            key,
            rule: self.rule,
            limit: self.limit,
            cost,
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        self.store.check(&charge, Nanos::new(now)).allowed
    }
}

/// p99 in ns of the first million and of the last ten; resident bytes at a fifth and at the end; bytes by its own count;
/// fresh keys denied, in percent; units that a regular key got, in percent of what its limit gives; broken bounds.
pub(crate) fn measure() -> Vec<f64> {
    let config = StoreConfig { max_memory: BUDGET, ..StoreConfig::default() };
    let yaml = "rules: [{ name: r, key: [k], limit: 10/1h, on_memory_full: strict }]";
    let rules = Rules::from_yaml(yaml, &HashSecret::new(*b"a secret of 16 b")).unwrap();
    let store = Store::new(config, Nanos::new(START));
    store.set_rules(&rules);
    let mut flood = Flood {
        store,
        rule: rules.rules("default")[0].id(),
        rules,
        limit: Limit::parse("10/1h", None, Algorithm::TokenBucket).unwrap(),
        key: String::new(),
    };
    let (mut first, mut last) = (Histogram::<u64>::new(3).unwrap(), Histogram::<u64>::new(3).unwrap());
    let before = resident_bytes();
    let (mut early, mut denied, mut regular) = (0.0, 0u64, 0u64);
    for number in 0..KEYS {
        let now = START + number * 1_000;
        let start = Instant::now();
        denied += u64::from(!flood.check(number, Cost::ONE, now));
        let nanos = start.elapsed().as_nanos() as u64;
        if number < 1_000_000 {
            first.record(nanos).unwrap();
        } else if number >= KEYS - 10_000_000 {
            last.record(nanos).unwrap();
        }
        if number % (100_000 / REGULARS) == 0 {
            let name = u64::MAX - number / (100_000 / REGULARS) % REGULARS;
            regular += u64::from(flood.check(name, Cost::ONE, now));
        }
        if number == KEYS / 5 {
            early = resident_bytes() - before;
        }
    }
    let resident = resident_bytes() - before;
    // Each key has had one unit at most of ten, minutes ago: asking for all ten must be denied.
    let (mut random, now) = (Random(99), START + KEYS * 1_000);
    let broken = (0..1_000_000)
        .filter(|_| {
            let number = random.below(KEYS);
            flood.check(number, Cost::new(10).unwrap(), now)
        })
        .count();
    let fair = REGULARS * 10;
    vec![
        first.value_at_quantile(0.99) as f64,
        last.value_at_quantile(0.99) as f64,
        early,
        resident,
        flood.store.stats().bytes as f64,
        denied as f64 * 100.0 / KEYS as f64,
        regular as f64 * 100.0 / fair as f64,
        broken as f64,
    ]
}

pub(crate) fn print() {
    let numbers = crate::measure("flood", Kind::Tidegate);
    let [first, last, early, resident, bytes, denied, regular, broken] = numbers[..] else { return };
    println!("100,000,000 distinct keys at a limit of 10/1h, a budget of 256 MB");
    println!("  resident at a fifth of them, at the end   {:.0} MB, {:.0} MB", early / 1e6, resident / 1e6);
    println!("  by the store's own count                  {:.0} MB", bytes / 1e6);
    println!(
        "  p99 of the first million, the last ten    {first:.0} ns, {last:.0} ns: {:.2} x (target 3)",
        last / first
    );
    println!("  of 1,000,000 keys looked at, too full     {broken:.0} (target 0)");
    println!(
        "  fresh keys that were denied               {denied:.1} %: what is assumed of them (on_memory_full: strict)"
    );
    println!("  1,000 regular keys got of their limit     {regular:.1} %");
    println!();
}
