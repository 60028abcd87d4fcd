//! One limit for many keys, as an application uses it: any type of key, the system's clock, and no panic for a wrong number.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::IpAddr, time::Duration};

use tidegate_limiter::{
    Algorithm, Cost, Error, Keyed, Limit, Limiter, Nanos, NewRule, SystemClock,
    rules::{LimitError, OnMemoryFull},
};

const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

#[test]
fn keys_of_any_type_have_a_bucket_each_however_they_are_owned() {
    let keyed = Keyed::new(Limit::per_minute(1)).unwrap();
    let is_first = |answer: tidegate_limiter::Answer<'_>| answer.is_allowed();
    assert!(is_first(keyed.check("ada", Cost::ONE, NOW)));
    assert!(!is_first(keyed.check(&"ada".to_owned(), Cost::ONE, NOW)), "the same text");
    assert!(is_first(keyed.check(&("tenant", 42_u64), Cost::ONE, NOW)));
    assert!(!is_first(keyed.check(&("tenant".to_owned(), 42_u64), Cost::ONE, NOW)), "the same pair");
    assert!(is_first(keyed.check(&("tenant", 43_u64), Cost::ONE, NOW)));
    assert!(is_first(keyed.check(&IpAddr::from([10, 0, 0, 1]), Cost::ONE, NOW)));
    assert!(is_first(keyed.check(&(), Cost::ONE, NOW)));

    keyed.refund(&("tenant", 42_u64), Cost::ONE, NOW);
    assert!(is_first(keyed.check(&("tenant", 42_u64), Cost::ONE, NOW)));
    keyed.reset(&());
    assert!(is_first(keyed.check(&(), Cost::ONE, NOW)));
}

#[test]
fn numbers_that_make_no_limit_are_an_error_when_the_limiter_is_made() {
    let nothing = Limit::per_second(1).burst(0);
    assert_eq!(Keyed::new(nothing).unwrap_err(), Error::Limit(LimitError::ZeroBurst));
    let burst = Limit::per_second(1).burst(2).with_algorithm(Algorithm::SlidingLog);
    let error: Box<dyn std::error::Error + Send + Sync> = Keyed::new(burst).unwrap_err().into();
    assert!(error.to_string().contains("leave it out"), "{error}");
    assert_eq!(
        Error::from(Cost::new(u64::MAX).unwrap_err()).to_string(),
        Cost::new(u64::MAX).unwrap_err().to_string()
    );
}

#[test]
fn the_clock_of_the_system_goes_on_and_agrees_with_itself() {
    let clock = SystemClock::new();
    let before = clock.now();
    std::thread::sleep(Duration::from_millis(20));
    let passed = SystemClock::default().now().saturating_since(before);
    assert!(passed >= Duration::from_millis(20), "{passed:?}");
    assert!(before > Nanos::new(1_700_000_000_000_000_000), "it is Unix time");

    // A bucket does not mind whether the time is given or read.
    let keyed = Keyed::new(Limit::per_hour(2)).unwrap();
    assert!(keyed.check("ada", Cost::ONE, clock.now()).is_allowed());
    assert!(keyed.check_now("ada", Cost::ONE).is_allowed());
    assert!(!keyed.check_now("ada", Cost::ONE).is_allowed());
    keyed.sweep_now();
    let limiter = Limiter::builder().rule(NewRule::new("all", Limit::per_hour(1))).build().unwrap();
    let nothing = [("", ""); 0];
    assert!(limiter.check_now(&nothing, Cost::ONE).allowed);
    assert!(!limiter.check(&nothing, Cost::ONE, clock.now()).allowed);
    limiter.sweep_now();
}

#[test]
fn memory_and_what_happens_when_it_is_full_can_be_said_in_any_order() {
    let small = || Keyed::new(Limit::per_day(1)).unwrap();
    for keyed in [
        small().max_memory(1 << 20).on_memory_full(OnMemoryFull::Strict),
        small().on_memory_full(OnMemoryFull::Strict).max_memory(1 << 20),
    ] {
        for key in 0..200_000_u64 {
            let _ = keyed.check(&key, Cost::ONE, NOW);
        }
        let stats = keyed.stats();
        assert!(stats.bytes <= 1 << 20, "{stats:?}");
        assert!(stats.folded > 0 && stats.forgotten == 0, "{stats:?}");
    }
}
