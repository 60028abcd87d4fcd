//! A disk for one node that is small enough to be filled. Needs root, of a user namespace at least.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Room for a log, a snapshot and some large rule files.
const SIZE: &str = "size=64m";
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
        fs::create_dir_all(place)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tidegate-jepsen"]).arg(place).output()?;
        if !mounted.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()));
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

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may have it open still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
