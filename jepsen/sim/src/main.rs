//! `tidegate-sim`: clusters in one thread, from seeds, and the bugs that they must find.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates whole clusters of Tidegate in one thread, from seeds.
#[derive(Debug, Parser)]
#[command(name = "tidegate-sim", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate whole clusters in one thread, from seeds: partitions, crashes, pauses, and all that they must keep
    Run(cli::run::RunArgs),
    /// Switch planted bugs on, and see which checker finds which: in seeds, with real processes, by tests
    Controls(cli::controls::ControlsArgs),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Run(args) => cli::run::main(args),
        Command::Controls(args) => cli::controls::controls(&args),
    }
}
