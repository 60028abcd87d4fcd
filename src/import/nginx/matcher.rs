//! Which paths a location is for.

use super::{super::imported::Imported, pattern::Pattern, regex, syntax::Directive};

/// What a location says of paths.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    Exact(String),
    Prefix {
        path: String,
        before_regexes: bool,
    },
    Regex {
        text: String,
        /// `None`: none say it.
        patterns: Option<Vec<Pattern>>,
        ignores_case: bool,
    },
    Named(String),
}

impl Matcher {
    /// `None`: no rule can say which paths that are, which is reported.
    pub(super) fn read(directive: &Directive, imported: &mut Imported) -> Option<Self> {
        let line = directive.line;
        let (modifier, path) = match &directive.arguments[..] {
            [modifier, path] => (modifier.as_str(), path.as_str()),
            [both] => {
                let modifier =
                    ["=", "^~", "~*", "~", "@"].into_iter().find(|one| both.starts_with(one)).unwrap_or("");
                (modifier, &both[modifier.len()..])
            }
            _ => {
                imported.lost(line, format!("location {}: this has one path", directive.arguments.join(" ")));
                return None;
            }
        };
        let unsayable = path.contains('\u{fffd}') || path.contains('*') && !modifier.starts_with(['~', '=']);
        if unsayable {
            imported.lost(
                line,
                format!("location {path}: no pattern says this path; what holds around it holds for it too"),
            );
            return None;
        }
        let is_encoded = |at: usize| {
            path.as_bytes()[at + 1..].get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
        };
        if !modifier.starts_with(['~', '@']) && path.match_indices('%').any(|(at, _)| is_encoded(at)) {
            imported.lost(
                line,
                format!("location {path}: nginx compares decoded paths, so this is for a path that has been encoded twice; here that is decoded twice"),
            );
        }
        let path = path.to_owned();
        match modifier {
            "=" => Some(Self::Exact(path)),
            "@" => Some(Self::Named(path)),
            "" => Some(Self::Prefix { path, before_regexes: false }),
            "^~" => Some(Self::Prefix { path, before_regexes: true }),
            "~" | "~*" => {
                let patterns = regex::patterns(&path);
                let ignores_case = modifier == "~*" && path.chars().any(char::is_alphabetic);
                Some(Self::Regex { text: format!("{modifier} {path}"), patterns, ignores_case })
            }
            other => {
                imported.lost(line, format!("location {other}: this modifier is not known"));
                None
            }
        }
    }
}
