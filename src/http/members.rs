//! `GET /v1/cluster`: the cluster as this node sees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_cluster::{
    Cluster, Member, MemberError, Readiness,
    slots::{SLOTS, SlotId},
    state::Actor,
};
use tokio::time::Instant;

use crate::check::{Problem, ProblemKind, echo};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct View {
    /// This node.
    node: String,
    state: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    /// Whether this node hears who comes and goes.
    gossip: bool,
    /// Into how many slots the key space is divided.
    slots: usize,
    /// Tells slot tables apart: nodes with the same one agree on who owns what.
    table: Option<String>,
    /// Whether this node has a session with the leader: without one it decides no rule that is `strict`.
    session: bool,
    /// How many slots are on their way to another owner right now.
    slots_moving: usize,
    /// How many slots are not yet where they should be.
    slots_to_move: usize,
    members: Vec<MemberView>,
    /// The owner of each slot, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_owners: Option<Vec<String>>,
    /// Who takes each slot over, if its owner is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_successors: Option<Vec<Option<String>>>,
    /// This node's part in the Raft group.
    raft: GroupView,
}

#[derive(Debug, Serialize)]
struct GroupView {
    id: String,
    cluster: Option<String>,
    role: &'static str,
    leader: Option<String>,
    term: u64,
    voters: Vec<String>,
    /// How many of them seem alive.
    live_voters: usize,
    /// How many more may be lost before rules and members cannot be changed; none: they cannot now.
    failures_tolerated: Option<usize>,
    learners: Vec<String>,
    last_log: u64,
    applied: u64,
    in_force: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    broken: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    name: String,
    incarnation: u64,
    state: &'static str,
    live: bool,
    /// Whether its slots are given to the others.
    draining: bool,
    /// How many slots it owns in this node's table.
    slots: usize,
    peer: String,
    http: Option<String>,
    zone: Option<String>,
    weight: u16,
    /// Up to which index of the log its rules are in force, as far as this node has heard.
    applied: Option<u64>,
    /// Whether it votes in the Raft group.
    voter: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_for_ms: Option<u64>,
}

/// What the query of the call asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether the owner of each slot is wanted: 4,096 names.
    #[serde(default)]
    slots: bool,
}

/// How a node is drained.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainOptions {
    /// It takes its share again instead.
    #[serde(default)]
    undo: bool,
}

/// How long the leader may take to write a change.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Begins to give a node's slots to the others.
pub(super) async fn drain(
    cluster: &Cluster,
    name: &str,
    options: &DrainOptions,
    by: Actor,
) -> Result<Value, Problem> {
    let deadline = Instant::now() + WRITE_WITHIN;
    cluster.drain(name, !options.undo, by, deadline).await.map_err(|fault| problem(name, &fault))?;
    let owned = cluster.status().slots_owned();
    let slots = owned.iter().find(|(known, _)| **known == *name).map_or(0, |(_, slots)| *slots);
    Ok(json!({ "node": name, "draining": !options.undo, "slots": slots }))
}

/// Forgets a dead node.
pub(super) async fn remove(cluster: &Cluster, name: &str, by: Actor) -> Result<Value, Problem> {
    let deadline = Instant::now() + WRITE_WITHIN;
    cluster.remove(name, by, deadline).await.map_err(|fault| problem(name, &fault))?;
    Ok(json!({ "node": name, "removed": true }))
}

fn problem(name: &str, fault: &MemberError) -> Problem {
    let kind = match fault {
        MemberError::NoSuchNode => ProblemKind::NoSuchNode,
        MemberError::Live | MemberError::Itself | MemberError::Removed => ProblemKind::NodeIsLive,
        MemberError::NoQuorum(_) => ProblemKind::NoQuorum,
        MemberError::NotAllowed(_) => ProblemKind::RoleMissing,
    };
    Problem::new(kind, format!("{:?}: {fault}", echo(name)))
}

/// Looks at the cluster.
pub(super) fn view(cluster: &Cluster, readiness: Readiness, wanted: &Wanted) -> View {
    let status = cluster.status();
    let (ready, waiting_for) = match readiness {
        Readiness::Ready => (true, None),
        Readiness::NotReady(reason) => (false, Some(reason)),
    };
    let owned = status.slots_owned();
    let group = cluster.ledger().status();
    let in_force = cluster.ledger().in_force_by_node();
    let draining = cluster.draining();
    let member = |member: &Member, live, gone_for_ms| MemberView {
        name: member.id.name.to_string(),
        incarnation: member.id.incarnation,
        state: member.state.as_str(),
        live,
        draining: draining.contains(&*member.id.name),
        slots: if live {
            owned.iter().find(|(name, _)| *name == member.id.name).map_or(0, |(_, n)| *n)
        } else {
            0
        },
        peer: member.peer.to_string(),
        http: member.http.map(|address| address.to_string()),
        zone: member.zone.clone(),
        weight: member.weight.get(),
        applied: in_force.get(&*member.id.name).copied().flatten(),
        voter: group.voters.iter().any(|name| **name == *member.id.name),
        gone_for_ms,
    };
    let live = status.live.iter().map(|one| member(one, true, None));
    let lost = status.lost.iter().map(|one| {
        let gone_for = one.since.elapsed().as_millis();
        member(&one.member, false, Some(gone_for as u64))
    });
    View {
        node: status.me.name.to_string(),
        state: status.state.as_str(),
        ready,
        waiting_for,
        gossip: status.gossip_alive,
        slots: SLOTS,
        table: status.table.as_ref().map(|table| format!("{:016x}", table.fingerprint())),
        session: status.has_session,
        slots_moving: status.moving,
        slots_to_move: status.misplaced,
        members: live.chain(lost).collect(),
        slot_owners: status
            .table
            .as_ref()
            .filter(|_| wanted.slots)
            .map(|table| SlotId::all().map(|slot| table.owner(slot).to_string()).collect()),
        slot_successors: wanted.slots.then(|| cluster.slot_successors()),
        raft: GroupView {
            id: format!("{:016x}", group.id),
            cluster: group.cluster.map(|cluster| cluster.to_string()),
            role: group.role.as_str(),
            leader: group.leader,
            term: group.term,
            live_voters: group.live_voters,
            failures_tolerated: group.failures_tolerated,
            voters: group.voters,
            learners: group.learners,
            last_log: group.last_log,
            applied: group.applied,
            in_force: group.in_force,
            trouble: group.trouble.or_else(|| cluster.ledger().foreign_cluster()),
            broken: cluster.ledger().broken(),
        },
    }
}
