//! The one place where something is printed for people and scripts; the log is another thing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what this file is for")]

use std::{
    io::{self, Write as _, stderr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Whether a result could not be written: a command that says "done" then would be believed.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);

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
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            if !HAS_FAILED.swap(true, Relaxed) {
                note(&format!("tidegate: the result cannot be written: {error}"));
            }
        }
        Ok(()) | Err(_) => {}
    }
}

/// Whether something could not be printed.
pub(crate) fn has_failed() -> bool {
    HAS_FAILED.load(Relaxed)
}

/// Prints news to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Prints what went wrong to standard error, with the place in the file if there is one; in colour on a terminal.
pub(crate) fn report(report: &miette::Report) {
    // Where nobody can be told it, the exit code says it.
    let _ = writeln!(stderr().lock(), "{report:?}");
}
