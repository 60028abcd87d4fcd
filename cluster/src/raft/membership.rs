//! The task that keeps the group and its votes as they should be. It runs on each node and acts on the leader only,
//! one change at a time; what gossip says is a hint what to change, the log decides. **A member that has a session is there, and
//! where the log says, whatever gossip says of it**: else who forges a later start of it could have it taken out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::ChangeMembers;
use tidegate_limiter::Nanos;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::{
    handle::Shared,
    newcomers::Newcomers,
    running::Running,
    voters::{self, Known, Membership, Present, Step},
};
use crate::{
    fabric,
    ids::{NodeId, NodeStart, RaftNode},
    member::{Alive, Member, MemberRow},
    owner::leader::Leader,
    state::{
        applied::Applied,
        command::{Command, Founding},
    },
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A member that is gone for so long is taken out.
const EVICT_AFTER: Duration = Duration::from_secs(3600);
/// How long a member has been told to leave before it counts as one that does: where all are, it shows within this time.
const LEAVE_SETTLES: Duration = Duration::from_secs(1);
/// Who has not answered the leader for so long may be gone.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Who was taken out while it was there is not forgotten before it has not been seen for so long.
const LINGERS_FOR: Duration = Duration::from_secs(60);
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A node that lacks fewer entries than this may vote: it has the rest before it is asked for much.
const CAUGHT_UP: u64 = 200;

/// Runs until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>, leader: Arc<Mutex<Leader>>) {
    let mut seen: HashMap<NodeId, Instant> = HashMap::new();
    let mut led_since: Option<Instant> = None;
    let mut newcomers = Newcomers::default();
    let mut draining: HashMap<NodeStart, Instant> = HashMap::new();
    loop {
        sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let alive = shared.alive.borrow().clone();
        let applied = Arc::clone(&shared.applied.borrow());
        seen.extend(alive.members.iter().filter_map(|member| Some((member.node?, now))));
        draining.retain(|start, _| applied.state.draining.contains(start));
        for start in &applied.state.draining {
            draining.entry(*start).or_insert(now);
        }
        let Some(running) = shared.raft.running().filter(|running| running.is_leader()) else {
            led_since = None;
            continue;
        };
        let with_session = with_session(&leader, shared.clock.now(), &running, &applied);
        seen.extend(with_session.iter().map(|row| (row.id, now)));
        // Who was not seen since this node leads counts as gone since then, not since for ever.
        let led_since = *led_since.get_or_insert(now);
        seen.retain(|_, at| now.duration_since(*at) < Duration::from_secs(24 * 3600));
        let gone_for =
            |id: NodeId| now.duration_since(seen.get(&id).copied().unwrap_or(led_since).max(led_since));
        let settled = draining.iter().filter(|(_, since)| now.duration_since(**since) >= LEAVE_SETTLES);
        let leaving: BTreeSet<NodeId> =
            settled.map(|(start, _)| start.node).filter(|id| !is_concerned(&applied, *id)).collect();
        run_once(&shared, &running, &alive, &applied, &with_session, &leaving, gone_for, &mut newcomers)
            .await;
    }
}

#[expect(clippy::too_many_arguments, reason = "what a round looks at")]
async fn run_once(
    shared: &Shared,
    running: &Running,
    alive: &Alive,
    applied: &Applied,
    with_session: &[&MemberRow],
    leaving: &BTreeSet<NodeId>,
    gone_for: impl Fn(NodeId) -> Duration,
    newcomers: &mut Newcomers,
) {
    if applied.state.founding.is_none() {
        let Some(cluster) = shared.belonging.get() else { return };
        let founding = Founding { cluster, hash_secret: fabric::random_bytes() };
        let _ = running.propose(Command::Found(founding), PATIENCE).await;
        return;
    }
    let cluster = shared.belonging.get();
    // A node with the log of another cluster is none of ours, whatever it says of itself.
    let live = alive.members.iter().chain(&alive.name_conflict);
    let ours: Vec<&Member> = live
        .filter(|member| member.group.is_none() || member.group == cluster)
        .filter(|member| !member.node.is_some_and(|id| newcomers.waits(id)))
        .collect();
    let (membership, present) = look(shared, running, &ours, with_session);
    let known = Known {
        drains: |id| applied.state.draining.iter().any(|start| start.node == id),
        leaves: |id| leaving.contains(&id),
        evicted: |id| is_evicted(&applied.state.evicted, id, gone_for(id)),
        gone_for: &gone_for,
    };
    if let Some(step) = voters::next_step(&membership, &present, &known) {
        if let Step::Add(id, node) = &step
            && !newcomers.is_proved(&shared.identity, *id, node).await
        {
            return;
        }
        apply(running, step).await;
        return;
    }
    // Who was taken out while it was there would be taken in again, as somebody new, as soon as it is forgotten.
    let lingers = |row: &MemberRow| {
        applied.state.evicted.contains(&row.id)
            && applied.state.draining.contains(&row.node_start())
            && gone_for(row.id) < LINGERS_FOR
    };
    let gone = applied
        .state
        .members
        .values()
        .find(|row| !membership.nodes.contains_key(&row.id) && !lingers(row) && !owns(applied, row.id));
    if let Some(gone) = gone {
        let _ = running.propose(Command::Forget(gone.id), PATIENCE).await;
    }
}

/// Whether a member that is not there will not come back: somebody said so, or it is gone for too long.
fn is_evicted(evicted: &BTreeSet<NodeId>, id: NodeId, gone_for: Duration) -> bool {
    evicted.contains(&id) || gone_for >= EVICT_AFTER
}

/// Whether a member owns slots, or is about to: then it is still asked for them.
fn owns(applied: &Applied, id: NodeId) -> bool {
    let slots = applied.state.slots.rows().iter();
    let starts = slots.flat_map(|row| [Some(row.owner), row.moving.map(|pending| pending.to)]);
    starts.flatten().any(|start| start.node == id)
}

/// Whether others count on a member: it owns slots, is about to, or takes some over when their owner is lost.
fn is_concerned(applied: &Applied, id: NodeId) -> bool {
    let mut rows = applied.state.slots.rows().iter();
    owns(applied, id) || rows.any(|row| row.successor.is_some_and(|next| next.node.node == id))
}

/// The members that may have a session, also one that an earlier leader has granted.
fn with_session<'s>(
    leader: &Mutex<Leader>,
    now: Nanos,
    running: &Running,
    applied: &'s Applied,
) -> Vec<&'s MemberRow> {
    let mut leader = leader.lock().unwrap_or_else(PoisonError::into_inner);
    leader.look(running.leadership(), now);
    applied.state.members.values().filter(|row| !leader.has_lapsed(row.node_start(), now)).collect()
}

/// The group, and who of it is there.
fn look(
    shared: &Shared,
    running: &Running,
    live: &[&Member],
    with_session: &[&MemberRow],
) -> (Membership, Vec<Present>) {
    let metrics = running.metrics();
    let config = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let voters = config.get_joint_config().last().cloned().unwrap_or_default();
    let membership = Membership {
        nodes: config.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        voters,
        in_between: config.get_joint_config().len() > 1,
    };
    let matched = |id: NodeId| {
        metrics.id == id
            || metrics
                .replication
                .as_ref()
                .and_then(|progress| progress.get(&id).copied().flatten())
                .is_some_and(|matched| matched.index + CAUGHT_UP >= last)
    };
    let present = present_members(
        live,
        with_session.iter().copied().filter(|row| membership.nodes.contains_key(&row.id)),
    );
    let applied = Arc::clone(&shared.applied.borrow());
    let members = &applied.state.members;
    let answered =
        shared.contacts.answered.among(|id| membership.nodes.contains_key(&id) || members.contains_key(&id));
    let now = shared.clock.now();
    let answers = |id: NodeId| {
        let lately = |at: &Nanos| now.saturating_since(*at) < ANSWERS_WITHIN;
        id == shared.me || answered.get(&id).is_some_and(lately)
    };
    let there = present.into_iter().map(|(id, (node, zone))| {
        let (caught_up, answers) = (matched(id), answers(id));
        Present { id, node, zone, caught_up, answers }
    });
    let present = there.collect();
    (membership, present)
}

/// Who is there, where, and in which zone: what gossip says, and before that what the log says of those who have a session.
fn present_members<'s>(
    live: &[&Member],
    with_session: impl Iterator<Item = &'s MemberRow>,
) -> BTreeMap<NodeId, (RaftNode, Option<String>)> {
    let mut there = BTreeMap::new();
    for member in live {
        if let Some(id) = member.node {
            there.entry(id).or_insert_with(|| (member.raft_node(), member.zone.clone()));
        }
    }
    there.extend(with_session.map(|row| (row.id, (row.raft_node(), row.zone.clone()))));
    there
}

async fn apply(running: &Running, step: Step) {
    info!(change = ?step, "the Raft group changes");
    let raft = &running.raft;
    let changed = match step {
        Step::Add(id, node) => {
            // Not waited for: it may need a snapshot, and others should not wait for that.
            timeout(PATIENCE, raft.add_learner(id, node, false)).await
        }
        Step::Move(id, node) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::SetNodes([(id, node)].into()), true))
                .await
        }
        Step::Remove(id) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::RemoveNodes([id].into()), true)).await
        }
        Step::Voters(voters) => {
            timeout(PATIENCE, raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true)).await
        }
    };
    match changed {
        Ok(Ok(_)) => {}
        // It is looked at again: the change is begun anew, or ended by the next leader.
        Ok(Err(error)) => info!(%error, "the Raft group could not be changed yet"),
        Err(_) => info!(patience = ?PATIENCE, "changing the Raft group takes long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Weight,
        member::{MemberId, MemberState},
    };

    fn row(id: NodeId, incarnation: u64) -> MemberRow {
        MemberRow {
            id,
            name: format!("n{id}"),
            incarnation,
            peer: ([10, 0, 0, id as u8], 7803).into(),
            zone: None,
            keeps: false,
            weight: Weight::default(),
        }
    }

    /// What gossip says, somewhere else than the log.
    fn said(node: NodeId, name: &str, incarnation: u64) -> Member {
        Member {
            id: MemberId { name: name.into(), incarnation },
            state: MemberState::Serving,
            peer: ([10, 6, 6, 6], 7803).into(),
            ..Member::of(&row(node, 1))
        }
    }

    #[test]
    fn a_member_that_is_gone_for_an_hour_is_taken_out_and_at_once_where_somebody_said_so() {
        let said = BTreeSet::from([7]);
        let hour = Duration::from_secs(3600);
        assert!(!is_evicted(&said, 3, hour - Duration::from_millis(1)));
        assert!(is_evicted(&said, 3, hour));
        assert!(is_evicted(&said, 7, Duration::ZERO));
    }

    #[test]
    fn who_has_a_session_is_there_whatever_gossip_says() {
        let rows = [row(1, 1), row(2, 1), row(3, 1)];
        // A later start of n2 with another id, and one of n3 with its own id elsewhere.
        let forged = [said(9, "n2", u64::MAX), said(3, "n3", u64::MAX)];
        let there = present_members(&forged.iter().collect::<Vec<_>>(), rows.iter());
        for row in &rows {
            assert_eq!(there[&row.id].0, row.raft_node());
        }
        assert_eq!(there.len(), 4);
        let group = Membership {
            nodes: there.iter().map(|(id, (node, _))| (*id, node.clone())).collect(),
            voters: [1, 2, 3].into(),
            in_between: false,
        };
        let present: Vec<Present> = there
            .into_iter()
            .map(|(id, (node, zone))| Present { id, node, zone, caught_up: id != 9, answers: true })
            .collect();
        let known =
            Known { gone_for: |_| Duration::ZERO, drains: |_| false, leaves: |_| false, evicted: |_| false };
        assert_eq!(voters::next_step(&group, &present, &known), None);
    }
}
