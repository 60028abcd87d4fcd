//! Replicates the floors of this node's buckets to the successors of its slots, and receives those of other owners. What is sent
//! when, and what it is worth, stands in [`crate::owner::floors`].
//!
//! One task a successor, one call at a time: what comes up meanwhile goes with the next one. Floors that charges wait for are
//! sent at once, the others every 20 ms.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tidegate_limiter::cluster::Bucket;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::context::Context;
use crate::{
    fabric,
    ids::NodeStart,
    owner::{
        acknowledged::{MAX_MARKS, Side},
        floor_replication::Raise,
        floors::{Agreement, SuccessorRef},
        takeover::TakeoverState,
    },
    raft::leader_client::LeaderClient,
    rpc::{
        buckets::{FloorUpdate, WireLetGo, WireTakeoverState},
        caller::Caller,
        message::{Call, Reply},
    },
    slots::{SLOTS, SlotId},
};

/// How often floors are sent that nobody waits for.
const SEND_EVERY: Duration = Duration::from_millis(20);
/// An owner that has nothing to send says that it is there.
const PING_EVERY: Duration = Duration::from_millis(400);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// A successor that is silent for so long is struck from the log: until then, charges that need it wait.
const STRIKE_AFTER: Duration = Duration::from_millis(300);
/// How long it is asked for that.
const STRIKE_WITHIN: Duration = Duration::from_secs(1);
/// After that, it is sent nothing for so long.
const REST: Duration = Duration::from_secs(2);
/// The pause before something is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// Slots that have more floors than can be sent are tried again after this.
const POSTPONE: Duration = Duration::from_secs(15);
/// Buckets in one message.
const MESSAGE: usize = 4096;
/// How often an owner reads who its successors are.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until it is dropped, and with it all its tasks.
pub(crate) async fn replicate(context: Arc<Context>, leader: Arc<LeaderClient>) {
    let mut applied = context.group.applied.subscribe();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut started: BTreeMap<NodeStart, tokio::task::AbortHandle> = BTreeMap::new();
    loop {
        started.retain(|_, task| !task.is_finished());
        for successor in context.ownership.successors() {
            started.entry(successor).or_insert_with(|| {
                tasks.spawn(replicate_to(Arc::clone(&context), Arc::clone(&leader), successor))
            });
        }
        while tasks.try_join_next().is_some() {}
        // What is applied is in force a little later, so it is looked again without a change too.
        if let Ok(Err(_closed)) = timeout(LOOK_EVERY, applied.changed()).await {
            return;
        }
    }
}

/// Replicates floors to one successor, for as long as it is one.
async fn replicate_to(context: Arc<Context>, leader: Arc<LeaderClient>, successor: NodeStart) {
    let Some(row) = context.group.applied.borrow().state.members.get(&successor.node).cloned() else {
        return;
    };
    let caller = Caller::new(&context.group.calling, successor.node, row.raft_node());
    let mut sender = Sender {
        context,
        leader,
        successor,
        caller,
        answer: 0,
        heard: Instant::now(),
        wants: 0,
        rests_until: Instant::now(),
        postponed: BTreeMap::new(),
        silent: Vec::new(),
    };
    let mut seen = None;
    loop {
        let ownership = &sender.context.ownership;
        let now = Instant::now();
        if now < sender.rests_until {
            sleep(RETRY).await;
            continue;
        }
        let version = ownership.version();
        if seen == Some(version) && sender.postponed.is_empty() && !ownership.reserves().is_empty() {
            if sender.go_on().await.is_none() {
                sender.give_up().await;
            }
            continue;
        }
        let slots = ownership.slots_for(successor);
        if slots.is_empty() {
            return;
        }
        if ownership.reserves().is_empty() {
            sleep(LOOK_EVERY).await;
            continue;
        }
        sender.postponed.retain(|_, until| now < *until);
        let open =
            slots.iter().filter(|(slot, _, complete)| !complete && !sender.postponed.contains_key(slot));
        let open: Vec<(u16, SuccessorRef)> =
            open.map(|(slot, successor_ref, _)| (*slot, *successor_ref)).collect();
        // What is not done yet is looked at again.
        seen = open.is_empty().then_some(version);
        let sent = if open.is_empty() { sender.go_on().await } else { sender.begin(&open).await };
        if sent.is_none() {
            sender.give_up().await;
        }
    }
}

/// Sends floors to one successor.
struct Sender {
    context: Arc<Context>,
    leader: Arc<LeaderClient>,
    successor: NodeStart,
    caller: Caller,
    /// The number of its last answer.
    answer: u64,
    heard: Instant,
    /// How many charges had waited when it was last sent something.
    wants: u64,
    rests_until: Instant,
    postponed: BTreeMap<u16, Instant>,
    /// Slots about which this node decides without it.
    silent: Vec<u16>,
}

impl Sender {
    /// Sends what has come up; or waits for it.
    async fn go_on(&mut self) -> Option<()> {
        let ownership = Arc::clone(&self.context.ownership);
        if ownership.wants() == self.wants {
            let _ = timeout(SEND_EVERY, ownership.urgent(self.wants)).await;
        }
        self.wants = ownership.wants();
        let raises = ownership.take_raises(self.successor, MESSAGE);
        if raises.is_empty() && self.heard.elapsed() < PING_EVERY {
            return Some(());
        }
        self.send(&[], &raises, &[]).await
    }

    /// Has the successor know enough to begin from floors.
    async fn begin(&mut self, slots: &[(u16, SuccessorRef)]) -> Option<()> {
        let ownership = Arc::clone(&self.context.ownership);
        let started = Instant::now();
        let agreements = ownership.attempt(Side::Successor, slots);
        self.send(&agreements, &[], &[]).await?;
        // Most of it goes ahead, so that few charges have to wait for their turn.
        let ahead = self.send_all(slots).await?;
        let bound = ownership.bind(Side::Successor, &agreements);
        let rest = if ahead.is_some() { self.send_all(slots).await? } else { None };
        if rest.is_none() {
            // It knows that this attempt has begun, and will never receive that it is complete.
            bound.iter().for_each(|(slot, agreement)| ownership.free(Side::Successor, *slot, *agreement));
            let until = Instant::now() + POSTPONE;
            self.postponed.extend(bound.iter().map(|(slot, _)| (*slot, until)));
            return Some(());
        }
        let now = self.context.group.clock.now();
        let complete = ownership.takeover_states(Side::Successor, &bound, now);
        self.send(&[], &[], &complete).await?;
        ownership.completed(Side::Successor, complete.iter().map(|(slot, agreement, _)| (*slot, *agreement)));
        debug!(slots = complete.len(), buckets = ahead, rest, took = ?started.elapsed(), "a successor knows all");
        Some(())
    }

    /// Sends all that is known of these slots and not acknowledged. How much that was; none (the inner one): it cannot all be
    /// sent, because it is too much. What is not in memory any more is sent with the last update.
    async fn send_all(&mut self, slots: &[(u16, SuccessorRef)]) -> Option<Option<usize>> {
        let Some(found) = unsent(&self.context, Side::Successor, slots).await? else { return Some(None) };
        for part in found.chunks(MESSAGE) {
            self.wants = self.context.ownership.wants();
            let mut part = part.to_vec();
            part.extend(self.context.ownership.take_raises(self.successor, MESSAGE));
            self.send(&[], &part, &[]).await?;
        }
        Some(Some(found.len()))
    }

    /// Sends one update. `None`: it is not known whether it was received.
    async fn send(
        &mut self,
        begin: &[(u16, Agreement)],
        raises: &[Raise],
        complete: &[(u16, Agreement, TakeoverState)],
    ) -> Option<()> {
        let ownership = Arc::clone(&self.context.ownership);
        let now = self.context.group.clock.now();
        let bucket =
            |one: &Raise| Bucket { key: one.key, rule: one.rule, held: one.mark.held(one.key, now) }.into();
        let wire = |(slot, agreement, state): &(u16, Agreement, TakeoverState)| {
            (*slot, *agreement, WireTakeoverState::of(state, now))
        };
        let update = FloorUpdate {
            owner: ownership.me(),
            to: self.successor,
            answer: self.answer,
            begin: begin.to_vec(),
            buckets: raises.iter().map(bucket).collect(),
            complete: complete.iter().map(wire).collect(),
            let_go: if complete.is_empty() {
                Vec::new()
            } else {
                WireLetGo::all(&self.context.buckets.store, now)
            },
        };
        let patience = self.caller.patience(PATIENCE);
        match self.caller.call(Call::UpdateFloors(update), patience).await {
            Ok(Reply::FloorsUpdated(Some(answer))) => {
                (self.answer, self.heard) = (answer, Instant::now());
                if !self.silent.is_empty() {
                    ownership.is_heard_again(&std::mem::take(&mut self.silent));
                }
                ownership.floor_stats().count_replicated(raises.len() as u64);
                let full = ownership.acknowledge(Side::Successor, raises, self.context.group.clock.now());
                if full.is_empty() { Some(()) } else { Box::pin(self.release(full)).await }
            }
            Ok(_) => {
                ownership.put_back(Side::Successor, raises);
                None
            }
            Err(fault) => {
                debug!(%fault, "a successor cannot be told");
                ownership.put_back(Side::Successor, raises);
                None
            }
        }
    }

    /// There is no room for what these slots need: their buckets will count as exhausted.
    async fn release(&mut self, slots: Vec<u16>) -> Option<()> {
        let ownership = Arc::clone(&self.context.ownership);
        let named: BTreeMap<u16, SuccessorRef> = ownership
            .slots_for(self.successor)
            .into_iter()
            .map(|(slot, successor_ref, _)| (slot, successor_ref))
            .collect();
        let slots: BTreeSet<u16> = slots.into_iter().collect();
        let slots: Vec<(u16, SuccessorRef)> =
            slots.iter().filter_map(|slot| Some((*slot, *named.get(slot)?))).collect();
        warn!(
            slots = slots.len(),
            "more buckets than successors can be told of: these would start exhausted"
        );
        let bound = ownership.bind(Side::Successor, &ownership.attempt(Side::Successor, &slots));
        let until = Instant::now() + POSTPONE;
        self.postponed.extend(bound.iter().map(|(slot, _)| (*slot, until)));
        self.send(&bound, &[], &[]).await?;
        bound.iter().for_each(|(slot, agreement)| ownership.free(Side::Successor, *slot, *agreement));
        Some(())
    }

    /// The successor does not answer. When that lasts, the leader is asked to name none: then this node is free.
    async fn give_up(&mut self) {
        sleep(RETRY).await;
        // Where the network is slow, one answer may take as long as that.
        if self.heard.elapsed() < STRIKE_AFTER.max(2 * self.caller.patience(Duration::ZERO)) {
            return;
        }
        let ownership = Arc::clone(&self.context.ownership);
        let slots: Vec<u16> = ownership.bound_to(self.successor);
        if ownership.is_silent(&slots, self.context.group.clock.now()) {
            self.silent = slots;
            self.rests_until = Instant::now() + LOOK_EVERY;
            return;
        }
        if !slots.is_empty() {
            info!(
                slots = slots.len(),
                node = format_args!("{:x}", self.successor.node),
                "a successor does not answer: another is wanted"
            );
            let strike = || Call::Strike { successor: self.successor, slots: slots.clone() };
            self.leader.write(strike, Instant::now() + STRIKE_WITHIN).await;
        }
        self.rests_until = Instant::now() + if slots.is_empty() { LOOK_EVERY } else { REST };
    }
}

/// All that is known of these slots and not acknowledged by that side. None (the inner one): it is too much.
pub(super) async fn unsent(
    context: &Arc<Context>,
    side: Side,
    slots: &[(u16, SuccessorRef)],
) -> Option<Option<Vec<Raise>>> {
    let mut wanted: Vec<Option<SuccessorRef>> = vec![None; SLOTS];
    slots.iter().for_each(|(slot, successor_ref)| wanted[usize::from(*slot)] = Some(*successor_ref));
    let context = Arc::clone(context);
    let look = move || {
        let (store, ownership, now) = (&context.buckets.store, &context.ownership, context.group.clock.now());
        let reserves = ownership.reserves();
        let mut found: Vec<Raise> = Vec::new();
        store.buckets(
            now,
            |key| wanted[SlotId::of(key).index()].is_some(),
            |Bucket { key, rule, held }| {
                // Of other rules there may be any number, which must not keep these from being sent.
                if let Some(successor_ref) = wanted[SlotId::of(key).index()]
                    && let Some(mark) = reserves.floor_of(key, rule, &held, now)
                    && ownership.acknowledged_by(side, key).is_none_or(|known| known < mark)
                    && found.len() <= MAX_MARKS
                {
                    found.push(Raise { key, rule, mark, successor_ref });
                }
            },
        );
        (found.len() <= MAX_MARKS).then_some(found)
    };
    // It locks one shard after the other, for as long as that takes.
    fabric::blocking(look).await.ok()
}

impl Context {
    /// Receives the floors of slots whose successor this node is. `None`: another start of this node was meant.
    pub(crate) fn receive_floors(&self, update: FloorUpdate) -> Option<u64> {
        let now = self.group.clock.now();
        let FloorUpdate { owner, to, answer, begin, buckets, complete, let_go } = update;
        if to != self.ownership.me() {
            return None;
        }
        self.ownership.note_owner(owner, answer, now);
        self.ownership.begin_receiving(&begin);
        for bucket in buckets {
            self.buckets.floors.take_over(&bucket.into(), now);
        }
        let_go.into_iter().for_each(|let_go| let_go.take_over(&self.buckets.floors, now));
        let complete: Vec<(u16, Agreement, TakeoverState)> = complete
            .into_iter()
            .map(|(slot, agreement, state)| (slot, agreement, state.into_state(now)))
            .collect();
        self.ownership.complete_receiving(&complete);
        Some(self.ownership.answer(owner, self.group.clock.now()))
    }
}
