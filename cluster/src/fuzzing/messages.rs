//! What is in the frames of a peer stream, and what a node makes of it.

use openraft::{CommittedLeaderId, LogId, Vote};
use smallvec::SmallVec;
use tidegate_limiter::{
    Nanos,
    cluster::{Store, StoreConfig},
};
use tidegate_proto::peer::{
    Amend, Answer, Check, Control, Introduction, Outcome, Ping, Pong, Refused, Undo, Welcome,
};

use super::{exact, stable};
use crate::{
    rpc::{
        buckets::{WireBucket, WireLetGo},
        message::{Call, Envelope, Reply},
        sane::{self, Position},
    },
    wire,
};

/// The year 2027.
const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

/// The first byte says which message the others are.
pub(super) fn messages(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 13 {
        0 => _ = exact::<Introduction>(bytes),
        1 => _ = exact::<Welcome>(bytes),
        2 => _ = exact::<Refused>(bytes),
        3 => _ = exact::<Undo>(bytes),
        4 => _ = exact::<Ping>(bytes),
        5 => _ = exact::<Pong>(bytes),
        6 => _ = exact::<Control>(bytes),
        7 => check(bytes),
        8 => _ = exact::<Amend>(bytes).map(|amend| wire::charges_from_wire(&amend.charges)),
        9 => answer(bytes),
        10 => call(bytes),
        11 => _ = stable::<Reply>(bytes),
        _ => round_trip(bytes),
    }
}

/// Charges that can be are charged, and a decision comes back for each.
fn check(bytes: &[u8]) {
    let Some(check) = exact::<Check>(bytes) else { return };
    let Some(charges) = wire::charges_from_wire(&check.charges) else { return };
    assert_eq!(charges.len(), check.charges.as_slice().len());
    let mut decisions = SmallVec::new();
    store().check_all(&charges, NOW, &mut decisions);
    assert_eq!(decisions.len(), charges.len());
    for (decision, charge) in decisions.iter().zip(&charges) {
        assert!(decision.remaining <= decision.limit, "{decision:?} {charge:?}");
        let again = wire::decision_from_wire(&wire::decision_to_wire(decision));
        assert_eq!(again, *decision);
    }
}

fn answer(bytes: &[u8]) {
    let Some(Answer { outcome: Outcome::Decided(decided), .. }) = exact(bytes) else { return };
    decided.decisions.iter().for_each(|decision| _ = wire::decision_from_wire(decision));
}

/// What a call says is looked at, and the buckets in it go into a store.
fn call(bytes: &[u8]) {
    let Some(Envelope { call, .. }) = stable(bytes) else { return };
    let _ = (call.kind(), call.room(), call.is_answered_at_once(), call.waits_for_network_only());
    let applied = LogId::new(CommittedLeaderId::new(3, 1), 40);
    for own in [
        Position { vote: Vote::new(0, 0), applied: None },
        Position { vote: Vote::new_committed(3, 1), applied: Some(applied) },
    ] {
        let _ = sane::call(&own, &call);
    }
    match call {
        Call::HandOver(over) => {
            over.charges.iter().for_each(|charge| _ = charge.into_moved(NOW));
            over.requests.into_iter().for_each(|request| _ = request.into_remembered());
            over.slots.iter().filter_map(|slot| slot.basis).for_each(|basis| _ = basis.into_basis(NOW));
            take_over(over.buckets, over.let_go);
        }
        Call::UpdateFloors(floors) => {
            floors.complete.into_iter().for_each(|(_, _, state)| _ = state.into_state(NOW));
            take_over(floors.buckets, floors.let_go);
        }
        _ => {}
    }
}

/// A call and its answer: two bytes say how long the first is.
fn round_trip(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let Some((call, reply)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let (Some(Envelope { call, .. }), Some(reply)) = (stable(call), stable::<Reply>(reply)) else { return };
    let _ = sane::reply(&call, &reply);
}

/// Puts buckets into a store as a node does that is given them. Whatever they say, the store goes on.
pub(super) fn take_over(buckets: Vec<WireBucket>, let_go: Vec<WireLetGo>) {
    let store = store();
    let count = buckets.len();
    buckets.into_iter().for_each(|bucket| store.take_over(&bucket.into(), NOW));
    let_go.into_iter().for_each(|let_go| let_go.take_over(&store, NOW));
    let mut there = 0;
    store.buckets(NOW, |_| true, |_| there += 1);
    // A state and a log of one key are two.
    assert!(there <= count, "{there} buckets of {count}");
    let _ = WireLetGo::all(&store, NOW);
}

fn store() -> Store {
    Store::new(StoreConfig { max_memory: 1 << 20, shards: 16 }, NOW)
}
