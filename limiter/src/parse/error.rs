//! What can be wrong with a rule file, and where.

use serde::{Deserialize, Serialize};
#[cfg(feature = "yaml")]
use serde_saphyr::Location;

use super::MAX_RULE_ERRORS;

/// Longest word that is compared with known ones, and that is repeated whole in a message.
pub(super) const MAX_WORD_CHARS: usize = 64;

/// One error in a rule file. As JSON it is what a node answers to rules that it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuleError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The line, from 1; 0 when the error has no place.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// Where in the text it begins, in bytes.
    pub offset: usize,
    /// How many bytes of the text it is about.
    pub length: usize,
}

impl std::fmt::Display for RuleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

/// Where something stands in the text. A file has less than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1; 0: nowhere.
    line: u32,
    column: u32,
    /// In bytes.
    offset: u32,
    length: u32,
}

impl Place {
    /// Written in no file.
    pub(crate) const NOWHERE: Self = Self { line: 0, column: 0, offset: 0, length: 0 };

    /// The parts of the file that are shown by their first character, as lists and maps, have a length of 1.
    pub(crate) fn start(self) -> Self {
        Self { length: 1, ..self }
    }

    /// The text that stands there.
    pub(crate) fn slice(self, text: &str) -> Option<&str> {
        let start = self.offset as usize;
        text.get(start..start.checked_add(self.length as usize)?)
    }
}

#[cfg(feature = "yaml")]
impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let span = location.span();
        Self {
            line: small(location.line()),
            column: small(location.column()),
            offset: small(span.byte_offset().unwrap_or(0)),
            length: small(span.byte_len().unwrap_or(1)),
        }
    }
}

/// Collects what is wrong with a text.
pub(crate) struct RuleErrors<'t> {
    text: &'t str,
    found: Vec<RuleError>,
}

impl<'t> RuleErrors<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// How many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Adds one; an empty `help` is none.
    pub(crate) fn add(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.found.push(locate(self.text, place, message.into(), help));
    }

    /// Adds one that knows its place.
    #[cfg(feature = "yaml")]
    pub(super) fn found(&mut self, error: RuleError) {
        self.found.push(error);
    }

    /// All of them in the order of the text, each once (what an alias repeats is one error), at most [`MAX_RULE_ERRORS`].
    pub(crate) fn into_result(mut self) -> Result<(), Vec<RuleError>> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|error| error.offset);
        self.found.dedup();
        self.found.truncate(MAX_RULE_ERRORS);
        Err(self.found)
    }
}

/// The error of a text that is no YAML.
#[cfg(feature = "yaml")]
pub(crate) fn of_syntax(text: &str, error: &serde_saphyr::Error) -> RuleError {
    let mut message = error.without_snippet().to_string();
    // The place has fields of its own.
    if let Some(end) = message.find(" at line ") {
        message.truncate(end);
    }
    let place = match error.location() {
        None => Place::NOWHERE,
        Some(location) if location.span().byte_offset().is_some() => location.into(),
        Some(location) => by_line(text, location),
    };
    locate(text, place, message, None)
}

/// Some places of the parser are only a line and a column.
#[cfg(feature = "yaml")]
fn by_line(text: &str, location: Location) -> Place {
    let place = Place::from(location);
    let before: usize =
        text.split_inclusive('\n').take((place.line as usize).saturating_sub(1)).map(str::len).sum();
    let line = &text[before..];
    let column = line.char_indices().nth((place.column as usize).saturating_sub(1));
    let offset = before + column.map_or(line.len(), |(offset, _)| offset);
    Place { offset: u32::try_from(offset).unwrap_or(u32::MAX), length: 1, ..place }
}

fn locate(text: &str, place: Place, message: String, help: Option<String>) -> RuleError {
    // The parser's places may lie beyond the end: a missing bracket is missing there.
    let clamp = |bytes: usize| text.floor_char_boundary(bytes.min(text.len()));
    let offset = clamp(place.offset as usize);
    let end = clamp((place.offset as usize).saturating_add(place.length as usize));
    RuleError {
        message,
        help,
        line: place.line as usize,
        column: place.column as usize,
        offset,
        length: end - offset,
    }
}

/// A word of the file, for a message: it may be as long as the file.
pub(super) fn shortened(word: &str) -> String {
    match word.char_indices().nth(MAX_WORD_CHARS) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}
