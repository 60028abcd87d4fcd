//! How a node that does not follow the log learns that its slots are others': it asks the other members.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::context::Context;
use crate::{
    ids::{NodeId, NodeStart, RaftNode},
    rpc::{
        caller::Caller,
        message::{Call, Renewal, Reply},
    },
};

/// How often each member is asked.
const EVERY: Duration = Duration::from_millis(150);
/// How many members have a question at a time.
const MAX_ASKED: usize = 64;

/// The members that are asked whether others own the slots of this node, or will when its session has ended. When this is
/// dropped, what they still answer counts for nothing; that they answer does: the questions go on until their deadline.
#[derive(Default)]
pub(super) struct AskedMembers {
    /// At most [`MAX_ASKED`].
    asked: BTreeSet<NodeId>,
    /// Whether each says so. Who is silent keeps nobody else from being asked again.
    answers: FuturesUnordered<BoxFuture<'static, (NodeId, bool)>>,
}

impl AskedMembers {
    /// Asks all who have no question to answer, and takes in what is answered until it is time to ask again. An answer has to
    /// come within `patience`, from when there is a stream on.
    pub(super) async fn ask(&mut self, context: &Context, turn: u32, patience: Duration) {
        let until = Instant::now() + EVERY;
        let applied = Arc::clone(&context.group.applied.borrow());
        let others = applied.state.members.values().filter(|row| row.id != context.group.me);
        let mut others: Vec<(NodeId, RaftNode)> = others.map(|row| (row.id, row.raft_node())).collect();
        let count = others.len().max(1);
        others.rotate_left(turn as usize * MAX_ASKED % count);
        for (id, node) in others {
            if self.asked.len() >= MAX_ASKED {
                break;
            }
            if self.asked.insert(id) {
                let mut caller = Caller::new(&context.group.calling, id, node);
                let (row, applied) = (context.group.row.clone(), context.ownership.applied());
                let says_so = async move {
                    let answer =
                        caller.call_when_open(Call::Renew { row, wants: false, applied }, patience).await;
                    matches!(answer, Ok(Reply::Renew(Ok(Renewal::Behind(_)))))
                };
                let answered = tokio::spawn(says_so);
                self.answers.push(async move { (id, answered.await.unwrap_or(false)) }.boxed());
            }
        }
        while let Ok(Some((id, says_so))) = timeout_at(until, self.answers.next()).await {
            self.asked.remove(&id);
            if says_so {
                context.ownership.is_taken_over(context.group.clock.now());
            }
        }
        sleep_until(until).await;
    }
}

impl Context {
    /// Up to where a node must apply the log to learn that it owns nothing any more, if that is so. Each member that has applied
    /// it can tell, without a leader too.
    pub(super) fn knows_that_nothing_is_left(&self, start: NodeStart, applied: u64) -> Option<u64> {
        let known = self.group.applied.borrow();
        let slots = &known.state.slots;
        let is_left = || {
            let mut rows = slots.rows().iter();
            rows.any(|row| row.owner == start || row.moving.is_some_and(|pending| pending.to == start))
        };
        (applied < known.index && slots.is_assigned() && !is_left()).then_some(known.index)
    }
}
