//! Asking for sessions, granting them, and noticing that this process was stopped.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::{
    calls::{Call, Caller, NotServed, Reply},
    command::{Command, MemberRow, NodeId},
    group::Shared,
    running::Running,
};

/// A session is renewed after this part of its length.
const RENEWALS: u32 = 4;
/// How often a node without a session asks for one.
const RETRY: Duration = Duration::from_millis(50);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often this process notes that it runs.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Asks for a session again and again, once this node has what it needs to decide.
pub(super) async fn renew(shared: Arc<Shared>) {
    let length = shared.rights.terms().node;
    let mut way: Option<(NodeId, Caller)> = None;
    let mut had_session = false;
    loop {
        let next = Instant::now() + length / RENEWALS;
        let granted = ask(&shared, &mut way).await;
        let has_session = shared.rights.has_session(shared.clock.now());
        match (had_session, has_session) {
            (false, true) => info!("this node has a session with the leader: it may own slots"),
            (true, false) => warn!("the session has ended: rules that are `strict` are not decided here"),
            _ => {}
        }
        had_session = has_session;
        if granted {
            sleep_until(next).await;
        } else {
            way = None;
            sleep(RETRY).await;
        }
    }
}

async fn ask(shared: &Shared, way: &mut Option<(NodeId, Caller)>) -> bool {
    let Some(running) = shared.running() else { return false };
    let Some((leader, node)) = running.leader() else { return false };
    // Without the rules of the cluster it could not decide, and without a log that lasts it could not follow who owns what;
    // but it says that it is there.
    let wants =
        shared.in_force.borrow().complete && !shared.rights.is_given_up() && shared.log_works(&running);
    let asked = shared.clock.now();
    let question = shared.rights.ask(asked);
    let answer = if leader == shared.me {
        shared.renew_here(&running, shared.row.clone(), wants).await
    } else {
        let (_, caller) = match way {
            Some(known) if known.0 == leader => known,
            _ => way.insert((leader, Caller::new(shared, leader, node))),
        };
        match caller.call(Call::Renew { row: shared.row.clone(), wants }, PATIENCE).await {
            Ok(Reply::Renew(answer)) => answer,
            Ok(_) => Err(NotServed::Unknown),
            Err(fault) => {
                debug!(%fault, "no session");
                Err(NotServed::Unknown)
            }
        }
    };
    let Ok(Some(index)) = answer else { return false };
    shared.rights.grant(question, index, asked);
    true
}

/// Notes again and again that this process runs.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.rights.watch(shared.clock.now());
        // Alone there is nobody whose slots it could have missed.
        if shared.running().is_none() && shared.applied.borrow().state.members.len() > 1 {
            shared.rights.is_blind(shared.clock.now());
        }
    }
}

impl Shared {
    /// Grants a session, if this node leads and a quorum says so too.
    pub(super) async fn renew_here(
        &self,
        running: &Running,
        row: MemberRow,
        wants: bool,
    ) -> Result<Option<u64>, NotServed> {
        let (holder, reign) = (row.holder(), running.reign().ok_or(NotServed::NotLeader)?);
        let known = self.applied.borrow().state.members.get(&holder.node).cloned();
        if known.as_ref() != Some(&row) {
            let is_member = running.metrics().membership_config.membership().get_node(&row.id).is_some();
            let is_older = known.is_some_and(|known| known.incarnation > row.incarnation);
            if !is_member || is_older {
                return Ok(None);
            }
            // Who comes first says where it is; then it asks again.
            running.propose(Command::Member(row), PATIENCE).await?;
        }
        if !wants {
            return Ok(None);
        }
        let granting = {
            let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
            leader.look(Some(reign), self.clock.now());
            leader.begin_grant(holder)
        };
        let Some(granting) = granting else { return Ok(None) };
        // A task that is dropped here must not leave the grant under way for ever.
        let guard = Under { shared: self, granting: Some(granting) };
        let index = running.read_index_here(PATIENCE).await;
        let granted = guard.end(index.is_ok());
        Ok(index.ok().filter(|_| granted))
    }
}

/// A grant that ends, whatever becomes of who waits for it.
struct Under<'s> {
    shared: &'s Shared,
    granting: Option<crate::owner::leader::Granting>,
}

impl Under<'_> {
    fn end(mut self, confirmed: bool) -> bool {
        self.finish(confirmed)
    }

    fn finish(&mut self, confirmed: bool) -> bool {
        let Some(granting) = self.granting.take() else { return false };
        let mut leader = self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner);
        leader.granted(granting, confirmed, self.shared.clock.now())
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.finish(false);
    }
}
