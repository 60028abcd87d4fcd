//! The directory in which a node keeps what must outlive it: its name.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tidegate_cluster::is_valid_name;

/// What only the owner may do with it: all.
const PRIVATE: u32 = 0o700;
/// What others may do.
const OTHERS: u32 = 0o077;
const LOCK_FILE: &str = "lock";
const NAME_FILE: &str = "node-name";
/// The same once more: a name in which a bit is another is a name, too. One that an earlier version has made lacks it.
const CHECK_FILE: &str = "node-name.check";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be read or written.
    #[error("cannot use {path} (--data-dir): {reason}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// Others can read it.
    #[error(
        "{path} (--data-dir) is open to others (mode {mode:03o}), and cannot be closed: {reason}; \
         `chmod 700 {path}` as its owner, or name a directory inside it, which the node makes"
    )]
    Open {
        /// Which directory.
        path: PathBuf,
        /// What it allows.
        mode: u32,
        /// Why it stays so.
        reason: io::Error,
    },
    /// Another process uses it.
    #[error("{0} is in use by another node (--data-dir)")]
    InUse(PathBuf),
    /// The name in it was not written by a node.
    #[error("{path} holds {name:?}, which cannot name a node; remove it or give --name")]
    BadName {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        name: String,
    },
    /// The name in it was changed.
    #[error(
        "{path} holds {name:?}, and {CHECK_FILE} beside it {check:?}: one of them is damaged. Write the right name into {NAME_FILE}, and \
         remove {CHECK_FILE}"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        name: String,
        /// What the other one holds.
        check: String,
    },
    /// The directory belongs to a node of another name.
    #[error(
        "{path} belongs to the node {kept:?}, not {given:?}; give another --data-dir, or remove {path}/node-name"
    )]
    OtherNode {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        kept: String,
        /// What was asked for.
        given: String,
    },
}

/// A data directory that is this process's for as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory, which is made if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let own = |reason| DataDirError::Io { path: path.to_owned(), reason };
        // It holds the hash secret, the rules and the hashes of tokens.
        DirBuilder::new().recursive(true).mode(PRIVATE).create(path).map_err(own)?;
        close(path)?;
        let lock_path = path.join(LOCK_FILE);
        let io = |reason| DataDirError::Io { path: lock_path.clone(), reason };
        let lock = File::create(&lock_path).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(reason)) => Err(io(reason)),
        }
    }

    /// The name that the node has in this directory: the kept one, else the given one, else the one from `default`, which
    /// is kept from now on.
    pub(crate) fn name(
        &self,
        given: Option<String>,
        default: impl FnOnce() -> String,
    ) -> Result<String, DataDirError> {
        let path = self.path.join(NAME_FILE);
        let io = |reason| DataDirError::Io { path: path.clone(), reason };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let kept = text.trim().to_owned();
                if !is_valid_name(&kept) {
                    return Err(DataDirError::BadName { path, name: kept });
                }
                match fs::read(self.path.join(CHECK_FILE)) {
                    Ok(check) if check.trim_ascii() == kept.as_bytes() => {}
                    Ok(check) => {
                        let check = String::from_utf8_lossy(check.trim_ascii()).into_owned();
                        return Err(DataDirError::Damaged { path, name: kept, check });
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.write(CHECK_FILE, &kept)?,
                    Err(reason) => return Err(DataDirError::Io { path: self.path.join(CHECK_FILE), reason }),
                }
                match given {
                    Some(given) if given != kept => {
                        Err(DataDirError::OtherNode { path: self.path.clone(), kept, given })
                    }
                    _ => Ok(kept),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = given.unwrap_or_else(default);
                // It is of an earlier name, if it is there.
                match fs::remove_file(self.path.join(CHECK_FILE)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                    _ => {}
                }
                self.write(NAME_FILE, &name)?;
                self.write(CHECK_FILE, &name)?;
                Ok(name)
            }
            // The name in it was not UTF-8.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let bytes = fs::read(&path).map_err(io)?;
                let name = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
                Err(DataDirError::BadName { path, name })
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Whole or not at all, also when the machine stops in between.
    fn write(&self, file: &str, name: &str) -> Result<(), DataDirError> {
        let path = self.path.join(file);
        let draft = self.path.join(format!("{file}.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(format!("{name}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|reason| DataDirError::Io { path: path.clone(), reason })
    }
}

/// Takes what others than the owner may do with the directory away.
fn close(path: &Path) -> Result<(), DataDirError> {
    let mode = |path: &Path| Ok::<u32, io::Error>(fs::metadata(path)?.mode() & 0o777);
    let found = mode(path).map_err(|reason| DataDirError::Io { path: path.to_owned(), reason })?;
    if found & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(|reason| DataDirError::Open {
        path: path.to_owned(),
        mode: found,
        reason,
    })?;
    tracing::info!(path = %path.display(), mode = format!("{found:03o}"), "the data directory was open to others: it is its owner's alone now");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_from_one_start_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/when/needed");
        let first = DataDir::open(&path).unwrap().name(None, || "host-1".to_owned()).unwrap();
        let again = DataDir::open(&path).unwrap().name(None, || "host-2".to_owned()).unwrap();
        assert_eq!((&*first, &*again), ("host-1", "host-1"));
        let other = DataDir::open(&path).unwrap().name(Some("n7".to_owned()), String::new).unwrap_err();
        assert!(other.to_string().contains("host-1"), "{other}");
    }

    #[test]
    fn a_name_that_was_changed_is_no_other_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let name = || DataDir::open(dir.path()).unwrap().name(None, || "host-1".to_owned());
        assert_eq!(name().unwrap(), "host-1");
        for file in [NAME_FILE, CHECK_FILE] {
            let good = fs::read(dir.path().join(file)).unwrap();
            for place in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[place] ^= 1 << bit;
                    fs::write(dir.path().join(file), &bad).unwrap();
                    // What stands behind the name does not count.
                    let is_same = String::from_utf8_lossy(&bad).trim() == "host-1";
                    assert!(name().is_err() || is_same, "{file} {place} {bit}");
                }
                fs::write(dir.path().join(file), &good[..place]).unwrap();
                assert!(name().is_err() || place == good.len() - 1, "{file} {place}");
            }
            fs::write(dir.path().join(file), &good).unwrap();
        }
        // As an earlier version has made it.
        fs::remove_file(dir.path().join(CHECK_FILE)).unwrap();
        assert_eq!(name().unwrap(), "host-1");
        fs::remove_file(dir.path().join(NAME_FILE)).unwrap();
        let renamed = DataDir::open(dir.path()).unwrap().name(Some("n7".to_owned()), String::new);
        assert_eq!((renamed.unwrap(), name().unwrap()), ("n7".to_owned(), "n7".to_owned()));
    }

    #[test]
    fn a_data_directory_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let made = dir.path().join("made");
        drop(DataDir::open(&made).unwrap());
        assert_eq!(mode(&made), 0o700);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        drop(DataDir::open(&made).unwrap());
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn two_nodes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse(_))));
    }

    #[test]
    fn a_file_that_holds_no_name_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME_FILE), "a b\n").unwrap();
        let fault = DataDir::open(dir.path()).unwrap().name(None, String::new).unwrap_err();
        assert!(matches!(fault, DataDirError::BadName { .. }));
    }
}
