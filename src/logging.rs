//! The log of a node: to standard error, as text or JSON. Nothing is logged for a check, and what others send is escaped.
//!
//! **One thread writes**, from a queue with a bound: who reads standard error may be slow, or stop reading, and no thread that
//! answers checks or signals waits for that. Lines for which there is no room are dropped and counted.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{LevelFilter, ParseError},
    fmt,
    prelude::*,
    reload,
};

use crate::config::LogFormat;

/// Libraries whose news below a warning nobody asked for. Raft says five times a second that a peer is away; who comes and
/// goes is logged once by the cluster, and so is a failure that ends Raft.
const QUIET: [&str; 3] = ["chitchat=warn", "hyper=warn", "openraft=off"];
/// Lines that wait to be written: some 1 MB.
const MAX_WAITING: usize = 4096;

/// What counts the lines that were dropped. A process has one log.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// A level that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{level:?} is no log level; write error, warn, info, debug, trace, or by module as in warn,tidegate_cluster=debug (--log-level): {reason}"
)]
pub struct LevelError {
    level: String,
    reason: String,
}

/// The log of this process. When it is dropped, what waits is written, for a second at most.
pub(crate) struct Log {
    _writer: WorkerGuard,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Logs from now on as that level says.
    ///
    /// # Errors
    /// When `level` cannot be understood.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), LevelError> {
        let filter = filter_of(level)?;
        // It lasts as long as this process has the log.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// How many lines were dropped because nobody read them.
pub(crate) fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Starts logging. Once in a process; a second call changes nothing.
///
/// # Errors
/// When `level` cannot be understood.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<Log, LevelError> {
    let (filter, handle) = reload::Layer::new(filter_of(level)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING)
        .thread_name("log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(writer);
    let started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // Only a test starts twice.
    if started.is_ok() {
        let _ = DROPPED.set(dropped);
    }
    Ok(Log { _writer: guard, filter: handle })
}

fn filter_of(level: &str) -> Result<EnvFilter, LevelError> {
    let fault = |reason: String| LevelError { level: level.to_owned(), reason };
    // A word alone would be taken for a module, and switch off the log of all others.
    for part in level.split(',').map(str::trim).filter(|part| !part.contains('=')) {
        part.parse::<LevelFilter>().map_err(|_| fault(format!("{part:?} is no level")))?;
    }
    let quiet = QUIET.iter().filter(|_| !level.contains('=')).copied();
    let directives: Vec<&str> = std::iter::once(level).chain(quiet).collect();
    EnvFilter::builder().parse(directives.join(",")).map_err(|reason: ParseError| fault(reason.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused_and_named() {
        for level in ["tidegate=loud", "verbose", "", "info,", "tidegate_cluster", "info,verbose"] {
            let fault = filter_of(level).unwrap_err().to_string();
            assert!(fault.contains(&format!("{level:?} is no log level")), "{fault}");
        }
        for level in ["info", "WARN", "off", "warn,tidegate_cluster=debug", "tidegate=trace"] {
            filter_of(level).unwrap();
        }
    }
}
