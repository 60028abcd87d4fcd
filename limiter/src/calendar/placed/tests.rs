use std::collections::HashSet;

use super::*;

fn calendar(unit: Unit, zone: &str, starts: Option<&str>) -> Calendar {
    let starts = starts.map(|text| text.parse().unwrap());
    Calendar::of(unit, Zone::named(zone).unwrap(), starts).unwrap()
}

const UNITS: [Unit; 4] = [Unit::Day, Unit::Week, Unit::Month, Unit::Year];

#[test]
fn the_same_windows_are_the_same_however_they_are_said() {
    let same = |one: (Unit, &str, Option<&str>), other: (Unit, &str, Option<&str>)| {
        calendar(one.0, one.1, one.2) == calendar(other.0, other.1, other.2)
    };
    let paris = "Europe/Paris";
    assert!(same((Unit::Month, paris, Some("2026-03-17")), (Unit::Month, paris, Some("1999-12-17"))));
    assert!(!same((Unit::Month, paris, Some("2026-03-17")), (Unit::Month, paris, Some("2026-03-18"))));
    assert!(!same((Unit::Month, paris, Some("2026-03-17")), (Unit::Month, paris, Some("2026-03-17T01:00"))));
    assert!(!same((Unit::Month, paris, None), (Unit::Month, "Europe/Berlin", None)));
    assert!(same((Unit::Month, paris, None), (Unit::Month, paris, Some("2026-03-01"))));
    assert!(same((Unit::Week, paris, None), (Unit::Week, paris, Some("2026-11-30"))), "a Monday");
    assert!(same((Unit::Day, paris, None), (Unit::Day, paris, Some("2026-03-17"))));
    assert!(same((Unit::Year, paris, Some("2024-02-29")), (Unit::Year, paris, Some("2000-02-29"))));
    assert!(same((Unit::Day, "Etc/UTC", None), (Unit::Day, "UTC", None)));
    let length = |seconds, zone, starts: &str| {
        Calendar::of_length(seconds, Zone::named(zone).unwrap(), starts.parse().unwrap()).unwrap()
    };
    assert_eq!(length(86_400, "UTC", "2026-03-17"), length(86_400, "UTC", "2026-03-18"));
    assert_eq!(length(7_200, paris, "2026-03-17"), length(7_200, "UTC", "1970-01-01T01:00"));
    assert_ne!(length(90 * 86_400, "UTC", "2026-03-17"), length(90 * 86_400, "UTC", "2026-03-18"));
}

#[test]
fn windows_are_told_apart_and_found_by_what_another_node_says() {
    let mut numbers = HashSet::new();
    let mut count = 0;
    let mut look = |calendar: Calendar| {
        assert!(calendar.number() < 1 << 51);
        assert_eq!(Calendar::from_parts(calendar.parts()), Some(calendar), "{calendar:?}");
        if let Some(unit) = calendar.unit() {
            let (zone, starts) = calendar.place();
            assert_eq!(Calendar::of(unit, zone, starts), Some(calendar), "{calendar:?}");
        }
        count +=
            usize::from(numbers.insert((calendar.number(), calendar.parts().zone, format!("{calendar:?}"))));
    };
    for zone in Zone::names() {
        UNITS.into_iter().for_each(|unit| look(calendar(unit, zone, None)));
    }
    for day in 0..366 {
        let date = Starts::new(19_722 + day, 3_600 * (day % 24)).to_string();
        UNITS.into_iter().for_each(|unit| look(calendar(unit, "America/New_York", Some(&date))));
        look(Calendar::of_length(90 * 86_400, Zone::UTC, date.parse().unwrap()).unwrap());
    }
    let alone: HashSet<u64> = numbers.iter().map(|(number, ..)| *number).collect();
    assert_eq!(alone.len(), count, "a number each");
}

#[test]
fn what_is_no_calendar_is_refused() {
    let good = calendar(Unit::Year, "Europe/Paris", Some("2024-02-29")).parts();
    assert!(Calendar::from_parts(good).is_some());
    let parts = |step, place, seconds| CalendarParts { step, place, seconds, ..good };
    for bad in [
        CalendarParts { zone: 7, ..good },
        parts(5, 1, 0),
        parts(0, 1, 0),
        parts(0, 0, 86_400),
        parts(1, 7, 0),
        parts(2, 0, 0),
        parts(2, 32, 0),
        parts(3, 2 * 32 + 30, 0),
        parts(3, 13 * 32 + 1, 0),
        parts(3, 1, 0),
        parts(4, 60, 0),
        CalendarParts { zone: 0, ..parts(4, 0, 0) },
        CalendarParts { zone: 0, ..parts(4, 60, 60) },
        CalendarParts { zone: 0, ..parts(4, u32::MAX, u32::MAX) },
    ] {
        assert_eq!(Calendar::from_parts(bad), None, "{bad:?}");
    }
}

#[test]
fn many_threads_find_one_and_the_same() {
    let find = || calendar(Unit::Month, "Pacific/Chatham", Some("2026-03-23T12:34:56"));
    let found: Vec<Calendar> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|one| *one == found[0]));
}

/// What was seen lately, in whichever order instants come, and by several threads at once.
#[test]
fn what_is_found_is_what_would_be_worked_out() {
    let calendar = calendar(Unit::Day, "Europe/Paris", Some("2026-01-01T06:00"));
    let day = super::super::civil::DAY;
    let look = |mut random: u64| {
        let mut now = 1_774_000_000 * super::super::civil::SECOND;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (pause, kind) = (random >> 20, random >> 60);
            now += pause % (day / 50);
            // States of buckets lie some windows ahead, or behind; clocks of others may lie years ahead.
            let instant = match kind {
                0..8 => now,
                8..11 => now + pause % (4 * day),
                11..14 => now - pause % (2 * day),
                14 => now + 1_000 * day,
                _ => pause,
            };
            let starts = calendar.0.grid.starts_around(instant);
            assert_eq!(
                Some(calendar.windows(instant)),
                super::super::seen::among(&starts, instant),
                "{instant}"
            );
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || look(thread));
        }
    });
}
