//! What rules say that is valid and hardly meant.

use super::conditions_text;
use crate::{
    Algorithm, Limit, Rule, Rules,
    condition::{Condition, Pattern},
    limits::Override,
};

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
        let (what, wanted) = match attribute {
            "method" => ("in capitals", text.to_ascii_uppercase()),
            "host" if text.contains(|letter: char| letter.is_ascii_uppercase()) => ("in lower case", host(&text)),
            "host" => ("without a port or a point at its end", host(&text)),
            "path" if !text.starts_with(['/', '*']) => ("with a slash at its beginning", format!("/{text}")),
            "path" if text.starts_with('*') => ("", text.clone()),
            "path" => ("decoded, without a query, parameters and detours", path(&text)),
            _ => return None,
        };
        if wanted != text {
            return Some(format!(
                "/v1/auth tells `{attribute}` {what}, so {text:?} fits none of its requests; write {wanted:?}"
            ));
        }
        // In the short form a star means something at the end only.
        let is_literal = matches!(pattern, Pattern::Exact(_) | Pattern::Path(_)) && text.contains('*');
        is_literal.then(|| {
            format!("the star in {text:?} is a star and nothing else, as it is not at the end; write {{ like: {text:?} }}")
        })
    })
}

fn host(text: &str) -> String {
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => text,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// About what `/v1/auth` makes of a path; it knows more spellings.
fn path(text: &str) -> String {
    let text = &text[..text.find(['?', '#']).unwrap_or(text.len())];
    let text = decoded(text).replace('\\', "/");
    let segments = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    let mut kept: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in segments {
        last = segment;
        match segment {
            "" | "." => {}
            ".." => _ = kept.pop(),
            segment => kept.push(segment),
        }
    }
    let is_open = matches!(last, "" | "." | "..") && !kept.is_empty();
    format!("/{}{}", kept.join("/"), if is_open { "/" } else { "" })
}

/// Without percent-encoding, where that is text.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(decoded) if !decoded.chars().any(char::is_control) => decoded,
        Ok(_) | Err(_) => text.to_owned(),
    }
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
            ("when: { path: '/my%20files' }", "write \"/my files\""),
            ("when: { path: '/caf%C3%A9/*' }", "write \"/café/*\""),
            ("when: { path: /x//y }", "write \"/x/y\""),
            ("when: { path: '/admin/../login' }", "write \"/login\""),
            ("when: { path: '/find?debug=1' }", "write \"/find\""),
            ("when: { path: '/login;v=1' }", "write \"/login\""),
            ("when: { path: '/a\\b' }", "write \"/a/b\""),
            ("when: { path: '/a/*/b' }", "write { like: \"/a/*/b\" }"),
            ("when: { host: 'shop.example:8443' }", "write \"shop.example\""),
            ("when: { host: corp.example. }", "write \"corp.example\""),
            ("when: { host: '*.corp.example' }", "write { like: \"*.corp.example\" }"),
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
            "when: { method: [POST, '*'], host: 'shop.*', path: ['/a', '/b/', '/', '/c*', '*', '/%FF', { like: '*.php' }], user: 'A%20*b' }",
            "when: { host: ['::1', '[::1]', 'a.b', { like: '*.b' }] }",
            "overrides: [{ when: { p: x }, limit: 1/1s, until: 2026-01-01T00:00:00Z }, { when: { p: x }, limit: 2/1s }]",
            "algorithm: sliding_window, overrides: [{ when: { p: x }, limit: 400000/1s }]",
            "overrides: [{ when: { p: x }, limit: 5000000/1s }]",
        ] {
            assert_eq!(of(rest), [""; 0], "{rest}");
        }
    }
}
