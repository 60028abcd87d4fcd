use super::*;
use crate::calendar::{placed::Unit, zone::Zone};

fn of_calendar(count: u64, unit: Unit, zone: &str, starts: Option<&str>) -> Limit {
    let starts = starts.map(|date| date.parse().unwrap());
    let period = Period::calendar(unit, Zone::named(zone).unwrap(), starts).unwrap();
    Limit::new(Algorithm::FixedWindow, count, period, None).unwrap()
}

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
        (Limit::new(Algorithm::FixedWindow, 5, Period::Month, None).unwrap(), "5/month"),
        (Limit::new(Algorithm::FixedWindow, 5, Period::Day, None).unwrap(), "5/day"),
        (Limit::new(Algorithm::SlidingWindow, 5, Period::Day, None).unwrap(), "5/day sliding_window"),
        (Limit::per_day(5).with_algorithm(Algorithm::FixedWindow), "5/1d fixed_window"),
        (of_calendar(5, Unit::Week, "UTC", None), "5/week"),
        (of_calendar(5, Unit::Year, "UTC", None), "5/year"),
        (of_calendar(5, Unit::Day, "Europe/Paris", None), "5/day timezone Europe/Paris"),
        (of_calendar(5, Unit::Month, "UTC", Some("2026-03-31")), "5/month starts 1970-01-31"),
        (
            of_calendar(5, Unit::Year, "Asia/Tokyo", Some("2024-02-29T09:30")),
            "5/year timezone Asia/Tokyo starts 1972-02-29T09:30:00",
        ),
        (of_calendar(5, Unit::Week, "UTC", Some("2026-03-18")), "5/week starts 1970-01-07"),
        (
            "5/90d fixed_window timezone Europe/Paris starts 2026-03-17".parse().unwrap(),
            "5/90d fixed_window starts 1970-01-09T23:00:00",
        ),
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
    assert_eq!(
        Limit::per(brief, 1).with_algorithm(Algorithm::SlidingWindow).validate(),
        Err(LimitError::Period(brief))
    );
    let briefer = Duration::from_micros(999);
    assert_eq!(Limit::per(briefer, 1).validate(), Err(LimitError::BucketPeriod(briefer)));
    assert_eq!(Limit::per_second(u64::MAX).validate(), Err(LimitError::TooLarge(u64::MAX)));
    assert!(matches!(Limit::per_day(1).burst(1 << 53).validate(), Err(LimitError::Refill { .. })));
}

#[test]
fn a_text_that_is_no_limit_says_what_to_write() {
    for (text, says) in [
        ("", "COUNT/PERIOD"),
        ("100", "COUNT/PERIOD"),
        ("-1/1m", "COUNT/PERIOD"),
        ("5/1fortnight", "write 500ms, 1s, 10m, 1h, 1d, 2w, day, week, month or year"),
        ("5/hour", "write e.g. 1h; there are 500ms"),
        ("5/2days", "write e.g. 1d (or day"),
        ("5/year burst 9", "a fixed_window admits its count"),
        ("5/week sliding_log", "e.g. 7d"),
        ("5/year token_bucket", "e.g. 365d"),
        ("5/3651d fixed_window", "outside of 100ms to 3650d"),
        ("5/day timezone Europe/Pariss", "did you mean Europe/Paris?"),
        ("5/day timezone", "there is no time zone \"\""),
        ("5/day starts tomorrow", "no date from 1970"),
        ("5/1d fixed_window timezone Europe/Paris", "1d has a length, which no time zone changes: write day"),
        ("5/1d timezone Europe/Paris", "timezone says where windows lie, which a token_bucket does not have"),
        ("5/1d starts 2026-03-17", "starts says where windows lie"),
        ("5/700ms fixed_window starts 2026-03-17", "windows of 700ms cannot begin on a date"),
        ("5/day starts 2026-03-17 starts 2026-03-17", "cannot follow"),
        ("0/1m burst 1", "a count of 0 denies"),
        ("5/1m 20", "burst 20"),
        ("5/1m burst", "burst 20"),
        ("5/1m burst many", "burst 20"),
        ("5/1m burst 0", "a burst of 0"),
        ("5/1m gcra", "sliding_window"),
        (
            "5/month token_bucket",
            "month resets with the calendar, which a token_bucket does not: write fixed_window",
        ),
        ("5/month leaky_bucket", "e.g. 30d"),
        ("5/day sliding_log", "e.g. 1d"),
        ("5/month burst 9", "a fixed_window admits its count"),
        ("5/1m burst 7 sliding_log", "belongs to token_bucket"),
        ("5/1m sliding_log token_bucket", "cannot follow"),
    ] {
        let error = text.parse::<Limit>().unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[test]
fn buckets_and_windows_from_the_first_charge_take_from_a_millisecond_to_ten_years() {
    let token = |period| Limit::new(Algorithm::TokenBucket, 1, Period::Fixed(period), None);
    let from_first = |period| Limit::new(Algorithm::FixedWindow, 1, Period::from_first(period), None);
    for period in [Duration::from_millis(1), Duration::from_millis(5), YEAR, 10 * YEAR] {
        assert_eq!(token(period).unwrap().window(), period);
        assert_eq!(from_first(period).unwrap().window(), period);
    }
    for period in [Duration::ZERO, Duration::from_micros(999), 11 * YEAR, Duration::MAX] {
        assert_eq!(token(period), Err(LimitError::BucketPeriod(period)));
        from_first(period).unwrap_err();
    }
    // Rounded up to whole ticks the interval of one unit makes it longer than ten years.
    assert_eq!("7/3650d".parse::<Limit>().unwrap().window(), 10 * YEAR);
    assert!(matches!(Limit::per(10 * YEAR, 7).burst(8).validate(), Err(LimitError::Refill { burst: 8 })));
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::SlidingLog] {
        for period in [Duration::from_millis(99), 10 * YEAR + Duration::from_nanos(1)] {
            let limit = Limit::new(algorithm, 1, Period::Fixed(period), None);
            assert_eq!(limit, Err(LimitError::Period(period)));
        }
        for period in [Duration::from_millis(100), 90 * Duration::from_secs(86_400), YEAR, 10 * YEAR] {
            let limit = Limit::new(algorithm, 1 << 53, Period::Fixed(period), None).unwrap();
            assert_eq!((limit.window(), limit.count()), (period, 1 << 53));
        }
    }
}

#[test]
fn periods_of_inline_limits_are_told_apart_whatever_their_length() {
    let day = Duration::from_secs(86_400);
    let mut numbers = Vec::new();
    for period in [
        Duration::from_millis(1),
        day,
        30 * day,
        31 * day,
        31 * day + Duration::from_millis(1),
        60 * day,
        YEAR,
        YEAR + Duration::from_millis(1),
        10 * YEAR,
    ] {
        let token = Limit::new(Algorithm::TokenBucket, 1, Period::Fixed(period), None).unwrap();
        let window = Limit::new(Algorithm::FixedWindow, 1, Period::from_first(period), None).unwrap();
        numbers.extend([token.period_number(), window.period_number()]);
    }
    assert!(numbers.iter().all(|number| *number < 1 << 54));
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
}

#[test]
fn limits_of_different_zones_and_dates_are_different_and_those_of_the_same_windows_the_same() {
    let limit = |text: &str| text.parse::<Limit>().unwrap();
    let different = [
        "5/day",
        "5/month",
        "5/week",
        "5/year",
        "5/month timezone Europe/Paris",
        "5/month timezone Europe/Berlin",
        "5/month starts 2026-03-17",
        "5/month starts 2026-03-18",
        "5/day starts 2026-03-18T06:00",
        "5/90d fixed_window",
        "5/91d fixed_window",
        "5/90d fixed_window starts 2026-03-17",
        "5/90d fixed_window starts 2026-03-18",
    ];
    for (place, one) in different.iter().enumerate() {
        for other in &different[..place] {
            let (one, other) = (limit(one), limit(other));
            assert!(one != other && !one.is_same(&other) && one.bits() != other.bits(), "{one:#} {other:#}");
            assert!(one.period_number() < 1 << 54);
        }
    }
    for (one, other) in [
        ("5/day", "5/1d fixed_window"),
        ("5/day timezone Etc/UTC", "5/day"),
        ("5/month starts 2026-03-17", "5/month starts 2030-12-17"),
        ("5/1w fixed_window starts 1970-01-01", "5/7d fixed_window"),
    ] {
        assert!(limit(one).is_same(&limit(other)), "{one}, {other}");
        assert_eq!(limit(one).bits(), limit(other).bits());
    }
    // As before there were any of these.
    assert_eq!((limit("5/month").period_number(), limit("5/day").period_number()), (2, 86_400_000_000_000));
}
