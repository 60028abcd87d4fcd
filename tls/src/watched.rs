//! Files that are read again when they change.
//!
//! Whether they have is seen by what the file system says of them: which file stands behind the path, its length, and when it
//! was changed. So it does not matter how they are replaced: written over, renamed, or by a link that leads elsewhere.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

type Load<T, E> = dyn Fn() -> Result<T, E> + Send + Sync;

/// What some files say, as they were when they were last good.
pub struct Watched<T, E> {
    files: Vec<PathBuf>,
    load: Box<Load<T, E>>,
    in_force: ArcSwap<T>,
    /// As the files were when they were last read, whether that was any use or not.
    seen: Mutex<Vec<Stamp>>,
}

/// What came of a look at the files.
#[derive(Debug)]
pub enum Polled<E> {
    /// They are as before.
    Unchanged,
    /// They were read again, and hold from now on.
    Renewed,
    /// They cannot be used: what held before goes on.
    Refused(E),
}

/// What the file system says of a file; `None`: it is not there, or not to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<[i64; 7]>);

impl Stamp {
    fn of(path: &PathBuf) -> Self {
        // Of the file that a link leads to: its own times change when it is put elsewhere, too.
        Self(std::fs::metadata(path).ok().map(|found| {
            [
                found.dev() as i64,
                found.ino() as i64,
                found.len() as i64,
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            ]
        }))
    }
}

impl<T, E> Watched<T, E> {
    /// Reads the files for the first time. `load` is to read these and no others.
    ///
    /// # Errors
    /// What `load` says.
    pub fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Before they are read: what changes meanwhile is read once more.
        let seen = files.iter().map(Stamp::of).collect();
        let in_force = ArcSwap::from_pointee(load()?);
        Ok(Self { files, load: Box::new(load), in_force, seen: Mutex::new(seen) })
    }

    /// What holds now.
    pub fn get(&self) -> Arc<T> {
        self.in_force.load_full()
    }

    /// Reads the files again if one has changed. It waits for the disk.
    pub fn poll(&self) -> Polled<E> {
        // Nothing in here is left half done by a panic.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<Stamp> = self.files.iter().map(Stamp::of).collect();
        if *seen == now {
            return Polled::Unchanged;
        }
        *seen = now;
        self.read()
    }

    /// Reads them again whether they have changed or not.
    pub fn renew(&self) -> Polled<E> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = self.files.iter().map(Stamp::of).collect();
        self.read()
    }

    fn read(&self) -> Polled<E> {
        match (self.load)() {
            Ok(read) => {
                self.in_force.store(Arc::new(read));
                Polled::Renewed
            }
            Err(error) => Polled::Refused(error),
        }
    }
}

impl<T: fmt::Debug, E> fmt::Debug for Watched<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_changed_file_is_read_once_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let read = path.clone();
        let load = move || fs::read_to_string(&read).unwrap_or_default().parse::<u32>();
        let watched = Watched::new(vec![path.clone()], load).unwrap();
        assert!(matches!(watched.poll(), Polled::Unchanged));
        fs::write(&path, "22").unwrap();
        assert!(matches!(watched.poll(), Polled::Renewed));
        assert!(matches!(watched.poll(), Polled::Unchanged));
        for bad in ["many", ""] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(watched.poll(), Polled::Refused(_)), "{bad}");
            assert!(matches!(watched.poll(), Polled::Unchanged), "it is said once");
            assert_eq!(*watched.get(), 22);
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(watched.poll(), Polled::Refused(_)));
        // As Kubernetes does it: a link that leads elsewhere.
        fs::write(dir.path().join("other"), "33").unwrap();
        symlink(dir.path().join("other"), &path).unwrap();
        assert!(matches!(watched.poll(), Polled::Renewed));
        assert_eq!(*watched.get(), 33);
        assert!(matches!(watched.renew(), Polled::Renewed), "who asks for it has it");
    }
}
