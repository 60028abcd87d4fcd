//! What becomes of what buckets have counted when rules change.

use super::{OverrideDescription, RuleDescription, conditions_text};

/// The words for a rule before and after a change; `None` where no bucket counts otherwise than before.
pub(super) fn after(was: &RuleDescription, is: &RuleDescription) -> Option<String> {
    if sorted(&was.key) != sorted(&is.key) || was.ip_prefix != is.ip_prefix {
        return Some("start anew, the key is another one".to_owned());
    }
    let mut words = Vec::new();
    let own = |rule: &RuleDescription| (rule.limit.clone(), rule.burst, rule.algorithm.clone(), rule.carved);
    let is_moved = (&was.timezone, &was.starts) != (&is.timezone, &is.starts);
    if own(was) != own(is) || is_moved {
        words.extend(of_limit(&was.limit, &is.limit));
    }
    let of = |overrides: &[OverrideDescription], one: &OverrideDescription| {
        overrides.iter().find(|known| known.when == one.when).cloned()
    };
    for special in &is.overrides {
        let subject = || format!("for {}", conditions_text(&special.when));
        match of(&was.overrides, special) {
            None => words.push(format!("{} start anew", subject())),
            // The bucket is the rule's own while the limit is, and that of the override otherwise.
            Some(known) if is_own(was, &known) != is_own(is, special) => {
                words.push(format!("{} start anew", subject()));
            }
            Some(known)
                if (&known.limit, known.burst, &known.timezone, &known.starts)
                    != (&special.limit, special.burst, &special.timezone, &special.starts)
                    || was.algorithm != is.algorithm
                    || is_moved =>
            {
                words.extend(
                    of_limit(&known.limit, &special.limit).map(|word| format!("{} {word}", subject())),
                );
            }
            Some(_) => {}
        }
    }
    for gone in was.overrides.iter().filter(|gone| of(&is.overrides, gone).is_none()) {
        words.push(format!("for {} those of the rule", conditions_text(&gone.when)));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Whether an override says the very limit of its rule.
fn is_own(rule: &RuleDescription, special: &OverrideDescription) -> bool {
    let zone = special.timezone.as_ref().or(rule.timezone.as_ref());
    let starts = special.starts.as_ref().or(rule.starts.as_ref());
    (&rule.limit, rule.burst, rule.timezone.as_ref(), rule.starts.as_ref())
        == (&special.limit, special.burst, zone, starts)
}

fn of_limit(was: &str, is: &str) -> Option<String> {
    let counts = |limit: &str| limit != "unlimited" && limit != "deny";
    match (counts(was), counts(is)) {
        (true, true) => Some("kept, consumed units count under the new limit".to_owned()),
        (false, true) => Some("start with full buckets".to_owned()),
        (true, false) => Some("end".to_owned()),
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
                "{:?} starts with full buckets: what {:?} has counted goes with its name",
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
        let special = |limit: &str| {
            format!(
                "name: r, key: [user], limit: 5/1m, overrides: [{{ when: {{ path: /a }}, limit: {limit} }}]"
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
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: unlimited", Some("end")),
            (
                "name: r, key: [user], limit: unlimited",
                "name: r, key: [user], limit: 5/1m",
                Some("start with full buckets"),
            ),
            (
                "name: r, key: [user], limit: 5/1m",
                "name: r, key: [ip], limit: 5/1m",
                Some("start anew, the key is another one"),
            ),
            ("name: r, key: [user], limit: 5/1m", "name: r, key: [user], limit: 5/1m, mode: shadow", None),
            (
                &special("7/1m"),
                &special("8/1h"),
                Some("for path=/a kept, consumed units count under the new limit"),
            ),
            ("name: r, key: [user], limit: 5/1m", &special("8/1h"), Some("for path=/a start anew")),
            (&special("8/1h"), "name: r, key: [user], limit: 5/1m", Some("for path=/a those of the rule")),
        ] {
            assert_eq!(diff(before, after).changed[0].counts.as_deref(), counts, "{before} -> {after}");
        }
        assert!(
            diff("name: r, key: [a, b], limit: 5/1m", "name: r, key: [b, a], limit: 5/1m").changed[0]
                .counts
                .is_none()
        );
        let renamed = diff("name: old, key: [ip], limit: 5/1m", "name: new, key: [ip], limit: 5/1m").renamed;
        assert_eq!(
            renamed,
            ["\"new\" starts with full buckets: what \"old\" has counted goes with its name"]
        );
        assert!(
            diff("name: old, key: [ip], limit: 5/1m", "name: new, key: [user], limit: 5/1m")
                .renamed
                .is_empty()
        );
    }
}
