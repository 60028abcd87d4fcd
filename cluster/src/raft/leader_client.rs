//! What is asked of the leader, whoever that is: here if this node leads, else by a call.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::handle::Shared;
use crate::rpc::{
    caller::Caller,
    message::{Call, NotServed, Reply, Room},
    server::{Service, Services},
};

/// How long one attempt may take of what is asked for until it is written.
const PATIENCE: Duration = Duration::from_millis(1000);
const RETRY: Duration = Duration::from_millis(20);

/// Asks the leader.
pub(crate) struct LeaderClient {
    shared: Arc<Shared>,
    /// What answers here while this node leads.
    raft: Arc<dyn Service>,
    rules: Arc<dyn Service>,
    leader: Arc<dyn Service>,
}

impl LeaderClient {
    /// `services`: what answers here while this node leads.
    pub(crate) fn new(shared: Arc<Shared>, services: &Services) -> Self {
        let Services { raft, rules, leader, .. } = services.clone();
        Self { shared, raft, rules, leader }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`NotServed::NotLeader`] if nobody was asked, because no leader is known.
    pub(crate) async fn ask(&self, call: Call, patience: Duration) -> Result<Reply, NotServed> {
        let running = self.shared.raft.running().ok_or(NotServed::NotLeader)?;
        let (leader, node) = running.leader().ok_or(NotServed::NotLeader)?;
        if leader == self.shared.me {
            return Ok(self.ask_here(call).await);
        }
        let mut caller = Caller::new(&self.shared.calling, leader, node);
        caller.call(call, patience).await.map_err(|_| NotServed::Unknown)
    }

    /// Asks this node, as if it led.
    pub(crate) async fn ask_here(&self, call: Call) -> Reply {
        let service = match call.room() {
            Room::Raft => &self.raft,
            Room::Rules => &self.rules,
            Room::Leader => &self.leader,
            Room::Owner => return Reply::Refused("that is no call to a leader".to_owned()),
        };
        service.call(self.shared.me, call, 0).await
    }

    /// Asks for what is answered by [`Reply::Written`], again and again until it is written or the deadline is there. Whether it is.
    pub(crate) async fn write(&self, call: impl Fn() -> Call, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if let Ok(Reply::Written(Ok(()))) = self.ask(call(), PATIENCE).await {
                return true;
            }
            sleep(RETRY).await;
        }
        false
    }
}
