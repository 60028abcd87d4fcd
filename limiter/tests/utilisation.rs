//! How much of a sliding window's count clients get that ask for more than that: nearly all of it, also where it is one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tidegate_limiter::{
    Algorithm, Cost, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::{Mode, Period},
};

const START: u64 = 1_800_000_007_000_000_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// When a client asks again after a denial. Admitted, it asks again at once.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// As told, and so long after that.
    Told(u64),
    Every(u64),
    /// After any time up to that.
    Within(u64),
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * u128::from(limit)) >> 64) as u64
    }
}

/// The instants at which a client is admitted in so many periods.
fn admitted(limit: Limit, client: Client, start: u64, periods: u64) -> Vec<u64> {
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, Nanos::new(START));
    let charge = Charge {
        key: KeyHash::from_raw(0x9e37_79b9_7f4a_7c15),
        rule: RuleId::INLINE,
        limit,
        cost: Cost::ONE,
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    };
    let (mut now, mut admitted, mut dice) = (start, Vec::new(), Dice(start));
    while now < start + periods * limit.window().as_nanos() as u64 {
        let decision = store.check(&charge, Nanos::new(now));
        match (decision.retry_after, client) {
            (None, _) => admitted.push(now),
            (Some(wait), Client::Told(late)) => now += wait.as_nanos() as u64 + late,
            (Some(_), Client::Every(pause)) => now += pause,
            (Some(_), Client::Within(most)) => now += 1 + dice.below(most),
        }
    }
    admitted
}

fn limit(count: u64, period: Period) -> Limit {
    Limit::new(Algorithm::SlidingWindow, count, period, None).unwrap()
}

/// The most that was admitted beyond `count · d / period` in an interval of length d, in parts of the count.
fn most_at_once(limit: &Limit, admitted: &[u64]) -> f64 {
    let (count, period) = (i128::from(limit.count()), limit.window().as_nanos() as i128);
    let (mut least, mut most) = (i128::MAX, 0);
    for (before, at) in admitted.iter().enumerate() {
        let before = before as i128 * period - i128::from(at - admitted[0]) * count;
        least = least.min(before);
        most = most.max(before + period - least);
    }
    most as f64 / (count * period) as f64
}

#[test]
fn clients_that_ask_often_enough_get_nearly_all_of_the_count_and_never_more_than_the_bound() {
    const PERIODS: u64 = 30;
    let fixed = |millis| Period::Fixed(Duration::from_millis(millis));
    let periods = [fixed(100), fixed(1_000), fixed(7_300), fixed(3_600_000), Period::Day];
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for count in (1..=20).chain([31, 32, 33, 50, 100, 257, 1_000]) {
        for period in periods {
            let (limit, length) = (limit(count, period), period.length().as_nanos() as u64);
            let clients = [
                Client::Told(0),
                Client::Told(length / 500),
                Client::Every(length / 100),
                Client::Within(length / 50),
            ];
            for client in clients {
                // As a client gets none of what comes back while it waits, only the bucket's own loss counts here.
                for start in (0..4).map(|part| START + part * length / 4 + part * 17 * MILLI) {
                    let all = admitted(limit, client, start, PERIODS);
                    let part = all.len() as f64 / (count * PERIODS) as f64;
                    let most = most_at_once(&limit, &all);
                    table += &format!("{count}/{period} {client:?}: {part:.3}, {most:.3} at once\n");
                    if part < 0.95 || most > 1.0 {
                        wrong.push(format!(
                            "{count}/{period} {client:?} from {start}: {part:.3}, {most:.3} at once"
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nof\n{table}", wrong.join("\n"));
}

#[test]
fn one_an_hour_is_one_an_hour() {
    let limit = limit(1, Period::Fixed(Duration::from_secs(3_600)));
    for start in [0, 10, 600, 1_800, 3_000, 3_599]
        .map(|second| START / (3_600 * SECOND) * 3_600 * SECOND + second * SECOND)
    {
        let [first, second] = admitted(limit, Client::Told(0), start, 2)[..] else { panic!("two of them") };
        let waited = (second - first) / SECOND;
        assert!((3_600..=3_657).contains(&waited), "{waited} s");
    }
}

#[test]
fn one_and_two_a_second_are_twelve_and_twenty_four_in_twelve_seconds() {
    for count in [1, 2] {
        let limit = limit(count, Period::Fixed(Duration::from_secs(1)));
        for client in
            [Client::Told(0), Client::Told(2 * MILLI), Client::Every(10 * MILLI), Client::Every(37 * MILLI)]
        {
            for offset in 0..20 {
                let all = admitted(limit, client, START + offset * 50 * MILLI, 12).len() as u64;
                assert!(all * 100 >= 95 * 12 * count, "{all} of {count}/1s: {client:?}");
            }
        }
    }
}
