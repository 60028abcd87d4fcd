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
///
/// A node that is alone grants itself its sessions: its earlier start would never end, so there is nothing to wait for.
pub(crate) struct EarlierStart {
    may_run: bool,
    /// It is not on the disk yet that the node runs here.
    is_unnoted: bool,
    /// When this node read its own start in the log.
    named: Option<Nanos>,
}

impl EarlierStart {
    /// `keeps`: the disk had saved buckets. Who saved them decided nothing any more.
    pub(crate) fn new(came_from_elsewhere: bool, keeps: bool) -> Self {
        let may_run = came_from_elsewhere && !keeps;
        if may_run {
            info!(
                "the data directory was last used on another machine, or before this one was started anew, and holds no \
                 saved buckets: nothing is decided here before the session of whoever may still run there has ended"
            );
        }
        Self { may_run, is_unnoted: came_from_elsewhere, named: None }
    }

    pub(super) fn may_run(&mut self, context: &Context) -> bool {
        if !self.is_unnoted {
            return false;
        }
        let group = &context.group;
        let Some(running) = group.raft.running() else { return self.may_run };
        let is_named =
            group.applied.borrow().state.members.get(&group.me).is_some_and(|row| *row == group.row);
        let session = context.ownership.timing().leader;
        if !running.is_alone() && self.may_run_at(is_named, session, group.clock.now()) {
            return true;
        }
        (self.may_run, self.is_unnoted) = (false, false);
        let (disk, incarnation) = (running.disk.clone(), group.row.incarnation);
        // A disk that hangs keeps nobody waiting.
        tokio::spawn(async move {
            if let Ok(Err(fault)) = fabric::blocking(move || disk.note_system(incarnation)).await {
                warn!(%fault, "the next start of this node waits for the end of this one's session");
            }
        });
        false
    }

    fn may_run_at(&mut self, is_named: bool, session: Duration, now: Nanos) -> bool {
        if !self.may_run {
            return false;
        }
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
        let mut earlier = EarlierStart::new(true, false);
        let at = |secs: u64| Nanos::new(secs * 1_000_000_000);
        let session = Duration::from_secs(3);
        assert!(earlier.may_run_at(false, session, at(100)));
        assert!(earlier.may_run_at(true, session, at(110)));
        assert!(earlier.may_run_at(true, session, at(112)));
        assert!(!earlier.may_run_at(true, session, at(113)));
        let mut saved = EarlierStart::new(true, true);
        assert!(!saved.may_run_at(false, session, at(100)), "who saved its buckets has ended");
    }
}
