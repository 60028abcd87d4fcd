//! `tidegate-jepsen check`: judges a run that was made before once more, with the checkers of today.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tidegate_jepsen::record::Record;

use super::{exit_code, run};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate-jepsen check target/jepsen/jepsen-seed-1

Exit codes: 0 all promises kept, 1 one was not, 2 that cannot be said.")]
pub(crate) struct CheckArgs {
    /// The directory that a run printed
    #[arg(value_name = "STORE")]
    store: PathBuf,
}

/// Runs it.
pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    let record = Record::read(&args.store).map_err(|error| error.to_string());
    match record.and_then(|record| run::tell(&record, &args.store)) {
        Ok(judgement) => exit_code(judgement.verdict),
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(2)
        }
    }
}
