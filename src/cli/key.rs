//! `tidegate key`: the cluster key.

use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};

use super::outcome::{DONE, FAILED, Failure};
use crate::{
    key_file::{self, Step},
    terminal::print,
};

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Do the next of the three steps from one cluster key to another, while the cluster runs
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The first key of the file seals what a node says, each key of it opens what a node hears. Between two steps every node must get
the file, or two of them refuse each other; a node takes a changed file within 2 s, and at once at SIGHUP.

  1. tidegate key rotate       adds a new key, which all nodes accept from then on
  2. tidegate key rotate       makes it the one that seals
  3. tidegate key rotate       takes the old one out

After a step, `tidegate_cluster_keys` in /metrics of each node says how many keys it has (2, 2, 1), and the log says `cluster keys
in force`. Streams that are open go on with the key that they began with: if the old key was stolen, restart the nodes one after
another, too.

Example:
  tidegate key rotate --cluster-key-file /etc/tidegate/cluster.key")]
struct RotateArgs {
    /// The file, which is written anew
    #[arg(long, env = "TIDEGATE_CLUSTER_KEY_FILE", value_name = "FILE")]
    cluster_key_file: PathBuf,

    /// Do this step, and no other [default: the next]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..=3))]
    step: Option<u8>,
}

impl KeyArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let KeyCommand::Rotate(args) = self.command;
        let step = key_file::rotate(&args.cluster_key_file, args.step, &new_key())
            .map_err(|fault| Failure::of(FAILED, fault))?;
        print(match step {
            Step::Accepted => {
                "step 1 of 3: the file has a new key beside the old one, which seals as before. Give the file to every node; when all \
                 have taken it (tidegate_cluster_keys 2), do step 2: tidegate key rotate"
            }
            Step::Seals => {
                "step 2 of 3: the new key seals, and the old one is still accepted. Give the file to every node; when all have taken it \
                 (the log says `cluster keys in force`), do step 3: tidegate key rotate"
            }
            Step::Done => {
                "step 3 of 3: the old key is out of the file. Give the file to every node; when all have taken it \
                 (tidegate_cluster_keys 1), the old key is worth nothing"
            }
        });
        Ok(DONE)
    }
}

/// As `openssl rand -hex 32` makes one.
fn new_key() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
