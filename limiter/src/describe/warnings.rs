//! What rules say that is valid and hardly meant.

use super::conditions_text;
use crate::{Algorithm, Limit, Rule, Rules, condition::Condition, limits::Override};

/// Units a second above which a unit is less than a step of a sliding window (`algorithm/sliding.rs`), so that each check of one
/// unit is charged more.
const SLIDING_WINDOW_RATE: f64 = 483_000.0;

impl Rules {
    /// What is hardly meant: values that no request of a proxy has, overrides that no request reaches, limits that an
    /// algorithm cannot count finely.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for domain in self.domains() {
            for rule in self.rules(domain) {
                let of = format!("{domain}: the rule {:?}", rule.name());
                warnings.extend(unmatched_values(&rule.when).map(|words| format!("{of}: {words}")));
                for special in &rule.overrides {
                    warnings.extend(unmatched_values(&special.when).map(|words| format!("{of}: {words}")));
                }
                warnings.extend(hidden(&rule.overrides).map(|words| format!("{of}: {words}")));
                warnings.extend(coarse(rule).map(|words| format!("{of}: {words}")));
            }
            let list = self.domains.get(domain).and_then(|domain| domain.block());
            for (entry, name) in list.into_iter().flat_map(|list| list.entries()) {
                let of = format!("{domain}: the entry {name:?} of block");
                warnings.extend(unmatched_values(&entry.when).map(|words| format!("{of}: {words}")));
            }
        }
        warnings
    }
}

/// Values that the attributes of `/v1/auth` never have.
fn unmatched_values(when: &Condition) -> impl Iterator<Item = String> {
    let tests = when.tests.iter();
    let patterns = tests.flat_map(|test| {
        let patterns = test.any_of.iter().chain(test.none_of.iter());
        patterns.map(move |pattern| (&*test.attribute, pattern))
    });
    patterns.filter_map(|(attribute, pattern)| {
        let text = pattern.to_string();
        let has = |is: fn(char) -> bool| text.chars().any(is);
        let (what, wanted) = match attribute {
            "method" if has(|letter| letter.is_ascii_lowercase()) => {
                ("in capitals", text.to_ascii_uppercase())
            }
            "host" if has(|letter| letter.is_ascii_uppercase()) => {
                ("in lower case", text.to_ascii_lowercase())
            }
            "path" if !text.starts_with(['/', '*']) => ("with a slash at its beginning", format!("/{text}")),
            _ => return None,
        };
        Some(format!(
            "/v1/auth tells `{attribute}` {what}, so {text:?} fits none of its requests; write {wanted:?}"
        ))
    })
}

/// Overrides behind one that takes all of their requests.
fn hidden(overrides: &[Override]) -> impl Iterator<Item = String> {
    let hidden = overrides.iter().enumerate().filter(move |(place, special)| {
        let before = &overrides[..*place];
        before.iter().any(|first| {
            let lasts = first.span.texts() == (None, None) || first.span == special.span;
            lasts && first.when.describe() == special.when.describe()
        })
    });
    hidden.map(|(_, special)| {
        let when = conditions_text(&special.when.describe());
        format!("of two overrides for {when} only the first is ever used; delete one")
    })
}

fn coarse(rule: &Rule) -> impl Iterator<Item = String> {
    let counts = |limit: &&Limit| {
        limit.algorithm() == Algorithm::SlidingWindow
            && limit.count() as f64 / limit.window().as_secs_f64() > SLIDING_WINDOW_RATE
    };
    rule.counting_limits().filter(counts).map(|limit| {
        format!(
            "sliding_window counts {limit} too coarsely: above 483,000 units a second a check that takes one unit is charged \
             several, so such checks get a half of the limit or less; write algorithm: token_bucket"
        )
    })
}

#[cfg(all(test, feature = "yaml"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::{HashSecret, Rules};

    #[test]
    fn what_is_hardly_meant_is_told_and_nothing_else() {
        let warnings = |text: &str| Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap().warnings();
        let of = |rest: &str| warnings(&format!("rules: [{{ name: r, key: [ip], limit: 5/1m, {rest} }}]"));
        for (rest, words) in [
            (
                "when: { method: post }",
                "default: the rule \"r\": /v1/auth tells `method` in capitals, so \"post\" fits none",
            ),
            ("when: { method: '!Get' }", "write \"GET\""),
            ("when: { host: Shop.Example }", "in lower case, so \"Shop.Example\""),
            ("when: { host: { like: '*.Example' } }", "write \"*.example\""),
            ("when: { path: login }", "write \"/login\""),
            ("overrides: [{ when: { method: put }, limit: 1/1s }]", "write \"PUT\""),
            (
                "overrides: [{ when: { p: [x, y] }, limit: 1/1s }, { when: { p: [x, y] }, limit: 2/1s }]",
                "of two overrides for p=x|y only the first is ever used",
            ),
            ("overrides: [{ when: { p: x }, limit: 500000/1s }], algorithm: sliding_window", "too coarsely"),
        ] {
            let told = of(rest);
            assert!(told.len() == 1 && told[0].contains(words), "{rest}: {told:?}");
        }
        let told = warnings("block: [{ when: { host: A.b }, name: x }]\nrules: []");
        assert!(told[0].starts_with("default: the entry \"x\" of block: /v1/auth tells `host`"), "{told:?}");
        for rest in [
            "when: { method: [POST, '*'], host: 'shop.*', path: ['/a', '*', { like: '*.php' }], user: Ada }",
            "overrides: [{ when: { p: x }, limit: 1/1s, until: 2026-01-01T00:00:00Z }, { when: { p: x }, limit: 2/1s }]",
            "algorithm: sliding_window, overrides: [{ when: { p: x }, limit: 400000/1s }]",
            "overrides: [{ when: { p: x }, limit: 5000000/1s }]",
        ] {
            assert_eq!(of(rest), [""; 0], "{rest}");
        }
    }
}
