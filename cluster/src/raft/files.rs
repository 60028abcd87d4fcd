//! Files of a data directory that are there whole or not at all: the last snapshot, and the saved buckets.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

pub(crate) const SNAPSHOT_FILE: &str = "raft.snapshot";
/// The saved buckets: what they know when the node ends.
pub(crate) const SAVED_FILE: &str = "saved.buckets";
/// The same, as format 5 had it: there buckets had other fingerprints, so nothing in it says anything.
const SAVED_FILE_BEFORE: &str = "debts";
/// The floors of this node's buckets, as `ownership::floor_file` keeps them.
pub(crate) const FLOORS_FILE: &str = "floors.redb";

/// Where the files of a restore are made before they count. It is in the directory until all of them do.
pub(crate) const RESTORING: &str = "restoring";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: {reason} (--data-dir). Put the file back as it was, or move the whole directory away: the node then comes back as a new \
     member, and one that is alone as a new cluster, to which `tidegate restore` gives the rules and counts of a backup"
)]
pub struct DiskError {
    pub(super) path: PathBuf,
    pub(super) reason: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, thiserror::Error)]
#[error("the file is cut short or was changed: its checksum does not fit")]
struct Damaged;

/// Waits until a file, or the names in a directory, are on the disk.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    #[cfg(feature = "fault-injection")]
    crate::injection::before_sync()?;
    file.sync_all()
}

/// Where the last snapshot is kept. It is there whole or not at all.
///
/// ```text
///   0      4            8                16
///   +------+------------+----------------+--------------------
///   | TGS1 | crc32c     | length (u64)   | snapshot: `length` bytes
///   +------+------------+----------------+--------------------
/// ```
///
/// Integers are little-endian; the checksum covers length and snapshot.
///
/// Raft may build one while it installs another one: they are written one after the other, and an older one never replaces a
/// newer one, whose log is gone. And it removes from the log what it is about to install: that waits here
/// ([`Snapshots::has`]), so that a crash in between leaves the one or the other.
#[derive(Debug, Clone)]
pub(crate) enum Snapshots {
    Directory(PathBuf, Arc<Written>),
    Memory(Arc<Mutex<(u64, Option<Vec<u8>>)>>),
}

/// Which snapshot is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// One is written at a time.
    writing: Mutex<()>,
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    /// The index of the last one that was written.
    last: u64,
    /// The index of a later one that could not be written.
    failed: Option<u64>,
}

/// How long the log waits for a snapshot before it removes what that has in it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

const SNAPSHOT_MAGIC: [u8; 4] = *b"TGS1";
const SNAPSHOT_HEADER: usize = 16;

impl Snapshots {
    pub(super) fn of(directory: &Path) -> Self {
        Self::Directory(directory.to_owned(), Arc::default())
    }

    /// Replaces the last snapshot, unless that is of a later index. On an error that one is still there.
    pub(crate) fn write(&self, index: u64, snapshot: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(kept) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if index >= kept.0 {
                    *kept = (index, Some(snapshot.to_vec()));
                }
            }
            Self::Directory(directory, written) => {
                let _alone = written.writing.lock().unwrap_or_else(PoisonError::into_inner);
                if index >= written.outcome.borrow().last {
                    write_whole(directory, SNAPSHOT_FILE, snapshot)
                        .inspect_err(|_| self.note_failed(index))?;
                    self.note(index);
                }
            }
        }
        Ok(())
    }

    /// That of this index is on the disk.
    pub(crate) fn note(&self, index: u64) {
        if let Self::Directory(_, written) = self {
            written.outcome.send_modify(|outcome| *outcome = Outcome { last: index, failed: None });
        }
    }

    /// That of this index will not be written.
    pub(crate) fn note_failed(&self, index: u64) {
        if let Self::Directory(_, written) = self {
            written.outcome.send_modify(|outcome| outcome.failed = Some(index));
        }
    }

    /// Waits until a snapshot has all up to this index.
    ///
    /// # Errors
    /// When there will be none.
    pub(crate) async fn has(&self, index: u64) -> io::Result<()> {
        let Self::Directory(_, written) = self else { return Ok(()) };
        let mut outcome = written.outcome.subscribe();
        let settled = outcome.wait_for(|outcome| {
            outcome.last >= index || outcome.failed.is_some_and(|failed| failed >= index)
        });
        match timeout(WRITTEN_WITHIN, settled).await {
            Ok(Ok(outcome)) if outcome.last >= index => Ok(()),
            Ok(_) => Err(io::Error::other("the snapshot that has these entries could not be written")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the snapshot that has these entries was not written within {WRITTEN_WITHIN:?}"),
            )),
        }
    }

    /// The last snapshot, if there is one.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, DiskError> {
        match self {
            Self::Memory(kept) => Ok(kept.lock().unwrap_or_else(PoisonError::into_inner).1.clone()),
            Self::Directory(directory, _) => read_whole(directory, SNAPSHOT_FILE),
        }
    }

    /// Its content is not what it should be.
    pub(crate) fn fault(&self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DiskError {
        let path = match self {
            Self::Memory(_) => PathBuf::from("memory"),
            Self::Directory(directory, _) => directory.join(SNAPSHOT_FILE),
        };
        DiskError { path, reason: reason.into() }
    }
}

/// What is written until a file can be replaced: a name for each, so that two files can be written at once.
pub(crate) fn draft_of(name: &str) -> String {
    format!("{name}.new")
}

/// Replaces a file of the form above. On an error the one before is still there.
fn write_whole(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return crate::simulation::disk::open(directory).write_file(name, content);
    }
    let draft = directory.join(draft_of(name));
    let mut file = File::create(&draft)?;
    let length = (content.len() as u64).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), content);
    file.write_all(&SNAPSHOT_MAGIC)?;
    file.write_all(&crc.to_le_bytes())?;
    file.write_all(&length)?;
    file.write_all(content)?;
    sync(&file)?;
    fs::rename(&draft, directory.join(name))?;
    // The new name must be on the disk before the log behind it is removed.
    sync(&File::open(directory)?)
}

fn read_whole(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Ok(crate::simulation::disk::open(directory).read_file(name));
    }
    let path = directory.join(name);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError { path, reason: error.into() }),
    }
    let whole = bytes.split_at_checked(SNAPSHOT_HEADER).is_some_and(|(header, content)| {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..]), content);
        header[..4] == SNAPSHOT_MAGIC
            && header[4..8] == crc.to_le_bytes()
            && header[8..] == (content.len() as u64).to_le_bytes()
    });
    if !whole {
        return Err(DiskError { path, reason: Damaged.into() });
    }
    bytes.drain(..SNAPSHOT_HEADER);
    Ok(Some(bytes))
}

/// Writes what a node's buckets know when it ends.
pub(crate) fn save_buckets(directory: &Path, debts: &[u8]) -> io::Result<()> {
    write_whole(directory, SAVED_FILE, debts)
}

/// Takes what [`save_buckets`] wrote, once: what is charged from now on is not in it. The inner error: it is damaged, and gone.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn load_buckets(directory: &Path) -> Result<Result<Option<Vec<u8>>, DiskError>, DiskError> {
    let debts = read_whole(directory, SAVED_FILE);
    drop_saved_buckets(directory)?;
    Ok(debts)
}

/// Removes what [`save_buckets`] wrote, if it did.
pub(crate) fn drop_saved_buckets(directory: &Path) -> Result<(), DiskError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        crate::simulation::disk::open(directory).remove_file(SAVED_FILE);
        return Ok(());
    }
    remove_all(directory, &[SAVED_FILE, SAVED_FILE_BEFORE])
}

/// Removes all that says what this node's buckets knew: what was saved, and their floors.
pub(super) fn drop_buckets(directory: &Path) -> Result<(), DiskError> {
    drop_saved_buckets(directory)?;
    remove_all(directory, &[FLOORS_FILE])
}

fn remove_all(directory: &Path, names: &[&str]) -> Result<(), DiskError> {
    for path in names.iter().map(|name| directory.join(name)) {
        match fs::remove_file(&path).and_then(|()| sync(&File::open(directory)?)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DiskError { path, reason: error.into() });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_cut_or_changed_is_refused_at_each_byte() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::of(directory.path());
        assert!(snapshots.read().unwrap().is_none());
        snapshots.write(1, b"all that there is").unwrap();
        assert_eq!(snapshots.read().unwrap().unwrap(), b"all that there is");
        let path = directory.path().join(SNAPSHOT_FILE);
        let good = fs::read(&path).unwrap();
        for end in 0..good.len() {
            fs::write(&path, &good[..end]).unwrap();
            assert!(snapshots.read().unwrap_err().to_string().contains("cut short"), "{end}");
        }
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x40;
            fs::write(&path, bad).unwrap();
            assert!(snapshots.read().is_err(), "{place}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_snapshot_will_have_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::of(directory.path());
        snapshots.note(5);
        snapshots.has(5).await.unwrap();
        let waiting = tokio::spawn({
            let snapshots = snapshots.clone();
            async move { snapshots.has(7).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        snapshots.write(8, b"eight").unwrap();
        waiting.await.unwrap().unwrap();
        snapshots.note_failed(9);
        assert!(snapshots.has(9).await.is_err());
        snapshots.has(8).await.unwrap();
        let late = snapshots.has(10).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        Snapshots::Memory(Arc::default()).has(1).await.unwrap();
    }

    #[test]
    fn an_older_snapshot_does_not_replace_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        for snapshots in [Snapshots::of(directory.path()), Snapshots::Memory(Arc::default())] {
            snapshots.write(7, b"seven").unwrap();
            snapshots.write(5, b"five").unwrap();
            assert_eq!(snapshots.read().unwrap().unwrap(), b"seven");
            snapshots.write(8, b"eight").unwrap();
            assert_eq!(snapshots.read().unwrap().unwrap(), b"eight");
        }
    }
}
