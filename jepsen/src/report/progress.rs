//! One line that says how far a run is, written over itself; where nobody watches, a line now and then.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use crate::campaign::Progress;

const WIDTH: usize = 24;
const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const IN_A_LOG: Duration = Duration::from_secs(10);

/// Shows progress on standard error.
#[derive(Debug)]
pub struct Line {
    is_terminal: bool,
    last: Option<Duration>,
}

impl Line {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// Shows how far it is, not too often.
    pub fn show(&mut self, progress: &Progress<'_>) {
        let between = if self.is_terminal { ON_A_TERMINAL } else { IN_A_LOG };
        if self.last.is_some_and(|last| progress.passed < last + between) {
            return;
        }
        self.last = Some(progress.passed);
        let mut err = std::io::stderr().lock();
        // Where it cannot be shown, nobody misses it.
        let _ = match self.is_terminal {
            true => write!(err, "\r\x1b[K{}", text(progress)),
            false => writeln!(err, "{}", text(progress)),
        };
        let _ = err.flush();
    }

    /// The line is over.
    pub fn end(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

fn text(progress: &Progress<'_>) -> String {
    let part = (progress.passed.as_secs_f64() / progress.length.as_secs_f64().max(0.001)).min(1.0);
    let full = (part * WIDTH as f64) as usize;
    let left = progress.length.saturating_sub(progress.passed).as_secs();
    let left =
        if progress.passed > progress.length { "healing".to_owned() } else { format!("{left} s left") };
    let on: Vec<&str> = progress.on.iter().map(|fault| fault.kind.name()).collect();
    let on =
        if on.is_empty() { "nothing is broken".to_owned() } else { format!("broken: {}", on.join(", ")) };
    format!(
        "[{}{}] {left}, {} checks, {} faults; {on}",
        "#".repeat(full),
        "-".repeat(WIDTH - full),
        progress.operations,
        progress.faults
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_is_left() {
        let progress = Progress {
            passed: Duration::from_secs(15),
            length: Duration::from_secs(60),
            operations: 7,
            faults: 1,
            on: Vec::new(),
        };
        let text = text(&progress);
        assert!(text.starts_with("[######------------------] 45 s left, 7 checks"), "{text}");
    }
}
