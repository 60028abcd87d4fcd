//! How often a database of the data directory was written, in a small file beside it.
//!
//! The checksums of a database say that it is whole, and not that it is the newest: an older copy of it passes all of them, and so
//! does what is left when redb, after a crash, goes back to the commit before one that a disk has lost. So each database counts its
//! commits, and its witness has the count too. It is written after the commit, so it is never ahead of a database that lost
//! nothing; a database that has a lower count than its witness is not the one that the node wrote last.
//!
//! ```text
//!   0      4        8              16             24
//!   +------+--------+--------------+--------------+
//!   | TGW1 | crc32c | database     | count        |     and the same at byte 512; they are written in turn
//!   +------+--------+--------------+--------------+
//! ```
//!
//! Integers are little-endian; the checksum covers what follows it. Of two records that fit, the larger count holds.
//!
//! **It is not synced with each commit.** It outlives the process; when the machine loses its power it may be some seconds old, and
//! then finds less. It only ever finds that something is missing: a witness that is lost, old or damaged accuses nobody.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use tracing::warn;

use super::files::{draft_of, sync};

const MAGIC: [u8; 4] = *b"TGW1";
const RECORD: usize = 24;
/// Where the second record begins: no sector holds both.
const SECOND: usize = 512;

/// What a witness says, and a database of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Which database: one that replaced another counts from the beginning.
    pub(crate) database: u64,
    /// How many commits it has had.
    pub(crate) count: u64,
}

/// A database lacks what its witness has seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lacking {
    #[error(
        "the last {0} writes of this node are not in it: it is an older copy of the file, or the disk has lost what it had \
         acknowledged"
    )]
    Writes(u64),
    #[error("it is not the file that this node wrote last")]
    Another,
}

impl Written {
    /// Whether a database, which says this of itself, has all that its witness has seen.
    pub(crate) fn compare(self, seen: Option<Self>) -> Result<(), Lacking> {
        match seen {
            Some(seen) if seen.database != self.database => Err(Lacking::Another),
            Some(seen) if seen.count > self.count => Err(Lacking::Writes(seen.count - self.count)),
            _ => Ok(()),
        }
    }

    fn record(self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(&MAGIC);
        record[8..16].copy_from_slice(&self.database.to_le_bytes());
        record[16..].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&record[8..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        record
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD] = bytes.first_chunk()?;
        let word = |at: usize| record[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let written = Self { database: word(8)?, count: word(16)? };
        (*record == written.record()).then_some(written)
    }
}

/// The open file. Without one, as in memory, nothing is noted.
#[derive(Debug, Default)]
pub(crate) struct Witness(Option<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    file: File,
    /// The record that is written next.
    is_second: bool,
}

impl Witness {
    /// Opens the file, which is made if there is none, and returns what it says. One that cannot be used is left out.
    pub(crate) fn open(path: &Path) -> (Self, Option<Written>) {
        match Self::try_open(path) {
            Ok((open, seen)) => (Self(Some(Mutex::new(open))), seen),
            Err(error) => {
                warn!(file = %path.display(), %error, "it cannot be noted how often a database was written: an older copy of it would not be noticed");
                (Self::default(), None)
            }
        }
    }

    fn try_open(path: &Path) -> io::Result<(Open, Option<Written>)> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        // Whatever somebody has put in its place, no more of it is read than this.
        (&mut file).take((SECOND + RECORD) as u64).read_to_end(&mut bytes)?;
        let [first, second] = [0, SECOND].map(|at| bytes.get(at..).and_then(Written::parse));
        let seen = match (first, second) {
            (Some(first), Some(second)) if first.count < second.count => Some(second),
            (first, second) => first.or(second),
        };
        if bytes.is_empty() {
            // It has its whole length at once: a disk that is full later takes it all the same.
            file.write_all(&[0; SECOND + RECORD])?;
            sync(&file)?;
            sync(&File::open(path.parent().unwrap_or(Path::new(".")))?)?;
        } else if seen.is_none() && bytes.iter().any(|byte| *byte != 0) {
            warn!(file = %path.display(), "the file is damaged, and counts as none: whether the database beside it is the newest cannot be told this time");
        }
        // The one that holds is written over last.
        Ok((Open { file, is_second: seen.is_some() && seen == first }, seen))
    }

    /// Puts a new file in the place of whatever is there, for a database that is new.
    pub(crate) fn make(path: &Path, written: Written) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let draft = path.with_file_name(draft_of(name));
        let mut bytes = [0; SECOND + RECORD];
        bytes[..RECORD].copy_from_slice(&written.record());
        fs::write(&draft, bytes)?;
        sync(&File::open(&draft)?)?;
        fs::rename(&draft, path)?;
        sync(&File::open(path.parent().unwrap_or(Path::new(".")))?)?;
        let file = File::options().write(true).open(path)?;
        Ok(Self(Some(Mutex::new(Open { file, is_second: true }))))
    }

    /// Notes what is on the disk. Where that fails, the file says less than it could.
    pub(crate) fn note(&self, written: Written) {
        let Some(open) = &self.0 else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = if open.is_second { SECOND } else { 0 };
        if open.file.write_all_at(&written.record(), at as u64).is_ok() {
            open.is_second = !open.is_second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(count: u64) -> Written {
        Written { database: 7, count }
    }

    #[test]
    fn it_says_what_was_noted_last_also_when_a_record_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        assert_eq!(Witness::open(&path).1, None);
        for count in 1..=9 {
            let (witness, seen) = Witness::open(&path);
            assert_eq!(seen, Some(written(10 * (count - 1) + 1)).filter(|_| count > 1));
            (10 * count..=10 * count + 1).for_each(|count| witness.note(written(count)));
        }
        let good = fs::read(&path).unwrap();
        for place in (0..RECORD).chain(SECOND..SECOND + RECORD) {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, bad).unwrap();
            let seen = Witness::open(&path).1;
            assert!([Some(written(90)), Some(written(91))].contains(&seen), "{place}: {seen:?}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            let (witness, seen) = Witness::open(&path);
            assert!(seen.is_none_or(|seen| seen == written(90) || seen == written(91)), "{length}: {seen:?}");
            witness.note(written(92));
            assert_eq!(Witness::open(&path).1, Some(written(92)), "{length}");
        }
    }

    #[test]
    fn a_database_that_has_less_or_is_another_lacks_something() {
        assert!(written(5).compare(None).is_ok());
        assert!(written(5).compare(Some(written(5))).is_ok());
        assert!(written(6).compare(Some(written(5))).is_ok(), "the witness may be late");
        assert!(matches!(written(5).compare(Some(written(8))), Err(Lacking::Writes(3))));
        let other = Written { database: 8, count: 1 };
        assert!(matches!(written(5).compare(Some(other)), Err(Lacking::Another)));
    }

    #[test]
    fn a_new_database_begins_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        Witness::open(&path).0.note(written(1_000));
        let new = Written { database: 8, count: 1 };
        let witness = Witness::make(&path, new).unwrap();
        assert_eq!(Witness::open(&path).1, Some(new));
        witness.note(Written { count: 2, ..new });
        assert_eq!(Witness::open(&path).1, Some(Written { count: 2, ..new }));
    }
}
