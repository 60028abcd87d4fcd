//! Whether an earlier start of this node may still decide: where its disk was taken from another machine by force, the lock of the
//! data directory says nothing about the process there.

use std::time::Duration;

use tidegate_limiter::Nanos;
use tracing::{info, warn};

use super::context::Context;
use crate::fabric;

/// What is known of the earlier start.
///
/// This node asks for no session until a leader's session has passed since it read its own start in the log. From that entry on
/// nobody grants the earlier one a session, so by then it has none, and its slots go to others as after a crash. Until that is
/// over it is not noted on the disk that the node runs here: a start that ends before begins to wait anew.
pub(crate) struct EarlierStart {
    may_run: bool,
    /// When this node read its own start in the log.
    named: Option<Nanos>,
}

impl EarlierStart {
    pub(crate) fn new(may_run: bool) -> Self {
        if may_run {
            info!(
                "the data directory was last used on another machine, or before this one was started anew, and was not left in \
                 order: nothing is decided here before the session of whoever may still run there has ended"
            );
        }
        Self { may_run, named: None }
    }

    pub(super) fn may_run(&mut self, context: &Context) -> bool {
        if !self.may_run {
            return false;
        }
        let now = context.group.clock.now();
        let is_named = context
            .group
            .applied
            .borrow()
            .state
            .members
            .get(&context.group.me)
            .is_some_and(|row| *row == context.group.row);
        if self.may_run_at(is_named, context.ownership.timing().leader, now) {
            return true;
        }
        if let Some(running) = context.group.raft.running() {
            let disk = running.disk.clone();
            // A disk that hangs keeps nobody waiting.
            tokio::spawn(async move {
                if let Ok(Err(fault)) = fabric::blocking(move || disk.note_system()).await {
                    warn!(%fault, "the next start of this node waits as long as this one");
                }
            });
        }
        self.may_run = false;
        false
    }

    fn may_run_at(&mut self, is_named: bool, session: Duration, now: Nanos) -> bool {
        if is_named {
            self.named.get_or_insert(now);
        }
        self.named.is_none_or(|named| now < named.saturating_add(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_may_run_until_a_session_has_passed_since_the_log_names_this_one() {
        let mut earlier = EarlierStart::new(true);
        let at = |secs: u64| Nanos::new(secs * 1_000_000_000);
        let session = Duration::from_secs(3);
        assert!(earlier.may_run_at(false, session, at(100)));
        assert!(earlier.may_run_at(true, session, at(110)));
        assert!(earlier.may_run_at(true, session, at(112)));
        assert!(!earlier.may_run_at(true, session, at(113)));
    }
}
