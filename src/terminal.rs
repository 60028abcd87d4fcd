//! The one place where something is printed for people and scripts; the log is another thing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what this file is for")]

use std::io::{Write as _, stderr};

/// Prepares how faults are printed: lines are not broken, so that a message can be found by its words.
pub(crate) fn set_up() {
    let handler = |_: &_| -> Box<dyn miette::ReportHandler> {
        Box::new(miette::MietteHandlerOpts::new().wrap_lines(false).context_lines(1).build())
    };
    // Only a second call could fail.
    let _ = miette::set_hook(Box::new(handler));
}

/// Prints a result to standard output, in colour if it has some and a terminal shows it (NO_COLOR is heeded). A reader that
/// is gone (`| head`) is no fault.
pub(crate) fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints news to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Prints what went wrong to standard error, with the place in the file if there is one; in colour on a terminal.
pub(crate) fn report(report: &miette::Report) {
    eprintln!("{report:?}");
}
