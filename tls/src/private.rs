//! Who may read a file with a secret: one rule for private keys, cluster keys and tokens.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

/// What anybody but the owner may do with a file.
const OTHERS: u32 = 0o077;
/// The same, without that the owner's group may read it.
const OTHERS_BUT_READING_GROUP: u32 = 0o037;
const ROOT: u32 = 0;

/// What mends a file that others can read.
pub const HOW_TO_MEND: &str = "mends it; only a file of root's may be readable by a group (mode 0640 or 0440, as in a volume of \
                               Kubernetes with fsGroup and defaultMode: 0400)";

/// Whether only those can read a file of this owner and mode who should: the owner alone, or a group that root has given it to.
///
/// A file of the own user has no reason to be a group's. One of root's has: a service that is not root can be given it in no other
/// way, as `fsGroup` of Kubernetes and the group `ssl-cert` of Debian do.
pub fn is_private(owner: u32, mode: u32) -> bool {
    mode & if owner == ROOT { OTHERS_BUT_READING_GROUP } else { OTHERS } == 0
}

/// The mode of an open file, if it is not private. Of what is open: what stands at its path may be another file by now.
///
/// # Errors
/// When the system does not say.
pub fn fault(file: &File) -> io::Result<Option<u32>> {
    let found = file.metadata()?;
    Ok((!is_private(found.uid(), found.mode())).then_some(found.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_and_one_of_roots_may_be_read_by_a_group() {
        for (mode, of_root, of_others) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o700, true, true),
            (0o640, true, false),
            (0o440, true, false),
            (0o660, false, false),
            (0o650, false, false),
            (0o604, false, false),
            (0o644, false, false),
            (0o601, false, false),
        ] {
            assert_eq!(is_private(ROOT, 0o100_000 | mode), of_root, "{mode:o}");
            assert_eq!(is_private(1000, 0o100_000 | mode), of_others, "{mode:o}");
        }
    }
}
