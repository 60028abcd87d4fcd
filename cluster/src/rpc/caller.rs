//! Calling other members.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_proto::Kind;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{
    connections::{Connections, OPEN_WITHIN, Peer},
    error::CallError,
    message::{Call, Envelope, Introduction, Proposal, Reply},
    sane,
    stream::Wire,
};
use crate::{
    ids::{ClusterId, NodeId, RaftNode},
    link::{HandshakeError, Identity, dial},
    stats::{CallRefusal, CallStats},
};

/// Longest that any call may take.
const MAX_PATIENCE: Duration = Duration::from_secs(90);
/// For each byte of a call it is waited longer: 10 MB in a second.
const NANOS_PER_BYTE: u64 = 100;

/// What each caller of this node has.
pub(crate) struct Calling {
    pub(crate) identity: Arc<Identity>,
    pub(crate) connections: Connections,
    pub(crate) stats: Arc<CallStats>,
    /// The cluster that this node belongs to, once it does.
    pub(crate) cluster: Box<dyn Fn() -> Option<ClusterId> + Send + Sync>,
}

/// The way to one member.
pub(crate) struct Caller {
    calling: Arc<Calling>,
    to: NodeId,
    node: RaftNode,
    peer: Arc<Peer>,
    /// Its next call goes on a stream that is opened for it.
    opens: bool,
}

impl Caller {
    pub(crate) fn new(calling: &Arc<Calling>, to: NodeId, node: RaftNode) -> Self {
        let peer = calling.connections.to(to, &node);
        Self { calling: Arc::clone(calling), to, peer, opens: false, node }
    }

    /// The member that it calls.
    pub(crate) fn to(&self) -> (NodeId, &RaftNode) {
        (self.to, &self.node)
    }

    /// Opens a stream for its first call: whoever gets an answer knows that this is possible.
    pub(crate) fn opening(calling: &Arc<Calling>, to: NodeId, node: RaftNode) -> Self {
        Self { opens: true, ..Self::new(calling, to, node) }
    }

    /// Calls, and waits for the answer for so long.
    pub(crate) async fn call(&mut self, call: Call, patience: Duration) -> Result<Reply, CallError> {
        let answer = timeout(patience, self.exchange(call, MAX_PATIENCE)).await;
        answer.unwrap_or(Err(CallError::Timeout(patience)))
    }

    /// The same, from when there is a stream on: where the network is slow, opening one takes as long as some calls.
    pub(crate) async fn call_when_open(
        &mut self,
        call: Call,
        patience: Duration,
    ) -> Result<Reply, CallError> {
        let all = OPEN_WITHIN + patience;
        timeout(all, self.exchange(call, patience)).await.unwrap_or(Err(CallError::Timeout(all)))
    }

    /// How long an answer that this member gives at once may take, as far as it was measured; at least `least`.
    pub(crate) fn patience(&self, least: Duration) -> Duration {
        self.peer.usual_patience().max(least)
    }

    /// How long an answer of this member that it gives at once may take; longer after one that was missed.
    pub(crate) fn patience_at_once(&self) -> Duration {
        self.peer.patience()
    }

    /// Calls, and waits until the stream is there, and then for so long for an answer. The stream is given back only after a
    /// whole exchange; dropped in the middle, it is closed.
    pub(crate) async fn exchange(&mut self, call: Call, patience: Duration) -> Result<Reply, CallError> {
        let cluster = cluster_of(&call, (self.calling.cluster)()).ok_or(CallError::Nowhere)?;
        let is_answered_at_once = call.is_answered_at_once();
        let waits_for_network_only = call.waits_for_network_only();
        let envelope = Envelope { cluster, from: self.calling.identity.id, to: self.to, call };
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
            wire.receive(Kind::Reply).await?.ok_or(CallError::Io(io::ErrorKind::UnexpectedEof.into()))
        });
        let answer = answer.await.unwrap_or(Err(CallError::Timeout(patience)));
        let (reply, received) = answer.inspect_err(|fault| {
            if let Some(error) = fault.stream_error() {
                self.calling.identity.stats.count_broken(error);
                debug!(to = %self.node, %fault, "a stream of calls is closed");
            }
        })?;
        self.calling.stats.called(envelope.call.kind(), sent + received);
        sane::reply(&envelope.call, &reply).inspect_err(|absurd| {
            self.calling.identity.stats.count_call_refusal(CallRefusal::Absurd);
            warn!(to = %self.node, fault = %absurd, "the answer to a call is refused");
        })?;
        exchange.end();
        if is_answered_at_once {
            self.peer.answered(asked.elapsed(), waits_for_network_only);
        }
        self.peer.give_back(wire);
        match reply {
            Reply::Refused(reason) => Err(CallError::Refused(reason)),
            reply => Ok(reply),
        }
    }
}

/// In which cluster something is asked by a node that belongs to `own`.
fn cluster_of(call: &Call, own: Option<ClusterId>) -> Option<ClusterId> {
    match call {
        Call::Found(Proposal { cluster, .. }) | Call::Release(cluster) => Some(*cluster),
        // A founder looks for who asks for its vote before it belongs to a cluster, and the answer is the same in all.
        Call::Reach => Some(own.unwrap_or(ClusterId::from_bytes([0; 16]))),
        _ => own,
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
pub(crate) enum Asked {
    /// This node.
    Myself,
    /// A node with the same cluster name and key.
    Introduced(Introduction),
    /// A node that has others, or another version.
    Refuses(String),
    /// Somebody takes the connection, and says nothing: a node that is stopped, or too busy.
    Mute,
    /// Nobody.
    Silent,
}

/// Asks whoever is at an address which node it is and to which cluster it belongs.
pub(crate) async fn introduce(identity: &Identity, address: SocketAddr) -> Asked {
    let stream = match timeout(INTRODUCED_WITHIN, dial(address, identity, None)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.is_refusal() => return Asked::Refuses(error.to_string()),
        // A connection was there, and nothing was said on it.
        Ok(Err(HandshakeError::Timeout)) => return Asked::Mute,
        Ok(Err(_)) | Err(_) => return Asked::Silent,
    };
    let talk = async {
        let mut wire = match Wire::open_to_anyone(stream, identity).await {
            Ok((who, _)) if who == identity.me => return Asked::Myself,
            Ok((_, wire)) => wire,
            Err(error) if error.is_refusal() => return Asked::Refuses(error.to_string()),
            Err(_) => return Asked::Mute,
        };
        // It is asked whoever it is: no node has the id 0.
        let (cluster, call) = (ClusterId::from_bytes([0; 16]), Call::Introduce);
        let envelope = Envelope { cluster, from: identity.id, to: 0, call };
        if wire.send(&envelope).await.is_err() {
            return Asked::Mute;
        }
        match wire.receive(Kind::Reply).await {
            Ok(Some((Reply::Introduced(introduction), _))) => Asked::Introduced(introduction),
            Ok(Some((Reply::Refused(reason), _))) => Asked::Refuses(reason),
            _ => Asked::Mute,
        }
    };
    timeout(INTRODUCED_WITHIN, talk).await.unwrap_or(Asked::Mute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_founds_or_looks_for_a_node_is_asked_without_a_cluster() {
        let ours = ClusterId::from_bytes([7; 16]);
        assert_eq!(cluster_of(&Call::Release(ours), None), Some(ours));
        assert!(cluster_of(&Call::Reach, None).is_some());
        assert_eq!(cluster_of(&Call::Reach, Some(ours)), Some(ours));
        assert_eq!(cluster_of(&Call::ReadIndex { patience_ms: 1 }, None), None);
    }
}
