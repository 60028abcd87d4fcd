//! The file of a database on a disk that fails: a sync that reports an error, after which nobody knows what of the last
//! writes is there, and a machine that loses its power in the middle of them.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

use super::{HERE, Switches, Sync, broken, power_off};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// What is remembered of writes since the last sync; of more, the earliest count as having reached the disk.
const MAX_UNSYNCED_BYTES: usize = 64 << 20;

/// Opens the file, as redb itself does, and follows the orders of the process's environment.
pub(crate) fn open(path: &Path) -> Result<Backend, DatabaseError> {
    open_under(path, Arc::clone(&HERE))
}

/// The same with orders of somebody else.
pub(crate) fn open_under(path: &Path, switches: Arc<Switches>) -> Result<Backend, DatabaseError> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| DatabaseError::Storage(error.into()))?;
    Ok(Backend { file: FileBackend::new(file)?, unsynced: Mutex::default(), switches })
}

/// A file of which it is known what was written since the last sync.
#[derive(Debug)]
pub(crate) struct Backend {
    file: FileBackend,
    unsynced: Mutex<Unsynced>,
    switches: Arc<Switches>,
}

#[derive(Debug, Default)]
struct Unsynced {
    changes: VecDeque<Change>,
    bytes: usize,
}

/// A change of the file, with what is needed to take it back.
#[derive(Debug)]
struct Change {
    length_before: u64,
    /// Where it begins.
    at: u64,
    /// What was there, as far as the file went.
    old: Vec<u8>,
    new: New,
}

#[derive(Debug)]
enum New {
    Bytes(Vec<u8>),
    Length,
}

impl Change {
    fn bytes(&self) -> usize {
        self.old.len() + if let New::Bytes(new) = &self.new { new.len() } else { 0 }
    }
}

/// How much of a write got to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Lost,
    /// Its first sectors did.
    Torn(usize),
}

/// What became of the writes since the last sync.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) writes: usize,
    pub(crate) lost: usize,
    pub(crate) torn: usize,
}

impl Backend {
    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(unsynced: &mut Unsynced, change: Change) {
        unsynced.bytes += change.bytes();
        unsynced.changes.push_back(change);
        while unsynced.bytes > MAX_UNSYNCED_BYTES
            && let Some(first) = unsynced.changes.pop_front()
        {
            unsynced.bytes -= first.bytes();
        }
    }

    /// Takes back what was written since the last sync, and does again what the dice let survive, some of it in part: a disk
    /// that reports an error has written some sectors and others not, as one has that loses its power.
    pub(crate) fn lose(&self, mut dice: Dice) -> io::Result<Damage> {
        let mut unsynced = self.unsynced();
        unsynced.bytes = 0;
        let changes = std::mem::take(&mut unsynced.changes);
        for change in changes.iter().rev() {
            self.file.write(change.at, &change.old)?;
            self.file.set_len(change.length_before)?;
        }
        // It may all be there: an error says only that nobody knows.
        let all = dice.below(4) == 0;
        let mut damage = Damage { writes: changes.len(), ..Damage::default() };
        for Change { at, new, .. } in &changes {
            let sectors = if let New::Bytes(new) = new { new.len().div_ceil(SECTOR) } else { 0 };
            let fate = match dice.below(3) {
                _ if all => Fate::Whole,
                0 => Fate::Whole,
                1 if sectors > 1 => Fate::Torn(1 + dice.below(sectors as u64 - 1) as usize),
                _ => Fate::Lost,
            };
            match (new, fate) {
                (_, Fate::Lost) => damage.lost += 1,
                (New::Bytes(new), Fate::Whole) => self.file.write(*at, new)?,
                (New::Bytes(new), Fate::Torn(sectors)) => {
                    damage.torn += 1;
                    self.file.write(*at, &new[..sectors * SECTOR])?;
                }
                (New::Length, _) => self.file.set_len(*at)?,
            }
        }
        Ok(damage)
    }
}

/// Chance from a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut unsynced = self.unsynced();
        let length_before = self.file.len()?;
        let mut old = vec![0; length_before.saturating_sub(length) as usize];
        self.file.read(length, &mut old)?;
        self.file.set_len(length)?;
        Self::remember(&mut unsynced, Change { length_before, at: length, old, new: New::Length });
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        match self.switches.sync() {
            Sync::Works => {
                let mut unsynced = self.unsynced();
                self.file.sync_data()?;
                *unsynced = Unsynced::default();
                Ok(())
            }
            Sync::Fails(seed) => {
                self.lose(Dice(seed))?;
                Err(broken())
            }
            Sync::PowerCut(seed) => {
                let Damage { writes, lost, torn } = self.lose(Dice(seed))?;
                power_off(&format!("with {writes} writes on their way: {lost} are lost, {torn} torn"))
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut unsynced = self.unsynced();
        let length_before = self.file.len()?;
        let there = length_before.saturating_sub(offset).min(data.len() as u64);
        let mut old = vec![0; there as usize];
        self.file.read(offset, &mut old)?;
        self.file.write(offset, data)?;
        let new = New::Bytes(data.to_vec());
        Self::remember(&mut unsynced, Change { length_before, at: offset, old, new });
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    // redb takes no lock where a backend has none to give, and two databases that write one file destroy it.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, Arc<Switches>, Backend) {
        let directory = tempfile::tempdir().unwrap();
        let switches = Arc::new(Switches::default());
        let backend = open_under(&directory.path().join("file"), Arc::clone(&switches)).unwrap();
        (directory, switches, backend)
    }

    fn content(backend: &Backend) -> Vec<u8> {
        let mut bytes = vec![0; backend.len().unwrap() as usize];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    /// Found by half an hour of faults: Raft began again while the database before it was still open. That one then trimmed the
    /// file of the other, which could not be opened any more.
    #[test]
    fn a_file_has_one_database_at_a_time_as_without_this_backend() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let open = || redb::Database::builder().create_with_backend(super::open(&path).unwrap());
        let first = open().unwrap();
        assert!(matches!(open(), Err(DatabaseError::DatabaseAlreadyOpen)));
        assert!(matches!(redb::Database::create(&path), Err(DatabaseError::DatabaseAlreadyOpen)));
        drop(first);
        open().unwrap();
    }

    #[test]
    fn a_failed_sync_is_an_error_and_takes_only_what_was_not_synced() {
        let (_directory, switches, backend) = opened();
        backend.write(0, &[1; 2048]).unwrap();
        backend.sync_data().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..200 {
            switches.obey(format!("fail-syncs {number} 1").parse().unwrap());
            backend.write(512, &[2; 512]).unwrap();
            backend.set_len(4096).unwrap();
            backend.write(1024, &[3; 512]).unwrap();
            let error = backend.sync_data().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
            let left = content(&backend);
            assert_eq!((&left[..512], &left[1536..2048]), (&[1; 512][..], &[1; 512][..]));
            seen.insert((left.len(), left[512], left[1024]));
            // All is as it was for the next one.
            backend.set_len(2048).unwrap();
            backend.write(0, &[1; 2048]).unwrap();
            backend.sync_data().unwrap();
        }
        // Each of the three changes, with or without the others.
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn a_torn_write_is_there_up_to_a_sector() {
        let (_directory, _switches, backend) = opened();
        let mut torn = 0;
        for seed in 0..60 {
            backend.write(0, &[1; 4096]).unwrap();
            backend.sync_data().unwrap();
            backend.write(0, &[2; 4096]).unwrap();
            let damage = backend.lose(Dice(seed)).unwrap();
            let left = content(&backend);
            let new = left.iter().filter(|byte| **byte == 2).count();
            assert!(left[..new].iter().all(|byte| *byte == 2) && new % SECTOR == 0, "{new}");
            assert_eq!(damage.torn == 1, (1..4096).contains(&new));
            torn += damage.torn;
        }
        assert!(torn > 10, "{torn}");
    }

    #[test]
    fn a_file_that_was_made_shorter_can_be_as_long_as_before() {
        let (_directory, _switches, backend) = opened();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..20 {
            backend.set_len(0).unwrap();
            backend.write(0, &[1; 2048]).unwrap();
            backend.sync_data().unwrap();
            backend.set_len(512).unwrap();
            backend.lose(Dice(seed)).unwrap();
            lengths.insert(backend.len().unwrap());
            assert!(content(&backend).iter().all(|byte| *byte == 1));
        }
        assert_eq!(lengths, [512, 2048].into());
    }
}
