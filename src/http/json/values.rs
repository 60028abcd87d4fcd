//! Strings and numbers of a JSON text, and what serde's errors cannot say of them.

use std::{borrow::Cow, cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::error::Category;

use crate::check::{Problem, ProblemKind};

/// The problem of a text that is not what was expected, when nothing more is known of it.
pub(in crate::http) fn problem_of(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let message = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
    let kind = match error.classify() {
        Category::Data => ProblemKind::InvalidValue,
        Category::Syntax | Category::Eof | Category::Io => ProblemKind::NotJson,
    };
    Problem { place: Some((error.line(), error.column())), ..Problem::new(kind, message.to_owned()) }
}

/// What serde's errors cannot carry: the problem that was found, or the field that the error is about.
#[derive(Default)]
pub(super) struct Found(RefCell<(Option<Problem>, Option<String>)>);

impl Found {
    /// Keeps a problem; the error only stops the reading.
    pub(super) fn keep<E: Error>(&self, problem: Problem) -> E {
        self.0.borrow_mut().0 = Some(problem);
        E::custom("")
    }

    /// Notes the field of an error.
    pub(super) fn at<E>(&self, field: impl Into<String>, error: E) -> E {
        self.0.borrow_mut().1.get_or_insert(field.into());
        error
    }

    pub(super) fn into_problem(self, error: &serde_json::Error) -> Problem {
        let (kept, field) = self.0.into_inner();
        let found = problem_of(error);
        match kept {
            Some(kept) => Problem { place: found.place, ..kept },
            None => Problem { field, ..found },
        }
    }
}

/// A string, borrowed if it has no escapes. (serde would own it inside of an `Option`.)
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A whole number that is not negative.
pub(super) struct Whole(pub(super) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 2^53")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            // What does not fit 64 bits comes here.
            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                let what = match number {
                    n if n < 0.0 => "it is negative",
                    n if n >= 2f64.powi(53) => "it is too large",
                    _ => "it has a fraction or an exponent",
                };
                Err(E::custom(format_args!("a whole number from 0 to 2^53 is expected, and {what}")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                self.visit_f64(number as f64)
            }
        }
        deserializer.deserialize_u64(WholeVisitor)
    }
}
