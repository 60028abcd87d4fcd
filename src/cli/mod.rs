//! The command line: a file a command.

mod backup;
mod cert;
mod check;
mod cluster;
mod credentials;
mod dev;
mod environment;
mod explain;
mod key;
mod node;
mod outcome;
mod question;
mod recover;
mod restore;
mod rules;
mod serve;
mod token;
mod trust;

use std::{process::ExitCode, sync::LazyLock};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::outcome::Failure;
pub use self::outcome::{BAD_USAGE, DENIED, DONE, FAILED};
use crate::terminal;

/// What `--version` says. Who injects faults asks for it, and so does who wonders what was installed.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| match tidegate_cluster::TEST_FEATURES {
        [] => env!("CARGO_PKG_VERSION").to_owned(),
        features => {
            format!("{} with {}, for tests only", env!("CARGO_PKG_VERSION"), features.join(", "))
        }
    });
    &VERSION
}

/// A rate limiter that is a cluster by itself: ask any node, the answer holds for all of them.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version = version(),
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  tidegate dev                                       a cluster of three nodes on this machine
  tidegate serve --rules rules.yaml                  one node
  tidegate check ip=203.0.113.7                      ask a node
  tidegate explain ip=203.0.113.7                    why it would be denied, and by which rule
  tidegate rules apply -f rules.yaml                 change the rules of the cluster
  tidegate cluster status                            the nodes, and what each owns
  tidegate backup --output tidegate.backup           all that the cluster knows, in one file
  tidegate cert ca                                   an authority for certificates of nodes and clients

Exit codes: 0 done or allowed, 1 refused or failed, 2 bad usage, 3 denied (check, explain)."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, to try things out; Ctrl-C ends it
    Dev(dev::DevArgs),
    /// Run a node
    Serve(Box<serve::ServeArgs>),
    /// Ask a node whether a request is allowed; it counts as one
    Check(check::CheckArgs),
    /// Ask a node why a request would be allowed or denied; nothing is counted
    Explain(explain::ExplainArgs),
    /// Look at the rules and change them
    Rules(rules::RulesArgs),
    /// Look at the nodes, and take one out
    Cluster(cluster::ClusterArgs),
    /// Say who may do what
    Token(token::TokenCommandArgs),
    /// Make certificates for nodes and clients, with an authority of one's own
    Cert(cert::CertArgs),
    /// Change the cluster key
    Key(key::KeyArgs),
    /// Write the rules, the tokens and what is used of a running cluster to a file
    Backup(Box<backup::BackupArgs>),
    /// Make a new cluster's first data directory of a backup
    Restore(restore::RestoreArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    terminal::set_up();
    let matches = environment::without_empty(CommandLine::command()).get_matches();
    let command_line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match command_line.command {
        Command::Dev(args) => args.run(),
        Command::Serve(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::Explain(args) => args.run(),
        Command::Rules(args) => args.run(),
        Command::Cluster(args) => args.run(),
        Command::Token(args) => args.run(),
        Command::Cert(args) => args.run(),
        Command::Key(args) => args.run(),
        Command::Backup(args) => args.run(),
        Command::Restore(args) => args.run(),
    };
    match outcome {
        Ok(_) if terminal::has_failed() => ExitCode::from(FAILED),
        Ok(code) => ExitCode::from(code),
        Err(Failure { report, code }) => {
            terminal::report(&report);
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn each_option_of_a_node_is_a_variable_and_a_key_too() {
        let command = CommandLine::command();
        let serve = command.find_subcommand("serve").unwrap();
        let options = serve.get_arguments().filter(|argument| !argument.is_hide_set());
        for flag in options.filter_map(|argument| Some((argument.get_long()?, argument))) {
            let (name, argument) = flag;
            if ["help", "version", "config"].contains(&name) {
                continue;
            }
            let variable = format!("TIDEGATE_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), variable);
            // Whatever its value must be: an unknown key would be another fault.
            let fault = toml::from_str::<crate::config::Options>(&format!("{name} = {{}}")).unwrap_err();
            assert!(!fault.message().contains("unknown field"), "{name}: {fault}");
        }
    }
}
