//! The text of a faulty configuration file as it may be shown: reports end up in logs and tickets, and their lines around the fault
//! may hold a secret.
//!
//! The file cannot be parsed, so nothing relies on what it means: a value is shown only where the fault itself is, and not even there
//! if its line looks like that of a secret. The length stays, so that places in the text do.

use std::ops::Range;

/// Words in the names of secrets, misspelt ones included.
const OF_SECRETS: [&str; 4] = ["key", "token", "secret", "pass"];
/// Keys that have such a word and hold none.
const NO_SECRETS: [&str; 4] = ["tls-key", "peer-tls-key", "require-token", "insecure-no-cluster-key"];
/// Keys that end so name a file.
const FILE: &str = "-file";
/// What begins and ends a text of several lines.
const QUOTES: [&str; 2] = ["\"\"\"", "'''"];

/// A text with asterisks in the place of its values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blanked {
    pub(super) text: String,
    /// The fault is in the value of what looks like a secret.
    pub(super) is_secret_faulty: bool,
}

impl Blanked {
    /// Of a text with a fault in this place.
    pub(super) fn of(text: &str, fault: &Range<usize>) -> Self {
        let mut blanked = Self { text: String::with_capacity(text.len()), is_secret_faulty: false };
        // The quotes of a text of several lines that has begun, and whether it is a secret.
        let mut open: Option<(&str, bool)> = None;
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let (key, is_secret) = match open {
                Some((_, is_secret)) => (0, is_secret),
                None => (key_of(line), is_secret(line)),
            };
            if is_secret && (start + key..start + line.len()).contains(&fault.start) && key > 0 {
                blanked.is_secret_faulty = true;
            }
            for (at, letter) in line.char_indices() {
                let is_shown = at < key || !is_secret && fault.contains(&(start + at));
                if is_shown || letter == '\n' || letter == '\r' {
                    blanked.text.push(letter);
                } else {
                    (0..letter.len_utf8()).for_each(|_| blanked.text.push('*'));
                }
            }
            open = after(line, open.map(|(quotes, _)| quotes)).map(|quotes| (quotes, is_secret));
            start += line.len();
        }
        blanked
    }
}

/// The bytes of a line up to its value: `key = `; 0: it does not begin so. A key has small letters and hyphens, so that a line of a
/// secret is hardly ever taken for one.
fn key_of(line: &str) -> usize {
    let word = line.trim_start_matches([' ', '\t', '#', '"', '\'']);
    let rest = word.trim_start_matches(|letter: char| letter.is_ascii_lowercase() || "-_".contains(letter));
    if rest.len() == word.len() {
        return 0;
    }
    match rest.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=') {
        Some(value) => line.len() - value.trim_start_matches([' ', '\t']).len(),
        None => 0,
    }
}

/// Whether a line looks like that of a secret.
fn is_secret(line: &str) -> bool {
    let key = line.split(['=', ':']).next().unwrap_or_default().trim();
    let key = key.trim_matches(['"', '\'']).trim().to_ascii_lowercase();
    let names_a_file = key.ends_with(FILE) && !key.contains(char::is_whitespace);
    let is_inline = line.contains('{');
    let place = if is_inline { line.to_ascii_lowercase() } else { key.clone() };
    OF_SECRETS.iter().any(|word| place.contains(word)) && !names_a_file && !NO_SECRETS.contains(&&*key)
}

/// The quotes of the text of several lines that is open after a line, if one is.
fn after<'q>(line: &str, open: Option<&'q str>) -> Option<&'q str> {
    let (mut rest, mut open) = (line, open);
    loop {
        let (quotes, at) = match open {
            Some(quotes) => match rest.find(quotes) {
                Some(at) => (quotes, at),
                None => return open,
            },
            None => {
                let begin = |quotes: &'static str| rest.find(quotes).map(|at| (quotes, at));
                QUOTES.into_iter().filter_map(begin).min_by_key(|(_, at)| *at)?
            }
        };
        rest = &rest[at + quotes.len()..];
        open = if open.is_some() { None } else { Some(quotes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_stays_and_values_do_not() {
        let text = "name = \"\u{e4}\"\r\n# base-port = 1\nlisten = [\n  \"a\",\n]\n";
        let blanked = Blanked::of(text, &(0..0));
        assert_eq!(blanked.text, "name = ****\r\n# base-port = *\nlisten = *\n******\n*\n");
        assert_eq!(blanked.text.len(), text.len());
        let fault = Blanked::of("base-port = 70000\nname = 1", &(12..17));
        assert_eq!(fault.text, "base-port = 70000\nname = *");
        let secret = Blanked::of("cluster-key = 70000", &(14..19));
        assert_eq!((&*secret.text, secret.is_secret_faulty), ("cluster-key = *****", true));
        let file = Blanked::of("cluster-key-file = 70000", &(19..24));
        assert_eq!((&*file.text, file.is_secret_faulty), ("cluster-key-file = 70000", false));
        let key = Blanked::of("cluster-keys = 7", &(0..12));
        assert_eq!((&*key.text, key.is_secret_faulty), ("cluster-keys = *", false));
    }
}
