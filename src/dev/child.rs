//! One node as a child process: started, listened to, ended.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::plan::PlannedNode;
use crate::terminal::note;

/// How long a node may take to leave before it is killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(8);
/// Lines of a node's log that are kept, to be shown when it fails.
const KEPT_LINES: usize = 12;

/// The last lines that a node has logged.
#[derive(Debug, Default, Clone)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.lock();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// All of them, indented.
    pub(super) fn show(&self) -> String {
        let lines = self.lock();
        if lines.is_empty() {
            return "    (it logged nothing)".to_owned();
        }
        lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Whatever a thread was doing to it, the lines are still lines.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to a node's log besides keeping its last lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Shown,
    Hidden,
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) node: PlannedNode,
    pub(super) pid: u32,
    pub(super) last_lines: LastLines,
    process: tokio::process::Child,
}

impl Child {
    /// Starts a node with these arguments and variables.
    pub(super) fn start(
        node: &PlannedNode,
        arguments: &[OsString],
        variables: &[(&str, &str)],
        log: Log,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is meant for the parent, which then ends the nodes.
            .process_group(0)
            .kill_on_drop(true);
        // The nodes are as the plan says, not as the caller's own node; and no service manager waits for one of them.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["TIDEGATE_", "NOTIFY_SOCKET", "WATCHDOG_"].iter().any(|mine| text.starts_with(mine)) {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        let mut process = command.spawn()?;
        let pid = process.id().expect("a process that was just started has an id");
        let last_lines = LastLines::default();
        if let Some(lines) = process.stderr.take() {
            tokio::spawn(relay(node.name.clone(), lines, last_lines.clone(), log));
        }
        Ok(Self { node: node.clone(), pid, last_lines, process })
    }

    /// Waits until the node ends by itself, or ends it when `end` says so. Its standard input stays open meanwhile: the
    /// node stops when that ends, however this process does.
    pub(super) async fn watch(mut self, end: CancellationToken) -> io::Result<ExitStatus> {
        // `wait` would close it.
        let stdin = self.process.stdin.take();
        let status = tokio::select! {
            status = self.process.wait() => status,
            () = end.cancelled() => self.end().await,
        };
        drop(stdin);
        status
    }

    async fn end(&mut self) -> io::Result<ExitStatus> {
        // No id: it has ended by itself, and the number may be another process's by now.
        if let Some(pid) = self.process.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        match timeout(LEAVE_TIMEOUT, self.process.wait()).await {
            Ok(status) => status,
            Err(_elapsed) => {
                self.process.kill().await?;
                self.process.wait().await
            }
        }
    }
}

/// Keeps the last lines of a node's log, and shows them all, with the node's name, if that is wanted.
async fn relay(name: String, lines: impl AsyncRead + Unpin, last_lines: LastLines, log: Log) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        last_lines.push(&line);
        if log == Log::Shown {
            note(&format!("{name} | {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let lines = LastLines::default();
        assert!(lines.show().contains("nothing"));
        (0..20).for_each(|number| lines.push(&format!("line {number}")));
        let shown = lines.show();
        assert!(shown.starts_with("    line 8\n") && shown.ends_with("line 19"), "{shown}");
    }
}
