use super::*;

#[test]
fn what_is_written_in_rust_is_what_is_written_as_text() {
    for (limit, text) in [
        (Limit::per_second(100), "100/1s"),
        (Limit::per_minute(2).burst(5), "2/1m burst 5"),
        (Limit::per_hour(7).with_algorithm(Algorithm::SlidingWindow), "7/1h sliding_window"),
        (Limit::per_day(7).burst(1).with_algorithm(Algorithm::LeakyBucket), "7/1d burst 1 leaky_bucket"),
        (Limit::per(Duration::from_millis(250), 3), "3/250ms"),
        (Limit::per_minute(0), "0/1m"),
        (Limit::DENY, "deny"),
    ] {
        assert_eq!(text.parse(), Ok(limit));
        assert_eq!(format!("{limit:#}"), text);
        assert_eq!(limit.validate(), Ok(()));
    }
    assert_eq!("5/1m token_bucket burst 9".parse(), Ok(Limit::per_minute(5).burst(9)));
}

#[test]
fn what_is_no_limit_says_so_and_panics_nowhere() {
    const NOTHING: Limit = Limit::per_minute(0).burst(1);
    assert_eq!(NOTHING.validate(), Err(LimitError::BurstOfNothing));
    // What was wrong can be put right.
    assert_eq!(Limit::per_minute(1).burst(0).validate(), Err(LimitError::ZeroBurst));
    assert_eq!(Limit::per_minute(1).burst(0).burst(2), Limit::per_minute(1).burst(2));
    let window = Limit::per_minute(1).burst(2).with_algorithm(Algorithm::FixedWindow);
    assert_eq!(window.validate(), Err(LimitError::BurstOfWindow(Algorithm::FixedWindow)));
    let brief = Duration::from_millis(1);
    assert_eq!(Limit::per(brief, 1).validate(), Err(LimitError::Period(brief)));
    assert_eq!(Limit::per_second(u64::MAX).validate(), Err(LimitError::TooLarge(u64::MAX)));
    assert!(matches!(Limit::per_day(1).burst(1 << 53).validate(), Err(LimitError::Refill { .. })));
}

#[test]
fn a_text_that_is_no_limit_says_what_to_write() {
    for (text, says) in [
        ("", "COUNT/PERIOD"),
        ("100", "COUNT/PERIOD"),
        ("-1/1m", "COUNT/PERIOD"),
        ("5/1w", "write 500ms, 1s"),
        ("0/1m burst 1", "a count of 0 denies"),
        ("5/1m 20", "burst 20"),
        ("5/1m burst", "burst 20"),
        ("5/1m burst many", "burst 20"),
        ("5/1m burst 0", "a burst of 0"),
        ("5/1m gcra", "sliding_window"),
        ("5/1m burst 7 sliding_log", "belongs to token_bucket"),
        ("5/1m sliding_log token_bucket", "cannot follow"),
    ] {
        let error = text.parse::<Limit>().unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
}
