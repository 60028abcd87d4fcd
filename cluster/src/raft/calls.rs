//! Calls between the members of the group: Raft's own messages, and those that bring a change to the leader.
//!
//! A stream carries one call at a time: a `Call` frame, then its `Reply`. A call that is given up, for whatever reason,
//! takes its stream with it: an answer that comes late can then not be taken for that of another call. Each call names
//! the cluster and the node that it is meant for, so that what lies on a disk of another cluster, or was lost with a
//! disk, is never mixed in.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use openraft::{
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidegate_proto::{
    CodecError, FrameError, Kind, MAX_CALL_BYTES, codec,
    frame::{self, Message},
    peer::{Control, Refused},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tracing::{debug, warn};

use super::{
    Group, RaftNode,
    command::{ClusterId, MemberRow, NodeId, Outcome, RuleWrite},
    disk::{Disk, DiskFault},
    election::Question,
    formation::Proposal,
    group::Shared,
    moves::{HandOver, HandedOver},
    tell::Words,
};
use crate::{
    fabric,
    link::{Identity, call_peer},
    owner::{
        rights::Refusal,
        table::{Holder, SlotMove},
    },
    stats::{CallKind, CallStats},
};

/// Streams for calls that are answered at one time; more are closed. A node has two or three from the leader, and one
/// for each change that another node passes on.
const MAX_CALL_STREAMS: usize = 256;
/// A peer that is silent for so long in the middle of a call, or does not take its answer, is cut off.
const STALLED: Duration = Duration::from_secs(15);
/// A stream without a call for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time that a change may take at the leader.
const MAX_PATIENCE: Duration = Duration::from_secs(60);
/// After a peer could not be reached, this long nothing is sent to it: an election must not wait for it.
const BACKOFF: Duration = Duration::from_millis(200);

/// What one member asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Append(AppendEntriesRequest<Group>),
    Vote(VoteRequest<NodeId>),
    Snapshot(InstallSnapshotRequest<Group>),
    /// Asks to found a cluster together.
    Found(Proposal),
    /// Asks the leader to write.
    Write {
        write: RuleWrite,
        patience_ms: u64,
    },
    /// Asks the leader up to where a reader must have applied the log to see all that was acknowledged before.
    ReadIndex {
        patience_ms: u64,
    },
    /// Asks about how many buckets the rules with these names have.
    Touched {
        domain: String,
        rules: Vec<String>,
    },
    /// Says to the leader who this node is and where; asks for a session if it could decide.
    Renew {
        row: MemberRow,
        wants: bool,
    },
    /// Says to the leader that these moves are done.
    Moved(Vec<SlotMove>),
    /// Asks the leader to give all slots of a node to others, or to let it have some again.
    Drain {
        holder: Holder,
        on: bool,
    },
    /// Says to the leader that a node which is gone will not come back.
    Evict(NodeId),
    /// Asks the target of these moves to promise not to take the slots.
    Refuse(Vec<SlotMove>),
    /// Hands buckets over.
    HandOver(HandOver),
    /// Asks whether this node would vote for who asks.
    MayStand(Question),
    /// Tells a successor floors.
    Tell(Words),
    /// Asks the leader to name no successor of these slots: theirs does not answer.
    Strike {
        successor: Holder,
        slots: Vec<u16>,
    },
}

impl Call {
    fn kind(&self) -> CallKind {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Snapshot(_) | Self::MayStand(_) => CallKind::Log,
            Self::Renew { .. } => CallKind::Session,
            Self::HandOver(_) | Self::Moved(_) | Self::Refuse(_) => CallKind::Move,
            Self::Tell(_) | Self::Strike { .. } => CallKind::Floor,
            _ => CallKind::Other,
        }
    }
}

/// A call with its address.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    cluster: ClusterId,
    from: NodeId,
    to: NodeId,
    call: Call,
}

impl Message for Envelope {
    const KIND: Kind = Kind::Call;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// The answer to a call, in the order of the calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    Found(Result<(), String>),
    Write(Result<Outcome, NotServed>),
    ReadIndex(Result<u64, NotServed>),
    Touched(Vec<Vec<u8>>),
    /// The session is granted, confirmed at this index of the log; or it is not, for now.
    Renew(Result<Option<u64>, NotServed>),
    /// For [`Call::Moved`] and [`Call::Drain`]: it is written.
    Written(Result<(), NotServed>),
    Refuse(Refusal),
    HandOver(HandedOver),
    MayStand(bool),
    /// The number of this answer; `None`: that was for another start of this node.
    Told(Option<u64>),
    /// It was not looked at, for this reason.
    Refused(String),
}

impl Message for Reply {
    const KIND: Kind = Kind::Reply;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// Why the leader did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NotServed {
    /// It is not the leader. Nothing was done.
    NotLeader,
    /// It could not say in time whether it was done.
    Unknown,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message can not be read: {0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Handshake(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("the peer's answer is not one to this call")]
    Mismatch,
    #[error("this node belongs to no cluster yet")]
    Nowhere,
}

/// The cluster that this node belongs to, if it belongs to one.
#[derive(Debug)]
pub(super) struct Belonging {
    cluster: Mutex<Option<ClusterId>>,
}

impl Belonging {
    pub(super) fn new(cluster: Option<ClusterId>) -> Self {
        Self { cluster: Mutex::new(cluster) }
    }

    pub(super) fn get(&self) -> Option<ClusterId> {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only for a node that has nothing of another cluster.
    pub(super) fn adopt(&self, cluster: ClusterId, disk: &Disk) -> Result<(), DiskFault> {
        let mut known = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != Some(cluster) {
            disk.belong_to(cluster)?;
            *known = Some(cluster);
        }
        Ok(())
    }
}

/// The way to one member.
#[derive(Debug)]
pub(super) struct Caller {
    me: NodeId,
    to: NodeId,
    node: RaftNode,
    identity: Arc<Identity>,
    belonging: Arc<Belonging>,
    stats: Arc<CallStats>,
    wire: Option<Wire>,
}

impl Caller {
    pub(super) fn new(shared: &Shared, to: NodeId, node: RaftNode) -> Self {
        Self {
            me: shared.me,
            to,
            node,
            identity: Arc::clone(&shared.identity),
            belonging: Arc::clone(&shared.belonging),
            stats: Arc::clone(&shared.calls),
            wire: None,
        }
    }

    /// Calls, and waits for the answer for so long.
    pub(super) async fn call(&mut self, call: Call, patience: Duration) -> Result<Reply, CallFault> {
        let cluster = match &call {
            Call::Found(proposal) => proposal.cluster,
            _ => self.belonging.get().ok_or(CallFault::Nowhere)?,
        };
        let envelope = Envelope { cluster, from: self.me, to: self.to, call };
        let answer = timeout(patience, self.exchange(envelope)).await;
        match answer.unwrap_or(Err(CallFault::Timeout(patience)))? {
            Reply::Refused(reason) => Err(CallFault::Refused(reason)),
            reply => Ok(reply),
        }
    }

    /// The stream is put back only after a whole exchange; dropped in the middle, it is closed.
    async fn exchange(&mut self, envelope: Envelope) -> Result<Reply, CallFault> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.connect().await?,
        };
        let sent = wire.send(&envelope).await?;
        let (reply, received) =
            wire.receive(Kind::Reply).await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.stats.called(envelope.call.kind(), sent + received);
        self.wire = Some(wire);
        Ok(reply)
    }

    async fn connect(&self) -> Result<Wire, CallFault> {
        let mut stream = fabric::connect(self.node.peer).await?;
        call_peer(&mut stream, &self.identity, &self.node.name)
            .await
            .map_err(|error| CallFault::Handshake(error.to_string()))?;
        let mut wire = Wire { stream, unread: BytesMut::new() };
        wire.send(&Control).await?;
        Ok(wire)
    }
}

/// A stream of calls.
#[derive(Debug)]
struct Wire {
    stream: fabric::Stream,
    unread: BytesMut,
}

impl Wire {
    /// Returns how many bytes it took.
    async fn send<M: Message>(&mut self, message: &M) -> Result<usize, CallFault> {
        let mut bytes = BytesMut::new();
        frame::put(message, &mut bytes)?;
        self.stream.write_all(&bytes).await?;
        Ok(bytes.len())
    }

    /// The next message, and how many bytes it took; `None` at the end of the stream.
    async fn receive<M: DeserializeOwned>(
        &mut self,
        expected: Kind,
    ) -> Result<Option<(M, usize)>, CallFault> {
        loop {
            if let Some(frame) = frame::first(&self.unread, MAX_CALL_BYTES)? {
                let message = match frame.kind {
                    kind if kind == expected => Ok(codec::decode(frame.payload)?),
                    Kind::Refused => Err(CallFault::Refused(codec::decode::<Refused>(frame.payload)?.reason)),
                    _ => Err(CallFault::Mismatch),
                };
                let length = frame.length;
                self.unread.advance(length);
                return message.map(|message| Some((message, length)));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Makes the ways to members for Raft.
pub(super) struct Callers(pub(super) Arc<Shared>);

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
        self.call(call, option.soft_ttl()).await.map_err(|fault| {
            debug!(to = %self.node, %fault, "a call of the Raft group failed");
            RPCError::Unreachable(Unreachable::new(&fault))
        })
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
                answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
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
            Reply::Snapshot(answer) => {
                answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
            }
            _ => Err(mismatch()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failure<RaftError<NodeId>>> {
        match self.ask(Call::Vote(request), &option).await? {
            Reply::Vote(answer) => {
                answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
            }
            _ => Err(mismatch()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// Answers the calls of other members.
pub(crate) struct CallServer {
    shared: Arc<Shared>,
    open: AtomicUsize,
}

impl CallServer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: AtomicUsize::new(0) }
    }

    async fn answer(&self, envelope: Envelope) -> Reply {
        let Envelope { cluster, from, to, call } = envelope;
        if to != self.shared.me {
            return Reply::Refused(format!(
                "this is the node {:016x}, not {to:016x}: it has lost its disk, or is another one of that name",
                self.shared.me
            ));
        }
        let Some(running) = self.shared.running() else {
            return Reply::Refused(self.shared.trouble().unwrap_or_else(|| "Raft is not running".to_owned()));
        };
        let raft = &running.raft;
        if let Call::Found(proposal) = call {
            return Reply::Found(self.shared.accept_founding(&proposal, from));
        }
        if self.shared.belonging.get() != Some(cluster) {
            // Who has nothing yet belongs to whom it follows.
            let follows = matches!(call, Call::Append(_) | Call::Snapshot(_)) && !running.is_initialized();
            if !follows {
                let ours = self.shared.belonging.get().map_or("none yet".to_owned(), |ours| ours.to_string());
                return Reply::Refused(format!("this node belongs to the cluster {ours}, not to {cluster}"));
            }
            if let Err(fault) = self.shared.adopt(cluster, &running) {
                return Reply::Refused(fault.to_string());
            }
        }
        match call {
            Call::Append(request) => {
                let vote = request.vote;
                self.shared.note_leader(&running, &vote);
                let answer = raft.append_entries(request).await;
                // openraft counts from here.
                self.shared.note_leader(&running, &vote);
                Reply::Append(answer)
            }
            Call::Vote(request) => {
                let answer = raft.vote(request).await;
                if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                    self.shared.note_vote();
                }
                Reply::Vote(answer)
            }
            Call::Snapshot(request) => {
                let vote = request.vote;
                self.shared.note_leader(&running, &vote);
                let answer = raft.install_snapshot(request).await;
                self.shared.note_leader(&running, &vote);
                Reply::Snapshot(answer)
            }
            Call::Write { write, patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::Write(running.write_here(write, patience).await)
            }
            Call::ReadIndex { patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::ReadIndex(running.read_index_here(patience).await)
            }
            Call::Renew { row, wants } => Reply::Renew(self.shared.renew_here(&running, row, wants).await),
            Call::Moved(moves) => Reply::Written(self.shared.moved_here(&running, moves).await),
            Call::Drain { holder, on } => Reply::Written(self.shared.drain_here(&running, holder, on).await),
            Call::Evict(node) => Reply::Written(self.shared.evict_here(&running, node).await),
            Call::MayStand(question) => Reply::MayStand(self.shared.may_stand(&running, question).await),
            Call::Refuse(moves) => Reply::Refuse(self.shared.rights.refuse(&moves)),
            Call::HandOver(part) => Reply::HandOver(self.shared.take_over(part)),
            Call::Tell(words) => Reply::Told(self.shared.hear(words)),
            Call::Strike { successor, slots } => {
                Reply::Written(self.shared.strike_here(&running, successor, slots).await)
            }
            Call::Touched { domain, rules } => Reply::Touched(self.shared.touched_here(&domain, &rules)),
            Call::Found(_) => Reply::Refused("founding is answered above".to_owned()),
        }
    }
}

/// Answers the calls on one stream until it ends. `unread` is what was read behind the frame that made it one for calls.
pub(crate) async fn serve_calls(
    stream: fabric::Stream,
    unread: BytesMut,
    server: Arc<CallServer>,
    peer: String,
) {
    let mut wire = Wire { stream, unread };
    if server.open.fetch_add(1, Relaxed) < MAX_CALL_STREAMS {
        let ended = hold(&mut wire, &server).await;
        if let Err(fault) = ended
            && !matches!(fault, CallFault::Io(_) | CallFault::Timeout(_))
        {
            warn!(%peer, "a stream of the Raft group is closed: {fault}");
        }
    } else {
        warn!(%peer, "more than {MAX_CALL_STREAMS} streams of the Raft group: this one is closed");
    }
    server.open.fetch_sub(1, Relaxed);
}

async fn hold(wire: &mut Wire, server: &CallServer) -> Result<(), CallFault> {
    loop {
        // Between calls a stream may be idle for long, in the middle of one it may not.
        if wire.unread.is_empty() {
            let read = timeout(IDLE, wire.stream.read_buf(&mut wire.unread)).await;
            if read.map_err(|_| CallFault::Timeout(IDLE))?? == 0 {
                return Ok(());
            }
        }
        let call = timeout(STALLED, wire.receive::<Envelope>(Kind::Call)).await;
        let Some((envelope, _)) = call.map_err(|_| CallFault::Timeout(STALLED))?? else { return Ok(()) };
        let reply = server.answer(envelope).await;
        timeout(STALLED, wire.send(&reply)).await.map_err(|_| CallFault::Timeout(STALLED))??;
    }
}
