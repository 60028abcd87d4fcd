//! The tasks around the Raft group, and around who owns which slot.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ownership::{
        context::Context, disk_task, earlier_start::EarlierStart, floor_file::FloorFile, floor_task,
        leader_task, session_task,
    },
    raft::{
        abandon, bootstrap, election, foreign,
        group::{RaftGroup, beat, watch_disk},
        leader_client::LeaderClient,
        membership,
    },
    rules::{in_force, ledger::Ledger},
};

/// What keeps the group going, and what is owned where it should be.
pub(super) struct GroupTasks {
    pub(super) context: Arc<Context>,
    pub(super) leader: Arc<LeaderClient>,
    pub(super) ledger: Ledger,
    pub(super) earlier: EarlierStart,
    pub(super) compiler: in_force::Compiler,
    /// Where floors are kept on the disk.
    pub(super) floor_file: Option<FloorFile>,
}

impl GroupTasks {
    /// Starts them, each until `cancel`. `seed`: rules to begin with, by domain.
    pub(super) fn spawn(
        self,
        group: RaftGroup,
        seed: Vec<(String, String)>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let cancel = cancel.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = task => {}
                }
            });
        };
        let shared = || Arc::clone(&self.context.group);
        let raft = || Arc::clone(&self.context.group.raft);
        let (context, leader) = (|| Arc::clone(&self.context), || Arc::clone(&self.leader));
        spawn(Box::pin(in_force::keep(shared(), self.ledger, self.compiler, seed)));
        spawn(Box::pin(bootstrap::form(shared())));
        spawn(Box::pin(abandon::watch(shared())));
        spawn(Box::pin(foreign::watch(shared())));
        spawn(Box::pin(election::stand(shared())));
        spawn(Box::pin(beat(raft())));
        spawn(Box::pin(watch_disk(raft())));
        spawn(Box::pin(membership::run(shared(), Arc::clone(&self.context.leader))));
        spawn(Box::pin(session_task::renew(context(), leader(), self.earlier)));
        spawn(Box::pin(session_task::watch(context())));
        spawn(Box::pin(leader_task::run(context())));
        spawn(Box::pin(floor_task::replicate(context(), leader())));
        if let Some(disk) = self.context.disk.clone() {
            spawn(Box::pin(disk_task::keep(context(), disk, self.floor_file)));
        }
        tasks.spawn(group.supervise(cancel.clone()));
    }
}
