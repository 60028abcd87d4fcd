//! The file of a redb database in a data directory: made whole or not at all, and opened only as what it was.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use redb::{Builder, Database, DatabaseError};

use super::files::{DiskError, FLOORS_FILE, RESTORING, SAVED_FILE, SNAPSHOT_FILE, draft_of, sync};

pub(crate) const DATABASE_FILE: &str = "raft.redb";
pub(crate) const WITNESS_FILE: &str = "raft.witness";
/// Memory for pages of a database: the log is written, and hardly ever read.
pub(super) const CACHE_BYTES: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("the file is empty: it was cut off")]
    Empty,
    #[error(
        "the file is missing, but {0} beside it shows that there was one: its name was lost, or it was removed"
    )]
    Missing(&'static str),
    #[error(
        "a restore into this directory has not come to its end: run `tidegate restore` again, which begins anew"
    )]
    Restoring,
}

/// Makes an empty database where there is none. It is there whole or not at all: redb cannot open what a crash leaves of one that
/// it was making.
pub(super) fn make_if_missing(directory: &Path) -> Result<(), DiskError> {
    let fault = |reason: Box<dyn std::error::Error + Send + Sync>| DiskError {
        path: directory.join(DATABASE_FILE),
        reason,
    };
    // One that cannot be looked at is not missing: nothing ever replaces a database.
    match fs::symlink_metadata(directory.join(DATABASE_FILE)) {
        // Its name may not be on the disk yet, if the machine stopped as it was made.
        Ok(_) => return sync_names(directory).map_err(|error| fault(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error.into())),
    }
    if directory.join(RESTORING).exists() {
        return Err(fault(Damage::Restoring.into()));
    }
    // These come after it. Without it the node would begin anew, and alone with full buckets and no rules.
    let later = [SNAPSHOT_FILE, FLOORS_FILE, SAVED_FILE, WITNESS_FILE];
    if let Some(left) = later.into_iter().find(|name| directory.join(name).exists()) {
        return Err(fault(Damage::Missing(left).into()));
    }
    make(directory).map_err(|error| fault(error.into()))
}

fn make(directory: &Path) -> Result<(), redb::Error> {
    let draft = directory.join(draft_of(DATABASE_FILE));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    drop(create(&draft)?);
    sync(&File::open(&draft)?)?;
    fs::rename(&draft, directory.join(DATABASE_FILE))?;
    Ok(sync_names(directory)?)
}

/// Waits until the names in a directory are on the disk. Some network file systems cannot be asked that.
fn sync_names(directory: &Path) -> io::Result<()> {
    match sync(&File::open(directory)?) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Opens the database, which must be there: one that was cut off to nothing would be made anew, and with it another node.
pub(super) fn open(path: &Path) -> Result<Database, Box<dyn std::error::Error + Send + Sync>> {
    if fs::metadata(path)?.len() == 0 {
        return Err(Damage::Empty.into());
    }
    Ok(create(path)?)
}

/// As redb is used here. The checksum of each page is looked at whenever a file is opened, not only after a crash: redb reads pages
/// without looking, and what was changed while the node did not run would be believed.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Opens the database, and makes it if it is not there.
#[cfg(not(feature = "fault-injection"))]
pub(crate) fn create(path: &Path) -> Result<Database, DatabaseError> {
    builder().create(path)
}

/// The same on a disk that can fail.
#[cfg(feature = "fault-injection")]
pub(crate) fn create(path: &Path) -> Result<Database, DatabaseError> {
    let file = crate::injection::disk::open(path)?;
    builder().create_with_backend(file)
}
