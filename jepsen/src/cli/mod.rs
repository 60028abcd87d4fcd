//! The subcommands, a file each.

pub(crate) mod check;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod starts;

use std::process::ExitCode;

use tidegate_jepsen::check::Verdict;

/// 0 valid, 1 violation, 2 unknown.
fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Valid => 0,
        Verdict::Violated => 1,
        Verdict::Unknown => 2,
    })
}
