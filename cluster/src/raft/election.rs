//! Who stands for election, and when. openraft 0.9 would stand whenever its timer ends: a node that was cut off counts its
//! term up alone, and brings the leader down when it comes back. So its timer is off, and a node **asks before it stands**
//! (Ongaro's pre-vote, section 9.6 of the Raft thesis): it stands only if a quorum would vote for it and has not heard
//! of a leader for as long as openraft itself keeps to one. Asking changes nothing at anybody, however often it is done.
//!
//! A voter says yes only to a node that it could just reach ([`super::reach`]): who wins can be asked for sessions.
//!
//! What is decided here is only when an election begins. Whether it is won, and by one, is Raft's business as before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use openraft::{LogId, Vote, storage::RaftLogStorage as _};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use super::{
    handle::Shared,
    heard::{ELECTION, TakingIn},
    reach::Ahead,
    running::Running,
};
use crate::{
    fabric,
    ids::{NodeId, RaftNode},
    owner::leader::is_quorum,
    planted::PlantedBug,
    raft::heard::RESIGNED_FOR,
    rpc::{
        caller::Caller,
        message::{Call, Question, Reply},
    },
};

/// How often a voter checks whether somebody leads.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long the others are waited for: who answers later is asked again.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// After the others have begun to miss the leader too, a node waits between nothing and so long: who asks first mostly wins.
const SPREAD: Duration = Duration::from_millis(400);

/// Stands for election when that is needed and could be won. Runs until it is dropped.
pub(crate) async fn stand(shared: Arc<Shared>) {
    let mut ways: BTreeMap<NodeId, Caller> = BTreeMap::new();
    let mut ahead = Ahead::new();
    let mut delay = random(SPREAD);
    let mut not_before = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let Some(running) = shared.raft.running() else { continue };
        let voters = running.voters();
        if voters.is_empty() {
            // A founder without a log: who asks for its vote may be far away.
            ahead.attempt(&shared, shared.promised_founders());
        }
        if running.is_leader() {
            shared.contacts.note_elected();
            ways.clear();
            continue;
        }
        if !voters.iter().any(|set| set.contains(&shared.me)) {
            ways.clear();
            continue;
        }
        // Nobody else could lead: there is nobody to wait for.
        let is_alone = voters.iter().all(|set| set.len() == 1 && set.contains(&shared.me));
        let heard = shared.contacts.heard_by_now();
        if !is_alone && now >= heard.looks_ahead_from() {
            ahead.attempt(&shared, running.other_voters(shared.me));
        }
        if now < not_before || !is_alone && now < heard.stands_from() + delay {
            continue;
        }
        if !running.is_quiet() {
            // It may lead by now. And where its disk hangs it cannot vote for itself, and would only keep others from leading.
            continue;
        }
        delay = random(SPREAD);
        not_before = now + LOOK_EVERY + random(SPREAD);
        if !is_alone && !would_win(&shared, &running, &voters, &mut ways).await || !running.is_quiet() {
            continue;
        }
        let term = running.term() + 1;
        info!(term, "no leader is there: this node stands for election");
        // From here it wants nobody else's election and does not stand again before this one has had its time: votes that come for
        // an earlier one of its terms do not count any more.
        shared.contacts.note_vote(term);
        // If Raft has ended, it is started again by others.
        let _ = running.raft.trigger().elect().await;
        let mut metrics = running.watch();
        let elected = metrics.wait_for(|metrics| metrics.current_term >= term && metrics.vote.is_committed());
        let _ = timeout_at(shared.contacts.heard_by_now().missed_from(), elected).await;
    }
}

/// Asks all voters, and says whether most of them would vote for this node.
async fn would_win(
    shared: &Arc<Shared>,
    running: &Running,
    voters: &[BTreeSet<NodeId>],
    ways: &mut BTreeMap<NodeId, Caller>,
) -> bool {
    let Some(last) = running.last_entry().await else { return false };
    let nodes = running.metrics();
    let nodes = nodes.membership_config.membership();
    let others: BTreeSet<NodeId> = voters.iter().flatten().copied().filter(|id| *id != shared.me).collect();
    ways.retain(|id, _| others.contains(id));
    for id in &others {
        if let (None, Some(node)) = (ways.get(id), nodes.get_node(id)) {
            ways.insert(*id, Caller::new(&shared.calling, *id, node.clone()));
        }
    }
    let question = Question { last };
    let asked = ways.iter_mut().map(|(id, way)| async move {
        match way.call(Call::MayStand(question), ANSWER_WITHIN).await {
            Ok(Reply::MayStand(true)) => Some(*id),
            Ok(_) => None,
            Err(fault) => {
                debug!(%fault, "a voter cannot be asked");
                None
            }
        }
    });
    let mut agree: BTreeSet<NodeId> = join_all(asked).await.into_iter().flatten().collect();
    agree.insert(shared.me);
    // Meanwhile the leader may have been heard.
    is_quorum(voters, |id| agree.contains(&id))
        && Instant::now() >= shared.contacts.heard_by_now().missed_from()
        && !running.is_leader()
}

fn random(below: Duration) -> Duration {
    below * u32::from(u16::from_be_bytes(fabric::random_bytes())) / u32::from(u16::MAX)
}

impl Running {
    fn other_voters(&self, me: NodeId) -> Vec<(NodeId, RaftNode)> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let others = membership.voter_ids().filter(|id| *id != me);
        others.filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect()
    }

    /// A member of the group, as its log names it.
    fn node(&self, id: NodeId) -> Option<RaftNode> {
        self.metrics().membership_config.membership().get_node(&id).cloned()
    }

    fn term(&self) -> u64 {
        self.metrics().current_term
    }

    /// The last entry of this node's log; `None` when the disk fails.
    async fn last_entry(&self) -> Option<Option<LogId<NodeId>>> {
        Some(self.log.clone().get_log_state().await.ok()?.last_log_id)
    }
}

impl Shared {
    /// Somebody has said that it leads. It counts if this node does not know better: a leader that was replaced, and does
    /// not know it yet, keeps nobody from electing the next. What is returned is kept while the message is taken in.
    pub(crate) fn note_leader(&self, running: &Running, vote: &Vote<NodeId>) -> Option<TakingIn> {
        (*vote >= running.metrics().vote).then(|| {
            self.contacts.note_leader();
            self.contacts.take_in()
        })
    }

    /// The other founders of the cluster that this node has promised to found.
    fn promised_founders(&self) -> Vec<(NodeId, RaftNode)> {
        let founders = self.belonging.promise().map(|promise| promise.proposal.founders).unwrap_or_default();
        founders.into_iter().filter(|(id, _)| *id != self.me).collect()
    }

    /// A member of the group as the log names it; for a founder that has no log yet, as its promise does.
    pub(super) fn node_of(&self, running: &Running, id: NodeId) -> Option<RaftNode> {
        let promised = || self.belonging.promise()?.proposal.founders.get(&id).cloned();
        running.node(id).or_else(promised)
    }

    /// Whether this node would vote for who asks.
    pub(crate) async fn may_stand(&self, running: &Running, question: Question, from: NodeId) -> bool {
        // One that asks although it leads is not missed: it has been cut off, and stands as soon as it hears of that.
        if running.is_leader() || Instant::now() < self.contacts.heard_by_now().missed_from() {
            return false;
        }
        // It may be writing a vote.
        if !running.is_quiet() {
            return false;
        }
        let is_no_older = running.last_entry().await.is_some_and(|mine| question.last >= mine);
        is_no_older
            && (PlantedBug::UnreachableLeaderStays.is_on()
                || self.can_reach(from, self.node_of(running, from)).await)
    }
}

// Those that stay elect another meanwhile; the first rounds take this long at most.
const _: () = assert!(
    RESIGNED_FOR.as_millis()
        > (ELECTION.1.as_millis() + SPREAD.as_millis() + ANSWER_WITHIN.as_millis() + ELECTION.0.as_millis())
            * 3
            / 2
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_voters_change_most_of_both_sets_must_agree() {
        let set = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<NodeId>>();
        let three = [set(&[1, 2, 3])];
        let has_quorum =
            |voters: &[BTreeSet<NodeId>], of: &[NodeId]| is_quorum(voters, |id| of.contains(&id));
        assert!(has_quorum(&three, &[1, 3]));
        assert!(!has_quorum(&three, &[1, 9]));
        let joint = [set(&[1, 2, 3]), set(&[1, 4, 5])];
        assert!(!has_quorum(&joint, &[1, 2, 3]));
        assert!(has_quorum(&joint, &[1, 2, 4]));
        assert!(!has_quorum(&[set(&[1, 2])], &[1]), "half is no quorum");
        assert!(!has_quorum(&[], &[1]));
    }
}
