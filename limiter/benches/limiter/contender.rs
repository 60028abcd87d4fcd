//! Who is measured.

use std::{
    num::NonZeroU32,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, QuantaClock, QuantaInstant, Reference as _},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};
use tidegate_limiter::{Algorithm, Answer, Cost, Keyed, Limit, Nanos, rules::Period};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tidegate,
    Governor,
    Throttlecrab,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Tidegate, Self::Governor, Self::Throttlecrab];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Governor => "governor",
            Self::Throttlecrab => "throttlecrab",
        }
    }

    /// A limiter of `count` units in a period of so many seconds.
    pub(crate) fn start(self, count: u32, seconds: u32) -> Box<dyn Contender> {
        match self {
            Self::Tidegate => Box::new(Tidegate::new(count, seconds)),
            Self::Governor => Box::new(Governor::new(count, seconds)),
            Self::Throttlecrab => Box::new(Throttlecrab::new(count, seconds)),
        }
    }
}

pub(crate) trait Contender: Send + Sync {
    fn name(&self) -> &'static str;
    /// One unit for a key that is a text.
    fn check(&self, key: &String) -> bool;
    /// One unit for each of some keys; how many were allowed. Who has no call for that is asked key by key.
    fn check_many(&self, keys: &[String]) -> usize {
        keys.iter().filter(|key| self.check(key)).count()
    }
    /// One unit for a key that is a number, where that is possible.
    fn check_number(&self, key: u64) -> bool;
    /// What its users call now and then to get rid of idle keys.
    fn sweep(&self);
}

/// The clock that governor has by default, for both.
pub(crate) struct Ticker {
    clock: QuantaClock,
    start: QuantaInstant,
}

impl Ticker {
    pub(crate) fn new() -> Self {
        let clock = QuantaClock::default();
        Self { start: clock.now(), clock }
    }

    pub(crate) fn now(&self) -> Nanos {
        Nanos::new(1_800_000_000_000_000_000 + self.clock.now().duration_since(self.start).as_u64())
    }
}

struct Tidegate {
    limiter: Keyed,
    ticker: Ticker,
}

impl Tidegate {
    fn new(count: u32, seconds: u32) -> Self {
        let ticker = Ticker::new();
        let period = Period::Fixed(Duration::from_secs(seconds.into()));
        let limit = Limit::new(Algorithm::TokenBucket, count.into(), period, None).unwrap();
        let limiter = Keyed::new(limit).unwrap();
        Self { limiter, ticker }
    }
}

impl Contender for Tidegate {
    fn name(&self) -> &'static str {
        "tidegate"
    }

    fn check(&self, key: &String) -> bool {
        self.limiter.check(key, Cost::ONE, self.ticker.now()).is_allowed()
    }

    fn check_many(&self, keys: &[String]) -> usize {
        let mut allowed = 0;
        let count = |answer: Answer<'_>| allowed += usize::from(answer.is_allowed());
        self.limiter.check_many(keys, Cost::ONE, self.ticker.now(), count);
        allowed
    }

    fn check_number(&self, key: u64) -> bool {
        self.limiter.check(&key, Cost::ONE, self.ticker.now()).is_allowed()
    }

    fn sweep(&self) {
        self.limiter.sweep(self.ticker.now());
    }
}

type GovernorOf<K> = RateLimiter<K, DashMapStateStore<K>, QuantaClock, NoOpMiddleware<QuantaInstant>>;

struct Governor {
    texts: GovernorOf<String>,
    numbers: GovernorOf<u64>,
}

impl Governor {
    fn new(count: u32, seconds: u32) -> Self {
        let interval = Duration::from_secs(seconds.into()) / count;
        let quota = Quota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(count).unwrap());
        Self { texts: RateLimiter::dashmap(quota), numbers: RateLimiter::dashmap(quota) }
    }
}

impl Contender for Governor {
    fn name(&self) -> &'static str {
        "governor"
    }

    fn check(&self, key: &String) -> bool {
        self.texts.check_key(key).is_ok()
    }

    fn check_number(&self, key: u64) -> bool {
        self.numbers.check_key(&key).is_ok()
    }

    fn sweep(&self) {
        self.texts.retain_recent();
        self.texts.shrink_to_fit();
    }
}

struct Throttlecrab {
    limiter: Mutex<throttlecrab::RateLimiter<throttlecrab::PeriodicStore>>,
    count: i64,
    seconds: i64,
}

impl Throttlecrab {
    fn new(count: u32, seconds: u32) -> Self {
        let limiter = throttlecrab::RateLimiter::new(throttlecrab::PeriodicStore::new());
        Self { limiter: Mutex::new(limiter), count: count.into(), seconds: seconds.into() }
    }
}

impl Contender for Throttlecrab {
    fn name(&self) -> &'static str {
        "throttlecrab"
    }

    fn check(&self, key: &String) -> bool {
        let now = SystemTime::now();
        self.limiter.lock().unwrap().rate_limit(key, self.count, self.count, self.seconds, 1, now).unwrap().0
    }

    fn check_number(&self, key: u64) -> bool {
        self.check(&key.to_string())
    }

    /// It sweeps by itself, in the middle of a check.
    fn sweep(&self) {}
}

/// What a key looks like: 20 bytes.
pub(crate) fn write_key(key: &mut String, number: u64) {
    use std::fmt::Write as _;
    key.clear();
    // Spread, so that neighbours are no neighbours.
    write!(key, "u:{:018x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
}

/// A quick sequence of numbers (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }
}
