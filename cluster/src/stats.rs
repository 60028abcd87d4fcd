//! What the cluster counts. Counters only grow; reading them costs the readers, not the check path.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts. Each worker has its own, on cache lines of its own, because its thread writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Checks sent to their owner.
    pub sent: Counter,
    /// Answers that came back in time.
    pub answered: Counter,
    /// Checks that waited in vain for their answer.
    pub timed_out: Counter,
    /// Checks whose stream broke, or whose answer came too late to count.
    pub lost: Counter,
    /// Checks that were not sent, because there was no stream or the peer was silent.
    pub unreachable: Counter,
    /// Checks that were not sent, because too many waited.
    pub queue_full: Counter,
    /// Answers "I do not own that slot".
    pub not_owner: Counter,
    /// Times that a peer was found silent.
    pub suspected: Counter,
    /// Checks of other nodes that were decided here.
    pub decided_for_peers: Counter,
    /// Checks of other nodes that were refused here.
    pub refused_to_peers: Counter,
}

/// What a node counts of slots that it gave to others by plan.
#[derive(Debug, Default)]
pub struct MoveStats {
    slots: Counter,
    buckets: Counter,
    frozen_nanos: Counter,
    longest_nanos: AtomicU64,
    frozen_within: [Counter; FROZEN_BOUNDS_MS.len()],
}

/// Bounds of the times for which slots are decided by nobody while they move, in milliseconds.
pub const FROZEN_BOUNDS_MS: [u64; 7] = [1, 2, 5, 10, 20, 50, 100];

impl MoveStats {
    pub(crate) fn moved(&self, slots: u64, buckets: u64, frozen_for: Duration) {
        let nanos = frozen_for.as_nanos() as u64;
        self.slots.add(slots);
        self.buckets.add(buckets);
        self.frozen_nanos.add(nanos * slots);
        self.longest_nanos.fetch_max(nanos, Ordering::Relaxed);
        let within = FROZEN_BOUNDS_MS.iter().zip(&self.frozen_within);
        within.filter(|(bound, _)| nanos <= **bound * 1_000_000).for_each(|(_, count)| count.add(slots));
    }

    /// For each of [`FROZEN_BOUNDS_MS`], how many slots were decided by nobody for at most so long.
    pub fn frozen_within(&self) -> impl Iterator<Item = (u64, u64)> {
        FROZEN_BOUNDS_MS.iter().zip(&self.frozen_within).map(|(bound, count)| (*bound, count.get()))
    }

    /// Slots that were handed over.
    pub fn slots(&self) -> u64 {
        self.slots.get()
    }

    /// Buckets that went with them.
    pub fn buckets(&self) -> u64 {
        self.buckets.get()
    }

    /// The time for which slots were decided by nobody here before their new owner had them, added up.
    pub fn frozen(&self) -> Duration {
        Duration::from_nanos(self.frozen_nanos.get())
    }

    /// The longest of these times.
    pub fn longest_frozen(&self) -> Duration {
        Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed))
    }
}

/// What the calls of the Raft group are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Entries of the log, votes, snapshots.
    Log,
    /// Sessions.
    Session,
    /// Slots that go from one node to another.
    Move,
    /// Floors of buckets, for successors.
    Floor,
    /// The rest.
    Other,
}

impl CallKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Log, Self::Session, Self::Move, Self::Floor, Self::Other];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Session => "session",
            Self::Move => "move",
            Self::Floor => "floor",
            Self::Other => "other",
        }
    }
}

/// What this node's own calls to others cost: with the answers, so that each byte is counted at one node.
#[derive(Debug, Default)]
pub struct CallStats {
    calls: [Counter; CallKind::ALL.len()],
    bytes: [Counter; CallKind::ALL.len()],
}

impl CallStats {
    pub(crate) fn called(&self, kind: CallKind, bytes: usize) {
        self.calls[kind as usize].add(1);
        self.bytes[kind as usize].add(bytes as u64);
    }

    /// Calls that were answered.
    pub fn calls(&self, kind: CallKind) -> u64 {
        self.calls[kind as usize].get()
    }

    /// Their bytes, both ways, without what TCP adds.
    pub fn bytes(&self, kind: CallKind) -> u64 {
        self.bytes[kind as usize].get()
    }
}

/// The floors that this node replicates to the successors of its slots.
#[derive(Debug, Default)]
pub struct FloorStats {
    replicated: Counter,
    held: Counter,
    begun: Counter,
    complete: AtomicU64,
    on_disk: AtomicU64,
    from_disk: Counter,
    floors_on_disk: Counter,
    commits: Counter,
    commit_nanos: AtomicU64,
    disk_bytes: AtomicU64,
    disk_errors: Counter,
}

impl FloorStats {
    pub(crate) fn count_replicated(&self, buckets: u64) {
        self.replicated.add(buckets);
    }

    pub(crate) fn count_held(&self) {
        self.held.add(1);
    }

    pub(crate) fn count_begun(&self, slots: u64) {
        self.begun.add(slots);
    }

    pub(crate) fn set_complete(&self, slots: u64) {
        self.complete.store(slots, Ordering::Relaxed);
    }

    pub(crate) fn set_on_disk(&self, slots: u64) {
        self.on_disk.store(slots, Ordering::Relaxed);
    }

    pub(crate) fn count_from_disk(&self, slots: u64) {
        self.from_disk.add(slots);
    }

    pub(crate) fn count_on_disk(&self, floors: u64) {
        self.floors_on_disk.add(floors);
    }

    pub(crate) fn count_commit(&self, took: Duration) {
        self.commits.add(1);
        self.commit_nanos.store(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_disk_bytes(&self, bytes: u64) {
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_disk_error(&self) {
        self.disk_errors.add(1);
    }

    /// Slots of this node of which its disk has all floors.
    pub fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// Slots that this node has begun from the floors on its disk.
    pub fn from_disk(&self) -> u64 {
        self.from_disk.get()
    }

    /// Times that the floor of a bucket was written to the disk.
    pub fn floors_on_disk(&self) -> u64 {
        self.floors_on_disk.get()
    }

    /// Commits of the file of floors.
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// How long the last commit took.
    pub fn last_commit(&self) -> Duration {
        Duration::from_nanos(self.commit_nanos.load(Ordering::Relaxed))
    }

    /// How long the file of floors is.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Times that the disk failed, and the file was removed.
    pub fn disk_errors(&self) -> u64 {
        self.disk_errors.get()
    }

    /// Times that the floor of a bucket was replicated to a successor.
    pub fn told(&self) -> u64 {
        self.replicated.get()
    }

    /// Times that a charge had to wait until a floor was replicated.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Slots of lost nodes that this one has begun from floors.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Slots of this node whose successor knows enough to begin from floors.
    pub fn complete(&self) -> u64 {
        self.complete.load(Ordering::Relaxed)
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GossipRejection {
    /// It is not Tidegate's, or of another wire version.
    Foreign,
    /// It belongs to a cluster with another name.
    OtherCluster,
    /// It is not sealed, but this cluster has a key.
    Unsealed,
    /// It is sealed, but this node has no key.
    NoKey,
    /// It is sealed with another key, or was changed on the way.
    WrongKey,
    /// Its content is no gossip message, or breaks a limit.
    Malformed,
    /// A part of it says what no node says, or names more nodes than are let in: that part was left out.
    InPart,
    /// It is of a node of another cluster of this name.
    ForeignCluster,
}

impl GossipRejection {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Foreign,
        Self::OtherCluster,
        Self::Unsealed,
        Self::NoKey,
        Self::WrongKey,
        Self::Malformed,
        Self::InPart,
        Self::ForeignCluster,
    ];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::OtherCluster => "other_cluster",
            Self::Unsealed => "unsealed",
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::Malformed => "malformed",
            Self::InPart => "in_part",
            Self::ForeignCluster => "foreign_cluster",
        }
    }

    /// What it means, for the log.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Foreign => "it is not Tidegate gossip, or of another wire version",
            Self::OtherCluster => "it belongs to a cluster with another name (--cluster-name)",
            Self::Unsealed => "it is not sealed, but this cluster has a key (--cluster-key)",
            Self::NoKey => "it is sealed, but this node has no key (--cluster-key)",
            Self::WrongKey => "it is sealed with another cluster key",
            Self::Malformed => "its content is no gossip message",
            Self::InPart => {
                "a part of it says what no node says, or names too many nodes; the rest is taken in"
            }
            Self::ForeignCluster => {
                "it is of a node of another cluster that has this one's name (--cluster-name)"
            }
        }
    }
}

/// What gossip counts.
#[derive(Debug, Default)]
pub struct GossipStats {
    rejected: [Counter; GossipRejection::ALL.len()],
    oversize: Counter,
}

impl GossipStats {
    pub(crate) fn count_rejection(&self, rejection: GossipRejection) {
        self.rejected[rejection as usize].add(1);
    }

    pub(crate) fn count_oversize(&self) {
        self.oversize.add(1);
    }

    /// Datagrams that were refused for this reason.
    pub fn rejected(&self, rejection: GossipRejection) -> u64 {
        self.rejected[rejection as usize].get()
    }

    /// Messages that did not fit a datagram.
    pub fn oversize(&self) -> u64 {
        self.oversize.get()
    }
}

/// The reasons for which a stream to the peer port is refused, as words for metrics.
pub const PEER_REFUSALS: [&str; 13] = [
    "foreign",
    "wire_version",
    "wrong_key",
    "other_cluster",
    "other_node",
    "refused",
    "malformed",
    "timeout",
    "closed",
    "too_many",
    "plain_text",
    "tls",
    "certificate",
];

/// The reasons for which a stream with a peer that has proved itself is ended, as words for metrics.
pub const STREAM_ERRORS: [&str; 4] = ["seal", "malformed", "unexpected", "cut_off"];

/// The reasons for which a call of a peer, or its answer, is refused before it is looked at, as words for metrics.
pub const CALL_REFUSALS: [&str; 2] = ["sender", "absurd"];

/// What is wrong with what a peer sends on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// A seal does not fit: somebody on the path has changed something.
    Seal,
    /// It cannot be read.
    Malformed,
    /// It can be read, but has no place there.
    Unexpected,
    /// The stream ended in the middle of a record.
    CutOff,
}

/// Why a call, or its answer, is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallRefusal {
    /// It is in the name of another member than the one that sent it.
    Sender,
    /// No cluster comes to such terms, indices or ranges.
    Absurd,
}

/// What streams between nodes count.
#[derive(Debug, Default)]
pub struct PeerStats {
    refused: [Counter; PEER_REFUSALS.len()],
    accepted: Counter,
    broken: [Counter; STREAM_ERRORS.len()],
    calls_refused: [Counter; CALL_REFUSALS.len()],
}

impl PeerStats {
    pub(crate) fn count_refusal(&self, reason: &str) {
        if let Some(place) = PEER_REFUSALS.iter().position(|known| *known == reason) {
            self.refused[place].add(1);
        }
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.add(1);
    }

    pub(crate) fn count_broken(&self, error: StreamError) {
        self.broken[error as usize].add(1);
    }

    pub(crate) fn count_call_refusal(&self, refusal: CallRefusal) {
        self.calls_refused[refusal as usize].add(1);
    }

    /// Streams that were refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PEER_REFUSALS.into_iter().zip(self.refused.iter().map(Counter::get))
    }

    /// Streams of peers that were let in.
    pub fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    /// Streams with peers that had proved themselves and were ended because of what came on them, by reason.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        STREAM_ERRORS.into_iter().zip(self.broken.iter().map(Counter::get))
    }

    /// Calls of peers, and their answers, that were refused before anybody looked at them, by reason.
    pub fn calls_refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CALL_REFUSALS.into_iter().zip(self.calls_refused.iter().map(Counter::get))
    }
}
