//! Windows of time zones, from dates on, and of many days: what their buckets admit.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use instants::at;
use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Decision, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

/// Instants as people write them.
mod instants {
    use tidegate_limiter::Nanos;

    /// `2026-03-29T00:00` UTC. Days by counting them.
    pub(super) fn at(text: &str) -> Nanos {
        let number = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap();
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let months = |year| [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
        let days = years + months(year)[..month as usize - 1].iter().sum::<u64>() + day - 1;
        Nanos::new((days * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60) * 1_000_000_000)
    }
}

fn charge(limit: Limit, cost: u64) -> Charge {
    let (key, cost) = (KeyHash::from_raw(0x9e37_79b9_7f4a_7c15), Cost::new(cost).unwrap());
    Charge { key, rule: RuleId::INLINE, limit, cost, mode: Mode::Enforce, floor: None, ban: None }
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 1 }, Nanos::new(0))
}

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

#[test]
fn what_a_day_a_week_a_month_or_a_year_admits_is_there_again_when_the_next_one_begins() {
    // When it is used, and when the next one begins: the second of these is the first instant of a window.
    for (text, used, next) in [
        ("10/day timezone Europe/Paris", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("10/day timezone Europe/Paris", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("10/day timezone America/Havana", "2024-11-03T04:30", "2024-11-04T05:00"),
        ("10/day timezone America/Sao_Paulo", "2018-11-03T23:00", "2018-11-04T03:00"),
        ("10/day timezone Asia/Tokyo starts 2026-01-01T06:00", "2026-05-05T20:59", "2026-05-05T21:00"),
        ("10/week", "2026-11-30T00:00", "2026-12-07T00:00"),
        ("10/week timezone America/New_York", "2026-11-30T04:59", "2026-11-30T05:00"),
        ("10/week starts 2026-03-18", "2026-12-01T12:00", "2026-12-02T00:00"),
        ("10/month timezone Europe/Paris starts 2026-03-17", "2026-02-20T12:00", "2026-03-16T23:00"),
        ("10/month starts 2026-01-31", "2026-02-20T12:00", "2026-02-28T00:00"),
        ("10/month starts 2026-01-31", "2026-02-28T12:00", "2026-03-31T00:00"),
        ("10/year", "2026-06-01T00:00", "2027-01-01T00:00"),
        ("10/year timezone Asia/Tokyo starts 2024-02-29", "2026-06-01T00:00", "2027-02-27T15:00"),
        (
            "10/90d fixed_window timezone Europe/Paris starts 2026-03-17",
            "2026-03-16T23:00",
            "2026-06-14T23:00",
        ),
        ("10/52w fixed_window", "2026-06-01T00:00", "2026-10-22T00:00"),
    ] {
        let (store, limit, used, next) = (store(), limit(text), at(used), at(next));
        assert!(store.check(&charge(limit, 10), used).allowed, "{text}");
        let denied = store.check(&charge(limit, 1), used);
        assert_eq!(denied.retry_after, Some(next.saturating_since(used)), "{text}");
        assert_eq!(denied.reset_after, next.saturating_since(used), "{text}");
        assert!(!store.check(&charge(limit, 1), Nanos::new(next.get() - 1)).allowed, "{text}");
        assert!(store.check(&charge(limit, 10), next).allowed, "{text}");
    }
}

#[test]
fn a_sliding_window_weighs_the_day_before_by_its_own_length() {
    let limit = limit("1000/day sliding_window timezone Europe/Paris");
    let store = store();
    // A day of 23 hours, used as it ends; half of the next one later half of it has come back.
    assert!(store.check(&charge(limit, 1_000), at("2026-03-29T21:59")).allowed);
    let look = |now| store.check(&charge(limit, 0), now).remaining;
    assert_eq!(look(at("2026-03-29T21:59")), 0);
    assert_eq!(look(at("2026-03-30T10:00")), 500);
    assert_eq!(look(at("2026-03-30T22:00")), 1_000);
}

#[test]
fn a_clock_that_steps_back_opens_no_window_again() {
    for text in [
        "10/day timezone Europe/Paris",
        "10/month starts 2026-03-17",
        "10/year",
        "10/90d fixed_window starts 2026-03-17",
        "10/day sliding_window timezone Europe/Paris",
        "10/week sliding_window",
    ] {
        let (store, limit) = (store(), limit(text));
        let hours = |hours: u64| at("2026-03-10T00:00").saturating_add(Duration::from_secs(3_600 * hours));
        let mut last = 0;
        // Each window is exhausted; then the clock goes back, by less and by more than a window.
        for now in (0..24 * 400).step_by(7) {
            last = now;
            store.check(&charge(limit, 10), hours(now));
        }
        let left = store.check(&charge(limit, 0), hours(last)).remaining;
        for back in [1, 23, 25, 24 * 8, 24 * 40, 24 * 380] {
            let look = store.check(&charge(limit, 0), hours(last - back));
            assert!(look.remaining <= left, "{text}: {back} hours back there is more: {look:?}");
        }
    }
}

/// What another store is told of a bucket counts there, in the same window.
#[test]
fn buckets_of_time_zones_move_between_nodes() {
    for text in ["10/day timezone Pacific/Auckland", "10/month starts 2026-03-17", "10/week sliding_window"] {
        let (from, to, limit) = (store(), store(), limit(text));
        let now = at("2026-11-30T10:00");
        assert!(from.check(&charge(limit, 7), now).allowed);
        from.buckets(now, |_| true, |bucket| to.take_over(&bucket, now));
        assert_eq!(to.check(&charge(limit, 0), now).remaining, 3, "{text}");
    }
}

fn ask(rules: &Rules, store: &Store, cost: u64, now: Nanos) -> Decision {
    let mut matched = SmallVec::new();
    rules.matching("default", &[("user", "ada")], &mut matched);
    let one = matched[0];
    let charge = Charge {
        key: one.key,
        rule: one.rule.id(),
        limit: *one.limit.unwrap(),
        cost: Cost::new(cost).unwrap(),
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    };
    store.check(&charge, now)
}

#[test]
fn what_was_consumed_stays_when_the_zone_the_date_or_the_unit_changes() {
    let (secret, store) = (HashSecret::new([7; 16]), store());
    let rules = |text: &str| {
        Rules::from_yaml(&format!("rules: [{{ name: r, key: [user], {text} }}]"), &secret).unwrap()
    };
    let texts = [
        "limit: 100/day",
        "limit: 100/day, timezone: Europe/Paris",
        "limit: 100/day, timezone: America/New_York",
        "limit: 100/month, starts: 2026-03-17",
        "limit: 100/month, starts: 2026-03-18",
        "limit: 100/year",
        "limit: 100/90d, algorithm: fixed_window, starts: 2026-03-17",
        "limit: 100/week, algorithm: sliding_window, timezone: Asia/Tokyo",
        "limit: 100/365d",
        "limit: 100/day",
    ];
    for (place, text) in texts.into_iter().enumerate() {
        let now = at("2026-11-30T12:00").saturating_add(Duration::from_secs(place as u64));
        let rules = rules(text);
        store.set_limits(&rules, now);
        let decision = ask(&rules, &store, 7, now);
        let left = 100 - 7 * (place as u64 + 1);
        assert!(
            decision.allowed && decision.remaining <= left && decision.remaining + 2 >= left,
            "{text}: {decision:?}"
        );
    }
}

#[test]
fn a_year_of_2_to_the_53_units_is_counted() {
    const MOST: u64 = 1 << 53;
    for text in [
        "9007199254740992/year",
        "9007199254740992/3650d fixed_window",
        "9007199254740992/3650d sliding_window",
    ] {
        let (store, limit, now) = (store(), limit(text), at("2026-11-30T10:00"));
        let first = store.check(&charge(limit, MOST / 2), now);
        assert!(
            first.allowed && first.remaining <= MOST / 2 && first.remaining > MOST / 2 - MOST / 100,
            "{text}: {first:?}"
        );
        assert!(store.check(&charge(limit, first.remaining), now).allowed, "{text}");
        assert!(!store.check(&charge(limit, MOST / 100), now).allowed, "{text}");
        let (store, whole) = (self::store(), charge(limit, MOST));
        assert!(store.check(&whole, now).allowed && !store.check(&charge(limit, 1), now).allowed, "{text}");
    }
}

/// Prints, for each zone, the instants at which its days of fifty years begin, as Python's own library has them.
const PYTHON: &str = r#"
import sys, datetime, zoneinfo
for name in sys.argv[1:]:
    zone = zoneinfo.ZoneInfo(name)
    day, starts = datetime.date(1974, 12, 31), []
    def instant(at, fold):
        return int(at.replace(tzinfo=zone, fold=fold).timestamp())
    while day.year < 2025:
        midnight = datetime.datetime.combine(day, datetime.time())
        first, second = instant(midnight, 0), instant(midnight, 1)
        if first > second:
            # It does not exist: the change lies between the two.
            low, high = second, first
            before = datetime.datetime.fromtimestamp(low, zone).utcoffset()
            while low + 1 < high:
                middle = (low + high) // 2
                if datetime.datetime.fromtimestamp(middle, zone).utcoffset() == before:
                    low = middle
                else:
                    high = middle
            first = high if datetime.datetime.fromtimestamp(low, zone).utcoffset() == before else low
        if not starts or first > starts[-1]:
            starts.append(first)
        day += datetime.timedelta(days=1)
    print(name, *starts)
"#;

/// Zones whose clocks jump at midnight, over midnight, by half an hour or by a day, and some that many people live in.
const ZONES: [&str; 24] = [
    "Africa/Cairo",
    "America/Asuncion",
    "America/Havana",
    "America/Los_Angeles",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Europe/London",
    "Europe/Paris",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Kiritimati",
];

#[test]
fn days_begin_when_pythons_library_says() {
    let run = std::process::Command::new("python3").arg("-c").arg(PYTHON).args(ZONES).output();
    let told = run.map(|run| (run.status.success(), String::from_utf8_lossy(&run.stdout).into_owned()));
    let Ok((true, told)) = told else {
        println!("NOT TESTED: there is no python3 with a time zone database");
        return;
    };
    let mut days = 0;
    for line in told.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let starts: Vec<u64> = words.map(|word| word.parse::<u64>().unwrap() * 1_000_000_000).collect();
        let (store, limit) = (store(), limit(&format!("1/day timezone {name}")));
        let ends = |start: u64| {
            let taken = store.check(&charge(limit, 1), Nanos::new(start));
            Nanos::new(start).saturating_add(taken.reset_after).get()
        };
        let others = starts.windows(2).filter(|day| ends(day[0]) != day[1]).count();
        // The database of the system is another one: of some days long ago historians think otherwise now.
        assert!(others < 10, "{name}: {others} days end elsewhere");
        days += starts.len();
    }
    assert!(days > 18_000 * ZONES.len(), "{days}");
}

/// The successor of a bucket's owner knows the bucket for as long as its window lasts, wherever midnight is.
#[test]
fn floors_end_with_the_day_of_the_time_zone() {
    let text = "rules: [{ name: r, key: [user], limit: 160/day, timezone: America/Los_Angeles }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([7; 16])).unwrap();
    let rule = &rules.rules("default")[0];
    let (reserve, limit) = (rule.reserve().unwrap(), rule.limit().unwrap());
    // One day there, two in UTC; and the other way round.
    let known = |heard, begun| reserve.at_least(limit, at(heard), at(begun)).is_some();
    assert!(known("2026-11-29T23:00", "2026-11-30T01:00"));
    assert!(!known("2026-11-30T07:59", "2026-11-30T08:00"));
    // The floor is that of the window in which it is charged: its end, and a quantum more.
    let store = store();
    let (one, now) = (charge(*limit, 3), at("2026-11-30T07:59"));
    let decision = store.check(&one, now);
    let mark = reserve.mark(&one, &decision, now, || None);
    assert_eq!(mark.get() / 4, at("2026-11-30T08:00").get());
    assert_eq!((mark.get() % 4, reserve.ahead(limit, mark, now).get() - mark.get()), (3, 10));
}
