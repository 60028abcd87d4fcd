//! A member speaks for itself: what a call says of its sender is compared with who has proved itself on that stream, and with
//! what the log knows of that one. All members hold the same key, so this keeps a member from being taken for another by mistake
//! or by what was recorded; it is no defence against who has the key.

use super::running::Running;
use crate::{
    ids::{NodeId, NodeStart},
    link::Peer,
    owner::table::SlotMove,
    planted::PlantedBug,
    rpc::message::Call,
    state::applied::Applied,
};

/// Why a call is not its sender's to make.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SenderError {
    #[error("it says that it is from the node {said:016x}, the stream is that of {proved:016x}")]
    Id { said: NodeId, proved: NodeId },
    #[error("the node {id:016x} is {known} in its start {since}, not {said}")]
    Start { id: NodeId, known: String, since: u64, said: String },
    #[error("it speaks for the node {0:016x} in its start {1}")]
    For(NodeId, u64),
    #[error("it speaks as the leader {0:016x}")]
    Leader(NodeId),
    #[error("the slot {0} is not the sender's to speak for")]
    Slot(u16),
    #[error("the sender is no member of the cluster")]
    Foreign,
}

/// Whether that peer may make this call. Slots that it cannot speak for are taken out where the rest counts by itself.
pub(crate) fn check(
    applied: &Applied,
    running: &Running,
    peer: &Peer,
    from: NodeId,
    call: &mut Call,
) -> Result<(), SenderError> {
    if PlantedBug::SenderNotChecked.is_on() {
        return Ok(());
    }
    if from != peer.id {
        return Err(SenderError::Id { said: from, proved: peer.id });
    }
    let sender = NodeStart { node: peer.id, incarnation: peer.member.incarnation };
    if let Some(row) = applied.state.members.get(&from) {
        let is_later = sender.incarnation > row.incarnation;
        // An earlier start may still run, where its disk was taken away from it: the answer says that it owns nothing any more.
        let asks_only = matches!(call, Call::Renew { wants: false, .. }) && row.name == *peer.member.name;
        if !is_later && !asks_only && (sender.incarnation < row.incarnation || row.name != *peer.member.name)
        {
            let (known, since) = (row.name.clone(), row.incarnation);
            return Err(SenderError::Start { id: from, known, since, said: peer.member.to_string() });
        }
    }
    let is_sender = |start: NodeStart| {
        if start == sender { Ok(()) } else { Err(SenderError::For(start.node, start.incarnation)) }
    };
    let leads = |node: NodeId| if node == from { Ok(()) } else { Err(SenderError::Leader(node)) };
    let is_member = || if running.has_member(from) { Ok(()) } else { Err(SenderError::Foreign) };
    let slots = &applied.state.slots;
    // A move that this node does not know, or no longer, is the business of who looks at it.
    let target_of = |one: &SlotMove| {
        let moving = slots.row(usize::from(one.slot)).and_then(|row| row.moving);
        moving.filter(|moving| moving.id == one.id).map(|moving| moving.to)
    };
    match call {
        Call::Append(request) => leads(request.vote.leader_id.node_id),
        Call::Vote(request) => leads(request.vote.leader_id.node_id),
        Call::Snapshot(request) => leads(request.vote.leader_id.node_id),
        Call::Found(proposal) => match proposal.founders.get(&from) {
            Some(node) if node.name == *peer.member.name => Ok(()),
            _ => Err(SenderError::Foreign),
        },
        Call::Renew { row, .. } => {
            is_sender(row.node_start())?;
            if row.name == *peer.member.name {
                Ok(())
            } else {
                Err(SenderError::For(row.id, row.incarnation))
            }
        }
        Call::Moved(moves) => {
            is_member()?;
            match moves.iter().find(|one| target_of(one).is_some_and(|to| to != sender)) {
                Some(one) => Err(SenderError::Slot(one.slot)),
                None => Ok(()),
            }
        }
        Call::HandOver(part) => {
            // From their owner, if the move goes on: what is over is seen where it is taken over.
            let is_foreign = |one: &SlotMove| {
                let row = slots.row(usize::from(one.slot));
                target_of(one).is_some() && row.is_some_and(|row| row.owner != sender)
            };
            match part.moves().find(|one| is_foreign(one)) {
                Some(one) => Err(SenderError::Slot(one.slot)),
                None => Ok(()),
            }
        }
        Call::Refuse(_) => match running.leader() {
            Some((leader, _)) => leads(leader),
            None => Ok(()),
        },
        Call::UpdateFloors(update) => is_sender(update.owner()),
        Call::Strike { slots: struck, .. } => {
            is_member()?;
            let owned = |slot: &u16| slots.row(usize::from(*slot)).is_some_and(|row| row.owner == sender);
            let first = struck.first().copied();
            struck.retain(owned);
            match first {
                Some(slot) if struck.is_empty() => Err(SenderError::Slot(slot)),
                _ => Ok(()),
            }
        }
        Call::Write { .. }
        | Call::Act { .. }
        | Call::ReadIndex { .. }
        | Call::Drain { .. }
        | Call::Evict(_) => is_member(),
        Call::Touched { .. } | Call::MayStand(_) | Call::Reach | Call::Introduce | Call::Release(_) => Ok(()),
    }
}
