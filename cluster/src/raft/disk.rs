//! Where a node keeps its part of the group: a redb database for log, vote and identity, and one file with a snapshot ([`files`](super::files)).
//!
//! Without a data directory both are in memory. Such a node is a new member each time that it starts, so it never
//! breaks a promise that it has forgotten.

mod promised;

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::{Entry, LeaderId, LogId, Vote};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
    backends::InMemoryBackend,
};
use serde::de::DeserializeOwned;
use tidegate_proto::codec;

pub(crate) use self::promised::Lasting;
use self::promised::Promised;
use super::{
    database::{CACHE_BYTES, DATABASE_FILE, WITNESS_FILE, make_if_missing, open},
    files::{DiskError, SAVED_FILE, SNAPSHOT_FILE, Snapshots, draft_of},
    witness::{Witness, Written},
};
use crate::{
    fabric,
    ids::{ClusterId, NodeId, NodeStart},
    state::types::Group,
};

/// What the database is laid out as. Another one is refused.
pub(crate) const FORMAT: u64 = 7;
/// Earlier ones that this version reads. What it writes from then on those would not: so the format is noted at once.
const READABLE_FORMATS: RangeInclusive<u64> = 4..=6;

pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const KEY_FORMAT: &str = "format";
const KEY_NODE: &str = "node";
pub(crate) const KEY_CLUSTER: &str = "cluster";
/// Which start of the machine the node ran on, and in which start of its own.
const KEY_SYSTEM: &str = "system";
pub(crate) const KEY_PURGED: &str = "purged";
pub(crate) const KEY_VOTE: &str = "vote";
const KEY_INCARNATION: &str = "incarnation";
/// How many durable commits there were, which the witness has too.
const KEY_WRITTEN: &str = "written";

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it was written by another version of Tidegate: format {0}, this version has {FORMAT}")]
    Format(u64),
    #[error("what it holds for {0:?} cannot be read")]
    Meta(&'static str),
    #[error(
        "the log in it says {0} for a term or an index, which no cluster comes to: it was forged (before wire version 7 a node \
         believed such numbers). To go on with its rules: stop all nodes, run `tidegate cluster recover` for one of them, and \
         start the others with an empty --data-dir"
    )]
    Absurd(u64),
    #[error("it is not the log of the node that runs here: it was replaced or cut off")]
    OfAnother,
}

/// Who a node is in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskIdentity {
    pub(crate) node: NodeId,
    /// Later than that of each earlier start from this directory, whatever the wall clock says.
    pub(crate) incarnation: u64,
    /// It was last started by another system: the lock of the directory does not tell whether that start has ended, where the
    /// disk was taken from it by force.
    pub(crate) came_from_elsewhere: bool,
}

/// Whether a node has kept its part of a group in this directory.
pub(crate) fn is_kept_in(directory: &Path) -> bool {
    directory.join(DATABASE_FILE).is_file()
}

/// An open data directory, or one in memory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) database: Arc<Database>,
    pub(crate) snapshots: Snapshots,
    pub(crate) promised: Promised,
    witness: Arc<Witness>,
    path: PathBuf,
}

impl Disk {
    /// Opens the directory, which must be there.
    pub(crate) fn open(directory: &Path) -> Result<Self, DiskError> {
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            return Self::open_with(directory, Lasting::none(directory));
        }
        // A draft is what a crash left of a file that never counted.
        for name in [SNAPSHOT_FILE, SAVED_FILE] {
            let _ = fs::remove_file(directory.join(draft_of(name)));
        }
        make_if_missing(directory)?;
        Self::open_with(directory, Lasting::none(directory))
    }

    /// Opens it again, after it has failed: what is still being written for the one before is known to this one.
    pub(crate) fn open_again(directory: &Path, before: &Lasting, me: NodeStart) -> Result<Self, DiskError> {
        // A node that has forgotten what it promised is another node: this process goes on without a disk.
        let disk = Self::open_with(directory, before.clone())?;
        let lacks_nothing = before.promised.are_kept(disk.kept_leader()?, disk.kept_last()?);
        if !lacks_nothing || disk.kept_start()? != Some(me) {
            return Err(disk.fault(Damage::OfAnother));
        }
        Ok(disk)
    }

    /// What is to be known when it is opened again.
    pub(crate) fn lasting(&self) -> Lasting {
        Lasting { snapshots: self.snapshots.clone(), promised: self.promised.clone() }
    }

    fn open_with(directory: &Path, before: Lasting) -> Result<Self, DiskError> {
        let path = directory.join(DATABASE_FILE);
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            return Self::simulated(directory, path, before);
        }
        let database = open(&path).map_err(|reason| DiskError { path: path.clone(), reason })?;
        let (witness, seen) = Witness::open(&directory.join(WITNESS_FILE));
        let disk = Self { witness: Arc::new(witness), ..Self::made_of(database, before, path) };
        disk.lacks_nothing_of(seen)?;
        disk.prepared()
    }

    /// Refuses a database that its witness has seen with more in it: what is missing was a promise.
    fn lacks_nothing_of(&self, seen: Option<Written>) -> Result<(), DiskError> {
        let Some(seen) = seen else { return Ok(()) };
        let written = || -> Result<Written, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            let get = |key| Ok::<_, redb::Error>(meta.get(key)?.and_then(|bytes| number(bytes.value())));
            Ok(Written { database: get(KEY_NODE)?.unwrap_or(0), count: get(KEY_WRITTEN)?.unwrap_or(0) })
        };
        let written = match written() {
            // As it was made: not even the tables are there.
            Err(redb::Error::TableDoesNotExist(_)) => Written { database: 0, count: 0 },
            written => written.map_err(|reason| self.fault(reason))?,
        };
        written.compare(Some(seen)).map_err(|lacking| self.fault(lacking))
    }

    /// Commits what is to be on the disk when this returns, and counts it.
    pub(crate) fn commit(&self, transaction: WriteTransaction) -> Result<(), redb::Error> {
        let written = {
            let mut meta = transaction.open_table(META)?;
            let count = meta.get(KEY_WRITTEN)?.and_then(|bytes| number(bytes.value()));
            let count = count.unwrap_or(0).saturating_add(1);
            meta.insert(KEY_WRITTEN, &count.to_be_bytes()[..])?;
            let database = meta.get(KEY_NODE)?.and_then(|bytes| number(bytes.value()));
            database.map(|database| Written { database, count })
        };
        transaction.commit()?;
        if let Some(written) = written {
            self.witness.note(written);
        }
        Ok(())
    }

    fn made_of(database: Database, before: Lasting, path: PathBuf) -> Self {
        let Lasting { snapshots, promised } = before;
        Self { database: Arc::new(database), snapshots, promised, witness: Arc::default(), path }
    }

    /// A directory of a simulated machine.
    #[cfg(feature = "simulation")]
    fn simulated(directory: &Path, path: PathBuf, before: Lasting) -> Result<Self, DiskError> {
        let fault = |reason: redb::Error| DiskError { path: path.clone(), reason: reason.into() };
        let backend =
            crate::simulation::disk::open(directory).database().map_err(|error| fault(error.into()))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| fault(error.into()))?;
        Self::made_of(database, before, path).prepared()
    }

    /// Whether what is written there waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_hanging(&self) -> bool {
        self.path.parent().is_some_and(crate::simulation::disk::is_hanging)
    }

    /// A directory that a test has made up.
    #[cfg(test)]
    pub(crate) fn on(database: Database) -> Self {
        let disk = Self::made_of(database, Lasting::in_memory(), PathBuf::from("test"));
        disk.prepared().expect("it can be written")
    }

    /// Begins with nothing, and keeps nothing.
    pub(crate) fn in_memory() -> Result<Self, DiskError> {
        let path = PathBuf::from("memory");
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| DiskError { path: path.clone(), reason: error.into() })?;
        Self::made_of(database, Lasting::in_memory(), path).prepared()
    }

    fn prepared(self) -> Result<Self, DiskError> {
        let known = self.prepare().map_err(|reason| self.fault(reason))?;
        match known {
            Some(FORMAT) => Ok(self),
            Some(other) => Err(self.fault(Damage::Format(other))),
            None => Err(self.fault(Damage::Meta(KEY_FORMAT))),
        }
    }

    /// Makes the tables if there are none, and returns the format.
    fn prepare(&self) -> Result<Option<u64>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let format = {
            transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            let known = meta.get(KEY_FORMAT)?.map(|bytes| number(bytes.value()));
            let is_older = |known: Option<u64>| known.is_some_and(|known| READABLE_FORMATS.contains(&known));
            if known.is_none_or(is_older) {
                meta.insert(KEY_FORMAT, &FORMAT.to_be_bytes()[..])?;
                Some(FORMAT)
            } else {
                known.flatten()
            }
        };
        self.commit(transaction)?;
        Ok(format)
    }

    /// Says who the node is, after noting that it starts once more. `now_ms` is the wall clock's Unix milliseconds.
    pub(crate) fn start(&self, now_ms: u64) -> Result<DiskIdentity, DiskError> {
        self.start_once_more(now_ms)
            .map_err(|reason| self.fault(reason))?
            .ok_or_else(|| self.fault(Damage::Meta(KEY_NODE)))
    }

    fn start_once_more(&self, now_ms: u64) -> Result<Option<DiskIdentity>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let identity = {
            let mut meta = transaction.open_table(META)?;
            let node = match meta.get(KEY_NODE)?.map(|bytes| number(bytes.value())) {
                Some(known) => known,
                // 62 random bits, and never 0.
                None => Some((u64::from_be_bytes(fabric::random_bytes()) >> 1) | 1),
            };
            let before = meta.get(KEY_INCARNATION)?.and_then(|bytes| number(bytes.value())).unwrap_or(0);
            let incarnation = now_ms.max(before.saturating_add(1));
            meta.insert(KEY_INCARNATION, &incarnation.to_be_bytes()[..])?;
            let is_first = meta.get(KEY_NODE)?.is_none();
            // Of the very start before this one: a version that notes nothing may have run in between.
            let is_of_this_system =
                meta.get(KEY_SYSTEM)?.is_some_and(|kept| is_this_system(kept.value(), before));
            let came_from_elsewhere = !is_first && !is_of_this_system;
            if came_from_elsewhere {
                meta.remove(KEY_SYSTEM)?;
            } else {
                meta.insert(KEY_SYSTEM, &system(incarnation)[..])?;
            }
            if let Some(node) = node {
                meta.insert(KEY_NODE, &node.to_be_bytes()[..])?;
            }
            node.map(|node| DiskIdentity { node, incarnation, came_from_elsewhere })
        };
        self.commit(transaction)?;
        Ok(identity)
    }

    /// Notes that the node runs on this system, once no earlier start of it can have a session on another one.
    pub(crate) fn note_system(&self, incarnation: u64) -> Result<(), DiskError> {
        let note = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(META)?.insert(KEY_SYSTEM, &system(incarnation)[..])?;
            self.commit(transaction)
        };
        note().map_err(|reason| self.fault(reason))
    }

    /// Who the node is and which cluster it belongs to, as far as it has started before and belongs to one.
    pub(crate) fn kept_identity(&self) -> Result<(Option<NodeId>, Option<ClusterId>), DiskError> {
        let get = |key| self.meta(key).map_err(|reason| self.fault(reason));
        let node = get(KEY_NODE)?.and_then(|bytes| number(&bytes));
        let cluster = get(KEY_CLUSTER)?.and_then(|bytes| bytes.try_into().ok());
        Ok((node, cluster.map(ClusterId::from_bytes)))
    }

    /// Notes which cluster the node belongs to, as a test has made it up.
    #[cfg(test)]
    pub(crate) fn belong_to(&self, cluster: ClusterId) -> Result<(), DiskError> {
        let note = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(META)?.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
            self.commit(transaction)
        };
        note().map_err(|reason| self.fault(reason))
    }

    /// Which start of which node it was last written by, as far as there was one.
    fn kept_start(&self) -> Result<Option<NodeStart>, DiskError> {
        let (node, _) = self.kept_identity()?;
        let incarnation = self.meta(KEY_INCARNATION).map_err(|reason| self.fault(reason))?;
        let incarnation = incarnation.and_then(|bytes| number(&bytes));
        Ok(node.zip(incarnation).map(|(node, incarnation)| NodeStart { node, incarnation }))
    }

    /// For whom the node has voted last.
    fn kept_leader(&self) -> Result<Option<LeaderId<NodeId>>, DiskError> {
        let vote: Option<Vote<NodeId>> = self.decoded(KEY_VOTE)?;
        Ok(vote.map(|vote| vote.leader_id))
    }

    fn kept_last(&self) -> Result<Option<LogId<NodeId>>, DiskError> {
        let last = self.last_entry().map_err(|reason| self.fault(reason))?;
        Ok(last.max(self.purged()?))
    }

    /// The last entry that was removed from the log, because a snapshot has what it says.
    pub(crate) fn purged(&self) -> Result<Option<LogId<NodeId>>, DiskError> {
        self.decoded(KEY_PURGED)
    }

    fn decoded<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, DiskError> {
        let bytes = self.meta(key).map_err(|reason| self.fault(reason))?;
        bytes.map(|bytes| codec::decode(&bytes).map_err(|reason| self.fault(reason))).transpose()
    }

    /// The last entry of the log that has not been purged.
    pub(crate) fn last_entry(
        &self,
    ) -> Result<Option<LogId<NodeId>>, Box<dyn std::error::Error + Send + Sync>> {
        let table = self.database.begin_read()?.open_table(LOG)?;
        let Some((_, bytes)) = table.last()? else { return Ok(None) };
        let entry: Entry<Group> = codec::decode(bytes.value())?;
        Ok(Some(entry.log_id))
    }

    /// It holds a number that no cluster comes to.
    pub(crate) fn absurd(&self, number: u64) -> DiskError {
        self.fault(Damage::Absurd(number))
    }

    pub(crate) fn fault(&self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DiskError {
        DiskError { path: self.path.clone(), reason: reason.into() }
    }

    pub(crate) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let meta = self.database.begin_read()?.open_table(META)?;
        Ok(meta.get(key)?.map(|bytes| bytes.value().to_vec()))
    }
}

/// What is noted of this system by this start of the node.
fn system(incarnation: u64) -> Vec<u8> {
    [&incarnation.to_be_bytes()[..], &boot_id()].concat()
}

/// Whether that was noted by this system in that start. Where the system does not say who it is, it may have been another one.
fn is_this_system(noted: &[u8], incarnation: u64) -> bool {
    !boot_id().is_empty() && noted == system(incarnation)
}

/// Which start of which machine this process runs in; nothing where the system does not say.
pub(crate) fn boot_id() -> Vec<u8> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return b"simulated".to_vec();
    }
    fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests;
