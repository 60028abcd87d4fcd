//! The task of the leader that sees to it that each slot has the owner that it should have: asks [`Leader::next`] what to
//! do, and does it.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::context::Context;
use crate::{
    ids::{NodeId, NodeStart},
    owner::{
        leader::{NOTICE, STUCK_AFTER, Step, View},
        shares::ShareChange,
        slot_ownership::Refusal,
        table::{Entry, SlotMove},
    },
    raft::running::Running,
    rpc::{
        caller::Caller,
        message::{Call, NotServed, Reply},
    },
    state::{applied::Applied, command::Command},
};

/// How often a leader checks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one step may take.
const PATIENCE: Duration = Duration::from_millis(1000);
/// After a step whose end is not known the leader looks again when notice was given and it does not count as stuck yet.
const NEXT_LOOK: Duration = PATIENCE.saturating_add(LOOK_EVERY);
const _: () =
    assert!(NEXT_LOOK.as_millis() >= NOTICE.as_millis() && NEXT_LOOK.as_millis() < STUCK_AFTER.as_millis());

/// Runs until it is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let mut applied = context.group.applied.subscribe();
    loop {
        let step = look(&context);
        let Some((running, step)) = step else {
            // What is applied may be the end of a move, and the next can begin.
            let _ = timeout(pause(&context), applied.changed()).await;
            continue;
        };
        match step {
            Step::Write(entry) => write(&context, &running, entry).await,
            Step::Refuse { target, moves } => refuse(&context, &running, target, moves).await,
            Step::Share(change) => share(&running, change).await,
            Step::Resign(reason) => {
                warn!(reason, "this leader resigns: another one is to be elected");
                context.group.raft.resigns.notify_one();
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn look(context: &Context) -> Option<(Arc<Running>, Step)> {
    let running = context.group.raft.running();
    let leadership = running.as_ref().and_then(|running| running.leadership());
    let now = context.group.clock.now();
    let applied = Arc::clone(&context.group.applied.borrow());
    let mut leader = context.leader();
    leader.look(leadership, now);
    let running = running?;
    leadership?;
    leader.note_log(running.last_log(), applied.index, now);
    let metrics = running.metrics();
    let membership = metrics.membership_config.membership();
    let members = &applied.state.members;
    let answered = context
        .group
        .contacts
        .answered
        .among(|id| members.contains_key(&id) || membership.get_node(&id).is_some());
    let view = View {
        me: context.group.me,
        index: applied.index,
        shares: &applied.state.shares,
        voters: membership.get_joint_config(),
        answered: &answered,
        table: &applied.state.slots,
        members,
        draining: &applied.state.draining,
        expected: membership.nodes().count(),
    };
    let step = leader.next(view, now)?;
    if let Step::Write(Entry::Prepare { slots, .. }) = &step {
        leader.rest_after(slots.len() * buckets_per_slot(context, &applied));
    }
    Some((running, step))
}

/// About, as far as this node can tell from what it owns.
fn buckets_per_slot(context: &Context, applied: &Applied) -> usize {
    let owned = applied.state.slots.rows().iter().filter(|row| row.owner.node == context.group.me).count();
    context.buckets.store.stats().buckets / owned.max(1)
}

/// For how long nothing is to be done, unless something changes.
fn pause(context: &Context) -> Duration {
    let leader = context.leader();
    let now = context.group.clock.now();
    let rest = leader.rests_until().map(|until| until.saturating_since(now)).filter(|rest| !rest.is_zero());
    rest.map_or(LOOK_EVERY, |rest| rest.min(LOOK_EVERY))
}

async fn write(context: &Context, running: &Running, entry: Entry) {
    match &entry {
        Entry::Assign(_) => info!("the first owners of the slots are written"),
        Entry::Prepare { slots, to } => {
            debug!(slots = slots.len(), to = %name(context, *to), "slots begin to move")
        }
        Entry::Expire { lapsed, slots, .. } => {
            let names: Vec<String> = lapsed.iter().map(|start| name(context, *start)).collect();
            warn!(
                slots = slots.len(),
                nodes = names.join(", "),
                "sessions have lapsed: others take the slots over"
            );
        }
        Entry::Succeed(named) => {
            let slots: usize = named.iter().map(|(_, slots)| slots.len()).sum();
            debug!(slots, "successors of slots are named");
        }
        Entry::Commit(_) | Entry::Abort { .. } => {}
    }
    let lapsed = match &entry {
        Entry::Expire { lapsed, .. } => lapsed.clone(),
        _ => Vec::new(),
    };
    match running.propose(Command::Slots(entry), PATIENCE).await {
        Ok(_) => {
            let mut leader = context.leader();
            leader.expiry_is_over(&lapsed);
        }
        // It may be in the log: what it is about is left as it is until that is known.
        Err(NotServed::NotLeader | NotServed::Unknown) => sleep(LOOK_EVERY).await,
    }
}

async fn share(running: &Running, change: ShareChange) {
    debug!(?change, "shares of lost buckets are given out anew");
    if running.propose(Command::Shares(change), PATIENCE).await.is_err() {
        // Repeated, it does nothing more.
        sleep(LOOK_EVERY).await;
    }
}

async fn refuse(context: &Context, running: &Running, target: NodeStart, moves: Vec<SlotMove>) {
    let Some(row) = context.group.applied.borrow().state.members.get(&target.node).cloned() else { return };
    info!(to = %row.name, slots = moves.len(), "a move of slots takes too long: it is given up");
    let Refusal { refused, taken } = if target.node == context.group.me {
        context.ownership.refuse(&moves)
    } else {
        let mut caller = Caller::new(&context.group.calling, target.node, row.raft_node());
        match caller.call(Call::Refuse(moves), PATIENCE).await {
            Ok(Reply::Refuse(refusal)) => refusal,
            _ => return,
        }
    };
    // Those that it has are its own: only the end of the move was not written.
    for entry in [Entry::Abort { moves: refused, refused: true }, Entry::Commit(taken)] {
        let _ = running.propose(Command::Slots(entry), PATIENCE).await;
    }
}

fn name(context: &Context, start: NodeStart) -> String {
    let applied = context.group.applied.borrow();
    applied.state.members.get(&start.node).map_or_else(|| format!("{:x}", start.node), |row| row.name.clone())
}

impl Context {
    /// Whether what this leader has written waits for so long that one more entry would only fill its disk: what nodes ask for by
    /// themselves they ask for again.
    pub(super) fn leads_stuck(&self, running: &Running) -> bool {
        let (applied, now) = (self.group.applied.borrow().index, self.group.clock.now());
        let mut leader = self.leader();
        leader.note_log(running.last_log(), applied, now);
        leader.is_stuck(now)
    }

    /// Writes that moves are done, if this node leads.
    pub(crate) async fn moved_here(&self, running: &Running, moves: Vec<SlotMove>) -> Result<(), NotServed> {
        running.propose(Command::Slots(Entry::Commit(moves)), PATIENCE).await.map(|_| ())
    }

    /// Writes that a node wants to own nothing, or something again.
    pub(crate) async fn drain_here(
        &self,
        running: &Running,
        start: NodeStart,
        on: bool,
    ) -> Result<(), NotServed> {
        running.propose(Command::Drain { start, on }, PATIENCE).await.map(|_| ())
    }

    /// Writes that a node which is gone will not come back.
    pub(crate) async fn evict_here(&self, running: &Running, node: NodeId) -> Result<(), NotServed> {
        running.propose(Command::Evict(node), PATIENCE).await.map(|_| ())
    }

    /// Writes that these slots have no successor, where it is still this one.
    pub(crate) async fn strike_here(
        &self,
        running: &Running,
        successor: NodeStart,
        slots: Vec<u16>,
    ) -> Result<(), NotServed> {
        let rows = Arc::clone(&self.group.applied.borrow().state.slots);
        let is_named = |slot: &u16| {
            let row = rows.row(usize::from(*slot));
            row.and_then(|row| row.successor).is_some_and(|next| next.node == successor)
        };
        let slots: Vec<u16> = slots.into_iter().filter(is_named).collect();
        if slots.is_empty() {
            return Ok(());
        }
        if self.leads_stuck(running) {
            return Err(NotServed::Unknown);
        }
        running.propose(Command::Slots(Entry::Succeed(vec![(None, slots)])), PATIENCE).await.map(|_| ())
    }
}
