//! Files that hold a secret: what others can read is none.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tidegate_tls::private;

/// Bytes of such a file.
const MAX_BYTES: u64 = 64 << 10;

/// Why a file with a secret is not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// Others can read it.
    #[error(
        "{path} holds a secret, and others than its owner can use it (mode {mode:04o}): `chmod 600 {path}` {}",
        private::HOW_TO_MEND
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// What it allows.
        mode: u32,
    },
    /// It is too long to be one.
    #[error("{0} has more than {MAX_BYTES} bytes, which no secret has")]
    TooLong(PathBuf),
}

/// Whether only those can read the file that is open who may ([`private::is_private`]).
pub(crate) fn is_private(file: &File, path: &Path) -> Result<(), SecretFileError> {
    let unreadable = |reason| SecretFileError::Unreadable { path: path.to_owned(), reason };
    match private::fault(file).map_err(unreadable)? {
        Some(mode) => Err(SecretFileError::Open { path: path.to_owned(), mode }),
        None => Ok(()),
    }
}

/// The text of the file.
///
/// # Errors
/// When it cannot be read, or others can read it too.
pub(crate) fn read(path: &Path) -> Result<String, SecretFileError> {
    let unreadable = |reason| SecretFileError::Unreadable { path: path.to_owned(), reason };
    let file = File::open(path).map_err(unreadable)?;
    is_private(&file, path)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(SecretFileError::TooLong(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_others_can_read_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "open sesame").unwrap();
        for (mode, is_read) in [(0o600, true), (0o400, true), (0o644, false), (0o604, false), (0o620, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), is_read, "{mode:o}");
            if let Err(fault) = read {
                let said = fault.to_string();
                assert!(said.contains("chmod 600") && !said.contains("sesame"), "{said}");
            }
        }
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
