//! The log of a node: to standard error, as text or JSON. Nothing is logged for a check, and what others send is escaped.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, prelude::*};

use crate::config::LogFormat;

/// Libraries whose news below a warning nobody asked for. Raft says five times a second that a peer is away; who comes and
/// goes is logged once by the cluster, and so is a failure that ends Raft.
const QUIET: [&str; 3] = ["chitchat=warn", "hyper=warn", "openraft=off"];

/// A level that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{level:?} is no log level; write error, warn, info, debug, trace, or by module as in warn,tidegate_cluster=debug (--log-level): {reason}"
)]
pub struct LevelError {
    level: String,
    reason: ParseError,
}

/// Starts logging. Once in a process; a second call changes nothing.
///
/// # Errors
/// When `level` cannot be understood.
pub fn start(format: LogFormat, level: &str) -> Result<(), LevelError> {
    let fault = |reason| LevelError { level: level.to_owned(), reason };
    let quiet = QUIET.iter().filter(|_| !level.contains('=')).copied();
    let directives: Vec<&str> = std::iter::once(level).chain(quiet).collect();
    let filter = EnvFilter::builder().parse(directives.join(",")).map_err(fault)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // Only a test starts twice.
    drop(started);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused_and_named() {
        let fault = start(LogFormat::Text, "tidegate=loud").unwrap_err();
        assert!(fault.to_string().contains("\"tidegate=loud\" is no log level"), "{fault}");
    }
}
