//! Which cluster a node belongs to.
//!
//! **Decided once, in one transaction on the disk, before Raft is given anything of that cluster** ([`Belonging::bind`]):
//! entries, a snapshot, a vote, or the first entry of a founding. The transaction itself looks whether another cluster is
//! there already, so of two leaders that send their first entries at the same time one is refused, however slow the disk
//! is, and the same one after a restart. Nothing that a Raft core says of itself is asked: it knows of its first entries
//! only after they are synced.
//!
//! Before that a node may have promised to found a cluster together with others. A promise is on the disk too, but can be
//! replaced: by a later proposal of the same proposer, by another proposer's after [`PROMISE_LASTS`], or by a cluster that
//! exists.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_proto::codec;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::Instant,
};

use super::{
    disk::{Disk, KEY_CLUSTER, KEY_PURGED, KEY_VOTE, LOG, META},
    files::DiskError,
    log::KEY_COMMITTED,
};
use crate::{
    fabric,
    ids::{ClusterId, NodeId},
    rpc::message::{Proposal, Standing},
};

/// How long a promise keeps a node from promising something to another proposer: much longer than a proposer takes from
/// its first question to the first entry of its cluster.
pub(crate) const PROMISE_LASTS: Duration = Duration::from_secs(10);
/// Longest promise on a disk: five founders at most.
const MAX_PROMISE_BYTES: usize = 16 << 10;

const KEY_PROMISE: &str = "promise";

/// A founding that a node has agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promise {
    pub(crate) proposal: Proposal,
    /// The proposer.
    pub(crate) to: NodeId,
}

/// Why a node was not bound to a cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("this node belongs to the cluster {0}")]
    Foreign(ClusterId),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("writing to the disk has ended with a panic")]
    Panicked,
}

#[derive(Debug, Default)]
struct Known {
    bound: Option<ClusterId>,
    promise: Option<(Promise, Instant)>,
    proposing: bool,
}

/// Which cluster this node belongs to.
#[derive(Debug)]
pub(crate) struct Belonging {
    known: Mutex<Known>,
    /// Held by who proposes, and while a proposal is answered: a node does one of both, for one proposal.
    founding: Arc<AsyncMutex<()>>,
}

/// As long as it lives, this node is about to found a cluster, and says so to whoever asks.
#[derive(Debug)]
pub(crate) struct Proposing<'b> {
    belonging: &'b Belonging,
    _founding: OwnedMutexGuard<()>,
}

impl Drop for Proposing<'_> {
    fn drop(&mut self) {
        self.belonging.known().proposing = false;
    }
}

impl Belonging {
    /// As the disk has it. A promise from before a restart lasts as long as a new one.
    pub(crate) fn of(disk: &Disk, now: Instant) -> Result<Self, DiskError> {
        let (_, bound) = disk.kept_identity()?;
        let promise = disk.promise()?.map(|promise| (promise, now));
        let known = Known { bound, promise, proposing: false };
        Ok(Self { known: Mutex::new(known), founding: Arc::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster that this node belongs to; it never changes.
    pub(crate) fn get(&self) -> Option<ClusterId> {
        self.known().bound
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let known = self.known();
        match (&known.bound, &known.promise) {
            (Some(cluster), _) => Standing::Bound(*cluster),
            _ if known.proposing => Standing::Proposing,
            (None, Some((promise, since))) if now.duration_since(*since) < PROMISE_LASTS => {
                Standing::Promised(promise.to)
            }
            _ => Standing::Free,
        }
    }

    /// The last founding that this node has agreed to, or proposed itself.
    pub(crate) fn promise(&self) -> Option<Promise> {
        self.known().promise.as_ref().map(|(promise, _)| promise.clone())
    }

    /// Whether this node has promised its vote to a cluster, about which `from` asks.
    pub(crate) fn has_promised(&self, cluster: ClusterId, from: NodeId) -> bool {
        // A proposer that asks for votes in another cluster than its last proposal has given that one up.
        self.known()
            .promise
            .as_ref()
            .is_some_and(|(promise, _)| promise.proposal.cluster == cluster || promise.to == from)
    }

    /// Belongs to the cluster from now on. `own`: the founding by which this node made it.
    pub(crate) async fn bind(
        &self,
        cluster: ClusterId,
        disk: &Disk,
        own: Option<Promise>,
    ) -> Result<(), BindError> {
        let known = match self.get() {
            Some(known) => known,
            None => {
                let (disk, promise) = (disk.clone(), own.clone());
                // Whoever waits for it may be gone before it is done: the transaction decides, not who asked for it.
                let bound = fabric::blocking(move || disk.bind(cluster, promise.as_ref())).await;
                let bound = bound.map_err(|_| BindError::Panicked)??;
                let mut known = self.known();
                known.bound = Some(bound);
                if let Some(own) = own.filter(|_| bound == cluster) {
                    known.promise = Some((own, Instant::now()));
                }
                bound
            }
        };
        if known == cluster { Ok(()) } else { Err(BindError::Foreign(known)) }
    }

    /// What a planted bug does instead of deciding once.
    pub(crate) fn overwrite(&self, cluster: ClusterId) {
        self.known().bound = Some(cluster);
    }

    /// Takes the right to propose, or to answer a proposal; `None`: somebody has it.
    pub(crate) fn begin_founding(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.founding).try_lock_owned().ok()
    }

    pub(crate) fn propose(&self, founding: OwnedMutexGuard<()>) -> Proposing<'_> {
        self.known().proposing = true;
        Proposing { belonging: self, _founding: founding }
    }

    /// Whether this node may promise something to the proposer.
    pub(crate) fn may_promise(&self, to: NodeId, now: Instant) -> Result<(), String> {
        match self.standing(now) {
            Standing::Bound(cluster) => Err(format!("this node belongs to the cluster {cluster}")),
            Standing::Promised(other) if other != to => {
                Err(format!("this node has promised to found a cluster with the node {other:016x}"))
            }
            _ => Ok(()),
        }
    }

    /// Promises, on the disk. Who calls this holds the right to answer a proposal.
    pub(crate) async fn keep_promise(&self, promise: Promise, disk: &Disk) -> Result<(), BindError> {
        let (disk, kept) = (disk.clone(), promise.clone());
        let bound = fabric::blocking(move || disk.keep_promise(&kept)).await;
        if let Some(cluster) = bound.map_err(|_| BindError::Panicked)?? {
            return Err(BindError::Foreign(cluster));
        }
        self.known().promise = Some((promise, Instant::now()));
        Ok(())
    }

    /// The proposer has given the proposal up, and will not come back to it.
    pub(crate) fn release(&self, cluster: ClusterId, from: NodeId) {
        let mut known = self.known();
        if known.bound.is_none()
            && known
                .promise
                .as_ref()
                .is_some_and(|(promise, _)| promise.to == from && promise.proposal.cluster == cluster)
        {
            known.promise = None;
        }
    }

    /// Belongs to no cluster any more: the disk says so already, and Raft does not run.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        (known.bound, known.promise) = (None, None);
    }
}

/// Another cluster of this node's cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// What to tell the operator.
    pub(crate) text: String,
    /// It has more nodes than this node's.
    pub(crate) is_larger: bool,
}

impl Disk {
    /// Notes which cluster the node belongs to, unless it belongs to one. Returns to which one it does.
    fn bind(&self, cluster: ClusterId, own: Option<&Promise>) -> Result<ClusterId, DiskError> {
        let bind = || -> Result<ClusterId, redb::Error> {
            let transaction = self.database.begin_write()?;
            let bound = {
                let mut meta = transaction.open_table(META)?;
                match bound_in(&meta)? {
                    Some(bound) => bound,
                    None => {
                        meta.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
                        if let Some(own) = own {
                            meta.insert(KEY_PROMISE, encode(own)?.as_slice())?;
                        }
                        cluster
                    }
                }
            };
            self.commit(transaction)?;
            Ok(bound)
        };
        bind().map_err(|reason| self.fault(reason))
    }

    /// Notes a promise, unless the node belongs to a cluster: then that is returned.
    fn keep_promise(&self, promise: &Promise) -> Result<Option<ClusterId>, DiskError> {
        let keep = || -> Result<Option<ClusterId>, redb::Error> {
            let transaction = self.database.begin_write()?;
            let bound = {
                let mut meta = transaction.open_table(META)?;
                let bound = bound_in(&meta)?;
                if bound.is_none() {
                    meta.insert(KEY_PROMISE, encode(promise)?.as_slice())?;
                }
                bound
            };
            self.commit(transaction)?;
            Ok(bound)
        };
        keep().map_err(|reason| self.fault(reason))
    }

    fn promise(&self) -> Result<Option<Promise>, DiskError> {
        let bytes = self.meta(KEY_PROMISE).map_err(|reason| self.fault(reason))?;
        bytes.map(|bytes| codec::decode(&bytes).map_err(|reason| self.fault(reason))).transpose()
    }

    /// Forgets the cluster and all of its log. Nothing of it was ever applied, so there is no snapshot.
    pub(crate) fn forget_cluster(&self) -> Result<(), DiskError> {
        if self.snapshots.read()?.is_some() {
            return Err(self.fault("a node that has a snapshot of its cluster does not leave it by itself"));
        }
        let forget = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                transaction.open_table(LOG)?.retain(|_, _| false)?;
                let mut meta = transaction.open_table(META)?;
                for key in [KEY_CLUSTER, KEY_PROMISE, KEY_VOTE, KEY_COMMITTED, KEY_PURGED] {
                    meta.remove(key)?;
                }
            }
            self.commit(transaction)
        };
        // Before: what reports an error may be on the disk all the same.
        self.promised.forget();
        forget().map_err(|reason| self.fault(reason))
    }
}

fn bound_in(
    meta: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<ClusterId>, redb::Error> {
    let bytes = meta.get(KEY_CLUSTER)?.and_then(|bytes| bytes.value().try_into().ok());
    Ok(bytes.map(ClusterId::from_bytes))
}

fn encode(promise: &Promise) -> Result<Vec<u8>, redb::Error> {
    let mut bytes = Vec::new();
    codec::encode(promise, &mut bytes, MAX_PROMISE_BYTES)
        .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
    Ok(bytes)
}
