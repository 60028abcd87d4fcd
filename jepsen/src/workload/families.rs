//! The rules of a run, and the keys that are asked about: every algorithm, each way to go on without an owner, limits that come
//! with the check, and limits that are changed meanwhile.

use std::{fmt::Write as _, time::Duration};

use crate::check::{bound::Bound, law::Law};

use super::limits::{Limited, Question};

/// How a key is chosen among those of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Each as often as any other.
    Even,
    /// The first one most, the n-th 1/n as often.
    Zipf,
    /// Some for a while, and then others: so some are always half used, whatever happens then.
    Wandering,
    /// Each in turn, and long before any comes again: whoever is asked about is new, or as good as new.
    Fresh,
}

/// A rule, with the keys that are asked about.
pub(super) struct Family {
    pub(super) rule: &'static str,
    pub(super) keys: u32,
    pub(super) count: u64,
    period: &'static str,
    period_ms: u64,
    pub(super) burst: u64,
    pub(super) more: &'static str,
    /// Of a hundred questions so many are about it.
    pub(super) weight: u32,
    pub(super) choice: Choice,
}

/// The rule of the hottest key.
pub(crate) const HOT: &str = "hot";
/// A quarter of what is admitted of it is given back: it stays under pressure.
pub(super) const GIVEN_BACK: &str = "given-back";
/// Its keys are always new.
pub(crate) const STRANGER: &str = "stranger";
/// Its limit is changed while it is asked about.
pub(crate) const CHANGING: &str = "changing";
/// What becomes of it when its owner is lost is changed.
pub(crate) const SWITCHED: &str = "switched";
/// No rule: the limit comes with the check.
const INLINE: &str = "inline";
/// What a limit that comes with the check promises in trouble is what this rule does.
const AS_BY_DEFAULT: &str = "zipf";
/// The rules of the keys that a flood is made of: one that never admits too much when memory is full, and one that locks nobody
/// out.
pub(crate) const FLOODED: [&str; 2] = ["flooded-strict", "flooded-forget"];

const STRICT: &str = "consistency: strict, on_owner_loss: deny";
const DEFAULT: &str = "consistency: available, on_owner_loss: share";

pub(super) const FAMILIES: [Family; 17] = [
    Family::of(HOT, 1, 200, "1s", 50, STRICT, 17, Choice::Even),
    Family::of("zipf", 300, 25, "1s", 20, DEFAULT, 8, Choice::Zipf),
    // Some are idle while their owner dies: shares fill, and whoever takes over has been told nothing.
    Family::of(
        "idle",
        300,
        5,
        "4s",
        5,
        "consistency: available, on_owner_loss: share, takeover: reserve",
        4,
        Choice::Wandering,
    ),
    Family::of("api", 40, 30, "1s", 15, STRICT, 8, Choice::Zipf),
    Family::of(
        "carved",
        12,
        40,
        "1s",
        40,
        "consistency: strict, on_owner_loss: share, carved: true",
        7,
        Choice::Zipf,
    ),
    Family::of("shared", 12, 40, "1s", 40, "consistency: strict, on_owner_loss: share", 7, Choice::Zipf),
    Family::of("closed", 12, 40, "1s", 40, "consistency: available, on_owner_loss: deny", 6, Choice::Zipf),
    Family::of("day", 300, 80, "1d", 80, STRICT, 4, Choice::Wandering),
    Family::of(
        "log",
        6,
        60,
        "4s",
        60,
        "algorithm: sliding_log, consistency: strict, on_owner_loss: deny",
        6,
        Choice::Zipf,
    ),
    Family::of(
        "window",
        6,
        60,
        "2s",
        60,
        "algorithm: fixed_window, consistency: strict, on_owner_loss: deny",
        5,
        Choice::Zipf,
    ),
    Family::of(GIVEN_BACK, 6, 30, "1s", 15, STRICT, 6, Choice::Zipf),
    Family::of(
        "leaky",
        6,
        40,
        "1s",
        20,
        "algorithm: leaky_bucket, consistency: available, on_owner_loss: share",
        4,
        Choice::Zipf,
    ),
    Family::of(
        "sliding",
        6,
        40,
        "1s",
        40,
        "algorithm: sliding_window, consistency: strict, on_owner_loss: deny",
        4,
        Choice::Zipf,
    ),
    Family::of(CHANGING, 4, 60, "1s", 60, STRICT, 5, Choice::Zipf),
    Family::of(SWITCHED, 300, 80, "1d", 80, STRICT, 3, Choice::Wandering),
    Family::of(INLINE, 6, 30, "1s", 15, DEFAULT, 4, Choice::Zipf),
    Family::of(STRANGER, 3_000, 5, "1s", 5, DEFAULT, 2, Choice::Fresh),
];
/// Asked about together with each `api` key: the two are on different nodes most of the time.
const TENANTS: Family = Family::of("tenant", 3, 60, "1s", 30, STRICT, 0, Choice::Even);

impl Family {
    #[expect(clippy::too_many_arguments, reason = "a line of a table")]
    const fn of(
        rule: &'static str,
        keys: u32,
        count: u64,
        period: &'static str,
        burst: u64,
        more: &'static str,
        weight: u32,
        choice: Choice,
    ) -> Self {
        let period_ms = match period.as_bytes() {
            b"1s" => 1_000,
            b"2s" => 2_000,
            b"4s" => 4_000,
            _ => 86_400_000,
        };
        Self { rule, keys, count, period, period_ms, burst, more, weight, choice }
    }

    fn law(&self) -> Law {
        match self.more {
            more if more.contains("sliding_log") => Law::Log,
            more if more.contains("fixed_window") => Law::Window,
            _ => Law::Bucket,
        }
    }

    fn has_burst(&self) -> bool {
        !self.more.contains("window") && !self.more.contains("log")
    }
}

/// What changes of the rules meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    /// Units a second of the rule that changes, and its burst: a second of debt stays a second.
    pub(super) count: u64,
    /// What becomes of the buckets of the other one when their owner dies.
    pub(super) takeover: &'static str,
}

/// What the rule that changes may have a second: the first is what it begins with, and the most.
pub(super) const COUNTS: [u64; 3] = [60, 20, 40];

impl Variant {
    pub(super) const FIRST: Self = Self { count: COUNTS[0], takeover: "reserve" };
}

/// The rules that a run begins with, as a file.
pub fn rules_text() -> String {
    text_of(Variant::FIRST)
}

pub(super) fn text_of(variant: Variant) -> String {
    let mut text = "rules:\n".to_owned();
    for family in FAMILIES.iter().chain([&TENANTS]).filter(|family| family.rule != INLINE) {
        let Family { rule, mut count, period, mut burst, more, .. } = *family;
        if rule == CHANGING {
            (count, burst) = (variant.count, variant.count);
        }
        let burst = if family.has_burst() { format!("burst: {burst}, ") } else { String::new() };
        let takeover =
            if rule == SWITCHED { format!(", takeover: {}", variant.takeover) } else { String::new() };
        let _ = writeln!(
            text,
            "  - {{ name: {rule}, key: [{rule}], limit: {count}/{period}, {burst}{more}{takeover} }}"
        );
    }
    for (rule, memory) in FLOODED.into_iter().zip(["strict", "forget"]) {
        let _ =
            writeln!(text, "  - {{ name: {rule}, key: [{rule}], limit: 1000/1d, on_memory_full: {memory} }}");
    }
    text
}

/// The rules, as a history is held against them; `worst` tells what each says of itself by name: crash and partition.
pub fn limits(worst: impl Fn(&str) -> (Option<u32>, Option<u32>)) -> Vec<Limited> {
    let limited = |family: &Family| {
        let (crash, partition) = worst(if family.rule == INLINE { AS_BY_DEFAULT } else { family.rule });
        let comes = if family.rule == INLINE { "; comes with the check" } else { "" };
        let burst = if family.has_burst() { format!(", burst {}", family.burst) } else { String::new() };
        Limited {
            name: family.rule.to_owned(),
            text: format!("{}/{}{burst}; {}{comes}", family.count, family.period, family.more),
            bound: Bound {
                burst: family.burst,
                count: family.count,
                period: Duration::from_millis(family.period_ms),
            },
            law: family.law(),
            counts: if family.rule == CHANGING { COUNTS.to_vec() } else { Vec::new() },
            strict: family.more.contains("strict"),
            crash,
            partition,
        }
    };
    FAMILIES.iter().chain([&TENANTS]).map(limited).collect()
}

/// All questions, those of a family together, in the order of the families.
pub fn questions() -> Vec<Question> {
    let mut all = Vec::new();
    for (rule, family) in FAMILIES.iter().enumerate() {
        for key in 0..family.keys {
            let mut path = format!("/v1/check?{}=k{key}", family.rule);
            let mut buckets = vec![(rule, format!("k{key}"))];
            let mut body = None;
            if family.rule == "api" {
                let tenant = key % TENANTS.keys;
                let _ = write!(path, "&tenant=k{tenant}");
                buckets.push((FAMILIES.len(), format!("k{tenant}")));
            }
            if family.rule == INLINE {
                let Family { count, period, burst, .. } = family;
                path = "/v1/check".to_owned();
                body =
                    Some(format!("{{\"key\":\"k{key}\",\"limit\":\"{count}/{period}\",\"burst\":{burst}}}"));
            }
            all.push(Question { path, body, buckets });
        }
    }
    all
}

/// The path that looks at the hottest key and takes nothing.
pub fn peek_at_hottest() -> String {
    format!("/v1/check?{HOT}=k0&cost=0")
}

/// Chooses questions as often as their families say.
pub(super) struct Dice {
    /// For each family, the chance of it or one before.
    families: Vec<f64>,
    /// The place of the first question of each family, and for each of its keys the chance of it or one before.
    keys: Vec<(usize, Vec<f64>)>,
}

/// Keys that are asked about for a while, and how long that is.
const WANDERERS: u64 = 3;
const WANDERS_EVERY: u64 = 2_000_000_000;

impl Dice {
    pub(super) fn new() -> Self {
        let (mut families, mut keys) = (Vec::new(), Vec::new());
        let (mut sum, mut first) = (0.0, 0);
        for family in &FAMILIES {
            sum += f64::from(family.weight);
            families.push(sum);
            let mut of_keys = 0.0;
            let sums = (0..family.keys).map(|key| {
                of_keys += if family.choice == Choice::Zipf { 1.0 / f64::from(key + 1) } else { 1.0 };
                of_keys
            });
            keys.push((first, sums.collect()));
            first += family.keys as usize;
        }
        Self { families, keys }
    }

    /// The place of a question at this time; `fresh` counts those that are new.
    pub(super) fn throw(&self, random: &mut fastrand::Rng, now: u64, fresh: impl FnOnce() -> u64) -> usize {
        let family = among(&self.families, random);
        let (first, keys) = &self.keys[family];
        let count = keys.len() as u64;
        first
            + match FAMILIES[family].choice {
                Choice::Even | Choice::Zipf => among(keys, random),
                Choice::Wandering => {
                    let place = now / WANDERS_EVERY * WANDERERS + random.u64(..WANDERERS);
                    (place % count) as usize
                }
                Choice::Fresh => (fresh() % count) as usize,
            }
    }
}

fn among(sums: &[f64], random: &mut fastrand::Rng) -> usize {
    let last = sums.len() - 1;
    let at = random.f64() * sums[last];
    sums.partition_point(|sum| *sum <= at).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_as_often_as_their_weights_say() {
        let (dice, questions) = (Dice::new(), questions());
        assert_eq!(FAMILIES.iter().map(|family| family.weight).sum::<u32>(), 100);
        let mut random = fastrand::Rng::with_seed(1);
        let (mut fresh, mut thrown) = (0, Vec::new());
        for n in 0..10_000 {
            thrown.push(dice.throw(&mut random, n * 1_000_000, || {
                fresh += 1;
                fresh
            }));
        }
        let of_rule = |rule: usize| thrown.iter().filter(|one| questions[**one].buckets[0].0 == rule).count();
        assert!((1_500..1_900).contains(&of_rule(0)), "{}", of_rule(0));
        let place = |rule| FAMILIES.iter().position(|family| family.rule == rule).unwrap();
        assert!((100..300).contains(&of_rule(place(STRANGER))));
        // Ten seconds: three keys for each two of them.
        let mut days: Vec<usize> =
            thrown.iter().filter(|one| questions[**one].buckets[0].0 == place("day")).copied().collect();
        days.sort_unstable();
        days.dedup();
        assert_eq!(days.len(), 15);
    }

    #[test]
    fn all_algorithms_are_there() {
        let text = rules_text();
        for law in [Law::Bucket, Law::Log, Law::Window] {
            assert!(FAMILIES.iter().any(|family| family.law() == law));
        }
        for algorithm in ["leaky_bucket", "fixed_window", "sliding_window", "sliding_log"] {
            assert!(text.contains(algorithm));
        }
        let other = text_of(Variant { count: 20, takeover: "zero" });
        assert!(other.contains("limit: 20/1s, burst: 20") && other.contains("takeover: zero"));
    }
}
