//! Moving the buckets of slots from their owner to the target of a planned move.
//!
//! The owner sends all that it knows while it goes on deciding; then it stops deciding, sends what was charged meanwhile,
//! and the target decides from there on.
//!
//! An answer can be lost, and a message that was given up can still arrive. So each message names its moves, and **buckets
//! are taken only for slots that this node awaits by that move**: not after the slot was installed, and not when the move is
//! over. Where two copies meet all the same, the store keeps the stricter of both.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidegate_limiter::{
    Nanos,
    cluster::{Bucket, Held, KeyHash, RuleId},
    rules::OnMemoryFull,
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::context::Context;
use crate::{
    fabric,
    member::MemberRow,
    owner::{node::Install, slot_ownership::Frozen, table::SlotMove},
    planted::PlantedBug,
    raft::leader_client::LeaderClient,
    rpc::{
        buckets::{
            HandOver, HandedOver, WireBucket, WireCharge, WireLetGo, WireRequest, WireSlot, WireTakeoverBasis,
        },
        caller::Caller,
        message::{Call, Reply},
    },
    slots::SlotId,
};

/// Bytes of buckets that go in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;
/// Decisions of requests that go with a batch of slots; beyond that a request is charged again if it is asked again.
const MAX_DECISIONS: usize = 4096;
/// Charges of requests that go along, of which something may be given back: 160 KiB of them.
const MAX_CHARGED: usize = 4096;
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before something is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// How long the target is told of the end of a move.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// Sends the buckets of slots that one move takes to one target, and stops deciding about them. Ends when the log says that
/// the move is over.
pub(crate) async fn send(context: Arc<Context>, moves: Vec<SlotMove>) {
    let Some(target) = target_of(&context, &moves) else { return };
    let mut caller = Caller::new(&context.group.calling, target.id, target.raft_node());
    let started = Instant::now();
    let Some(sent) = send_all(&context, &mut caller, &moves).await else { return };

    let frozen_at = Instant::now();
    let (frozen, keys) = context.ownership.freeze(&moves);
    if frozen.is_empty() {
        return;
    }
    let changed = keys.len();
    let mut last = last_of(&context, &frozen, keys, &sent.strict);
    // A large rest goes ahead of the message that gives the slots away.
    while last.buckets.iter().map(WireBucket::bytes).sum::<usize>() > MESSAGE_BYTES
        && let Some(part) = cut(&mut last.buckets)
    {
        if !deliver(&context, &mut caller, &moves, HandOver::part(&moves, part)).await {
            return;
        }
    }
    if deliver(&context, &mut caller, &moves, last).await {
        let (took, frozen_for) = (started.elapsed(), frozen_at.elapsed());
        debug!(to = %target.name, slots = moves.len(), buckets = sent.count, changed, ?took, ?frozen_for, "slots are handed over");
        context.moves.moved(moves.len() as u64, sent.count as u64, frozen_for);
    }
}

fn target_of(context: &Context, moves: &[SlotMove]) -> Option<MemberRow> {
    let applied = context.group.applied.borrow();
    let row = applied.state.slots.row(usize::from(moves.first()?.slot))?;
    applied.state.members.get(&row.moving?.to.node).cloned()
}

/// What the target of a move has been told before the last message.
struct Sent {
    count: usize,
    /// Buckets of strict rules: the target has these in memory, so that nothing is assumed of them there.
    strict: HashMap<KeyHash, RuleId>,
}

/// Sends all buckets of the slots as they are.
async fn send_all(context: &Arc<Context>, caller: &mut Caller, moves: &[SlotMove]) -> Option<Sent> {
    let slots: BTreeSet<u16> = moves.iter().map(|one| one.slot).collect();
    let mut wanted = vec![false; crate::slots::SLOTS];
    slots.iter().for_each(|slot| wanted[usize::from(*slot)] = true);
    let (store, rules, now) =
        (Arc::clone(&context.buckets.store), context.rules.load_full(), context.group.clock.now());
    let look = move || {
        let strict = rules.all().filter(|rule| rule.on_memory_full() == OnMemoryFull::Strict);
        let strict: HashSet<RuleId> = strict.map(tidegate_limiter::rules::Rule::id).collect();
        let (mut found, mut of_strict) = (Vec::new(), HashMap::new());
        let each = |bucket: Bucket| {
            if strict.contains(&bucket.rule) || bucket.rule.is_shared() {
                of_strict.insert(bucket.key, bucket.rule);
            }
            found.push(WireBucket::from(bucket));
        };
        store.buckets(now, |key| wanted[SlotId::of(key).index()], each);
        (found, of_strict)
    };
    // It locks one shard after the other, for as long as that takes.
    let (mut buckets, strict) = fabric::blocking(look).await.ok()?;
    let count = buckets.len();
    while let Some(part) = cut(&mut buckets) {
        if !deliver(context, caller, moves, HandOver::part(moves, part)).await {
            return None;
        }
    }
    Some(Sent { count, strict })
}

/// What goes last: what was charged since the first look, and the slots.
fn last_of(
    context: &Context,
    frozen: &[Frozen],
    keys: Vec<KeyHash>,
    sent: &HashMap<KeyHash, RuleId>,
) -> HandOver {
    let now = context.group.clock.now();
    let mut buckets: Vec<WireBucket> = Vec::new();
    let mut gone = Vec::new();
    for key in keys {
        let before = buckets.len();
        context.buckets.store.bucket(key, now, |bucket| buckets.push(bucket.into()));
        if buckets.len() == before
            && let Some(rule) = sent.get(&key)
        {
            gone.push((key, *rule));
        }
    }
    // What is not in memory any more cannot be sent by itself; what is known of it goes along. After the buckets: those that
    // were let go of since they were looked for are among them.
    let known = if PlantedBug::LetGoNotSent.is_on() { Vec::new() } else { context.buckets.store.let_go(now) };
    // Of those that the target has as they were before they were charged and let go of.
    for (key, rule) in gone {
        let of_rule = known.iter().filter(|one| one.rule == rule).map(|one| one.held.clone());
        let held = of_rule.max_by_key(|held| held.mark(now));
        buckets.extend(held.map(|held| Bucket { key, rule, held }.into()));
    }
    let let_go = known.into_iter().map(WireLetGo::from).collect();
    let ago = |floor: Nanos| now.saturating_since(floor).as_nanos() as u64;
    let slots = frozen.iter().map(|slot| WireSlot {
        one: slot.one,
        epoch: slot.epoch,
        drained_ago: slot.floor.map(ago),
        basis: slot
            .basis
            .as_ref()
            .map(|basis| WireTakeoverBasis::of(basis, context.ownership.number_of(&basis.rules), now)),
    });
    // After the buckets: what is undone meanwhile stays charged at the target, and must not be known and not charged there.
    let moves = |slot: SlotId| frozen.iter().any(|one| one.one.slot == slot.get());
    let requests =
        context.buckets.requests.of_slots(moves, MAX_DECISIONS, now).into_iter().map(WireRequest::from);
    let charges = context.buckets.requests.charges_of_slots(moves, MAX_CHARGED, now);
    let charges = charges.iter().map(|charge| WireCharge::of(charge, now)).collect();
    let moves = frozen.iter().map(|slot| slot.one).collect();
    HandOver { moves, buckets, let_go, slots: slots.collect(), requests: requests.collect(), charges }
}

/// The first of the buckets that fit a message; `None`: there are none.
fn cut(buckets: &mut Vec<WireBucket>) -> Option<Vec<WireBucket>> {
    let mut bytes = 0;
    let count = buckets
        .iter()
        .take_while(|bucket| {
            bytes += bucket.bytes();
            bytes <= MESSAGE_BYTES
        })
        .count();
    let rest = buckets.split_off(count.max(1).min(buckets.len()));
    let part = std::mem::replace(buckets, rest);
    (!part.is_empty()).then_some(part)
}

/// Delivers a message, again and again until it is there or the move is over.
async fn deliver(context: &Context, caller: &mut Caller, moves: &[SlotMove], part: HandOver) -> bool {
    while context.ownership.is_moving(moves) {
        match caller.call(Call::HandOver(part.clone()), PATIENCE).await {
            Ok(Reply::HandOver(HandedOver::Done)) => return true,
            Ok(Reply::HandOver(HandedOver::Never)) => return false,
            Ok(Reply::HandOver(HandedOver::NotYet)) => {}
            Ok(_) => return false,
            Err(fault) => debug!(%fault, "buckets could not be delivered"),
        }
        sleep(RETRY).await;
    }
    false
}

/// The slots of a message whose buckets are taken.
struct Awaited {
    slots: BTreeSet<u16>,
    /// What is answered, where nothing becomes this node's with the message.
    outcome: HandedOver,
}

impl Awaited {
    fn of(moves: &[SlotMove], awaits: &[Install]) -> Self {
        let taken = moves.iter().zip(awaits).filter(|(_, outcome)| **outcome == Install::Now);
        let outcome = if awaits.contains(&Install::NotYet) {
            HandedOver::NotYet
        } else if awaits.iter().all(|outcome| *outcome == Install::Never) {
            HandedOver::Never
        } else {
            HandedOver::Done
        };
        Self { slots: taken.map(|(one, _)| one.slot).collect(), outcome }
    }

    fn has(&self, slot: SlotId) -> bool {
        self.slots.contains(&slot.get())
    }
}

/// Takes over what another node hands over.
pub(crate) fn take_over(context: &Context, leader: &Arc<LeaderClient>, part: HandOver) -> HandedOver {
    let now = context.group.clock.now();
    let awaited = Awaited::of(&part.moves, &context.ownership.awaits(&part.moves));
    for bucket in part.buckets.into_iter().map(Bucket::from) {
        if PlantedBug::LogReplaced.is_on() && matches!(bucket.held, Held::Log { .. }) {
            context.buckets.store.reset(bucket.key);
        } else if !awaited.has(SlotId::of(bucket.key)) {
            continue;
        }
        context.buckets.store.take_over(&bucket, now);
    }
    part.let_go.into_iter().for_each(|let_go| let_go.take_over(&context.buckets.store, now));
    for remembered in part.requests.into_iter().filter_map(WireRequest::into_remembered) {
        if awaited.has(remembered.slot) {
            context.buckets.requests.take_over(remembered, now);
        }
    }
    if !part.slots.is_empty() {
        // They were this node's before, and another one's since.
        context.buckets.requests.forget_charges(|slot| awaited.has(slot));
    }
    for charge in part.charges.iter().map(|charge| charge.into_moved(now)) {
        if awaited.has(SlotId::of(charge.key)) {
            context.buckets.requests.take_over_charge(charge);
        }
    }
    let mut outcome = if part.slots.is_empty() { awaited.outcome } else { HandedOver::Done };
    let mut installed = Vec::new();
    for slot in part.slots {
        let floor = slot.drained_ago.map(|ago| Nanos::new(now.get().saturating_sub(ago)));
        let basis = slot.basis.map(|basis| basis.into_basis(now));
        let basis = basis.and_then(|(rules, basis)| basis.with(context.ownership.reserves_of(rules)));
        match context.ownership.install(slot.one, slot.epoch, floor, basis, now) {
            Install::Now => installed.push(slot.one),
            Install::Before => {}
            Install::NotYet if outcome == HandedOver::Done => outcome = HandedOver::NotYet,
            Install::NotYet => {}
            Install::Never => outcome = HandedOver::Never,
        }
    }
    if !installed.is_empty() {
        let leader = Arc::clone(leader);
        tokio::spawn(async move {
            let deadline = Instant::now() + COMMIT_WITHIN;
            if !leader.write(|| Call::Moved(installed.clone()), deadline).await {
                warn!(slots = installed.len(), "the leader could not be told that slots are here");
            }
        });
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::buckets::WireHeld;

    #[test]
    fn buckets_are_cut_into_messages_and_none_is_left_out() {
        let debt = |key| WireBucket { key, rule: 0, held: WireHeld::Debt(1) };
        let log =
            WireBucket { key: 7, rule: 0, held: WireHeld::Log { memory: 1, entries: vec![(1, 1); 1 << 16] } };
        let mut buckets: Vec<WireBucket> =
            (0..20_000).map(debt).chain([log]).chain((0..10).map(debt)).collect();
        let (all, mut cut_off) = (buckets.len(), 0);
        while let Some(part) = cut(&mut buckets) {
            let bytes: usize = part.iter().map(WireBucket::bytes).sum();
            assert!(bytes <= MESSAGE_BYTES || part.len() == 1, "a large log goes by itself");
            cut_off += part.len();
        }
        assert_eq!(cut_off, all);
    }
}
