//! Documentation whose examples are used by tests, so that they stay true.

use std::{fs, path::Path};

/// The text of a code block: the one whose opening fence is "```" and `label`.
pub fn block(page: &str, label: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find(&format!("```{label}\n")).unwrap_or_else(|| panic!("{page} has a block {label}"));
    let block = text[begin..].split_once('\n').unwrap().1;
    block[..block.find("\n```").unwrap() + 1].to_owned()
}

/// With some words replaced, each of which must be there.
pub fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the example has {from:?}");
        text.replace(from, to)
    })
}
