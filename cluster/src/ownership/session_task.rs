//! Asking for sessions, granting them, and noticing that this process was stopped.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::{context::Context, earlier_start::EarlierStart, taken_over::AskedMembers};
use crate::{
    ids::{NodeId, RaftNode},
    member::MemberRow,
    owner::leader::{Asked, Granting},
    raft::{leader_client::LeaderClient, running::Running},
    rpc::{
        caller::Caller,
        message::{Call, NotServed, Renewal, Reply},
    },
    state::command::Command,
};

/// A session is renewed after this part of its length.
const RENEWALS: u32 = 4;
/// How often a node without a session asks for one.
const RETRY: Duration = Duration::from_millis(50);
/// Of so many attempts without a session one goes to another member than the leader.
const ASK_OTHERS_EVERY: u32 = 5;
/// How long an answer may take, from when there is a stream on.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long a quorum may take to confirm a leader to a node that wants no session: less than that node waits.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(600);
/// How often this process notes that it runs.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Asks for a session again and again, once this node has what it needs to decide.
pub(crate) async fn renew(context: Arc<Context>, leader: Arc<LeaderClient>, mut earlier: EarlierStart) {
    let length = context.ownership.timing().node;
    let (mut way, mut others) = (Way::default(), AskedMembers::default());
    let mut had_session = false;
    loop {
        let next = Instant::now() + length / RENEWALS;
        let may_own = !earlier.may_run(&context);
        let granted = ask(&context, &leader, &mut way, &mut others, may_own).await;
        let has_session = context.ownership.has_session(context.group.clock.now());
        match (had_session, has_session) {
            (false, true) => info!("this node has a session with the leader: it may own slots"),
            (true, false) => warn!("the session has ended: rules that are `strict` are not decided here"),
            _ => {}
        }
        had_session = has_session;
        if granted {
            (way.failed, others) = (0, AskedMembers::default());
            sleep_until(next).await;
        } else {
            way.caller = None;
            way.failed = way.failed.saturating_add(1);
            sleep(RETRY).await;
        }
    }
}

/// Whom a node asks for a session.
#[derive(Default)]
struct Way {
    caller: Option<(NodeId, Caller)>,
    /// Attempts since the last session was granted.
    failed: u32,
}

impl Way {
    /// The leader as far as this node knows; when that one grants nothing, now and then another member: a node that gets no
    /// messages does not hear of a new leader.
    fn next(&self, running: &Running, me: NodeId) -> Option<(NodeId, RaftNode)> {
        let known = running.leader();
        // One that holds itself for the leader, and is not confirmed, waits long for each of its own attempts.
        let is_me = known.as_ref().is_some_and(|(leader, _)| *leader == me);
        let every = if is_me { 2 } else { ASK_OTHERS_EVERY };
        if self.failed == 0 || !self.failed.is_multiple_of(every) {
            return known;
        }
        let metrics = running.metrics();
        let membership = metrics.membership_config.membership();
        let is_other = |id: &NodeId| *id != me && known.as_ref().is_none_or(|(leader, _)| id != leader);
        let others: Vec<NodeId> = membership.voter_ids().filter(is_other).collect();
        let turn = (self.failed / every) as usize;
        let id = others.get(turn % others.len().max(1))?;
        Some((*id, membership.get_node(id)?.clone()))
    }
}

/// Asks for a session; without a log that works, whether this node still has its slots. Whether a session is granted.
async fn ask(
    context: &Context,
    client: &LeaderClient,
    way: &mut Way,
    others: &mut AskedMembers,
    may_own: bool,
) -> bool {
    let turn = way.failed;
    match context.group.raft.running() {
        Some(running) if context.group.raft.log_works(&running) => {
            // One that holds itself for the leader hears of its successor from others only.
            let may_be_replaced = turn > 0
                && running.is_leader()
                && context.rules.progress.borrow().complete
                && !context.ownership.is_given_up();
            if !may_be_replaced {
                // What others still say was asked when it was.
                *others = AskedMembers::default();
                return ask_for_session(context, client, &running, way, may_own).await;
            }
            let (session, answers) = (
                ask_for_session(context, client, &running, way, may_own),
                others.ask(context, turn, PATIENCE),
            );
            tokio::pin!(session, answers);
            tokio::select! {
                granted = &mut session => {
                    // What others say about a session does not end the one after it.
                    if !granted {
                        answers.await;
                    }
                    granted
                }
                () = &mut answers => session.await,
            }
        }
        _ => {
            others.ask(context, turn, PATIENCE).await;
            false
        }
    }
}

async fn ask_for_session(
    context: &Context,
    client: &LeaderClient,
    running: &Running,
    way: &mut Way,
    may_own: bool,
) -> bool {
    let Some((leader, node)) = way.next(running, context.group.me) else { return false };
    // Without the rules of the cluster it could not decide; but it says that it is there.
    let wants = may_own
        && context.ownership.is_adopted()
        && context.rules.progress.borrow().complete
        && !context.ownership.is_given_up();
    let applied = {
        let known = context.group.applied.borrow();
        // Without a table there is nothing that this node could lose or give.
        if known.state.slots.is_assigned() { context.ownership.applied() } else { known.index }
    };
    let asked = context.group.clock.now();
    let question = context.ownership.ask(asked);
    let call = Call::Renew { row: context.group.row.clone(), wants, applied };
    let reply = if leader == context.group.me {
        Ok(client.ask_here(call).await)
    } else {
        let (_, caller) = match &mut way.caller {
            Some(known) if known.0 == leader => known,
            other => other.insert((leader, Caller::new(&context.group.calling, leader, node))),
        };
        caller.call_when_open(call, PATIENCE).await
    };
    let answer = match reply {
        Ok(Reply::Renew(answer)) => answer,
        Ok(_) => Err(NotServed::Unknown),
        Err(fault) => {
            debug!(%fault, "no session");
            Err(NotServed::Unknown)
        }
    };
    match answer {
        Ok(Renewal::Granted(index)) => {
            context.ownership.grant(question, index, asked);
            true
        }
        Ok(Renewal::Behind(needed)) if wants => {
            context.ownership.is_behind(needed, context.group.clock.now());
            false
        }
        Ok(Renewal::Behind(_) | Renewal::NotGranted) | Err(_) => false,
    }
}

/// Notes again and again that this process runs.
pub(crate) async fn watch(context: Arc<Context>) {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        context.ownership.watch(context.group.clock.now());
        // Alone there is nobody whose slots it could have missed.
        if context.group.raft.running().is_none() && context.group.applied.borrow().state.members.len() > 1 {
            context.ownership.is_blind(context.group.clock.now());
        }
    }
}

impl Context {
    /// Grants a session, if this node leads and a quorum says so too.
    pub(crate) async fn renew_here(
        &self,
        running: &Running,
        row: MemberRow,
        wants: bool,
        applied: u64,
    ) -> Result<Renewal, NotServed> {
        let start = row.node_start();
        let lost = if wants { None } else { self.knows_that_nothing_is_left(start, applied) };
        let Some(leadership) = running.leadership() else {
            return lost.map(Renewal::Behind).ok_or(NotServed::NotLeader);
        };
        let known = self.group.applied.borrow().state.members.get(&start.node).cloned();
        if known.as_ref().is_some_and(|known| known.incarnation > row.incarnation) {
            return Ok(lost.map_or(Renewal::NotGranted, Renewal::Behind));
        }
        let is_in_group = running.metrics().membership_config.membership().get_node(&row.id).is_some();
        // Nobody has applied more than there is.
        let applied = applied.min(running.last_log());
        if known.is_some() || is_in_group {
            let now = self.group.clock.now();
            let mut leader = self.leader();
            leader.look(Some(leadership), now);
            leader.note_contact(start.node, applied, now);
        }
        if known.as_ref() != Some(&row) {
            if !is_in_group {
                return Ok(Renewal::NotGranted);
            }
            if self.leads_stuck(running) {
                return Ok(Renewal::NotGranted);
            }
            // Who comes first says where it is; then it asks again.
            running.propose(Command::Member(row), PATIENCE).await?;
        }
        if !wants {
            // This leader gives the node's slots to others when the node's last session has ended. A node without a working log
            // does not read that in the log, so the leader tells it, once a quorum has confirmed that it leads.
            if let Some(index) = lost {
                return Ok(Renewal::Behind(index));
            }
            let takes_over = {
                let mut leader = self.leader();
                let now = self.group.clock.now();
                leader.look(Some(leadership), now);
                leader.note_log(running.last_log(), self.group.applied.borrow().index, now);
                leader.takes_over_soon(start, now)
            };
            if !takes_over {
                return Ok(Renewal::NotGranted);
            }
            let index = running.read_index_here(CONFIRMED_WITHIN).await;
            return Ok(index.map_or(Renewal::NotGranted, Renewal::Behind));
        }
        let asked = {
            let mut leader = self.leader();
            leader.look(Some(leadership), self.group.clock.now());
            leader.begin_grant(start, applied)
        };
        let granting = match asked {
            Asked::Granting(granting) => granting,
            Asked::Behind(needed) => return Ok(Renewal::Behind(needed)),
            Asked::Never => return Ok(Renewal::NotGranted),
        };
        // A task that is dropped here must not leave the grant under way for ever.
        let guard = Under { context: self, granting: Some(granting) };
        let index = running.read_index_here(PATIENCE).await;
        let granted = guard.end(index.ok());
        Ok(index.ok().filter(|_| granted).map_or(Renewal::NotGranted, Renewal::Granted))
    }
}

/// A grant that ends, whatever becomes of who waits for it.
struct Under<'s> {
    context: &'s Context,
    granting: Option<Granting>,
}

impl Under<'_> {
    fn end(mut self, confirmed: Option<u64>) -> bool {
        self.finish(confirmed)
    }

    fn finish(&mut self, confirmed: Option<u64>) -> bool {
        let Some(granting) = self.granting.take() else { return false };
        let mut leader = self.context.leader();
        leader.granted(granting, confirmed, self.context.group.clock.now())
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.finish(None);
    }
}
