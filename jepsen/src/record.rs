//! All that is known of a run, and the directory where it is kept: who judges needs nothing else.

use std::{
    fs, io,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    history::{History, Outcome, Refund},
    nemesis::{Ends, Fault, Phases, Planned},
    network::Form,
    sampler::Sample,
    workload::{
        changes::Change,
        limits::{Limited, Question},
        rules::{Done, Told},
    },
};

/// With more operations the EDN has only those about rules: Knossos and Elle could not read the others anyway.
const MAX_EDN_OPERATIONS: usize = 500_000;

/// How the run was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The command that does it again.
    pub command: String,
    /// Of the harness.
    pub version: String,
    /// The commit that it was built from, if that is known.
    pub commit: Option<String>,
    /// The node's program.
    pub binary: String,
    /// The other build that nodes were upgraded to.
    #[serde(default)]
    pub other_binary: Option<String>,
    /// How many nodes.
    pub nodes: u8,
    /// What lay between them.
    #[serde(default)]
    pub network: Form,
    /// Faults that were wanted but could not be done, and why.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// What chance began with.
    pub seed: u64,
    /// How the time is divided.
    pub phases: Phases,
    /// What was planned.
    pub planned: Vec<Planned>,
    /// The bug that was switched on.
    pub planted_bug: Option<String>,
    /// How the cluster was founded.
    #[serde(default)]
    pub founded: String,
    /// Nodes that own nothing: they were drained in the beginning, and are asked like all others.
    #[serde(default)]
    pub idle: Vec<String>,
    /// Nodes with little memory.
    #[serde(default)]
    pub small: Vec<String>,
    /// The rules.
    pub limits: Vec<Limited>,
    /// What was asked; a check's `key` is a place in it.
    pub questions: Vec<Question>,
}

/// When what happened, in nanoseconds of the history's clock.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Times {
    /// The load begins.
    pub begun: u64,
    /// The first fault may happen.
    pub broken: u64,
    /// Nothing new is broken any more.
    pub mended: u64,
    /// The last fault is undone.
    pub healed: Option<u64>,
    /// All nodes are ready and name the same owner for each slot, who has a session.
    pub settled: Option<u64>,
    /// The load ends.
    pub ended: u64,
    /// Whether somebody stopped the run before its end.
    pub interrupted: bool,
    /// What Unix time is ahead of the history's clock, in nanoseconds.
    #[serde(default)]
    pub unix_ahead: i64,
}

/// All that is known of a run.
#[derive(Debug, Clone)]
pub struct Record {
    /// How it was made.
    pub setup: Setup,
    /// When what happened.
    pub times: Times,
    /// Each check.
    pub history: History,
    /// Each unit that was given back, or may have been.
    pub refunds: Vec<Refund>,
    /// Each change of the limits.
    pub changes: Vec<Change>,
    /// Each fault.
    pub faults: Vec<Fault>,
    /// What was seen of the nodes meanwhile.
    pub samples: Vec<Sample>,
    /// Which processes ended.
    pub ends: Vec<Ends>,
    /// Lines of the nodes' logs that should not be there.
    pub outcries: Vec<String>,
    /// What the clients that write rules did.
    pub rules: Vec<Done>,
    /// Attempts at writes that were not answered and repeated.
    pub repeated: u64,
    /// What each node told of the rules in the end.
    pub told: Told,
    /// What each node logged; not read again.
    pub logs: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    setup: Setup,
    times: Times,
    ends: Vec<Ends>,
    outcries: Vec<String>,
    repeated: u64,
    #[serde(default)]
    changes: Vec<Change>,
    told: Told,
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
            told: self.told.clone(),
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
        self.write_edn(&directory.join("history.edn"))
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
            told: run.told,
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

    /// Jepsen's form: an operation is an invocation and a completion, in the order of time.
    fn write_edn(&self, path: &Path) -> io::Result<()> {
        let mut events: Vec<(u64, bool, String)> = Vec::new();
        for (place, done) in self.rules.iter().enumerate() {
            use crate::check::linear::Act;
            let value = |value: Option<u64>| value.map_or("nil".to_owned(), |value| value.to_string());
            let (function, asked, told, kind) = match &done.act {
                Act::Write(new) => (":write", new.to_string(), new.to_string(), ":ok"),
                Act::Swap(from, new) => {
                    let pair = format!("[{} {new}]", value(*from));
                    (":cas", pair.clone(), pair, ":ok")
                }
                Act::SwapRefused(from) => {
                    let pair = format!("[{} :any]", value(*from));
                    (":cas", pair.clone(), pair, ":fail")
                }
                Act::Read(seen) => (":read", "nil".to_owned(), value(*seen), ":ok"),
            };
            let domain = done.domain;
            // A process of its own for each: an operation without an answer leaves its process behind.
            let head = format!(":process {place}, :f {function}, ");
            let line = |kind: &str, value: &str, at: u64| {
                format!("{{:type {kind}, {head}:value [\"d{domain}\" {value}], :time {at}}}")
            };
            events.push((done.called, false, line(":invoke", &asked, done.called)));
            match done.answered {
                Some(at) => events.push((at, true, line(kind, &told, at))),
                None => events.push((self.times.ended, true, line(":info", &asked, self.times.ended))),
            }
        }
        if self.history.operations.len() <= MAX_EDN_OPERATIONS {
            for operation in &self.history.operations {
                let kind = match operation.outcome {
                    Outcome::Admitted => ":ok",
                    Outcome::Denied | Outcome::Refused => ":fail",
                    Outcome::Unknown => ":info",
                };
                let line = |kind: &str, at: u64| {
                    format!(
                        "{{:type {kind}, :process \"n{}\", :f :check, :value {}, :time {at}}}",
                        operation.node + 1,
                        operation.key
                    )
                };
                events.push((operation.invoked, false, line(":invoke", operation.invoked)));
                events.push((operation.completed, true, line(kind, operation.completed)));
            }
        }
        for fault in &self.faults {
            let line = |at: u64| {
                format!(
                    "{{:type :info, :process :nemesis, :f :{}, :value {:?}, :time {at}}}",
                    fault.kind.name(),
                    fault.what
                )
            };
            events.push((fault.begun, false, line(fault.begun)));
            events.extend(fault.ended.map(|at| (at, true, line(at))));
        }
        events.sort_unstable();
        let mut file = BufWriter::new(fs::File::create(path)?);
        for (_, _, line) in events {
            writeln!(file, "{line}")?;
        }
        file.flush()
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

impl Record {
    /// Seconds since the load began.
    pub fn seconds(&self, at: u64) -> f64 {
        (at as f64 - self.times.begun as f64) / 1e9
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        check::{bound::Bound, law::Law},
        history::Operation,
        nemesis::{Aim, Kind},
    };

    pub(crate) const SECOND: u64 = 1_000_000_000;

    /// A run of a minute of two nodes in which nothing happened: calm for ten seconds, mended at 40. The first rule is
    /// strict: 200 a second, burst 50; the second may admit twice in a partition: 20 a second, burst 20.
    pub(crate) fn record() -> Record {
        let limited = |name: &str, burst, count, partition| Limited {
            name: name.to_owned(),
            text: String::new(),
            bound: Bound { burst, count, period: Duration::from_secs(1) },
            law: Law::Bucket,
            counts: Vec::new(),
            strict: partition == 1,
            crash: Some(1),
            partition: Some(partition),
        };
        let question =
            |rule| Question { path: format!("/{rule}"), body: None, buckets: vec![(rule, "k0".to_owned())] };
        Record {
            setup: Setup {
                command: String::new(),
                version: String::new(),
                commit: None,
                binary: String::new(),
                other_binary: None,
                nodes: 2,
                network: Form::default(),
                left_out: Vec::new(),
                seed: 1,
                phases: Phases::of(Duration::from_secs(60)),
                planned: Vec::new(),
                planted_bug: None,
                founded: String::new(),
                idle: Vec::new(),
                small: Vec::new(),
                limits: vec![limited("hot", 50, 200, 1), limited("loose", 20, 20, 2)],
                questions: vec![question(0), question(1)],
            },
            times: Times {
                begun: 0,
                broken: 10 * SECOND,
                mended: 40 * SECOND,
                healed: Some(40 * SECOND),
                settled: Some(41 * SECOND),
                ended: 60 * SECOND,
                interrupted: false,
                unix_ahead: 0,
            },
            history: History::default(),
            refunds: Vec::new(),
            changes: Vec::new(),
            faults: Vec::new(),
            samples: Vec::new(),
            ends: Vec::new(),
            outcries: Vec::new(),
            rules: Vec::new(),
            repeated: 0,
            told: Vec::new(),
            logs: Vec::new(),
        }
    }

    pub(crate) fn admitted(key: u32, at: u64) -> Operation {
        let decided_by = Some(("owner".to_owned(), "n1".to_owned()));
        Operation { invoked: at, completed: at + 1_000, key, node: 0, outcome: Outcome::Admitted, decided_by }
    }

    pub(crate) fn fault(kind: Kind, target: &str, from: u64, to: u64) -> Fault {
        Fault {
            kind,
            aim: Aim::Random,
            targets: vec![target.to_owned()],
            roles: Vec::new(),
            what: String::new(),
            begun: from * SECOND,
            ended: Some(to * SECOND),
            recovered: Some(to * SECOND),
            evidence: Some("seen".to_owned()),
            sides: Vec::new(),
        }
    }

    pub(crate) fn planned(kind: Kind) -> Planned {
        let after = Duration::from_secs(10);
        Planned { after, lasts: Duration::from_secs(2), kind, aim: Aim::Random, seed: 0, by: None }
    }

    pub(crate) fn sample(node: &str, at: u64) -> Sample {
        Sample {
            at,
            node: node.to_owned(),
            pid: 1,
            leader: None,
            term: 1,
            cluster: None,
            session: true,
            moving: 0,
            applied: 1,
            answered: true,
            resident: 50 << 20,
            threads: 8,
            descriptors: 40,
        }
    }

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
