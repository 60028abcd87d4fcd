//! A disk for one node that is small enough to be filled. Needs root, of a user namespace at least.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Room for a log, a snapshot and the large rule files of many faults.
const SIZE: &str = "size=256m";
/// What the list of mounts calls it, before the process that made it.
const SOURCE: &str = "tidegate-jepsen-";
const FILLER: &str = "filler";

/// A file system in memory; gone when this value is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `place`, and leads `data` there.
    ///
    /// # Errors
    /// When this process may not mount.
    pub fn mount(place: &Path, data: &Path) -> io::Result<Self> {
        unmount_stale();
        fs::create_dir_all(place)?;
        let name = format!("{SOURCE}{}", std::process::id());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, &name]).arg(place).output()?;
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr);
            return Err(io::Error::other(said.lines().next().unwrap_or_default().to_owned()));
        }
        let disk = Self(place.to_owned());
        // The mount itself stays when the node's directory is emptied.
        let inside = place.join("data");
        fs::create_dir_all(&inside)?;
        std::os::unix::fs::symlink(&inside, data)?;
        Ok(disk)
    }

    /// Takes all the room that there is. Returns how many bytes that was.
    pub fn fill(&self) -> u64 {
        let filler = self.0.join(FILLER);
        let (mut part, mut written) = (1 << 20, 0);
        let Ok(mut file) = fs::File::create(&filler) else { return 0 };
        while part >= 4096 {
            match io::Write::write_all(&mut file, &vec![0x5a; part]) {
                Ok(()) => written += part as u64,
                Err(_) => part /= 2,
            }
        }
        written
    }

    /// Gives it back.
    pub fn free(&self) {
        // It was never filled, or the directory was emptied: both fine.
        let _ = fs::remove_file(self.0.join(FILLER));
    }
}

/// Why there can be no such disk here, if so.
pub(crate) fn hindrance() -> Option<String> {
    let tried = tempfile::tempdir()
        .and_then(|place| SmallDisk::mount(&place.path().join("disk"), &place.path().join("data")).map(drop));
    tried.err().map(|error| error.to_string())
}

/// Removes the disks of programs that were killed before they could, and the directories that they were in.
fn unmount_stale() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(place)) = (fields.next(), fields.next()) else { continue };
        let Some(pid) = source.strip_prefix(SOURCE) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = Command::new("umount").arg("-l").arg(place).status();
            let directory = Path::new(place).parent();
            let is_ours = |directory: &&Path| directory.to_string_lossy().contains("/tidegate-test-");
            if let Some(directory) = directory.filter(is_ours) {
                let _ = fs::remove_dir_all(directory);
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may have it open still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
