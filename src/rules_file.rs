//! Reads the file with the rules, and tells all that is wrong with it at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::{Diagnostic, NamedSource, SourceSpan};
use tidegate_limiter::{HashSecret, RuleError, Rules};

/// Bytes of a file with rules.
const MAX_BYTES: u64 = 4 << 20;

/// Why a file with rules can not be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RulesFault {
    /// It can not be read.
    #[error("cannot read the rules {path} (--rules): {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It is too large to be meant.
    #[error("the rules {path} have more than {MAX_BYTES} bytes (--rules)")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// It says something that can not be.
    #[error("{path}: the rules can not be used, {count} {}", if *count == 1 { "fault" } else { "faults" })]
    Invalid {
        /// Which.
        path: String,
        /// How many faults.
        count: usize,
        /// The faults.
        #[related]
        faults: Vec<RuleFault>,
    },
}

/// One fault with its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{path}:{line}:{column}: {message}")]
pub struct RuleFault {
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

/// Reads the rules of each domain, by its name, and makes sure that they compile.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, String)>, RulesFault> {
    let unreadable = |reason| RulesFault::Unreadable { path: path.to_owned(), reason };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(RulesFault::TooLarge { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let secret = HashSecret::new([0; 16]);
    compile(&path.display().to_string(), text.clone(), &secret)?;
    let documents = text.split("\n---\n").map(str::to_owned);
    Ok(documents
        .filter_map(|text| {
            let rules = Rules::from_yaml(&text, &secret).ok()?;
            Some((rules.domains().first()?.to_string(), text))
        })
        .collect())
}

/// Compiles rules; `path` is what they are called in messages.
pub(crate) fn compile(path: &str, text: String, secret: &HashSecret) -> Result<Rules, RulesFault> {
    Rules::from_yaml(&text, secret).map_err(|errors| {
        let text = Arc::new(text);
        RulesFault::Invalid {
            path: path.to_owned(),
            count: errors.len(),
            faults: errors.into_iter().map(|error| fault(path, &text, error)).collect(),
        }
    })
}

fn fault(path: &str, text: &Arc<String>, error: RuleError) -> RuleFault {
    // A place beyond the text would make the picture of it fail.
    let start = error.offset.min(text.len());
    let length = error.length.min(text.len() - start);
    RuleFault {
        path: path.to_owned(),
        line: error.line,
        column: error.column,
        message: error.message,
        help: error.help,
        text: NamedSource::new(path, Arc::clone(text)),
        place: (start, length).into(),
    }
}
