//! The directory of a run: written, and read again.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Record, Setup, Times, edn};
use crate::{
    history::History,
    nemesis::Ends,
    workload::{changes::Change, rules::RuleHistories},
};

#[derive(Serialize, Deserialize)]
struct Run {
    setup: Setup,
    times: Times,
    ends: Vec<Ends>,
    outcries: Vec<String>,
    repeated: u64,
    #[serde(default)]
    changes: Vec<Change>,
    #[serde(rename = "told")]
    rule_histories: RuleHistories,
}

impl Record {
    /// Writes it all into a directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let run = Run {
            setup: self.setup.clone(),
            times: self.times.clone(),
            ends: self.ends.clone(),
            outcries: self.outcries.clone(),
            repeated: self.repeated,
            changes: self.changes.clone(),
            rule_histories: self.rule_histories.clone(),
        };
        fs::write(directory.join("run.json"), serde_json::to_vec_pretty(&run)?)?;
        self.history.write(&directory.join("history.ndjson"))?;
        write_lines(&directory.join("refunds.ndjson"), &self.refunds)?;
        write_lines(&directory.join("faults.ndjson"), &self.faults)?;
        write_lines(&directory.join("samples.ndjson"), &self.samples)?;
        write_lines(&directory.join("rules.ndjson"), &self.rules)?;
        fs::create_dir_all(directory.join("logs"))?;
        for (node, log) in &self.logs {
            fs::write(directory.join("logs").join(format!("{node}.log")), log)?;
        }
        edn::write(self, &directory.join("history.edn"))
    }

    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    /// When a file cannot be read, with its name.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let path = |name: &str| directory.join(name);
        let within = |name: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path(name).display()))
        };
        let text = fs::read(path("run.json")).map_err(|error| within("run.json", error))?;
        let run: Run = serde_json::from_slice(&text).map_err(|error| within("run.json", error.into()))?;
        Ok(Self {
            setup: run.setup,
            times: run.times,
            ends: run.ends,
            outcries: run.outcries,
            repeated: run.repeated,
            changes: run.changes,
            rule_histories: run.rule_histories,
            logs: Vec::new(),
            history: History::read(&path("history.ndjson"))
                .map_err(|error| within("history.ndjson", error))?,
            refunds: read_lines(&path("refunds.ndjson")).map_err(|error| within("refunds.ndjson", error))?,
            faults: read_lines(&path("faults.ndjson")).map_err(|error| within("faults.ndjson", error))?,
            samples: read_lines(&path("samples.ndjson")).map_err(|error| within("samples.ndjson", error))?,
            rules: read_lines(&path("rules.ndjson")).map_err(|error| within("rules.ndjson", error))?,
        })
    }

    /// A place for a run that no other one has: in the present directory.
    pub fn place(setup: &Setup) -> PathBuf {
        let name = match &setup.planted_bug {
            Some(bug) => format!("jepsen-{bug}-seed-{}", setup.seed),
            None => format!("jepsen-seed-{}", setup.seed),
        };
        let places = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
        places
            .map(|name| Path::new("target/jepsen").join(name))
            .find(|place| !place.exists())
            .unwrap_or_default()
    }
}

fn write_lines<T: Serialize>(path: &Path, all: &[T]) -> io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for one in all {
        serde_json::to_writer(&mut file, one)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let lines = BufReader::new(fs::File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nemesis::Kind,
        record::tests::{admitted, fault, record, sample},
    };

    #[test]
    fn a_run_survives_the_disk_and_has_an_edn_in_the_order_of_time() {
        let mut record = record();
        record.history.operations = vec![admitted(0, 7), admitted(1, 3)];
        record.faults.push(fault(Kind::Kill, "n1", 10, 12));
        record.samples.push(sample("n1", 1));
        let directory = tempfile::tempdir().unwrap();
        record.write(directory.path()).unwrap();
        let again = Record::read(directory.path()).unwrap();
        assert_eq!(
            (again.history, again.faults, again.samples),
            (record.history, record.faults, record.samples)
        );
        let edn = fs::read_to_string(directory.path().join("history.edn")).unwrap();
        let lines: Vec<&str> = edn.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], "{:type :invoke, :process \"n1\", :f :check, :value 1, :time 3}");
        assert!(lines[4].contains(":process :nemesis, :f :kill"), "{edn}");
    }
}
