//! A run as Jepsen's own tools read it.

use std::{
    fs,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use super::Record;
use crate::{check::linear::Act, history::Outcome};

/// With more operations the EDN has only those about rules: Knossos and Elle could not read the others anyway.
const MAX_EDN_OPERATIONS: usize = 500_000;

/// Jepsen's form: an operation is an invocation and a completion, in the order of time.
pub(super) fn write(record: &Record, path: &Path) -> io::Result<()> {
    let mut events: Vec<(u64, bool, String)> = Vec::new();
    for (place, done) in record.rules.iter().enumerate() {
        let value = |value: Option<u64>| value.map_or("nil".to_owned(), |value| value.to_string());
        let (function, asked, answer, kind) = match &done.act {
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
            Some(at) => events.push((at, true, line(kind, &answer, at))),
            None => events.push((record.times.ended, true, line(":info", &asked, record.times.ended))),
        }
    }
    if record.history.operations.len() <= MAX_EDN_OPERATIONS {
        for operation in &record.history.operations {
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
    for fault in &record.faults {
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
