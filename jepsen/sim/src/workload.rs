//! What the clients ask: rules of all algorithms, and what each may admit.

use std::time::Duration;

use tidegate_jepsen::check::bound::Bound;

/// What an algorithm promises, as `limiter/src/lib.rs` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Law {
    /// A burst, and what refills.
    Bucket(Bound),
    /// So many units in any period.
    Log(u64, Duration),
    /// So many units in each window.
    Window(u64, Duration),
}

/// A rule with its keys.
pub(super) struct Family {
    pub(super) name: &'static str,
    limit: &'static str,
    /// What else the rule says.
    more: &'static str,
    count: u64,
    period_ms: u64,
    burst: u64,
    kind: Algorithm,
    /// It may admit more where nodes cannot reach each other: once for each side.
    pub(super) is_open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Bucket,
    Log,
    Window,
}

const STRICT_RULE: &str = "consistency: strict, on_owner_loss: deny";

pub(super) const STRICT: usize = 0;
pub(super) const CARVED: usize = 1;
pub(super) const OPEN: usize = 2;
pub(super) const LONG: usize = 3;
pub(super) const LEAKY: usize = 4;
pub(super) const LOG: usize = 5;
pub(super) const FIXED: usize = 6;
pub(super) const SLIDING: usize = 7;
/// Its limit is lowered and raised.
pub(super) const CHANGING: usize = 8;
/// Its limit comes with the check.
pub(super) const INLINE: usize = 9;

use Algorithm::{Bucket, Log, Window};

/// All families. `LONG` has floors (`takeover: reserve`), no other one has.
pub(super) const FAMILIES: [Family; 10] = [
    Family::of("strict", "20/1s, burst: 8", STRICT_RULE, (20, 1_000, 8), Bucket),
    Family::of(
        "carved",
        "24/1s, burst: 24",
        "consistency: strict, on_owner_loss: share, carved: true",
        (24, 1_000, 24),
        Bucket,
    ),
    Family::open("open", "20/1s, burst: 8", (20, 1_000, 8)),
    Family::of("long", "60/1h, burst: 60", STRICT_RULE, (60, 3_600_000, 60), Bucket),
    Family::of("leaky", "20/1s, burst: 8, algorithm: leaky_bucket", STRICT_RULE, (20, 1_000, 8), Bucket),
    Family::of("log", "60/2s, algorithm: sliding_log", STRICT_RULE, (60, 2_000, 60), Log),
    Family::of("fixed", "20/1s, algorithm: fixed_window", STRICT_RULE, (20, 1_000, 20), Window),
    Family::of("sliding", "20/1s, algorithm: sliding_window", STRICT_RULE, (20, 1_000, 20), Bucket),
    Family::of("changing", "40/1s, burst: 20", STRICT_RULE, (40, 1_000, 20), Bucket),
    Family::open("inline", INLINE_LIMIT, (20, 1_000, 8)),
];

/// As a check says it.
pub(super) const INLINE_LIMIT: &str = "20/1s";
pub(super) const INLINE_BURST: u64 = 8;

/// What `CHANGING` may admit while its limit is lowered.
const LOWERED: (&str, Bound) =
    ("10/1s, burst: 5", Bound { burst: 5, count: 10, period: Duration::from_millis(999) });

impl Family {
    const fn of(
        name: &'static str,
        limit: &'static str,
        more: &'static str,
        (count, period_ms, burst): (u64, u64, u64),
        kind: Algorithm,
    ) -> Self {
        Self { name, limit, more, count, period_ms, burst, kind, is_open: false }
    }

    /// The defaults: `available`, `share`.
    const fn open(
        name: &'static str,
        limit: &'static str,
        (count, period_ms, burst): (u64, u64, u64),
    ) -> Self {
        Self { name, limit, more: "", count, period_ms, burst, kind: Bucket, is_open: true }
    }

    /// What it may admit by a clock that is as fast as it may be.
    pub(super) const fn law(&self) -> Law {
        let period = Duration::from_micros(self.period_ms * 999);
        match self.kind {
            Bucket => Law::Bucket(Bound { burst: self.burst, count: self.count, period }),
            Log => Law::Log(self.count, period),
            Window => Law::Window(self.count, period),
        }
    }
}

/// Keys of each family.
pub(super) const KEYS: u32 = 8;
/// The key, a strict one, of which a quarter of what is admitted is given back: it stays under pressure.
pub(super) const GIVEN_BACK: u32 = 0;
/// The key of the rule that is about all checks of some clients, beside another.
pub(super) const ALL: u32 = FAMILIES.len() as u32 * KEYS;
/// The first of the keys of a third rule of some checks.
pub(super) const TEAM: u32 = ALL + 1;
const TEAMS: u32 = 3;
/// Behind the last key.
pub(super) const END: u32 = TEAM + TEAMS;
/// What the rules `all` and `team` may admit.
const OF_ALL: Bound = Bound { burst: 20, count: 50, period: Duration::from_millis(999) };
const OF_TEAM: Bound = Bound { burst: 10, count: 40, period: Duration::from_millis(999) };
/// Keys of `LONG` are under pressure one after the other, so that there is always one that has something left.
pub(super) const LONG_TURNS_EVERY_MS: u64 = 3_000;

/// The family of a key; `None`: it is one of a rule beside others.
pub(super) fn family_of(key: u32) -> Option<usize> {
    (key < ALL).then_some((key / KEYS) as usize)
}

/// The key of a family that is under pressure at that time.
pub(super) fn hot_key(family: usize, at_ms: u64) -> u32 {
    let turn = match family {
        LONG => (at_ms / LONG_TURNS_EVERY_MS) as u32 % KEYS,
        // Two at once: what a move loses shows where much is admitted while it moves.
        LOG => (at_ms % 2) as u32,
        // All of them, so that whichever node is lost owns some.
        CARVED => (at_ms % u64::from(KEYS)) as u32,
        _ => 0,
    };
    family as u32 * KEYS + turn
}

/// A team's key for the key of another rule.
pub(super) fn team_of(key: u32) -> u32 {
    TEAM + key % TEAMS
}

pub(super) fn law_of(key: u32) -> Law {
    match family_of(key) {
        Some(family) => FAMILIES[family].law(),
        None if key == ALL => Law::Bucket(OF_ALL),
        None => Law::Bucket(OF_TEAM),
    }
}

/// What a key of the changing rule may admit while the limit is lowered.
pub(super) const fn lowered() -> Bound {
    LOWERED.1
}

pub(super) fn name_of(key: u32) -> String {
    match family_of(key) {
        Some(family) => format!("{}/{key}", FAMILIES[family].name),
        None if key == ALL => "all".to_owned(),
        None => format!("team/{key}"),
    }
}

/// What the rules of a run can be changed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mode {
    /// The limit of `CHANGING` is lower.
    pub(super) lowered: bool,
    /// No rule has floors.
    pub(super) floors: Floors,
}

/// Whether owners tell floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Floors {
    #[default]
    Replicated,
    /// The rule says `takeover: zero`.
    Zero,
    /// The rule only counts.
    Shadow,
}

/// The rules, as a file.
pub(super) fn rules(mode: Mode) -> String {
    let mut text = "rules:\n".to_owned();
    for (place, family) in FAMILIES.iter().enumerate().filter(|(place, _)| *place != INLINE) {
        let Family { name, limit, more, .. } = family;
        let limit = if place == CHANGING && mode.lowered { LOWERED.0 } else { limit };
        let floors = match mode.floors {
            Floors::Zero if place == LONG => ", takeover: zero",
            Floors::Shadow if place == LONG => ", mode: shadow",
            _ => "",
        };
        let comma = if more.is_empty() { "" } else { ", " };
        text.push_str(&format!(
            "  - {{ name: {name}, when: {{ kind: {name} }}, key: [k], limit: {limit}{comma}{more}{floors} }}\n"
        ));
    }
    text.push_str(&format!(
        "  - {{ name: all, when: {{ all: \"*\" }}, key: [all], limit: 50/1s, burst: 20, {STRICT_RULE} }}\n\
         \x20 - {{ name: team, when: {{ team: \"*\" }}, key: [team], limit: 40/1s, burst: 10, {STRICT_RULE} }}\n\
         \x20 - {{ name: fresh, when: {{ kind: fresh }}, key: [k], limit: 100/1s, burst: 100, {STRICT_RULE} }}\n\
         \x20 - {{ name: names, when: {{ kind: names }}, key: [k], limit: 1/1d, burst: 1, {STRICT_RULE} }}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_limiter::{cluster::Rules, rules::HashSecret};

    #[test]
    fn the_rules_of_each_mode_can_be_read_and_long_has_floors_or_has_not() {
        for (floors, some) in [(Floors::Replicated, true), (Floors::Zero, false), (Floors::Shadow, false)] {
            let text = rules(Mode { lowered: floors == Floors::Zero, floors });
            let read = Rules::from_yaml(&text, &HashSecret::new([0; 16])).unwrap();
            let long = read.rules("default").iter().find(|rule| rule.name() == "long").unwrap();
            assert_eq!(long.reserve().is_some(), some, "{floors:?}");
        }
    }

    #[test]
    fn keys_have_laws_and_names() {
        assert!((0..END).all(|key| !name_of(key).is_empty()));
        assert_eq!(hot_key(STRICT, 50_000), GIVEN_BACK);
        assert_ne!(hot_key(LONG, 0), hot_key(LONG, LONG_TURNS_EVERY_MS));
        assert_eq!(law_of(LOG as u32 * KEYS), Law::Log(60, Duration::from_micros(1_998_000)));
    }
}
