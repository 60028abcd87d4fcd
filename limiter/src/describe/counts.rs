//! What becomes of what buckets have counted when rules change.

use std::collections::{BTreeMap, BTreeSet};

use super::{Conditions, OverrideDescription, RuleDescription, conditions_text};
use crate::{
    Algorithm, Limit,
    address::{IpPrefix, OwnIpPrefix},
    pattern::PatternText,
};

const OF_RULE: &str = "those of the rule";
/// Buckets that the rules before do not have. Whether they had them earlier the two texts do not say.
const OF_OVERRIDE: &str = "start full, but for what is still known of an override with this condition";

/// The words for a rule before and after a change; `None` where no bucket counts otherwise than before. `ip_prefix`: of rules that
/// say none.
pub(super) fn after(was: &RuleDescription, is: &RuleDescription, ip_prefix: IpPrefix) -> Option<String> {
    let bits = |rule: &RuleDescription| {
        let own = rule
            .ip_prefix
            .as_ref()
            .map_or(OwnIpPrefix::default(), |own| OwnIpPrefix { v4: own.v4, v6: own.v6 });
        ip_prefix.or(own)
    };
    if sorted(&was.key) != sorted(&is.key) || bits(was) != bits(is) {
        let told = "start full, the key is another one, but for what is still known of buckets with this key";
        return Some(told.to_owned());
    }
    let mut words = Vec::new();
    let own = |rule: &RuleDescription| (rule.limit.clone(), rule.burst, rule.algorithm.clone(), rule.carved);
    let is_moved = (&was.timezone, &was.starts) != (&is.timezone, &is.starts);
    if own(was) != own(is) || is_moved {
        words.extend(of_limit(&was.limit, &is.limit));
    }
    let of = |overrides: &[OverrideDescription], one: &OverrideDescription| {
        overrides.iter().find(|known| same(&known.when) == same(&one.when)).cloned()
    };
    for special in &is.overrides {
        // The bucket is the rule's own while the limit is, and that of the override otherwise.
        let told = match (of(&was.overrides, special), is_own(is, special)) {
            (None, true) => None,
            (None, false) if !counts(&special.limit) => Some("end".to_owned()),
            (None, false) => Some(OF_OVERRIDE.to_owned()),
            (Some(known), true) if is_own(was, &known) => None,
            (Some(_), true) => Some(OF_RULE.to_owned()),
            (Some(known), false) if is_own(was, &known) => Some(OF_OVERRIDE.to_owned()),
            (Some(known), false) => {
                let is_same = (&known.limit, known.burst, &known.timezone, &known.starts)
                    == (&special.limit, special.burst, &special.timezone, &special.starts);
                let changes = !is_same || was.algorithm != is.algorithm || is_moved;
                if changes { of_limit(&known.limit, &special.limit) } else { None }
            }
        };
        words.extend(told.map(|told| format!("for {} {told}", conditions_text(&special.when))));
    }
    for gone in was.overrides.iter().filter(|gone| of(&is.overrides, gone).is_none() && !is_own(was, gone)) {
        words.push(format!("for {} {}", conditions_text(&gone.when), instead(gone, &is.overrides)));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Whose buckets the requests of an override have that is gone.
fn instead(gone: &OverrideDescription, overrides: &[OverrideDescription]) -> String {
    let Some(next) = overrides.iter().find(|next| !excludes(&next.when, &gone.when)) else {
        return OF_RULE.to_owned();
    };
    let is_always = next.from.is_none() && next.until.is_none();
    let fits = |(attribute, patterns): (&String, &Vec<PatternText>)| {
        gone.when.get(attribute).is_some_and(|known| {
            !known.is_empty() && known.iter().all(|one| is_exact(one) && patterns.contains(one))
        })
    };
    match is_always && next.when.iter().all(fits) {
        true => format!("those of {}", conditions_text(&next.when)),
        false => "those of the next override that fits, or of the rule".to_owned(),
    }
}

/// Whether no request fits both, as far as that can be seen without asking: both name values of an attribute, and share none.
fn excludes(one: &Conditions, other: &Conditions) -> bool {
    one.iter().any(|(attribute, patterns)| {
        let others = other.get(attribute).map_or(&[][..], |others| others);
        let all_are_exact = patterns.iter().chain(others).all(is_exact);
        let share = patterns.iter().any(|pattern| others.contains(pattern));
        all_are_exact && !patterns.is_empty() && !others.is_empty() && !share
    })
}

/// Whether a value is this text and nothing else: no pattern, no network, and no address or path, which has several texts.
fn is_exact(pattern: &PatternText) -> bool {
    matches!(pattern, PatternText::Short(text) if !text.contains(['*', '!', '/', ':', '.']))
}

/// In whichever order patterns are written, the condition is the same.
fn same(when: &Conditions) -> BTreeMap<&str, BTreeSet<&PatternText>> {
    when.iter().map(|(attribute, patterns)| (&**attribute, patterns.iter().collect())).collect()
}

/// Whether an override says the very limit of its rule, however it is written.
fn is_own(rule: &RuleDescription, special: &OverrideDescription) -> bool {
    let placed = (
        special.timezone.as_ref().or(rule.timezone.as_ref()),
        special.starts.as_ref().or(rule.starts.as_ref()),
    );
    if placed != (rule.timezone.as_ref(), rule.starts.as_ref()) {
        return false;
    }
    let algorithm = rule.algorithm.as_deref().and_then(Algorithm::from_name);
    let limit = |text: &str, burst| Limit::parse_stored(text, burst, algorithm).ok();
    limit(&rule.limit, rule.burst)
        .zip(limit(&special.limit, special.burst))
        .is_some_and(|(own, special)| own.is_same(&special))
}

fn counts(limit: &str) -> bool {
    limit != "unlimited" && limit != "deny" && !limit.starts_with("0/")
}

/// A bucket is not forgotten when its limit ends: it is there as long as it is not full, and has its place if a limit comes back.
fn of_limit(was: &str, is: &str) -> Option<String> {
    match (counts(was), counts(is)) {
        (true, true) => Some("kept, consumed units count under the new limit".to_owned()),
        (false, true) => {
            Some("start full, but for units consumed under a limit that the rule had before and that are not back yet".to_owned())
        }
        (true, false) => Some("end, and count again if a limit comes back before they are full".to_owned()),
        (false, false) => None,
    }
}

/// A rule that is new and like one that is gone.
pub(super) fn renamed(removed: &[RuleDescription], added: &[RuleDescription]) -> Vec<String> {
    let like = |one: &RuleDescription, other: &RuleDescription| {
        one.when == other.when && sorted(&one.key) == sorted(&other.key)
    };
    let pairs = added.iter().filter_map(|new| Some((new, removed.iter().find(|old| like(new, old))?)));
    pairs
        .map(|(new, old)| {
            format!(
                "{:?} starts with full buckets, but for what is still known of a rule of that name: what {:?} has counted goes with its name",
                new.name, old.name
            )
        })
        .collect()
}

/// In whichever order a key's attributes are written, and whether they may be missing, the bucket is the same.
fn sorted(key: &[String]) -> Vec<&str> {
    let mut key: Vec<&str> = key.iter().map(|name| name.strip_suffix('?').unwrap_or(name)).collect();
    key.sort_unstable();
    key
}

#[cfg(all(test, feature = "yaml"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::RulesDiff;
    use crate::{HashSecret, Rules};

    fn diff(before: &str, after: &str) -> RulesDiff {
        let describe = |rule: &str| {
            let text = format!("rules: [{{ {rule} }}]");
            Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap().describe("default")
        };
        RulesDiff::between(&describe(before), &describe(after))
    }

    #[test]
    fn each_change_says_what_becomes_of_counts() {
        let kept = "kept, consumed units count under the new limit";
        let ended = "end, and count again if a limit comes back before they are full";
        let returned = "start full, but for units consumed under a limit that the rule had before and that are not back yet";
        let another_key =
            "start full, the key is another one, but for what is still known of buckets with this key";
        let special = |limit: &str| {
            format!(
                "name: r, key: [user], limit: 5/1m, overrides: [{{ when: {{ path: [/a, /b] }}, limit: {limit} }}]"
            )
        };
        for (before, after, counts) in [
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: 9/1h", Some(kept)),
            (
                "name: r, key: [user], limit: 5/1m",
                "name: r, key: [user], limit: 5/1m, algorithm: sliding_log",
                Some(kept),
            ),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: 5/1m, burst: 9", Some(kept)),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: unlimited", Some(ended)),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: deny", Some(ended)),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: 0/1h", Some(ended)),
            ("name: r, key: [user], limit: deny", "name: r, key: [user], limit: unlimited", None),
            ("name: r, key: [user], limit: unlimited", "name: r, key: [user], limit: 5/1m", Some(returned)),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [ip], limit: 5/1m", Some(another_key)),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: 5/1m, mode: shadow", None),
            (
                &special("7/1m"),
                &special("8/1h"),
                Some("for path=/a|/b kept, consumed units count under the new limit"),
            ),
            (
                "name: r, key: [user], limit: 5/1m",
                &special("8/1h"),
                Some(
                    "for path=/a|/b start full, but for what is still known of an override with this condition",
                ),
            ),
            (&special("8/1h"), "name: r, key: [user], limit: 5/1m", Some("for path=/a|/b those of the rule")),
        ] {
            assert_eq!(diff(before, after).changed[0].counts.as_deref(), counts, "{before} -> {after}");
        }
        assert!(
            diff("name: r, key: [a, b], limit: 5/1m", "name: r, key: [b, a], limit: 5/1m").changed[0]
                .counts
                .is_none()
        );
        // The default of `ip_prefix`, written out, is no other key.
        let of_ip = |rest: &str| format!("name: r, key: [ip], limit: 5/1m{rest}");
        for (before, after, counts) in [
            ("", ", ip_prefix: { v6: 64 }", None),
            (", ip_prefix: { v4: 32 }", "", None),
            ("", ", ip_prefix: { v6: 56 }", Some(another_key)),
        ] {
            let told = diff(&of_ip(before), &of_ip(after));
            assert_eq!(told.changed[0].counts.as_deref(), counts, "{before} -> {after}");
        }
        let renamed = diff("name: old, key: [ip], limit: 5/1m", "name: new, key: [ip], limit: 5/1m").renamed;
        assert_eq!(
            renamed,
            [
                "\"new\" starts with full buckets, but for what is still known of a rule of that name: what \"old\" has counted goes with its name"
            ]
        );
        assert!(
            diff("name: old, key: [ip], limit: 5/1m", "name: new, key: [user], limit: 5/1m")
                .renamed
                .is_empty()
        );
    }

    /// Each as an outside tester saw it happen: what was consumed before, and what was left then.
    #[test]
    fn an_override_with_the_limit_of_its_rule_has_the_buckets_of_the_rule() {
        let rule = |limit: &str, special: &str| {
            format!(
                "name: r, key: [user], limit: {limit}, overrides: [{{ when: {{ p: x }}, limit: {special} }}]"
            )
        };
        let counts = |before: &str, after: &str| diff(before, after).changed[0].counts.clone();
        let plain = "name: r, key: [user], limit: 10/1h";
        assert_eq!(counts(plain, &rule("10/1h", "10/1h")), None);
        assert_eq!(counts(plain, &rule("10/1h", "10/60m")), None, "however it is written");
        assert_eq!(counts(&rule("10/1h", "10/1h"), plain), None);
        assert_eq!(counts(plain, &rule("10/1h", "deny")).as_deref(), Some("for p=x end"));
        assert_eq!(
            counts(&rule("10/1h", "20/1h"), &rule("20/1h", "20/1h")).as_deref(),
            Some("kept, consumed units count under the new limit; for p=x those of the rule")
        );
        assert_eq!(
            counts(&rule("10/1h", "10/1h"), &rule("10/1h", "20/1h")).as_deref(),
            Some("for p=x start full, but for what is still known of an override with this condition")
        );
        assert_eq!(
            counts(&rule("10/1h", "10/1h"), &rule("20/1h", "20/1h")).as_deref(),
            Some("kept, consumed units count under the new limit")
        );
        // A day is a day, by the calendar or not.
        let windows = |special: &str| format!("{}, algorithm: fixed_window", rule("5/day", special));
        assert_eq!(counts("name: r, key: [user], limit: 5/day", &windows("5/1d")), None);
        let listed =
            |patterns: &str, limit: &str| rule("10/1h", limit).replace("p: x", &format!("p: {patterns}"));
        assert_eq!(
            counts(&listed("[x, y]", "5/1h"), &listed("[y, x]", "6/1h")).as_deref(),
            Some("for p=y|x kept, consumed units count under the new limit")
        );
    }

    /// Found with real nodes: requests of an override that is gone have the buckets of the one that fits now.
    #[test]
    fn requests_of_an_override_that_is_gone_have_the_buckets_of_the_next_one_that_fits() {
        let rule = |overrides: &str| format!("name: r, key: [u], limit: 10/1h, overrides: [{overrides}]");
        let counts = |after: &str| {
            let before = rule("{ when: { p: x }, limit: 3/1h }");
            let counts = diff(&before, &rule(after)).changed[0].counts.clone().unwrap();
            counts.split("; ").find_map(|told| told.strip_prefix("for p=x ")).unwrap().to_owned()
        };
        for (after, told) in [
            ("", "those of the rule"),
            ("{ when: { p: y }, limit: 3/1h }", "those of the rule"),
            ("{ when: { p: [x, y] }, limit: 3/1h }", "those of p=x|y"),
            ("{ when: { p: y }, limit: 3/1h }, { when: { p: [x, y] }, limit: 3/1h }", "those of p=x|y"),
            (
                "{ when: { p: [x, y], q: a }, limit: 3/1h }",
                "those of the next override that fits, or of the rule",
            ),
            ("{ when: { p: \"x*\" }, limit: 3/1h }", "those of the next override that fits, or of the rule"),
            (
                "{ when: { p: [x, y] }, limit: 3/1h, until: \"2027-01-01T00:00:00Z\" }",
                "those of the next override that fits, or of the rule",
            ),
        ] {
            assert_eq!(counts(after), told, "{after}");
        }
    }
}
