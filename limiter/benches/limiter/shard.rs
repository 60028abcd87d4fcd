//! The longest time that one check holds a shard: one shard of a large store is flooded, by one rule and by a thousand.

use std::time::{Duration, Instant};

use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::Mode,
};

const MEMORY: usize = 16 << 30;
const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

/// `shards` is a power of two. Keys are those of the first shard, more than it has room for.
fn longest(shards: usize, rules: u64) -> Duration {
    let store = Store::new(StoreConfig { max_memory: MEMORY, shards }, NOW);
    let limit = Limit::parse("10/1h", None, Algorithm::TokenBucket).unwrap();
    let room = (MEMORY / shards / 16) as u64;
    let mut longest = Duration::ZERO;
    for number in 0..room {
        let spread = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let charge = Charge {
            key: KeyHash::from_raw(spread >> shards.ilog2() & !1),
            rule: RuleId::from_raw((number % rules + 1) << 8),
            limit,
            cost: Cost::new(1 + number % 10).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        };
        let started = Instant::now();
        store.check(&charge, NOW);
        longest = longest.max(started.elapsed());
    }
    longest
}

pub(crate) fn print() {
    let usual = StoreConfig::of_memory(MEMORY).shards;
    println!(
        "longest check while one shard of a store of 16 GiB is flooded ({usual} shards are what a node takes)"
    );
    for shards in [1 << 10, 1 << 12, usual] {
        for rules in [1, 1_000] {
            println!("  {shards:6} shards, {rules:5} rules: {:?}", longest(shards, rules));
        }
    }
    println!();
}
