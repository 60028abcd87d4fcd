//! The log of a node: to standard error, as text or JSON. Nothing is logged for a check, and what others send is escaped.

mod writer;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{LevelFilter, ParseError},
    fmt,
    prelude::*,
    reload,
};

use self::writer::Lines;
pub(crate) use self::writer::{Flush, dropped_lines};
use crate::config::LogFormat;

/// Libraries whose news below a warning nobody asked for. Raft says five times a second that a peer is away; who comes and
/// goes is logged once by the cluster, and so is a failure that ends Raft.
const QUIET: [&str; 3] = ["chitchat=warn", "hyper=warn", "openraft=off"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A level that is none.
    #[error(
        "{level:?} is no log level; write error, warn, info, debug, trace, or by module as in warn,tidegate_cluster=debug (--log-level): {reason}"
    )]
    Level {
        /// As it was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no thread that writes, or standard error is closed.
    #[error("the log cannot be written: {0}")]
    System(#[from] io::Error),
}

/// The log of this process.
#[derive(Clone)]
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Logs from now on as that level says.
    ///
    /// # Errors
    /// When `level` cannot be understood.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = filter_of(level)?;
        // It lasts as long as this process has the log.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// Starts logging. Once in a process. When the second of the pair is dropped, what waits is written, for two seconds at most.
///
/// # Errors
/// When `level` cannot be understood.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(Log, Flush), LogError> {
    let (filter, handle) = reload::Layer::new(filter_of(level)?);
    let (lines, flush) = Lines::start()?;
    let panics = lines.clone();
    std::panic::set_hook(Box::new(move |panic| panics.put_panic(panic)));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(move || lines.clone());
    let started = match format {
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    // Only a test starts twice.
    drop(started);
    Ok((Log { filter: handle }, flush))
}

fn filter_of(level: &str) -> Result<EnvFilter, LogError> {
    let fault = |reason: String| LogError::Level { level: level.to_owned(), reason };
    // A word alone would be taken for a module, and switch off the log of all others.
    for part in level.split(',').map(str::trim).filter(|part| !part.contains('=')) {
        if part.is_empty() || part.parse::<LevelFilter>().is_err() {
            return Err(fault(format!("{part:?} is none")));
        }
    }
    // h2 has a line for each connection that breaks, which is nothing to be told of unless somebody looks for details.
    let has_details = level.parse::<LevelFilter>().is_ok_and(|level| level >= LevelFilter::DEBUG);
    let quiet = QUIET.iter().filter(|_| !level.contains('=')).copied();
    let quiet = quiet.chain((!has_details && !level.contains('=')).then_some("h2=error"));
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
