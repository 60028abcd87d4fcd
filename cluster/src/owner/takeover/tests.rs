use tidegate_limiter::{
    Cost,
    cluster::{Charge, Floor, KeyHash, Rules, Store, StoreConfig},
    rules::{HashSecret, Mode},
};

use super::*;

const DAY: u64 = 86_400;

fn at(seconds: u64) -> Nanos {
    Nanos::new((20_000 * DAY + seconds) * 1_000_000_000)
}

/// Crashes of a minute at these days: the last.
fn last_of(rules: &Rules, days: [u64; 3]) -> TakeoverBasis {
    let begin = |day: u64, earlier| TakeoverBasis {
        rules: Arc::clone(rules.reserves()),
        heard: at(DAY * day),
        begun: at(DAY * day + 60),
        before: None,
        earlier,
    };
    let second = begin(days[1], begin(days[0], Vec::new()).takeovers());
    begin(days[2], second.takeovers())
}

#[test]
fn what_was_assumed_at_a_crash_has_refilled_until_one_that_comes_a_month_later() {
    let text = "rules: [{ name: r, key: [], limit: 160/10d, on_owner_loss: share }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let rule = &rules.rules("default")[0];
    let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
    let third = last_of(&rules, [1, 31, 33]);
    assert_eq!(third.earlier.len(), 2);
    assert_eq!(third.at_least(reserve, &limit), reserve.at_least(&limit, third.heard, third.begun));
    // Told as one, as to a successor, they count as if the first had lasted until the last.
    let told = TakeoverBasis { earlier: as_one(&third.earlier).into_iter().collect(), ..third.clone() };
    assert!(told.at_least(reserve, &limit) > third.at_least(reserve, &limit));
    // Where nobody can have given anything, there is nothing to tell.
    assert_eq!(TakeoverBasis { heard: third.begun, ..third.clone() }.takeovers(), third.earlier);
}

#[test]
fn what_was_written_since_owes_what_its_former_limit_did_and_what_is_new_owes_nothing() {
    let rules = |text: &str| Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let then = rules(
        "rules: [{ name: r, key: [], limit: 1000/1d, on_owner_loss: deny }, { name: log, key: [], limit: 10/1d, algorithm: sliding_log }]",
    );
    let (begun, before) = (at(60), Some(at(30)));
    let basis = |before| TakeoverBasis {
        rules: Arc::clone(then.reserves()),
        heard: at(0),
        begun,
        before,
        earlier: Vec::new(),
    };
    let parts = |rules: &Rules| {
        let rule = &rules.rules("default")[0];
        (rule.id(), rule.reserve(), *rule.limit().unwrap())
    };
    let assumed = |before, text: &str| {
        let now = rules(text);
        let (id, reserve, limit) = parts(&now);
        basis(before).assumed(now.reserves(), &RuleChanges::default(), id, reserve, &limit)
    };
    let of = |fields: &str| format!("rules: [{{ name: r, key: [], on_owner_loss: deny, {fields} }}]");
    let (_, former, limit) = parts(&then);
    let owed = former.unwrap().at_least(&limit, at(0), begun);
    let same = assumed(before, &of("limit: 1000/1d")).unwrap();
    assert_eq!((same.empty_at, Some(same.at_least)), (before, owed));
    let algorithms = ["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"];
    for (fields, algorithm) in
        ["3000/1d", "800/1d", "1600/1h"].iter().flat_map(|l| algorithms.map(|a| (l, a)))
    {
        let text = of(&format!("limit: {fields}, algorithm: {algorithm}"));
        let (_, _, other) = parts(&rules(&text));
        let exhausted = Reserve::converted(&other, None, &other, begun);
        let assumed = |before| assumed(before, &text).unwrap();
        assert_eq!(assumed(None).empty_at, None, "{text}");
        assert_eq!(assumed(None).at_least, Reserve::converted(&limit, owed, &other, begun), "{text}");
        assert!(Mark::default() < assumed(None).at_least && assumed(None).at_least < exhausted, "{text}");
        // Who was before had counted all as exhausted.
        assert!(assumed(before).at_least > assumed(None).at_least, "{text}");
    }
    for new in ["limit: 5/1d", "limit: 5/1d, algorithm: sliding_log", "limit: 5/1s"] {
        let text = format!("rules: [{{ name: new, key: [], {new} }}]");
        assert_eq!(assumed(before, &text), Some(Assumed::default()), "{new}");
    }
    // What had no floors has no limit that says what it owes.
    for fields in ["limit: 10/1d", "limit: 20/1d, algorithm: sliding_log"] {
        assert_eq!(assumed(None, &format!("rules: [{{ name: log, key: [], {fields} }}]")), None, "{fields}");
    }
}

#[test]
fn a_wall_clock_that_was_set_back_matters_to_windows_alone() {
    let text = "rules: [{ name: w, key: [], limit: 160/1h, algorithm: fixed_window, on_owner_loss: deny },
                        { name: b, key: [], limit: 160/1h, on_owner_loss: share }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let reserve = |name: &str| {
        let rule = rules.rules("default").iter().find(|rule| rule.name() == name).unwrap();
        (rule.reserve().unwrap(), *rule.limit().unwrap())
    };
    let of = |heard, begun, earlier| TakeoverBasis {
        rules: Arc::clone(rules.reserves()),
        heard: at(heard),
        begun: at(begun),
        before: None,
        earlier,
    };
    // It showed 01:10, and shows 00:50 now.
    let set_back = vec![(at(4_200), at(3_000))];
    let (plain, back) = (of(2_000, 3_000, Vec::new()), of(2_000, 3_000, set_back.clone()));
    let ((window, per_window), (bucket, per_hour)) = (reserve("w"), reserve("b"));
    assert!(plain.at_least(window, &per_window).is_some() && back.at_least(window, &per_window).is_none());
    assert_eq!(back.at_least(bucket, &per_hour), plain.at_least(bucket, &per_hour));
    // Whoever begins later in that window knows it, and after it the window is another one.
    let next = |begun| of(begun, begun, back.takeovers());
    assert!(next(3_500).at_least(window, &per_window).is_none());
    assert!(next(3_700).at_least(window, &per_window).is_some());
    assert_eq!(as_one(&back.takeovers()), Some((at(2_000), at(3_000))));
}

#[test]
fn what_was_assumed_stands_still_in_each_crash_that_follows_and_the_number_of_them_is_bounded() {
    let text = "rules: [{ name: r, key: [], limit: 160/1d, on_owner_loss: share }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let rule = &rules.rules("default")[0];
    let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
    let of = |heard: u64, begun: u64, earlier| TakeoverBasis {
        rules: Arc::clone(rules.reserves()),
        heard: at(heard),
        begun: at(begun),
        before: None,
        earlier,
    };
    // Out for 10,000 s, there for 100 s, out for 1,000 s, there for 100 s, out for 500 s.
    let second = of(10_100, 11_100, of(0, 10_000, Vec::new()).takeovers());
    let last = of(11_200, 11_700, second.takeovers());
    let assumed = reserve.at_least(&limit, at(0), at(10_000)).unwrap();
    assert_eq!(
        last.at_least(reserve, &limit),
        Some(assumed.postponed(std::time::Duration::from_secs(1_500)))
    );
    let mut known = of(0, 10, Vec::new());
    for crash in 1..50 {
        known = of(crash * 1_000, crash * 1_000 + 10, known.takeovers());
        assert!(known.earlier.len() <= MAX_EARLIER);
    }
    assert_eq!(as_one(&known.takeovers()), Some((at(0), at(49_010))));
}

fn rules(text: &str) -> Rules {
    Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap()
}

/// Of one rule.
fn rule(fields: &str) -> Rules {
    rules(&format!("rules: [{{ name: r, key: [], on_owner_loss: deny, {fields} }}]"))
}

fn basis(rules: &Rules, begun: u64, before: Option<u64>) -> TakeoverBasis {
    TakeoverBasis {
        rules: Arc::clone(rules.reserves()),
        heard: at(begun),
        begun: at(begun),
        before: before.map(at),
        earlier: Vec::new(),
    }
}

/// What a bucket of the rule has left at an instant of which nothing else is known.
fn left(basis: &TakeoverBasis, changes: &RuleChanges, now: &Rules, limit: &str, seconds: u64) -> u64 {
    let rule = &now.rules("default")[0];
    let limit: Limit = limit.parse().unwrap();
    let assumed = basis.assumed(now.reserves(), changes, rule.id(), rule.reserve(), &limit);
    let assumed = assumed.unwrap_or(Assumed { empty_at: Some(basis.begun), at_least: Mark::default() });
    let floor = Floor::between(assumed.empty_at, assumed.at_least, Mark::new(u64::MAX));
    let is_of_window = rule.reserve().unwrap().is_of_window();
    let charge = Charge {
        key: KeyHash::from_raw(0x1234_5678_9abc_def0 | u64::from(is_of_window)),
        rule: rule.id(),
        limit,
        cost: Cost::PEEK,
        mode: Mode::Enforce,
        floor: Some(floor),
        ban: None,
    };
    let store = Store::new(StoreConfig { max_memory: 1 << 20, shards: 4 }, at(seconds));
    store.check(&charge, at(seconds)).remaining
}

/// Found by a review: what one quantum of the largest limit is counted for each of them.
#[test]
fn a_change_counts_for_each_limit_what_its_own_former_one_may_have_given() {
    let gold =
        |limit: &str| format!("limit: {limit}, overrides: [{{ when: {{ plan: gold }}, limit: 100000/1d }}]");
    let (then, now) = (rule(&gold("100/1d")), rule(&gold("120/1d")));
    let (basis, changes) = (basis(&then, 60, None), RuleChanges::default());
    // A quantum of the rule is that of the smaller limit.
    assert!((100..120).contains(&left(&basis, &changes, &now, "120/1d", 60)));
    assert!((90_000..100_000).contains(&left(&basis, &changes, &now, "100000/1d", 60)));
    // One that came with the change: any of the former ones may have been its own.
    let added = rule("limit: 100/1d, overrides: [{ when: { plan: silver }, limit: 50/1d }]");
    assert!(left(&basis, &changes, &added, "50/1d", 60) < 50);
    assert!(left(&basis, &changes, &added, "100/1d", 60) >= 90);
}

/// Found by a review: rules whose quanta are the same counted as the same.
#[test]
fn limits_with_the_same_quanta_are_not_the_same() {
    const HOUR: u64 = 3_600;
    let fixed = |limit: &str| format!("limit: {limit}, algorithm: fixed_window");
    let (hour, day) = (rule(&fixed("1000/1h")), rule(&fixed("1000/1d")));
    let change = |then: &Rules, now: &Rules, begun: u64, seconds: u64| {
        let mut changes = RuleChanges::default();
        changes.note(then.reserves(), now.reserves(), Some(at(begun)), at(seconds));
        changes
    };
    // Shares may have given all of the window that had begun when the slot was taken over.
    let shared =
        |limit| rules(&format!("rules: [{{ name: r, key: [], on_owner_loss: share, {} }}]", fixed(limit)));
    let (of_hour, of_day) = (shared("1000/1h"), shared("1000/1d"));
    let taken = TakeoverBasis { heard: at(11 * HOUR - 2), ..basis(&of_hour, 11 * HOUR + 2, None) };
    let changes = change(&of_hour, &of_day, 11 * HOUR + 2, 11 * HOUR + 600);
    assert_eq!(left(&taken, &changes, &of_day, "1000/1d fixed_window", 11 * HOUR + 600), 0);
    // What was exhausted in an hour that was over before the change is not exhausted for the day.
    let drained = basis(&hour, 10 * HOUR + 1_200, Some(10 * HOUR + 300));
    let changes = change(&hour, &day, 10 * HOUR + 1_200, 11 * HOUR + 1_800);
    assert_eq!(left(&drained, &changes, &day, "1000/1d fixed_window", 12 * HOUR), 1000);
    // Had it changed within that hour, it would be.
    let changes = change(&hour, &day, 10 * HOUR + 1_200, 10 * HOUR + 1_800);
    assert_eq!(left(&drained, &changes, &day, "1000/1d fixed_window", 12 * HOUR), 0);
    // A sixteenth of the larger limit is all of the smaller one.
    let (large, small) = (rule("limit: 16000/1d"), rule("limit: 16/1d"));
    assert_eq!(left(&basis(&large, 60, None), &RuleChanges::default(), &small, "16/1d", 60), 0);
    assert_eq!(left(&basis(&small, 60, None), &RuleChanges::default(), &large, "16000/1d", 60), 15_999);
}

/// Found by a review: one quantum without a place in its window is a larger number than all of a small limit.
#[test]
fn an_exhausted_sliding_window_counts_after_a_change_however_small_it_is() {
    let sliding = |limit: &str| rule(&format!("limit: {limit}, algorithm: sliding_window"));
    let (then, now) = (sliding("20/1h"), sliding("50/1h"));
    let drained = basis(&then, 600, Some(60));
    assert_eq!(left(&drained, &RuleChanges::default(), &now, "50/1h sliding_window", 600), 30);
    // Of the window before, too.
    let drained = basis(&then, 3_660, Some(3_000));
    let left = left(&drained, &RuleChanges::default(), &now, "50/1h sliding_window", 3_660);
    assert!((30..=31).contains(&left), "{left}");
}

/// Found by a review: after any change of the rules the next owner was told that all had been exhausted.
#[test]
fn the_next_owner_is_told_of_a_change_only_what_it_would_not_count_anyway() {
    let then = "{ name: r, key: [], limit: 1000/1d, on_owner_loss: deny }";
    let with = |more: &str| rules(&format!("rules: [{then}, {more}]"));
    let (before, log) =
        (rules(&format!("rules: [{then}]")), "{ name: log, key: [], limit: 10/1d, algorithm: sliding_log }");
    let told = |then: &Rules, now: &Rules, before| {
        basis(then, 600, before).told(now.reserves(), &RuleChanges::default(), at(1_200))
    };
    for more in [
        "{ name: new, key: [], limit: 5/1d }",
        "{ name: new, key: [], limit: 100/1d, algorithm: fixed_window }",
        log,
        "{ name: fast, key: [], limit: 5/1s }",
    ] {
        assert_eq!(told(&before, &with(more), None), None, "{more}");
        assert_eq!(told(&before, &with(more), Some(60)), Some(at(60)), "{more}");
        assert_eq!(told(&with(more), &before, None), None, "without {more}");
    }
    // A larger limit, or one that needs longer to refill: a quantum of it is more.
    for limit in ["2000/1d", "1000/30d", "16000/1d, algorithm: fixed_window"] {
        assert_eq!(told(&before, &rule(&format!("limit: {limit}")), None), None, "{limit}");
    }
    // All of a smaller one may be consumed: then all rules count as exhausted as late as this one needs it.
    let less = told(&before, &rule("limit: 100/1d"), None).unwrap();
    assert!(less < at(600) && at(600) < less.saturating_add(std::time::Duration::from_secs(DAY)));
    assert_eq!(told(&before, &rule("limit: 10/1d"), None), Some(at(600)));
    assert_eq!(told(&before, &rule("limit: 10/1d, algorithm: fixed_window"), None), Some(at(600)));
    // What had no floors may have been charged by any limit.
    let floors = with("{ name: log, key: [], limit: 10/1d }");
    assert_eq!(told(&with(log), &floors, None), Some(at(600)));
    // What only denied has charged nothing.
    assert_eq!(told(&rule("limit: 0/1d"), &rule("limit: 10/1d"), None), None);
}

#[test]
fn changes_are_known_while_slots_need_them_and_no_more_than_a_few() {
    let limit = |count: u64| rule(&format!("limit: {count}/1d"));
    let id = limit(100).rules("default")[0].id();
    let mut changes = RuleChanges::default();
    changes.note(limit(100).reserves(), limit(200).reserves(), None, at(5));
    assert_eq!(changes, RuleChanges::default(), "no slot was begun from floors");
    for change in 0..100 {
        changes.note(
            limit(100 + change).reserves(),
            limit(101 + change).reserves(),
            Some(at(3)),
            at(10 + change),
        );
    }
    assert_eq!(changes.first_after(id, at(3)), at(10));
    assert_eq!(changes.first_after(id, at(12)), at(12));
    assert_eq!(changes.first_after(id, at(80)), at(80), "more is assumed");
    assert!(changes.0.values().all(|changes| changes.len() <= MAX_CHANGES));
    changes.note(limit(1).reserves(), limit(1).reserves(), Some(at(200)), at(200));
    assert_eq!(changes, RuleChanges::default());
}
