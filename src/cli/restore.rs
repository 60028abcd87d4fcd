//! `tidegate restore`: the first node of a new cluster, of a backup. It asks no node: it makes a data directory.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tidegate_cluster::{Clock, backup, is_valid_name};

use super::{
    backup::value_of,
    node::plural,
    outcome::{BAD_USAGE, DONE, FAILED, Failure, Output},
};
use crate::{data_dir::DataDir, serve::default_name, terminal::print};

#[derive(Debug, Args)]
#[command(after_help = "\
1. On one machine:      tidegate restore tidegate.backup --data-dir DIR
2. Start that node, with its usual flags and this --data-dir, and wait until it is ready.
3. Start the others with empty data directories: they join it, and get its rules and their part of the buckets.

It is a new cluster, with the rules, their history and the tokens of the other one. What was used before the backup stays
used; the time since then refills as the rules say, by the wall clock of this machine (none, if that shows an earlier time). What
was admitted after the backup is not known. Stop the cluster that was backed up: each of two admits every limit.

Examples:
  tidegate restore tidegate.backup --data-dir /var/lib/tidegate
  tidegate restore tidegate.backup --data-dir /data/node --name tidegate-0
  tidegate restore tidegate.backup --dry-run         whether it is whole, and what is in it")]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The data directory to make; it must be empty, or not be there
    #[arg(long, env = "TIDEGATE_DATA_DIR", value_name = "DIR", required_unless_present = "dry_run")]
    data_dir: Option<PathBuf>,

    /// The name of the node that will run on it [default: as of a node without --name]
    #[arg(long, env = "TIDEGATE_NAME", value_name = "NAME")]
    name: Option<String>,

    /// Leave out what the buckets have used: they begin full
    #[arg(long)]
    without_counts: bool,

    /// Only look whether the backup is whole, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// The port that a name is made of where none is given.
const DEFAULT_PORT: u16 = 7800;

#[derive(Debug, thiserror::Error)]
#[error("{0:?} cannot name a node: 1 to 64 letters, digits, '.', '_' and '-' (--name)")]
struct BadName(String);

impl RestoreArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let failed = |fault| Failure::of(FAILED, fault);
        // Before there is a directory.
        let summary = backup::verify(&self.file).map_err(failed)?;
        let Some(directory) = self.data_dir.filter(|_| !self.dry_run) else {
            match self.output {
                Output::Json => print(&value_of(&summary).to_string()),
                Output::Text => print(&format!(
                    "{} is whole, with the rules of {} and {}. Nothing was changed.",
                    self.file.display(),
                    plural(summary.domains.len(), "domain"),
                    plural(summary.buckets as usize, "used bucket"),
                )),
            }
            return Ok(DONE);
        };
        if let Some(name) = self.name.as_ref().filter(|name| !is_valid_name(name)) {
            return Err(Failure::of(BAD_USAGE, BadName(name.clone())));
        }
        // No node runs on it from here on.
        let taken = DataDir::open(&directory).map_err(|fault| Failure::of(FAILED, fault))?;
        let host = rustix::system::uname();
        let default = || default_name(host.nodename().to_bytes(), DEFAULT_PORT);
        let name = taken.name(self.name, default).map_err(|fault| Failure::of(FAILED, fault))?;
        let now_ms = Clock::start().unix_millis();
        let restored =
            backup::restore(&self.file, &directory, &name, !self.without_counts, now_ms).map_err(failed)?;
        match self.output {
            Output::Json => {
                let value = json!({
                    "backup": value_of(&restored.summary),
                    "node": name,
                    "cluster": restored.cluster.to_string(),
                    "buckets": restored.buckets,
                });
                print(&value.to_string());
            }
            Output::Text => print(&format!(
                "{} is the data directory of {name}, the first node of the new cluster {}: {} with rules, {} that are not\nfull. \
                 Start it; when it is ready, start the others with empty data directories.",
                directory.display(),
                restored.cluster,
                plural(restored.summary.domains.len(), "domain"),
                plural(restored.buckets, "bucket"),
            )),
        }
        Ok(DONE)
    }
}
