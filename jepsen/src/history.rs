//! What was asked and answered, and when.

use std::{
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How a check ended, as its caller saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 200: it was admitted.
    Admitted,
    /// 429: it was denied.
    Denied,
    /// Another status.
    Refused,
    /// No answer in time, or a broken connection: it may have been charged.
    Unknown,
}

/// One check of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// When it was sent, in nanoseconds of the machine's monotonic clock.
    pub invoked: u64,
    /// When its answer was there.
    pub completed: u64,
    /// Which key it was about.
    pub key: u32,
    /// Which node was asked.
    pub node: u16,
    /// What came back.
    pub outcome: Outcome,
    /// Who decided: the answer's `decided_by` and `node`.
    pub decided_by: Option<(String, String)>,
}

/// One unit that was given back, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// When it was sent, by the clock of [`Operation`].
    pub invoked: u64,
    /// When it was answered that it is done; `None`: it may be done at any time from `invoked` on, or never.
    pub completed: Option<u64>,
    /// Which key it was about.
    pub key: u32,
    /// Which node was asked.
    pub node: u16,
}

/// All checks of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// In no particular order.
    pub operations: Vec<Operation>,
}

impl History {
    /// Those that are about `key`.
    pub fn of_key(&self, key: u32) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| operation.key == key)
    }

    /// How many ended like that.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.operations.iter().filter(|operation| operation.outcome == outcome).count()
    }

    /// The longest time that a caller waited for an answer, in nanoseconds.
    pub fn slowest(&self) -> u64 {
        self.operations.iter().map(|operation| operation.completed - operation.invoked).max().unwrap_or(0)
    }

    /// Writes a JSON object a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for operation in &self.operations {
            serde_json::to_writer(&mut file, operation)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// Reads what [`History::write`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not an operation.
    pub fn read(path: &Path) -> io::Result<Self> {
        let lines = BufReader::new(std::fs::File::open(path)?).lines();
        let operations = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<io::Result<_>>()?;
        Ok(Self { operations })
    }
}

/// The machine's monotonic clock in nanoseconds: the same for all processes and threads.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It counts from the start of the machine.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_the_disk() {
        let operation = Operation {
            invoked: 1,
            completed: 2,
            key: 3,
            node: 1,
            outcome: Outcome::Admitted,
            decided_by: Some(("owner".into(), "n1".into())),
        };
        let history = History { operations: vec![operation; 3] };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.ndjson");
        history.write(&path).unwrap();
        assert_eq!(History::read(&path).unwrap(), history);
        assert_eq!((history.count(Outcome::Admitted), history.slowest()), (3, 1));
    }
}
