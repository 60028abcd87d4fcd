//! The machine under a node, as a build for tests has it: its clock and its disk do what a file says, and the node tells in
//! another file what became of it (`cluster/src/injection` reads the one and writes the other).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::time::{ClockId, clock_gettime};

/// The environment variable that names the file.
pub(crate) const VARIABLE: &str = "TIDEGATE_FAULTS";
/// What the version of such a build says.
const SAYS: &str = "fault injection";

/// What a machine is to do; what is not said is as it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// How far the wall clock is ahead, in milliseconds.
    pub wall_ahead_ms: i64,
    /// How many millionths the boot clock runs too fast.
    pub rate_ppm: i64,
    /// A number that no order had before, and how many syncs of the disk fail.
    pub fail_syncs: Option<(u64, u32)>,
    /// A number that no order had before, and what the dice begin with that say what the disk loses.
    pub power_cut: Option<(u64, u64)>,
    /// Syncs of the disk do not come back for as long as this is said.
    pub hang_syncs: bool,
    /// The boot clock stands still while the process is stopped.
    pub hold_clock: bool,
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "wall-ahead-ms {}\nrate-ppm {}", self.wall_ahead_ms, self.rate_ppm)?;
        if let Some((number, count)) = self.fail_syncs {
            writeln!(f, "fail-syncs {number} {count}")?;
        }
        if let Some((number, seed)) = self.power_cut {
            writeln!(f, "power-cut {number} {seed}")?;
        }
        if self.hang_syncs {
            writeln!(f, "hang-syncs")?;
        }
        if self.hold_clock {
            writeln!(f, "hold-clock")?;
        }
        Ok(())
    }
}

impl Orders {
    /// Writes them where a node looks for them, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("new");
        fs::write(&draft, self.to_string())?;
        fs::rename(draft, path)
    }
}

/// What a node tells of its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineReport {
    /// The process that tells it.
    pub pid: u32,
    /// What its clock says, in Unix milliseconds.
    pub clock_ms: i64,
    /// What that has gained since the process began, in nanoseconds.
    pub gained_ns: i64,
    /// Syncs that failed.
    pub syncs_failed: u64,
    /// Syncs that did not come back for a while, or have not yet.
    pub syncs_hung: u64,
    /// For how long its clock has stood still while the process was stopped, in nanoseconds.
    pub held_ns: u64,
    /// What happened when the power went; nothing else is told then.
    pub power_cut: Option<String>,
}

impl MachineReport {
    /// What was told last, beside the file with the orders.
    pub(crate) fn beside(orders: &Path) -> Option<Self> {
        Some(Self::of(&fs::read_to_string(orders.with_extension("told")).ok()?))
    }

    fn of(text: &str) -> Self {
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = |name: &str| of(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Self {
            pid: number("pid") as u32,
            clock_ms: number("clock-ms"),
            gained_ns: number("gained-ns"),
            syncs_failed: number("syncs-failed") as u64,
            syncs_hung: number("syncs-hung") as u64,
            held_ns: number("held-ns") as u64,
            power_cut: of("power-cut").map(str::to_owned),
        }
    }
}

/// Whether a node's program follows orders.
pub fn follows_orders(binary: &Path) -> bool {
    let output = Command::new(binary).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(SAYS))
}

/// The file of a process's program, as the system knows it.
pub(crate) fn program_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The machine's own wall clock, in Unix milliseconds.
pub(crate) fn wall_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_as_a_node_reads_them_and_what_it_tells_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n1.orders");
        let orders = Orders {
            wall_ahead_ms: -5,
            rate_ppm: 500,
            fail_syncs: Some((7, 3)),
            power_cut: Some((8, 4711)),
            hang_syncs: true,
            hold_clock: true,
        };
        orders.give(&path).unwrap();
        let written =
            "wall-ahead-ms -5\nrate-ppm 500\nfail-syncs 7 3\npower-cut 8 4711\nhang-syncs\nhold-clock\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        assert_eq!(MachineReport::beside(&path), None);
        let text = "pid 12\nclock-ms 1800\nwall-ahead-ms -5\nrate-ppm 500\ngained-ns -99\nsyncs-failed 2\nsyncs-hung 4\nheld-ns 5\n";
        fs::write(directory.path().join("n1.told"), text).unwrap();
        let report = MachineReport {
            pid: 12,
            clock_ms: 1800,
            gained_ns: -99,
            syncs_failed: 2,
            syncs_hung: 4,
            held_ns: 5,
            power_cut: None,
        };
        assert_eq!(MachineReport::beside(&path), Some(report));
        let report = MachineReport::of("pid 12\npower-cut with 9 writes on their way\n");
        assert_eq!(report.power_cut.as_deref(), Some("with 9 writes on their way"));
    }
}
