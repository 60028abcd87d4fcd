//! The calls of Raft itself.

use std::{sync::Arc, time::Duration};

use openraft::{
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use tokio::time::timeout;
use tracing::debug;

use super::{handle::Shared, heard::Answered};
use crate::{
    clock::Clock,
    ids::{NodeId, RaftNode},
    rpc::{
        caller::Caller,
        error::CallError,
        message::{Call, Reply},
    },
    state::types::Group,
};

/// After a peer could not be reached, this long nothing is sent to it: an election must not wait for it.
const BACKOFF: Duration = Duration::from_millis(200);
/// Makes the ways to members for Raft.
pub(crate) struct Callers(pub(crate) Arc<Shared>);

impl RaftNetworkFactory<Group> for Callers {
    type Network = RaftCaller;

    async fn new_client(&mut self, target: NodeId, node: &RaftNode) -> RaftCaller {
        let Shared { calling, contacts, clock, .. } = &*self.0;
        let caller = Caller::new(calling, target, node.clone());
        RaftCaller { caller, answered: Arc::clone(&contacts.answered), clock: *clock }
    }
}

/// The way to one member, for Raft.
pub(crate) struct RaftCaller {
    caller: Caller,
    answered: Arc<Answered>,
    clock: Clock,
}

type Failure<E> = RPCError<NodeId, RaftNode, E>;

impl RaftCaller {
    /// Calls for Raft: what cannot be reached is left alone for a while.
    async fn ask<E: std::error::Error>(
        &mut self,
        call: Call,
        option: &RPCOption,
    ) -> Result<Reply, Failure<E>> {
        // Raft's timeout is for all of it. An answer that only the network delays is waited for as long as this peer takes:
        // a stream that leads nowhere any more is noticed by it.
        let at_once = call.is_answered_at_once();
        let within = option.hard_ttl();
        let patience = if at_once { self.caller.patience_at_once() } else { within };
        let answer = timeout(within, self.caller.exchange(call, patience)).await;
        answer.unwrap_or(Err(CallError::Timeout(within))).map_err(|fault| {
            let (_, node) = self.caller.to();
            debug!(to = %node, %fault, "a call of the Raft group failed");
            match fault {
                // That was pause enough.
                CallError::Timeout(_) => RPCError::Network(NetworkError::new(&fault)),
                fault => RPCError::Unreachable(Unreachable::new(&fault)),
            }
        })
    }

    /// An error that the member itself answered with.
    fn remote<E: std::error::Error>(&self, error: E) -> Failure<E> {
        RPCError::RemoteError(RemoteError::new(self.caller.to().0, error))
    }
}

fn mismatch<E: std::error::Error>() -> Failure<E> {
    RPCError::Network(NetworkError::new(&CallError::Mismatch))
}

impl RaftNetwork<Group> for RaftCaller {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure<RaftError<NodeId>>> {
        match self.ask(Call::Append(request), &option).await? {
            Reply::Append(answer) => {
                self.answered.note(self.caller.to().0, self.clock.now());
                answer.map_err(|error| self.remote(error))
            }
            _ => Err(mismatch()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Group>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failure<RaftError<NodeId, InstallSnapshotError>>> {
        match self.ask(Call::Snapshot(request), &option).await? {
            Reply::Snapshot(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(mismatch()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failure<RaftError<NodeId>>> {
        match self.ask(Call::Vote(request), &option).await? {
            Reply::Vote(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(mismatch()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
