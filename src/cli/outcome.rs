//! How a command ends: its exit code, and what is said if it could not do what it should.

use clap::ValueEnum;

/// It is done; a check is allowed.
pub const DONE: u8 = 0;
/// It was refused, or failed.
pub const FAILED: u8 = 1;
/// It was asked in a way that cannot be.
pub const BAD_USAGE: u8 = 2;
/// A check is denied.
pub const DENIED: u8 = 3;

/// Why a command could not do what it should: what is said, and the exit code.
pub(super) struct Failure {
    pub(super) report: miette::Report,
    pub(super) code: u8,
}

impl Failure {
    /// It was asked in a way that cannot be.
    pub(super) fn bad_usage(fault: impl Into<miette::Report>) -> Self {
        Self { report: fault.into(), code: BAD_USAGE }
    }

    /// It did not work.
    pub(super) fn failed(fault: impl Into<miette::Report>) -> Self {
        Self { report: fault.into(), code: FAILED }
    }

    /// An error that is only a message.
    pub(super) fn of(code: u8, fault: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { report: miette::Report::from_err(fault), code }
    }
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Runs what asks nodes.
pub(super) fn run(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(FAILED, error))?;
    runtime.block_on(work)
}
