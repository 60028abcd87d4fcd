//! The values of a condition, as they are written.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value of a condition, as it is written.
///
/// A text is a pattern if it looks like one, and else itself. Where that is not what is meant, a [`PatternForm`] says how it
/// is to be read: a map in a rule file, which no text can be confused with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PatternText {
    /// `prefix*`, `10.0.0.0/8`, `*` for any value, an exact value; or one of these after a `!`, for its opposite.
    Short(String),
    /// With the way in which its text is read.
    Long(PatternForm),
}

/// How the text of a value is read, whatever it looks like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatternForm {
    /// The value is this text.
    Is(String),
    /// The value is not this text.
    IsNot(String),
    /// The value fits this text, in which each `*` stands for any characters, or none.
    Like(String),
    /// The value does not fit this text.
    NotLike(String),
    /// As `Like`, of a path too letter by letter: a slash at its end is a difference.
    ExactlyLike(String),
    /// The opposite.
    NotExactlyLike(String),
}

impl PatternForm {
    /// How a rule file names it, and its text.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Is(text) => ("is", text),
            Self::IsNot(text) => ("is_not", text),
            Self::Like(text) => ("like", text),
            Self::NotLike(text) => ("not_like", text),
            Self::ExactlyLike(text) => ("exactly_like", text),
            Self::NotExactlyLike(text) => ("not_exactly_like", text),
        }
    }
}

impl<T: Into<String>> From<T> for PatternText {
    fn from(text: T) -> Self {
        Self::Short(text.into())
    }
}

impl From<PatternForm> for PatternText {
    fn from(form: PatternForm) -> Self {
        Self::Long(form)
    }
}

/// As in a rule file; a text that could be taken for more than one is in quotes.
impl fmt::Display for PatternText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(text) if text.is_empty() || text.contains([' ', '|', '=', '{', '"']) => {
                write!(f, "{text:?}")
            }
            Self::Short(text) => f.write_str(text),
            Self::Long(form) => {
                let (name, text) = form.parts();
                write!(f, "{{ {name}: {text:?} }}")
            }
        }
    }
}

/// Whether a value fits a text in which each `*` stands for any characters, or none.
pub fn is_like(pattern: &str, value: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == value };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // What begins the value cannot end it too.
    let Some(mut left) = value.strip_prefix(start).and_then(|left| left.strip_suffix(end)) else {
        return false;
    };
    // The first place of each part leaves the most for those behind it.
    for part in middle.split('*') {
        let Some((_, behind)) = left.split_once(part) else { return false };
        left = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each star takes nothing, or one more character.
    fn is_like_slowly(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern, value) {
            ([], _) => value.is_empty(),
            ([b'*', rest @ ..], _) => {
                is_like_slowly(rest, value) || (!value.is_empty() && is_like_slowly(pattern, &value[1..]))
            }
            ([one, rest @ ..], [other, more @ ..]) => one == other && is_like_slowly(rest, more),
            _ => false,
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_or_none() {
        assert!(is_like("/api/*/download", "/api/7/download"));
        assert!(is_like("/api/*/download", "/api/a/b/download"), "a slash too");
        assert!(is_like("/api/*/download", "/api//download"));
        assert!(!is_like("/api/*/download", "/api/download"), "one slash cannot be both");
        assert!(!is_like("/api/*/download", "/api/7/upload"));
        assert!(!is_like("ab*ba", "aba") && is_like("ab*ba", "abba"));
        assert!(is_like("*.exe", ".exe") && is_like("*", "") && is_like("a*b*c", "a-bb-c"));
    }

    proptest! {
        #[test]
        fn it_fits_if_there_is_any_way(pattern in "[ab*]{0,8}", value in "[ab]{0,10}") {
            prop_assert_eq!(is_like(&pattern, &value), is_like_slowly(pattern.as_bytes(), value.as_bytes()));
        }
    }
}
