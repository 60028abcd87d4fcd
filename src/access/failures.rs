//! How often an address has presented what is no token. Only what is none is counted: a token, the admin token of a node included, is
//! taken from any address at any time, so that nobody can keep others out who come from there (NAT, a proxy). Neither is found by
//! trying: the one has 256 random bits, the other at least 32 characters. So too many failures say that somebody tries, to them and to
//! the operator.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tidegate_limiter::{Cost, Keyed, Limit, Nanos};

use crate::check::{Problem, ProblemKind};

/// What an address may present in vain at once, and in a minute.
const TRIES: u64 = 10;
/// Bytes for the addresses that have failed. Where there is no room, the least used are forgotten.
const MAX_BYTES: usize = 1 << 20;

/// They are logged at most this often, whatever their number.
const LOG_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Failures {
    tried: Keyed,
    /// When they were logged last, and how many there were since.
    logged: AtomicU64,
    unlogged: AtomicU64,
}

impl Default for Failures {
    fn default() -> Self {
        let limiter = Keyed::new(Limit::per_minute(TRIES)).expect("ten in a minute are a limit");
        Self { tried: limiter.max_memory(MAX_BYTES), logged: AtomicU64::new(0), unlogged: AtomicU64::new(0) }
    }
}

impl Failures {
    /// Counts what was tried in vain.
    ///
    /// # Errors
    /// When that was too much.
    pub(super) fn count(&self, address: IpAddr, now: Nanos) -> Result<(), Problem> {
        let failed = self.unlogged.fetch_add(1, Relaxed) + 1;
        let logged = self.logged.load(Relaxed);
        let is_due = now.get().saturating_sub(logged) >= LOG_EVERY.as_nanos() as u64;
        if is_due && self.logged.compare_exchange(logged, now.get(), Relaxed, Relaxed).is_ok() {
            self.unlogged.fetch_sub(failed, Relaxed);
            tracing::warn!(%address, failed, "something was presented that is no token of the cluster");
        }
        let answer = self.tried.check(&network(address), Cost::ONE, now);
        if answer.is_allowed() {
            return Ok(());
        }
        let after = answer.decision().retry_after.map_or(60, |after| after.as_secs() + 1);
        let detail = format!(
            "too much that is no token came from this address ({TRIES} in a minute): try again in {after} s with one that is"
        );
        Err(Problem::new(ProblemKind::TooManyFailures, detail).with("retry_after_s", after))
    }
}

/// One client has 64 bits of IPv6 for itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fails_ten_times_and_then_once_in_six_seconds() {
        let failures = Failures::default();
        let start = Nanos::new(1_800_000_000_000_000_000);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let beside: IpAddr = "2001:db8::ffff".parse().unwrap();
        for _ in 0..TRIES {
            assert!(failures.count(one, start).is_ok());
        }
        for address in [one, beside] {
            assert_eq!(failures.count(address, start).unwrap_err().kind, ProblemKind::TooManyFailures);
        }
        assert!(failures.count("2001:db8:1::1".parse().unwrap(), start).is_ok());
        let later = start.saturating_add(std::time::Duration::from_secs(6));
        assert!(failures.count(one, later).is_ok());
        assert!(failures.count(one, later).is_err());
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
