//! The file of a backup.
//!
//! ```text
//!   0          8           12     16
//!   +----------+-----------+------+-----------------------------------------------
//!   | TGBACKUP | version   | 0    | sections, one after the other
//!   +----------+-----------+------+-----------------------------------------------
//!
//!   a section:   kind (u32) | length (u64) | content: `length` bytes
//!
//!   HEAD    where and when it was made
//!   STAT    what the log adds up to, as a snapshot has it
//!   BKTS    buckets of some slots, of one owner; any number of them
//!   DONE    BLAKE3 of all bytes before this content; the last one
//! ```
//!
//! Integers are little-endian. What does not end with a section `DONE` whose hash fits is no backup: it was cut short, or changed.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidegate_proto::{CodecError, codec};

use super::parts::BucketPart;
use crate::{
    ids::{ClusterId, Revision},
    raft::{DiskError, applied::read as read_state, disk::FORMAT},
    slots::SLOTS,
    state::{Applied, Replicated, types::MAX_SNAPSHOT_BYTES},
};

const MAGIC: [u8; 8] = *b"TGBACKUP";
/// Of the file.
const VERSION: u32 = 1;
const HEAD: u32 = u32::from_le_bytes(*b"HEAD");
const STATE: u32 = u32::from_le_bytes(*b"STAT");
const BUCKETS: u32 = u32::from_le_bytes(*b"BKTS");
const DONE: u32 = u32::from_le_bytes(*b"DONE");
/// Bytes of one section: the largest is the state.
const MAX_SECTION: u64 = MAX_SNAPSHOT_BYTES as u64;
const MAX_HEAD_BYTES: usize = 4096;
const HASH_BYTES: usize = 32;

/// Why a backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It is another file.
    #[error("{0} is no backup of Tidegate")]
    NoBackup(PathBuf),
    /// It was made by a later version.
    #[error(
        "{path} was made by a newer version of Tidegate (its format is {found}, this version reads {known}): use that version, or \
         a later one"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The one that is read.
        known: u64,
    },
    /// Its hash does not fit.
    #[error(
        "{path} is damaged: {what}. Nothing of it was used; take another copy of it, or an earlier backup"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// There is something in the data directory.
    #[error(
        "{directory} is not empty: it has {found}. A backup is restored into an empty directory only (--data-dir): it makes a new \
         cluster, whose first node this is"
    )]
    NotEmpty {
        /// Which directory.
        directory: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The buckets do not fit one node.
    #[error(
        "the backup has {0} buckets, more than one node can begin with; --without-counts restores the rest"
    )]
    TooManyBuckets(u64),
    /// The data directory cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Where and when a backup was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    /// As which the state is encoded.
    pub(super) format: u64,
    pub(super) tidegate: String,
    pub(super) cluster: Option<ClusterId>,
    pub(super) node: String,
    /// By the wall clock of that node.
    pub(super) taken_ms: u64,
    /// Up to which entry of the log.
    pub(super) applied: u64,
}

/// What is in a backup.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The version of Tidegate that made it.
    pub tidegate: String,
    /// The cluster that it is of.
    pub cluster: Option<ClusterId>,
    /// The node that was asked.
    pub node: String,
    /// When, in Unix milliseconds of that node.
    pub taken_ms: u64,
    /// Up to which entry of the log.
    pub applied: u64,
    /// The members, by name.
    pub members: Vec<String>,
    /// The domains, with their revisions and how many changes are remembered.
    pub domains: Vec<(String, Revision, usize)>,
    /// The tokens, by name.
    pub tokens: Vec<String>,
    /// Of how many slots the counts are in it.
    pub slots: usize,
    /// Buckets that are used.
    pub buckets: u64,
}

/// The beginning of a backup, as a node gives it: all but the buckets.
pub(crate) fn begin(applied: &Applied, node: &str, taken_ms: u64) -> Result<Vec<u8>, CodecError> {
    let head = Head {
        format: FORMAT,
        tidegate: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: applied.state.founding.as_ref().map(|founding| founding.cluster),
        node: node.to_owned(),
        taken_ms,
        applied: applied.index,
    };
    let mut out = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4]].concat();
    let mut section = |kind: u32, content: &[u8]| {
        out.extend_from_slice(&section_head(kind, content.len()));
        out.extend_from_slice(content);
    };
    let mut content = Vec::new();
    codec::encode(&head, &mut content, MAX_HEAD_BYTES)?;
    section(HEAD, &content);
    content.clear();
    codec::encode(&applied.state, &mut content, MAX_SNAPSHOT_BYTES)?;
    section(STATE, &content);
    Ok(out)
}

fn section_head(kind: u32, length: usize) -> [u8; 12] {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&kind.to_le_bytes());
    head[4..].copy_from_slice(&(length as u64).to_le_bytes());
    head
}

/// Writes a backup.
#[derive(Debug)]
pub struct BackupWriter<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> BackupWriter<W> {
    /// Begins with what a node has given as the beginning.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, beginning: &[u8]) -> io::Result<Self> {
        let mut writer = Self { out, hasher: blake3::Hasher::new() };
        writer.put(beginning)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    /// Adds buckets, as a node has given them.
    ///
    /// # Errors
    /// As above.
    pub fn buckets(&mut self, part: &[u8]) -> io::Result<()> {
        self.put(&section_head(BUCKETS, part.len()))?;
        self.put(part)
    }

    /// Ends it: only then it is one.
    ///
    /// # Errors
    /// As above.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&section_head(DONE, HASH_BYTES))?;
        let hash = self.hasher.finalize();
        self.out.write_all(hash.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a backup from its beginning to its end, and looks at all of it.
pub(super) struct Reader<'p> {
    path: &'p Path,
    file: BufReader<File>,
    hasher: blake3::Hasher,
    /// Bytes of the file that were not read.
    left: u64,
}

/// What a backup is made of.
pub(super) enum Section {
    Head(Head),
    State(Box<Replicated>),
    Buckets(BucketPart),
}

impl<'p> Reader<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self, BackupError> {
        let io = |reason| BackupError::Io { path: path.to_owned(), reason };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(BackupError::NoBackup(path.to_owned()));
        }
        let (file, hasher) = (BufReader::new(file), blake3::Hasher::new());
        let mut reader = Self { path, file, hasher, left: metadata.len() };
        let mut start = [0; 16];
        let whole = reader.left >= start.len() as u64;
        if !whole || reader.fill(&mut start).is_err() || start[..8] != MAGIC {
            return Err(BackupError::NoBackup(path.to_owned()));
        }
        let version = start[8..].first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        if version > VERSION {
            let (found, known) = (u64::from(version), u64::from(VERSION));
            return Err(BackupError::Newer { path: path.to_owned(), found, known });
        }
        if version < VERSION || start[12..] != [0; 4] {
            return Err(reader.damaged("its first bytes are none of a backup"));
        }
        Ok(reader)
    }

    fn damaged(&self, what: impl ToString) -> BackupError {
        BackupError::Damaged { path: self.path.to_owned(), what: what.to_string() }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        if (bytes.len() as u64) > self.left {
            return Err(self.damaged("it is cut short"));
        }
        let read = self.file.read_exact(bytes);
        read.map_err(|reason| BackupError::Io { path: self.path.to_owned(), reason })?;
        self.hasher.update(bytes);
        self.left -= bytes.len() as u64;
        Ok(())
    }

    /// The next section; `None`: that was all, and it is whole. What was read before that may be anything.
    pub(super) fn next_section(&mut self) -> Result<Option<Section>, BackupError> {
        let mut head = [0; 12];
        self.fill(&mut head)?;
        let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = head[4..].first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        if length > MAX_SECTION || length > self.left {
            return Err(self.damaged("it is cut short, or was changed"));
        }
        if kind == DONE {
            let hash = self.hasher.finalize();
            let mut kept = vec![0; length as usize];
            self.fill(&mut kept)?;
            if kept != hash.as_bytes() || self.left > 0 {
                return Err(self.damaged("its checksum does not fit"));
            }
            return Ok(None);
        }
        let mut content = vec![0; length as usize];
        self.fill(&mut content)?;
        match kind {
            HEAD => Ok(Some(Section::Head(self.decode(&content)?))),
            STATE => Ok(Some(Section::State(Box::new(self.read(read_state(&content))?)))),
            BUCKETS => Ok(Some(Section::Buckets(self.decode(&content)?))),
            _ => Err(self.damaged("it has a part that no backup has")),
        }
    }

    fn decode<T: DeserializeOwned>(&self, content: &[u8]) -> Result<T, BackupError> {
        self.read(codec::decode(content))
    }

    fn read<T>(&self, content: Result<T, CodecError>) -> Result<T, BackupError> {
        content.map_err(|error| self.damaged(format!("it was changed ({error})")))
    }
}

/// Reads all of a backup, and says what is in it.
///
/// # Errors
/// When it is none, or not whole.
pub fn verify(path: &Path) -> Result<Summary, BackupError> {
    let mut reader = Reader::open(path)?;
    let (mut head, mut state) = (None, None);
    let mut covered = vec![false; SLOTS];
    let mut buckets = 0;
    while let Some(section) = reader.next_section()? {
        match section {
            Section::Head(read) => {
                if read.format > FORMAT {
                    let (found, known) = (read.format, FORMAT);
                    return Err(BackupError::Newer { path: path.to_owned(), found, known });
                }
                head = Some(read);
            }
            Section::State(read) => state = Some(read),
            Section::Buckets(part) => {
                for slot in &part.slots {
                    if let Some(covered) = covered.get_mut(usize::from(slot.slot)) {
                        *covered = true;
                    }
                }
                buckets += part.buckets.len() as u64;
            }
        }
    }
    let (Some(head), Some(state)) = (head, state) else {
        return Err(reader.damaged("a part of it is missing"));
    };
    let domains = state.domains.iter();
    let domains = domains
        .map(|(name, history)| (name.to_string(), history.current().revision, history.changes().len()))
        .collect();
    let sorted = |names: &mut dyn Iterator<Item = &String>| {
        let mut names: Vec<String> = names.cloned().collect();
        names.sort();
        names
    };
    Ok(Summary {
        tidegate: head.tidegate,
        cluster: head.cluster,
        node: head.node,
        taken_ms: head.taken_ms,
        applied: head.applied,
        members: sorted(&mut state.members.values().map(|row| &row.name)),
        domains,
        tokens: sorted(&mut state.access.tokens.iter().map(|(_, token)| &token.name)),
        slots: covered.iter().filter(|covered| **covered).count(),
        buckets,
    })
}
