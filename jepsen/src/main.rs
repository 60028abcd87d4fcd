//! `tidegate-jepsen`: breaks real clusters on purpose and says whether they kept their promises.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks real clusters of Tidegate on purpose and says whether they kept their promises.
#[derive(Debug, Parser)]
#[command(name = "tidegate-jepsen", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break a cluster for a while, by many kinds of faults; every promise is checked, and there is a report
    Run(cli::run::RunArgs),
    /// Judge a run that was made before once more
    Check(cli::check::CheckArgs),
    /// Write rules from several clients while nodes are killed; nothing acknowledged may be lost, and all of it must be
    /// linearizable
    Rules(cli::rules::RulesArgs),
    /// Start clusters in many ways: each start must come to one cluster whose nodes are all ready
    Starts(cli::starts::StartsArgs),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Run(args) => cli::run::run(args),
        Command::Check(args) => cli::check::check(&args),
        Command::Rules(args) => cli::rules::rules(args),
        Command::Starts(args) => cli::starts::starts(args),
    }
}
