use crate::{HashSecret, Limit, Rules, cluster::RulesDiff, parse::RuleError};

fn read(text: &str) -> Result<Rules, Vec<RuleError>> {
    Rules::from_yaml(text, &HashSecret::new([7; 16]))
}

/// The limits of the first rule, its own first.
fn limits(text: &str) -> Vec<String> {
    let rules = read(text).unwrap();
    let rule = &rules.rules("default")[0];
    let overrides = rule.overrides.iter().filter_map(|special| special.limit.as_ref());
    rule.limit.iter().chain(overrides).map(|limit| format!("{limit:#}")).collect()
}

#[test]
fn a_file_says_a_time_zone_for_all_its_limits_a_rule_for_its_own_and_an_override_for_itself() {
    let file = "
timezone: Europe/Paris
rules:
  - name: r
    key: [tenant]
    limit: 1000/month
    starts: 2026-03-17
    overrides:
      - { when: { tenant: a }, limit: 5/day, timezone: Asia/Tokyo, starts: 2026-01-01T06:00 }
      - { when: { tenant: b }, limit: 5/week }
      - { when: { tenant: c }, limit: 5/1d }
      - { when: { tenant: d }, limit: unlimited }
      - { when: { tenant: e }, limit: deny }
      - { when: { tenant: f }, limit: 1000/month, starts: 2026-03-18 }
";
    assert_eq!(
        limits(file),
        [
            "1000/month timezone Europe/Paris starts 1970-01-17",
            "5/day timezone Asia/Tokyo starts 1970-01-01T06:00:00",
            "5/week timezone Europe/Paris starts 1970-01-06",
            // A day of 24 hours from midnight in Paris.
            "5/1d fixed_window starts 1970-01-01T23:00:00",
            "deny fixed_window",
            "1000/month timezone Europe/Paris starts 1970-01-18",
        ]
    );
    // What has no windows, and what says none of the calendar, is as it was.
    let plain = "timezone: Europe/Paris\nrules: [{ name: r, key: [], limit: 5/1d }]";
    assert_eq!(limits(plain), ["5/1d"]);
    let length =
        "timezone: Europe/Paris\nrules: [{ name: r, key: [], limit: 5/1d, algorithm: fixed_window }]";
    assert_eq!(limits(length), ["5/1d fixed_window"]);
    let utc = "timezone: Europe/Paris\nrules: [{ name: r, key: [], limit: 5/day, timezone: UTC }]";
    assert_eq!(limits(utc), ["5/day"]);
    let sliding =
        "rules: [{ name: r, key: [], limit: 5/week, algorithm: sliding_window, timezone: Asia/Tokyo }]";
    assert_eq!(limits(sliding), ["5/week sliding_window timezone Asia/Tokyo"]);
    let quarter =
        "rules: [{ name: r, key: [], limit: 5/90d, algorithm: fixed_window, starts: '2026-03-17 09:00' }]";
    assert_eq!(limits(quarter), ["5/90d fixed_window starts 1970-01-10T09:00:00"]);
    for (text, limit) in
        [("7/52w", "7/364d"), ("7/365d", "7/365d"), ("7/2w", "7/14d"), ("7/3650d", "7/3650d")]
    {
        for algorithm in ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log"] {
            let file = format!("rules: [{{ name: r, key: [], limit: {text}, algorithm: {algorithm} }}]");
            assert!(limits(&file)[0].starts_with(limit), "{text} {algorithm}");
        }
    }
}

#[test]
fn what_is_wrong_is_told_where_it_stands_and_with_what_to_write() {
    for (rule, marked, says) in [
        ("limit: 5/day, timezone: Europe/Pariss", "Europe/Pariss", "did you mean Europe/Paris?"),
        ("limit: 5/day, timezone: [Europe/Paris]", "[", "`timezone` must be a text"),
        ("limit: 5/day, timzone: Europe/Paris", "timzone", "did you mean `timezone`?"),
        ("limit: 5/day, starts: 17", "17", "write e.g. 2026-03-17"),
        ("limit: 5/day, starts: 2026-02-30", "2026-02-30", "no date"),
        (
            "limit: 5/day, starts: '2026-03-17T09:00:00Z'",
            "'2026-03-17T09:00:00Z'",
            "names an offset: leave it out",
        ),
        (
            "limit: 5/1d, timezone: Europe/Paris",
            "Europe/Paris",
            "a token_bucket does not have: leave it out, or write a period of the calendar",
        ),
        ("limit: 5/1d, starts: 2026-03-17", "2026-03-17", "a token_bucket does not have"),
        (
            "limit: 5/1d, algorithm: sliding_log, starts: 2026-03-17",
            "2026-03-17",
            "a sliding_log does not have",
        ),
        (
            "limit: 5/1d, algorithm: fixed_window, timezone: Europe/Paris",
            "Europe/Paris",
            "1d has a length, which no time zone changes: write day",
        ),
        (
            "limit: 5/700ms, algorithm: fixed_window, starts: 2026-03-17",
            "2026-03-17",
            "a period of whole seconds",
        ),
        ("limit: unlimited, timezone: Europe/Paris", "Europe/Paris", "no limit that has any: leave it out"),
        ("limit: deny, starts: 2026-03-17", "2026-03-17", "no limit that has any: leave it out"),
        ("limit: 5/week, algorithm: token_bucket", "5/week", "week resets with the calendar"),
        ("limit: 5/hour", "5/hour", "write e.g. 1h;"),
        ("limit: 5/4000d", "5/4000d", "3650d"),
        (
            "limit: 5/day, overrides: [{ when: { a: b }, limit: 5/1d, timezone: Asia/Tokyo }]",
            "Asia/Tokyo",
            "1d has a length",
        ),
        (
            "limit: 5/day, overrides: [{ when: { a: b }, limit: unlimited, starts: 2026-03-17 }]",
            "2026-03-17",
            "no limit that has any",
        ),
    ] {
        let text = format!("rules:\n  - {{ name: r, key: [], {rule} }}\n");
        let errors = read(&text).unwrap_err();
        assert_eq!(errors.len(), 1, "{rule}: {errors:?}");
        let RuleError { line, offset, length, .. } = errors[0];
        assert_eq!((line, &text[offset..offset + length]), (2, marked), "{rule}");
        assert!(errors[0].to_string().contains(says), "{rule}: {}", errors[0]);
    }
    let errors = read("timezone: Nowhere/Land\nrules: [{ name: r, key: [], limit: 5/day }]").unwrap_err();
    assert_eq!((errors.len(), errors[0].line, errors[0].column), (1, 1, 11));
    // An error of a limit is one error.
    let errors = read("rules: [{ name: r, key: [], limit: 5/dya, starts: 2026-03-17 }]").unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn a_description_says_what_was_written_and_means_the_same_when_it_is_read_again() {
    let describe = |text: &str| read(text).unwrap().describe("default");
    let file = "
timezone: Europe/Paris
rules:
  - { name: a, key: [], limit: 5/month, starts: 2026-03-17, overrides: [{ when: { x: y }, limit: 6/day, timezone: UTC, starts: 2026-03-17T06:00 }] }
  - { name: b, key: [], limit: 5/1m }
";
    let domain = describe(file);
    let [a, b] = &domain.rules[..] else { panic!("{domain:?}") };
    assert_eq!((a.timezone.as_deref(), a.starts.as_deref()), (Some("Europe/Paris"), Some("2026-03-17")));
    assert_eq!((&a.limit, &b.timezone, &b.starts), (&"5/month".to_owned(), &None, &None));
    let special = &a.overrides[0];
    assert_eq!(
        (special.timezone.as_deref(), special.starts.as_deref()),
        (Some("UTC"), Some("2026-03-17T06:00:00"))
    );
    let again = serde_json::json!({ "rules": domain.rules }).to_string();
    assert_eq!(describe(&again), domain);
    assert_eq!(limits(&again), limits(file));

    let moved = file.replace("2026-03-17,", "2026-03-18,").replace("Europe/Paris", "Europe/Berlin");
    let diff = RulesDiff::between(&domain, &describe(&moved));
    let change = &diff.changed[0];
    let fields: Vec<&str> = change.fields.iter().map(|field| &*field.field).collect();
    assert_eq!((&*change.name, &fields[..]), ("a", &["timezone", "starts"][..]));
    let counts = change.counts.as_deref().unwrap();
    assert!(counts.starts_with("kept, consumed units count under the new limit"), "{counts}");
    assert!(
        read("rules: [{ name: r, key: [], limit: 5/day, timezone: Etc/UTC }]")
            .unwrap()
            .describe("default")
            .rules[0]
            .timezone
            .as_deref()
            == Some("Etc/UTC")
    );
}

#[test]
fn rules_that_are_stored_are_read_as_they_were() {
    for text in ["5/day", "5/month", "5/1d", "5/31d"] {
        let file = format!("rules: [{{ name: r, key: [], limit: {text}, algorithm: fixed_window }}]");
        let rules = Rules::empty(&HashSecret::new([7; 16]));
        let rules = rules.with_domain_at("d", &file, &HashSecret::new([7; 16]), 1).unwrap();
        let limit = Limit::parse(text, None, crate::Algorithm::FixedWindow).unwrap();
        assert_eq!(rules.rules("d")[0].limit, Some(limit));
    }
}
