//! `tidegate dev`.

use std::path::PathBuf;

use clap::Args;

use super::outcome::{DONE, Failure};
use crate::dev::{self, Plan};

#[derive(Debug, Args)]
#[command(after_help = "\
Node n has the ports of the first one + 10 (n - 1). Nothing is kept: ports, processes and files are gone at the end.

Examples:
  tidegate dev
  tidegate dev --nodes 5 --base-port 9000
  tidegate dev --rules rules.yaml")]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u16,

    /// The HTTP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 7800)]
    base_port: u16,

    /// The file with the rules [default: a demonstration]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,

    /// Show what the nodes log, from this level on: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl DevArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let plan =
            Plan::new(self.nodes, self.base_port, self.rules, self.log_level).map_err(Failure::bad_usage)?;
        dev::run(plan).map_err(Failure::failed)?;
        Ok(DONE)
    }
}
