//! The texts that a configuration consists of. They follow each other, so a line has one number among the lines of all texts;
//! [`Sources::place`] says of which text it is, and which of its lines.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Bytes of all texts together, each time that one is read; more is no configuration.
const MAX_BYTES: usize = 32 << 20;
/// Texts of one configuration.
const MAX_SOURCES: usize = 10_000;

/// All texts, in their order.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    list: Vec<Source>,
    bytes: usize,
}

/// One text.
#[derive(Debug)]
pub(crate) struct Source {
    /// As remarks name it.
    pub(crate) name: String,
    /// Where it was read; `None`: it is no file of this machine.
    pub(crate) path: Option<PathBuf>,
    /// The number of the line before its first one.
    pub(crate) before: u64,
    bytes: Vec<u8>,
}

/// Why a text is no configuration of that kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRead {
    /// Among those of all [`Sources`].
    pub(crate) line: u64,
    pub(crate) message: String,
}

/// Why there is no text more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("all texts together have more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("there are more than {MAX_SOURCES} texts")]
    TooMany,
}

/// Of which text a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'s> {
    pub(crate) name: &'s str,
    /// From 1; 0: the whole text.
    pub(crate) line: u64,
}

impl Sources {
    /// Takes in a text that is no file.
    pub(crate) fn add(&mut self, name: impl Into<String>, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.push(name.into(), None, bytes)
    }

    /// Reads what a stream has, e.g. the standard input.
    pub(crate) fn read(&mut self, name: &str, from: impl Read) -> Result<(), SourceError> {
        let bytes = self.bounded(from)?;
        self.push(name.to_owned(), None, bytes)
    }

    /// Reads a file.
    pub(crate) fn read_file(&mut self, path: &Path) -> Result<(), SourceError> {
        let bytes = self.bounded(File::open(path)?)?;
        self.push(path.display().to_string(), Some(path.to_owned()), bytes)
    }

    fn bounded(&self, from: impl Read) -> Result<Vec<u8>, SourceError> {
        let room = MAX_BYTES.saturating_sub(self.bytes);
        let mut bytes = Vec::new();
        from.take(room as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn push(&mut self, name: String, path: Option<PathBuf>, mut bytes: Vec<u8>) -> Result<(), SourceError> {
        self.bytes += bytes.len();
        if self.bytes > MAX_BYTES {
            return Err(SourceError::TooLarge);
        }
        if self.list.len() == MAX_SOURCES {
            return Err(SourceError::TooMany);
        }
        // A byte order mark is no part of the text.
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        // One number more than it has lines: that of the text as a whole.
        let before = self.list.last().map_or(0, |last| last.before + last.lines() + 1);
        self.list.push(Source { name, path, before, bytes });
        Ok(())
    }

    /// The texts.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Source> {
        self.list.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Of which text a line is, by its number among all lines.
    pub(crate) fn place(&self, line: u64) -> Place<'_> {
        let after = self.list.partition_point(|source| source.before <= line);
        match after.checked_sub(1).map(|index| &self.list[index]) {
            Some(source) => Place { name: &source.name, line: line - source.before },
            None => Place { name: "", line },
        }
    }
}

impl Source {
    /// What must be UTF-8.
    pub(crate) fn text(&self) -> Result<&str, NotRead> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let line = self.before + newlines(&self.bytes[..error.valid_up_to()]) + 1;
            NotRead {
                line,
                message: "this is not UTF-8; convert the file (iconv -f latin1 -t utf8)".to_owned(),
            }
        })
    }

    /// What may be in any encoding: what is not UTF-8 becomes U+FFFD.
    pub(crate) fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    fn lines(&self) -> u64 {
        newlines(&self.bytes) + 1
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_number_and_is_found_again() {
        let mut sources = Sources::default();
        sources.add("a", b"1\n2\n3".to_vec()).unwrap();
        sources.add("b", Vec::new()).unwrap();
        sources.add("c", b"1\n".to_vec()).unwrap();
        for (index, source) in sources.iter().enumerate() {
            for line in 0..=source.lines() {
                let name = ["a", "b", "c"][index];
                assert_eq!(sources.place(source.before + line), Place { name, line });
            }
        }
    }

    #[test]
    fn what_is_no_utf8_is_told_with_its_line_or_read_over() {
        let mut sources = Sources::default();
        sources.add("a", b"\xef\xbb\xbfa\n# caf\xe9\n".to_vec()).unwrap();
        let source = sources.iter().next().unwrap();
        assert_eq!(source.text().unwrap_err().line, 2);
        assert_eq!(source.lossy(), "a\n# caf\u{fffd}\n");
    }

    #[test]
    fn texts_have_a_bound_together() {
        let mut sources = Sources::default();
        sources.read("half", io::repeat(b' ').take(MAX_BYTES as u64 / 2)).unwrap();
        assert!(matches!(sources.read("endless", io::repeat(b' ')), Err(SourceError::TooLarge)));
        let mut sources = Sources::default();
        (0..MAX_SOURCES).for_each(|_| sources.add("", Vec::new()).unwrap());
        assert!(matches!(sources.add("", Vec::new()), Err(SourceError::TooMany)));
    }
}
