//! Data directories in memory. What was synced survives [`power_off`]; of what was only written, each piece survives or
//! not, as the caller's dice say, which is what a disk does.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

thread_local! {
    static DISKS: RefCell<BTreeMap<PathBuf, Directory>> = RefCell::default();
}

pub(super) fn forget() {
    DISKS.take();
}

/// The directory of that path; an empty one if nobody has asked before.
pub(crate) fn open(path: &Path) -> Directory {
    DISKS.with_borrow_mut(|disks| disks.entry(path.to_owned()).or_default().clone())
}

/// Takes the power from whoever uses the directory: nothing that it still does gets there. `survives` is asked for each
/// write that was not synced, in their order.
pub fn power_off(path: &Path, mut survives: impl FnMut() -> bool) {
    let directory = open(path);
    let mut state = directory.state();
    state.power += 1;
    state.in_use = false;
    state.failing = false;
    let mut bytes = std::mem::take(&mut state.synced);
    for change in std::mem::take(&mut state.unsynced) {
        if survives() {
            change.make(&mut bytes);
        }
    }
    state.written = bytes.clone();
    state.synced = bytes;
}

/// From now on, or no longer, each write and sync fails, as on a disk that is full or broken.
pub fn fail(path: &Path, failing: bool) {
    open(path).state().failing = failing;
}

/// From now on, or no longer, what the log writes is not on the disk and does not fail either: a sync that hangs.
pub fn hang(path: &Path, hanging: bool) {
    open(path).state().hanging = hanging;
}

/// Whether syncs hang there.
pub(crate) fn is_hanging(path: &Path) -> bool {
    DISKS.with_borrow(|disks| disks.get(path).is_some_and(|directory| directory.state().hanging))
}

/// A data directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How often the power went.
    power: u64,
    in_use: bool,
    failing: bool,
    hanging: bool,
    /// The database: as it is read, and what of it is synced to the disk.
    written: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Files that are there whole or not at all.
    files: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(at, piece) => {
                let end = *at as usize + piece.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(piece);
            }
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        change.make(&mut self.written);
        self.unsynced.push(change);
    }
}

impl Directory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file for a database, which one process has at a time.
    pub(crate) fn database(&self) -> io::Result<Backend> {
        let mut state = self.state();
        if state.in_use {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the database is in use"));
        }
        state.in_use = true;
        Ok(Backend { directory: self.clone(), power: state.power })
    }

    pub(crate) fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.failing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files.insert(name.to_owned(), content.to_vec());
        Ok(())
    }

    pub(crate) fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        self.state().files.get(name).cloned()
    }

    pub(crate) fn remove_file(&self, name: &str) {
        self.state().files.remove(name);
    }
}

/// The file of a database, until the power goes.
#[derive(Debug)]
pub(crate) struct Backend {
    directory: Directory,
    power: u64,
}

impl Backend {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.directory.state();
        if state.power != self.power {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the power is off"));
        }
        Ok(state)
    }

    fn state_to_write(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        if state.failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(state) }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state()?.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state()?;
        let bytes = state.written.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.state_to_write()?.change(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.state_to_write()?;
        let State { synced, unsynced, .. } = &mut *state;
        unsynced.drain(..).for_each(|change| change.make(synced));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.state_to_write()?.change(Change::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        if let Ok(mut state) = self.state() {
            state.in_use = false;
        }
        Ok(())
    }
}
