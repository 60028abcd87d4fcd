//! Reads the file with the rules, and tells all that is wrong with it at once.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::{Diagnostic, NamedSource, SourceSpan};
use tidegate_limiter::{
    SystemClock,
    cluster::{RuleDescription, Rules},
    rules::{HashSecret, RuleError},
};

/// Bytes of a file with rules.
const MAX_BYTES: u64 = 4 << 20;

/// A line with a fault and those beside it are shown in part if they have more bytes.
const MAX_SHOWN: usize = 4096;
/// Bytes that are shown of it on each side of the fault.
const SHOWN_AROUND: usize = 60;

/// Why a file with rules cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RulesFileError {
    /// It cannot be read.
    #[error("cannot read the rules {path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It is too large to be meant.
    #[error("the rules {path} have more than {MAX_BYTES} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{path} has no rules in it")]
    #[diagnostic(help("`rules: []` is a domain that limits nothing"))]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// It says something that cannot be.
    #[error("{path}: the rules cannot be used, {count} {}", if *count == 1 { "fault" } else { "faults" })]
    Invalid {
        /// Which.
        path: String,
        /// How many faults.
        count: usize,
        /// The faults.
        #[related]
        faults: Vec<RuleInFileError>,
    },
}

/// One fault with its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{path}:{line}:{column}: {message}")]
pub struct RuleInFileError {
    path: String,
    line: usize,
    column: usize,
    message: String,
    #[help]
    help: Option<String>,
    #[source_code]
    text: NamedSource<Arc<String>>,
    #[label("here")]
    place: SourceSpan,
}

/// The rules of one domain in a file.
#[derive(Debug, Clone)]
pub(crate) struct DomainText {
    pub(crate) name: String,
    pub(crate) text: String,
    /// What it says.
    pub(crate) rules: Vec<RuleDescription>,
    /// What of it is over or hardly meant, in words.
    pub(crate) warnings: Vec<String>,
}

/// Reads the rules of each domain, and makes sure that they compile.
pub(crate) fn read(path: &Path) -> Result<Vec<DomainText>, RulesFileError> {
    let text = text_of(path)?;
    let secret = HashSecret::new([0; 16]);
    compile(&path.display().to_string(), text.clone(), &secret)?;
    let now = SystemClock::default().now();
    let domains: Vec<DomainText> = documents(&text)
        .into_iter()
        .filter_map(|text| {
            let rules = Rules::from_yaml(text, &secret).ok()?;
            let name = rules.domains().first()?.to_string();
            let mut warnings = rules.warnings();
            warnings.extend(rules.over(now).into_iter().map(|over| format!("{over}; delete it")));
            Some(DomainText { rules: rules.describe(&name).rules, warnings, name, text: text.to_owned() })
        })
        .collect();
    // Whoever has made it was perhaps cut off; and nodes that begin with it would limit nothing.
    if domains.is_empty() { Err(RulesFileError::Empty { path: path.to_owned() }) } else { Ok(domains) }
}

/// The text of a file, or of the standard input (`-`).
fn text_of(path: &Path) -> Result<String, RulesFileError> {
    let unreadable = |reason| RulesFileError::Unreadable { path: path.to_owned(), reason };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).map_err(unreadable)?.take(MAX_BYTES + 1).read_to_string(&mut text)
    };
    match read.map_err(unreadable)? as u64 {
        0..=MAX_BYTES => Ok(text),
        _ => Err(RulesFileError::TooLarge { path: path.to_owned() }),
    }
}

/// The YAML documents of a text: a line that begins with `---` begins one. (It can be nothing else: inside of a text in
/// quotes or of a block such a line would be a fault.)
fn documents(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut place = 0;
    for line in text.split_inclusive('\n') {
        let marks = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marks && place > 0 {
            starts.push(place);
        }
        place += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

/// Compiles rules; `path` is what they are called in messages.
pub(crate) fn compile(path: &str, text: String, secret: &HashSecret) -> Result<Rules, RulesFileError> {
    Rules::from_yaml(&text, secret).map_err(|errors| {
        let text = Arc::new(text);
        RulesFileError::Invalid {
            path: path.to_owned(),
            count: errors.len(),
            faults: errors.into_iter().map(|error| fault(path, &text, error)).collect(),
        }
    })
}

impl RuleInFileError {
    /// For programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let Self { line, column, message, help, .. } = self;
        serde_json::json!({ "line": line, "column": column, "message": message, "help": help })
    }
}

fn fault(path: &str, text: &Arc<String>, error: RuleError) -> RuleInFileError {
    // A place beyond the text would make the picture of it fail.
    let start = text.floor_char_boundary(error.offset);
    let length = error.length.min(text.len() - start);
    let (text, place) = shown(path, text, start, length, error.line);
    RuleInFileError {
        path: path.to_owned(),
        line: error.line,
        column: error.column,
        message: error.message,
        help: error.help,
        text,
        place,
    }
}

/// What is shown of the text with a fault in it, and where the fault is there: of a line that is too long for that, a part.
fn shown(
    path: &str,
    text: &Arc<String>,
    start: usize,
    length: usize,
    line: usize,
) -> (NamedSource<Arc<String>>, SourceSpan) {
    // The lines before and after it are shown, too.
    let first = text[..start].rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at);
    let last = text[start..].match_indices('\n').nth(1).map_or(text.len(), |(at, _)| start + at);
    if last - first <= MAX_SHOWN {
        return (NamedSource::new(path, Arc::clone(text)), (start, length.min(MAX_SHOWN)).into());
    }
    let (from, to) = (start.saturating_sub(SHOWN_AROUND), start + length.min(SHOWN_AROUND) + SHOWN_AROUND);
    let from = text.floor_char_boundary(text[..start].rfind('\n').map_or(0, |end| end + 1).max(from));
    let to = text.ceil_char_boundary(text[start..].find('\n').map_or(text.len(), |end| start + end).min(to));
    let part = text[from..to.max(start)].to_owned();
    let length = length.min(part.len() - (start - from));
    (
        NamedSource::new(format!("{path}, a part of line {line}"), Arc::new(part)),
        (start - from, length).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_what_is_around_the_fault_is_shown() {
        let secret = HashSecret::new([0; 16]);
        for (word, count) in [("ä", 100_000), ("anything: x, ", 20_000)] {
            let text = format!("rules: [{{ {}, name: x }}]\n", word.repeat(count));
            let error = compile("long.yaml", text, &secret).unwrap_err();
            let report = format!("{:?}", miette::Report::new(error));
            assert!(report.len() < 200_000 && report.contains("a part of line 1"), "{}", report.len());
        }
        let many = format!("rules: [{}]", (0..300_000).map(|n| format!("&a{n} x,")).collect::<String>());
        let report = format!("{:?}", miette::Report::new(compile("a.yaml", many, &secret).unwrap_err()));
        assert!(report.len() < 4_000, "{}", report.len());
    }

    #[test]
    fn a_condition_or_a_key_has_no_more_attributes_than_a_request() {
        let secret = HashSecret::new([0; 16]);
        let of = |count: usize| (0..count).map(|n| format!("a{n}: x, ")).collect::<String>();
        let rule = |when: String, key: &str| {
            format!("rules: [{{ name: a, key: [{key}], limit: 1/1s, when: {{ {when} }} }}]")
        };
        assert!(compile("f", rule(of(64), ""), &secret).is_ok());
        for (text, says) in [
            (rule(of(150_000), ""), "`when` tests 150000 attributes, at most 64 can be"),
            (rule(of(1), &"k, ".repeat(100_000)), "`key` has 100000 attributes, at most 64 can be"),
        ] {
            let RulesFileError::Invalid { faults, .. } = compile("f", text, &secret).unwrap_err() else {
                panic!("another error");
            };
            assert!(faults[0].message == says, "{}", faults[0].message);
        }
    }

    #[test]
    fn each_document_of_a_file_is_found() {
        assert_eq!(documents("a: 1\n"), ["a: 1\n"]);
        assert_eq!(
            documents("---\na: 1\n---\nb: 2\n--- # c\nc: 3"),
            ["---\na: 1\n", "---\nb: 2\n", "--- # c\nc: 3"]
        );
        assert_eq!(documents("a: ---\nb: '----'\n----: x\n").len(), 1);
        assert_eq!(documents(""), [""]);
    }

    #[test]
    fn the_domains_of_a_file_are_read_one_by_one() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "# all\n---\nrules: []\n---\ndomain: api\nrules: [{name: a, key: [], limit: 5/1s}]\n";
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let domains = read(file.path()).unwrap();
        let names: Vec<_> = domains.iter().map(|domain| (&*domain.name, domain.rules.len())).collect();
        assert_eq!(names, [("default", 0), ("api", 1)]);
    }
}
