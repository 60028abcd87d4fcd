//! The file of cluster keys, and how one key follows another without a moment in which two nodes refuse each other.
//!
//! The first key of the file seals, each opens. So there are three steps, and between them all nodes get the file:
//!
//! | step | file | then |
//! | --- | --- | --- |
//! | 1 | old, new | all open both |
//! | 2 | new, old | all seal with the new one, and still open the old one |
//! | 3 | new | the old one is over |
//!
//! Which step was done last stands in a remark.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tidegate_cluster::{ClusterKey, KeyError, key::REMARK};
use tidegate_tls::private::is_private;

/// What a remark about the last step begins with.
const STEP: &str = "# tidegate key rotate: step ";
/// What nobody but the owner may do with a new file.
const SECRET: u32 = 0o600;

/// Why a key file was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("cannot read {}: {reason}; `openssl rand -hex 32` makes a first key", path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("{}: {fault}", path.display())]
    Keys { path: PathBuf, fault: KeyError },
    #[error("{} has two keys, and does not say which step of a rotation was the last: say which is next (--step 2 or --step 3)", .0.display())]
    UnknownStep(PathBuf),
    #[error("step {wanted} cannot follow: {} is after step {done} of 3 (0: no rotation has begun)", path.display())]
    OtherStep { path: PathBuf, wanted: u8, done: u8 },
    #[error("cannot write {}: {reason}", path.display())]
    Unwritable { path: PathBuf, reason: io::Error },
}

/// What a step of a rotation has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The new key is accepted.
    Accepted,
    /// The new key seals.
    Seals,
    /// The old key is gone.
    Done,
}

/// Does the next step, or this one if it is the next.
pub(crate) fn rotate(path: &Path, wanted: Option<u8>, new_key: &str) -> Result<Step, KeyFileError> {
    let unreadable = |reason| KeyFileError::Unreadable { path: path.to_owned(), reason };
    // The file behind a link, or the link would be gone.
    let target = fs::canonicalize(path).map_err(unreadable)?;
    let text = fs::read_to_string(&target).map_err(unreadable)?;
    let (step, text) = next(path, &text, wanted, new_key)?;
    replace(&target, &text).map_err(|reason| KeyFileError::Unwritable { path: path.to_owned(), reason })?;
    Ok(step)
}

fn next(path: &Path, text: &str, wanted: Option<u8>, new_key: &str) -> Result<(Step, String), KeyFileError> {
    ClusterKey::parse_all(text).map_err(|fault| KeyFileError::Keys { path: path.to_owned(), fault })?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let noted = lines.iter().find_map(|line| line.strip_prefix(STEP)?.chars().next()?.to_digit(10));
    let keys: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with(REMARK)).collect();
    let keys = if keys.is_empty() { lines } else { keys };
    let done = match (&keys[..], noted) {
        ([_], _) => 0,
        (_, Some(1)) => 1,
        (_, Some(2)) => 2,
        _ => match wanted {
            Some(step @ (2 | 3)) => step - 1,
            _ => return Err(KeyFileError::UnknownStep(path.to_owned())),
        },
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != done + 1) {
        return Err(KeyFileError::OtherStep { path: path.to_owned(), wanted, done });
    }
    Ok(match (done, &keys[..]) {
        (1, [old, new]) => {
            (Step::Seals, format!("{STEP}2 of 3, the new key seals, the old one is accepted\n{new}\n{old}\n"))
        }
        (2, [new, _]) => (Step::Done, format!("{new}\n")),
        (_, keys) => {
            let old = keys[0];
            (Step::Accepted, format!("{STEP}1 of 3, the new key is accepted\n{old}\n{new_key}\n"))
        }
    })
}

/// Puts a new file in the place of another one, with its owner and no more rights: a reader sees the one or the other.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".cluster-key").tempfile_in(directory)?;
    fs::write(file.path(), text)?;
    // As a node takes it, though the old one may have been open: a group reads it only where that is allowed.
    let with_group = before.permissions().mode() & 0o040 | SECRET;
    let mode = if is_private(before.uid(), with_group) { with_group } else { SECRET };
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    let now = file.as_file().metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        chown(file.path(), Some(before.uid()), Some(before.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const OLD: &str = "0123456789abcdef";
    const NEW: &str = "fedcba9876543210";

    fn keys(path: &Path) -> Vec<ClusterKey> {
        ClusterKey::parse_all(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn three_steps_lead_from_one_key_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("key.real"), directory.path().join("key"));
        fs::write(&file, format!("{OLD}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        symlink(&file, &link).unwrap();
        let key = |text| ClusterKey::parse(text).unwrap();
        assert_eq!(rotate(&link, None, NEW).unwrap(), Step::Accepted);
        assert_eq!(keys(&file), [key(OLD), key(NEW)]);
        assert_eq!(rotate(&link, Some(2), "not used, not used").unwrap(), Step::Seals);
        assert_eq!(keys(&file), [key(NEW), key(OLD)]);
        let again = rotate(&link, Some(2), NEW).unwrap_err().to_string();
        assert!(again.contains("is after step 2"), "{again}");
        assert_eq!(rotate(&link, None, "not used, not used").unwrap(), Step::Done);
        assert_eq!(keys(&file), [key(NEW)]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(crate::secret_file::read(&file).is_ok(), "the start takes it, though it was open before");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn two_keys_of_somebody_elses_doing_are_not_guessed_about() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        fs::write(&file, format!("{OLD}\n{NEW}\n")).unwrap();
        assert!(matches!(rotate(&file, None, NEW), Err(KeyFileError::UnknownStep(_))));
        assert!(matches!(rotate(&file, Some(1), NEW), Err(KeyFileError::UnknownStep(_))));
        assert_eq!(rotate(&file, Some(2), "not used, not used").unwrap(), Step::Seals);
        let missing = rotate(&directory.path().join("none"), None, NEW).unwrap_err().to_string();
        assert!(missing.contains("openssl rand -hex 32"), "{missing}");
        fs::write(&file, "short").unwrap();
        assert!(matches!(rotate(&file, None, NEW), Err(KeyFileError::Keys { .. })));
    }
}
