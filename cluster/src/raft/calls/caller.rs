//! Calling other members: for whoever has something to ask, and for Raft.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use openraft::{
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use tidegate_proto::Kind;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{
    Call, CallFault, Envelope, Reply,
    connections::{OPEN_WITHIN, Peer},
    sane,
    wire::Wire,
};
use crate::{clock::Clock, fabric, ids::{ClusterId, NodeId, RaftNode}, link::Identity, raft::{Group, belonging::Belonging, formation::Proposal, group::Shared, reach::Answered, survey::Introduction}, stats::{CallRefusal, CallStats}};

/// After a peer could not be reached, this long nothing is sent to it: an election must not wait for it.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest that any call may take.
const MAX_PATIENCE: Duration = Duration::from_secs(90);
/// For each byte of a call it is waited longer: 10 MB in a second.
const NANOS_PER_BYTE: u64 = 100;

/// The way to one member.
#[derive(Debug)]
pub(in crate::raft) struct Caller {
    me: NodeId,
    to: NodeId,
    node: RaftNode,
    peer: Arc<Peer>,
    /// Its next call goes on a stream that is opened for it.
    opens: bool,
    belonging: Arc<Belonging>,
    stats: Arc<CallStats>,
    identity: Arc<Identity>,
    answered: Arc<Answered>,
    clock: Clock,
}

impl Caller {
    pub(in crate::raft) fn new(shared: &Shared, to: NodeId, node: RaftNode) -> Self {
        Self {
            me: shared.me,
            to,
            peer: shared.connections.to(to, &node),
            opens: false,
            node,
            belonging: Arc::clone(&shared.belonging),
            stats: Arc::clone(&shared.calls),
            identity: Arc::clone(&shared.identity),
            answered: Arc::clone(&shared.answered),
            clock: shared.clock,
        }
    }

    /// Opens a stream for its first call: whoever gets an answer knows that this is possible.
    pub(in crate::raft) fn opening(shared: &Shared, to: NodeId, node: RaftNode) -> Self {
        Self { opens: true, ..Self::new(shared, to, node) }
    }

    /// Calls, and waits for the answer for so long.
    pub(in crate::raft) async fn call(&mut self, call: Call, patience: Duration) -> Result<Reply, CallFault> {
        let answer = timeout(patience, self.exchange(call, MAX_PATIENCE)).await;
        answer.unwrap_or(Err(CallFault::Timeout(patience)))
    }

    /// The same, from when there is a stream on: where the network is slow, opening one takes as long as some calls.
    pub(in crate::raft) async fn call_when_open(
        &mut self,
        call: Call,
        patience: Duration,
    ) -> Result<Reply, CallFault> {
        let all = OPEN_WITHIN + patience;
        timeout(all, self.exchange(call, patience)).await.unwrap_or(Err(CallFault::Timeout(all)))
    }

    /// How long an answer that this member gives at once may take, as far as it was measured; at least `least`.
    pub(in crate::raft) fn patience(&self, least: Duration) -> Duration {
        self.peer.usual_patience().max(least)
    }

    /// Calls, and waits until the stream is there, and then for so long for an answer. The stream is given back only after a
    /// whole exchange; dropped in the middle, it is closed.
    async fn exchange(&mut self, call: Call, patience: Duration) -> Result<Reply, CallFault> {
        let cluster = match &call {
            Call::Found(Proposal { cluster, .. }) | Call::Release(cluster) => *cluster,
            _ => self.belonging.get().ok_or(CallFault::Nowhere)?,
        };
        let is_answered_at_once = call.is_answered_at_once();
        let waits_for_network_only = call.waits_for_network_only();
        let envelope = Envelope { cluster, from: self.me, to: self.to, call };
        let opens = std::mem::take(&mut self.opens);
        let mut wire = if opens { self.peer.new_stream().await? } else { self.peer.stream().await? };
        // Dropped while it waits, the call counts as one that was not answered in time.
        let exchange = Exchange { peer: &self.peer, is_whole: false };
        let asked = Instant::now();
        #[cfg(feature = "simulation")]
        if let Some(late) =
            crate::simulation::network::call_is_late(matches!(envelope.call, Call::HandOver(_)))
        {
            // It is on its way when its caller has closed the stream.
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                if wire.send(&envelope).await.is_ok() {
                    drop(wire.receive::<Reply>(Kind::Reply).await);
                }
            });
            return std::future::pending().await;
        }
        let sent = wire.put(&envelope)?;
        let patience = patience.saturating_add(Duration::from_nanos(NANOS_PER_BYTE * sent as u64));
        let answer = timeout(patience, async {
            wire.flush().await?;
            wire.receive(Kind::Reply).await?.ok_or(CallFault::Io(io::ErrorKind::UnexpectedEof.into()))
        });
        let answer = answer.await.unwrap_or(Err(CallFault::Timeout(patience)));
        let (reply, received) = answer.inspect_err(|fault| {
            if let Some(error) = fault.stream_error() {
                self.identity.stats.count_broken(error);
                debug!(to = %self.node, %fault, "a stream of calls is closed");
            }
        })?;
        self.stats.called(envelope.call.kind(), sent + received);
        sane::reply(&envelope.call, &reply).inspect_err(|absurd| {
            self.identity.stats.count_call_refusal(CallRefusal::Absurd);
            warn!(to = %self.node, "the answer to a call is refused: {absurd}");
        })?;
        exchange.end();
        if is_answered_at_once {
            self.peer.answered(asked.elapsed(), waits_for_network_only);
        }
        self.peer.give_back(wire);
        match reply {
            Reply::Refused(reason) => Err(CallFault::Refused(reason)),
            reply => Ok(reply),
        }
    }
}

/// A call that waits for its answer.
struct Exchange<'p> {
    peer: &'p Arc<Peer>,
    is_whole: bool,
}

impl Exchange<'_> {
    fn end(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.peer.failed();
        }
    }
}

/// How long a node may take to say who it is, from the connection on.
const INTRODUCED_WITHIN: Duration = Duration::from_secs(1);

/// What came of asking an address who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::raft) enum Asked {
    /// This node.
    Myself,
    /// A node with the same cluster name and key.
    Told(Introduction),
    /// A node that has others, or another version.
    Refuses(String),
    /// Somebody takes the connection, and says nothing: a node that is stopped, or too busy.
    Mute,
    /// Nobody.
    Silent,
}

/// Asks whoever is at an address which node it is and to which cluster it belongs.
pub(in crate::raft) async fn introduce(shared: &Shared, address: SocketAddr) -> Asked {
    let Ok(Ok(stream)) = timeout(INTRODUCED_WITHIN, fabric::connect(address)).await else {
        return Asked::Silent;
    };
    let talk = async {
        let mut wire = match Wire::open_to_anyone(stream, &shared.identity).await {
            Ok((who, _)) if who == shared.identity.me => return Asked::Myself,
            Ok((_, wire)) => wire,
            Err(error) if error.is_refusal() => return Asked::Refuses(error.to_string()),
            Err(_) => return Asked::Mute,
        };
        // It is asked whoever it is: no node has the id 0.
        let (cluster, call) = (ClusterId::from_bytes([0; 16]), Call::Introduce);
        let envelope = Envelope { cluster, from: shared.me, to: 0, call };
        if wire.send(&envelope).await.is_err() {
            return Asked::Mute;
        }
        match wire.receive(Kind::Reply).await {
            Ok(Some((Reply::Introduced(introduction), _))) => Asked::Told(introduction),
            Ok(Some((Reply::Refused(reason), _))) => Asked::Refuses(reason),
            _ => Asked::Mute,
        }
    };
    timeout(INTRODUCED_WITHIN, talk).await.unwrap_or(Asked::Mute)
}

/// Makes the ways to members for Raft.
pub(in crate::raft) struct Callers(pub(in crate::raft) Arc<Shared>);

impl RaftNetworkFactory<Group> for Callers {
    type Network = Caller;

    async fn new_client(&mut self, target: NodeId, node: &RaftNode) -> Caller {
        Caller::new(&self.0, target, node.clone())
    }
}

type Failure<E> = RPCError<NodeId, RaftNode, E>;

impl Caller {
    /// Calls for Raft: what can not be reached is left alone for a while.
    async fn ask<E: std::error::Error>(
        &mut self,
        call: Call,
        option: &RPCOption,
    ) -> Result<Reply, Failure<E>> {
        // Raft's timeout is for all of it. An answer that only the network delays is waited for as long as this peer takes:
        // a stream that leads nowhere any more is noticed by it.
        let patience = if call.is_answered_at_once() { self.peer.patience() } else { option.soft_ttl() };
        let answer = timeout(option.soft_ttl(), self.exchange(call, patience)).await;
        answer.unwrap_or(Err(CallFault::Timeout(option.soft_ttl()))).map_err(|fault| {
            debug!(to = %self.node, %fault, "a call of the Raft group failed");
            RPCError::Unreachable(Unreachable::new(&fault))
        })
    }

    /// An error that the member itself answered with.
    fn remote<E: std::error::Error>(&self, error: E) -> Failure<E> {
        RPCError::RemoteError(RemoteError::new(self.to, error))
    }
}

fn mismatch<E: std::error::Error>() -> Failure<E> {
    RPCError::Network(NetworkError::new(&CallFault::Mismatch))
}

impl RaftNetwork<Group> for Caller {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure<RaftError<NodeId>>> {
        match self.ask(Call::Append(request), &option).await? {
            Reply::Append(answer) => {
                self.answered.note(self.to, self.clock.now());
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
