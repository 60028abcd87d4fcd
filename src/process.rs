//! This process as the operating system sees it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process uses.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_files: usize,
    /// Since the Unix epoch.
    pub(crate) started: Duration,
}

impl Usage {
    /// Reads `/proc`; nothing where there is none.
    pub(crate) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let booted = fs::read_to_string("/proc/stat").ok()?;
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(&stat, rustix::param::clock_ticks_per_second(), Duration::from_secs(booted), open_files)
    }

    /// Takes the numbers out of `/proc/self/stat`; see proc_pid_stat(5), whose fields are numbered from 1.
    fn parse(stat: &str, ticks_per_second: u64, booted: Duration, open_files: usize) -> Option<Self> {
        // The second field is the command in parentheses and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = |count: u64| Duration::from_secs_f64(count as f64 / ticks_per_second as f64);
        Some(Self {
            cpu: ticks(field(14)? + field(15)?),
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
            threads: field(20)?,
            open_files,
            started: booted + ticks(field(22)?),
        })
    }
}

/// Bytes of memory that the process's control groups allow, as containers set it (version 1 or 2); nothing where there is no limit.
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least limit of the groups in that file (cgroups(7)), and of those above them.
fn memory_limit_of(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (place, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = PathBuf::from(group.trim_start_matches('/'));
        let within = group.ancestors().map(|above| place.join(above).join(file));
        // Without a limit it says `max`, or (version 1) a number that no machine has.
        within.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).min()
    });
    limits.min().filter(|bytes| *bytes < 1 << 60)
}

/// Raises this process's limit of open files as far as it may, and returns it.
pub(crate) fn raise_open_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_stat_are_found_after_any_command() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1000 123 2 18446744073709551615";
        let usage = Usage::parse(stat, 100, Duration::from_secs(1_000), 5).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!(usage.threads, 9);
        assert_eq!(usage.started, Duration::from_secs(1_010));
        assert_eq!(usage.resident_bytes, 2 * rustix::param::page_size() as u64);
    }

    #[test]
    fn the_least_memory_limit_of_all_groups_around_the_process_is_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let of = |groups: &str| memory_limit_of(groups, root.path());
        assert_eq!(of("0::/kube/pod/container\n"), None, "there are no files");
        write("kube/memory.max", "400000000\n");
        write("kube/pod/memory.max", "100663296\n");
        write("kube/pod/container/memory.max", "max\n");
        assert_eq!(of("0::/kube/pod/container\n"), Some(100_663_296));
        assert_eq!(of("0::/kube\n"), Some(400_000_000));
        assert_eq!(of("0::/\n"), None);
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/1/memory.limit_in_bytes", "268435456\n");
        assert_eq!(of("9:cpu:/\n4:memory:/docker/1\n0::/\n"), Some(268_435_456));
        assert_eq!(of("4:memory:/\nnonsense\n"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 0 && usage.threads > 0 && usage.open_files > 0);
    }
}
