//! `tidegate rules`: a file a command.

mod apply;
mod change;
mod diff;
mod get;
mod history;
mod import;
mod import_files;
mod named;
mod rollback;
mod validate;

use clap::{Args, Subcommand};

use super::outcome::{self, Failure};

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  tidegate rules validate -f rules.yaml
  tidegate rules diff -f rules.yaml                  what would change
  tidegate rules apply -f rules.yaml --message 'login: 10 a minute' --wait
  tidegate rules history
  tidegate rules rollback 812 --message 'too strict'
  tidegate rules import --from nginx nginx.conf      rules from another limiter's configuration"
)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Look for faults in a file; no cluster is needed
    Validate(validate::ValidateArgs),
    /// Show what a file would change
    Diff(diff::DiffArgs),
    /// Write the rules of a file: they replace those of the same domains
    Apply(apply::ApplyArgs),
    /// Print the rules of the cluster
    Get(get::GetArgs),
    /// Show who changed the rules, when and why
    History(history::HistoryArgs),
    /// Write the rules of an earlier revision again, as a new one
    Rollback(rollback::RollbackArgs),
    /// Make rules of another limiter's configuration; no cluster is needed
    Import(import::ImportArgs),
}

impl RulesArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.command {
            RulesCommand::Validate(args) => return args.run(),
            RulesCommand::Import(args) => return args.run(),
            _ => {}
        }
        outcome::run(async {
            match self.command {
                RulesCommand::Validate(args) => args.run(),
                RulesCommand::Import(args) => args.run(),
                RulesCommand::Diff(args) => args.run().await,
                RulesCommand::Apply(args) => args.run().await,
                RulesCommand::Get(args) => args.run().await,
                RulesCommand::History(args) => args.run().await,
                RulesCommand::Rollback(args) => args.run().await,
            }
        })
    }
}
