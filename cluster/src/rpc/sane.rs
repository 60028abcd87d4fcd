//! Numbers that no cluster comes to are refused before openraft sees them. It believes what a member says, as Raft has it: a
//! term is written to the disk, and the last one there is ends each election with a panic, after a restart too.
//!
//! What is refused here cannot come from a member that works, whatever is lost, repeated or late. What can is left to Raft.

use openraft::{EntryPayload, LogId, Membership, Vote, raft::AppendEntriesResponse};

use super::message::{Call, Renewal, Reply};
use crate::{
    ids::{NodeId, RaftNode},
    planted::PlantedBug,
    state::types::{Group, MAX_SNAPSHOT_BYTES},
};

/// No cluster comes to this term, or to this many entries: not with a million elections or writes a second for eight years.
const END: u64 = 1 << 48;
/// Nor does one get so far ahead of a member while that is away. So it takes 65,536 steps to come to [`END`].
const STEP: u64 = 1 << 32;
/// Longest name of a snapshot.
const MAX_SNAPSHOT_ID_BYTES: usize = 128;

type Append = openraft::raft::AppendEntriesRequest<Group>;
type Id = LogId<NodeId>;

/// How far a node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) vote: Vote<NodeId>,
    /// The last entry that it has applied, which is therefore committed.
    pub(crate) applied: Option<Id>,
}

/// What no cluster comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Absurd {
    #[error("no cluster comes to the term {theirs}, this node is in {ours}")]
    Term { theirs: u64, ours: u64 },
    #[error("no cluster comes to the log index {0}")]
    Index(u64),
    #[error("entry {0} is not the one behind entry {1}")]
    Range(u64, u64),
    #[error("entry {0} is of a later term than who sends it")]
    Later(u64),
    #[error("entry {theirs} contradicts entry {ours}, which is committed")]
    Committed { theirs: u64, ours: u64 },
    #[error("a group without a voter")]
    NoVoters,
    #[error("it is said to be the vote of a leader, and is none; or the other way round")]
    Vote,
    #[error("no snapshot is like that: {0}")]
    Snapshot(&'static str),
    #[error("{0} entries are there which nobody sent")]
    Unsent(u64),
}

/// Whether no cluster comes to this term or index.
pub(crate) fn is_absurd(number: u64) -> bool {
    number > END
}

/// Whether a call can come from a member.
pub(crate) fn call(own: &Position, call: &Call) -> Result<(), Absurd> {
    if PlantedBug::AbsurdBelieved.is_on() {
        return Ok(());
    }
    match call {
        Call::Append(request) => append(own, request),
        Call::Vote(request) => {
            vote(own.vote.leader_id.term, &request.vote, false)?;
            request.last_log_id.as_ref().map_or(Ok(()), |last| id(last, Some(&request.vote)))
        }
        Call::Snapshot(request) => snapshot(own, request),
        Call::MayStand(question) => question.last().map_or(Ok(()), |last| id(&last, None)),
        Call::Found(proposal) if proposal.founders.is_empty() => Err(Absurd::NoVoters),
        _ => Ok(()),
    }
}

/// Whether an answer can come from a member that was asked this.
pub(crate) fn reply(asked: &Call, reply: &Reply) -> Result<(), Absurd> {
    if PlantedBug::AbsurdBelieved.is_on() {
        return Ok(());
    }
    let term = |asked: &Vote<NodeId>, theirs: &Vote<NodeId>| range(asked.leader_id.term, theirs);
    match (asked, reply) {
        (Call::Append(request), Reply::Append(Ok(answer))) => match answer {
            AppendEntriesResponse::HigherVote(theirs) => term(&request.vote, theirs),
            AppendEntriesResponse::PartialSuccess(Some(matching)) => {
                let before = request.prev_log_id.map_or(0, |prev| prev.index + 1);
                let sent = before + request.entries.len() as u64;
                if matching.index < sent { Ok(()) } else { Err(Absurd::Unsent(matching.index - sent + 1)) }
            }
            _ => Ok(()),
        },
        (Call::Vote(request), Reply::Vote(Ok(answer))) => {
            term(&request.vote, &answer.vote)?;
            answer.last_log_id.as_ref().map_or(Ok(()), |last| id(last, None))
        }
        (Call::Snapshot(request), Reply::Snapshot(Ok(answer))) => term(&request.vote, &answer.vote),
        (
            _,
            Reply::ReadIndex(Ok(index)) | Reply::Renew(Ok(Renewal::Granted(index) | Renewal::Behind(index))),
        ) => self::index(*index),
        _ => Ok(()),
    }
}

fn range(ours: u64, theirs: &Vote<NodeId>) -> Result<(), Absurd> {
    let theirs = theirs.leader_id.term;
    if theirs > END || theirs > ours.saturating_add(STEP) {
        return Err(Absurd::Term { theirs, ours });
    }
    Ok(())
}

fn vote(ours: u64, theirs: &Vote<NodeId>, of_leader: bool) -> Result<(), Absurd> {
    range(ours, theirs)?;
    if theirs.committed == of_leader { Ok(()) } else { Err(Absurd::Vote) }
}

fn index(index: u64) -> Result<(), Absurd> {
    if index > END { Err(Absurd::Index(index)) } else { Ok(()) }
}

/// `by`: what the sender is elected by, or would be.
fn id(id: &Id, by: Option<&Vote<NodeId>>) -> Result<(), Absurd> {
    index(id.index)?;
    if id.leader_id.term > END {
        return Err(Absurd::Term { theirs: id.leader_id.term, ours: END });
    }
    match by {
        Some(vote) if id.leader_id > vote.leader_id => Err(Absurd::Later(id.index)),
        _ => Ok(()),
    }
}

/// Whether two entries can be in one log: each index once, and terms only rise.
fn fit(one: &Id, other: &Id) -> bool {
    match one.index.cmp(&other.index) {
        std::cmp::Ordering::Equal => one == other,
        std::cmp::Ordering::Less => one.leader_id <= other.leader_id,
        std::cmp::Ordering::Greater => one.leader_id >= other.leader_id,
    }
}

/// What is committed is in the log of each leader that comes after.
fn committed(own: &Position, by: &Vote<NodeId>, theirs: &Id) -> Result<(), Absurd> {
    match own.applied {
        // One that was replaced does not know it yet: Raft tells it.
        Some(applied) if *by >= own.vote && !fit(&applied, theirs) => {
            Err(Absurd::Committed { theirs: theirs.index, ours: applied.index })
        }
        _ => Ok(()),
    }
}

fn append(own: &Position, request: &Append) -> Result<(), Absurd> {
    let by = &request.vote;
    vote(own.vote.leader_id.term, by, true)?;
    let mut before = request.prev_log_id;
    let ids = request.entries.iter().map(|entry| &entry.log_id);
    for one in request.prev_log_id.iter().chain(ids.clone()).chain(&request.leader_commit) {
        id(one, Some(by))?;
        committed(own, by, one)?;
    }
    for entry in &request.entries {
        let next = before.map_or(0, |id| id.index + 1);
        let rises = before.is_none_or(|id| id.leader_id <= entry.log_id.leader_id);
        if entry.log_id.index != next || !rises {
            return Err(Absurd::Range(entry.log_id.index, next.saturating_sub(1)));
        }
        if let EntryPayload::Membership(membership) = &entry.payload {
            voters(membership)?;
        }
        before = Some(entry.log_id);
    }
    match (&request.leader_commit, before) {
        (Some(commit), Some(last)) if !fit(commit, &last) => Err(Absurd::Range(commit.index, last.index)),
        _ => Ok(()),
    }
}

fn snapshot(own: &Position, request: &openraft::raft::InstallSnapshotRequest<Group>) -> Result<(), Absurd> {
    let (by, meta) = (&request.vote, &request.meta);
    vote(own.vote.leader_id.term, by, true)?;
    let last = meta.last_log_id.ok_or(Absurd::Snapshot("it has no last entry"))?;
    id(&last, Some(by))?;
    committed(own, by, &last)?;
    if let Some(named) = meta.last_membership.log_id() {
        id(named, Some(by))?;
        if named.index > last.index || !fit(named, &last) {
            return Err(Absurd::Range(named.index, last.index));
        }
    }
    voters(meta.last_membership.membership())?;
    if meta.snapshot_id.len() > MAX_SNAPSHOT_ID_BYTES {
        return Err(Absurd::Snapshot("its name is too long"));
    }
    let end = request.offset.saturating_add(request.data.len() as u64);
    if end > MAX_SNAPSHOT_BYTES as u64 {
        return Err(Absurd::Snapshot("it is too long"));
    }
    Ok(())
}

fn voters(membership: &Membership<NodeId, RaftNode>) -> Result<(), Absurd> {
    let sets = membership.get_joint_config();
    let all_known = membership.voter_ids().all(|id| membership.get_node(&id).is_some());
    let fine = !sets.is_empty() && sets.iter().all(|set| !set.is_empty()) && all_known;
    if fine { Ok(()) } else { Err(Absurd::NoVoters) }
}

#[cfg(test)]
mod tests;
