//! Where a node keeps its part of the group: a redb database for log, vote and identity, and one file with a snapshot ([`files`](super::files)).
//!
//! Without a data directory both are in memory. Such a node is a new member each time that it starts, so it never
//! breaks a promise that it has forgotten.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{Entry, LeaderId, LogId, Vote};
use redb::{
    AccessGuard, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    backends::InMemoryBackend,
};
use serde::de::DeserializeOwned;
use tidegate_proto::codec;

use super::files::{DiskError, SAVED_FILE, SNAPSHOT_FILE, Snapshots, draft_of, sync};
use crate::{
    fabric,
    ids::{ClusterId, NodeId, NodeStart},
    state::types::Group,
};

const DATABASE_FILE: &str = "raft.redb";
/// Memory for pages of the database: the log is written, and hardly ever read.
const CACHE_BYTES: usize = 8 << 20;
/// What the database is laid out as. Another one is refused.
const FORMAT: u64 = 5;
/// An earlier one that this version reads. What it writes from then on that one would not: so the format is noted at once.
const READABLE_FORMAT: u64 = 4;

pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const KEY_FORMAT: &str = "format";
const KEY_NODE: &str = "node";
pub(crate) const KEY_CLUSTER: &str = "cluster";
const KEY_BOOT: &str = "boot";
pub(crate) const KEY_PURGED: &str = "purged";
pub(crate) const KEY_VOTE: &str = "vote";
const KEY_INCARNATION: &str = "incarnation";

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
    #[error("the file is empty: it was cut off")]
    Empty,
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

/// What this process has got onto its disk: a disk that does not say so any more is not gone on with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promised(Arc<Mutex<Kept>>);

/// The last leader that the node has voted for, or followed, and the last entry of its log; ordered as Raft orders logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    leader: Option<LeaderId<NodeId>>,
    last: Option<LogId<NodeId>>,
}

impl Promised {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_vote(&self, vote: &Vote<NodeId>) {
        let mut kept = self.kept();
        kept.leader = kept.leader.max(Some(vote.leader_id));
    }

    pub(crate) fn note_entry(&self, id: LogId<NodeId>) {
        self.kept().last = Some(id);
    }

    /// Entries are removed again: nothing is known of the last one until there is another.
    pub(crate) fn note_truncation(&self) {
        self.kept().last = None;
    }

    pub(crate) fn forget(&self) {
        *self.kept() = Kept::default();
    }
}

/// An open data directory, or one in memory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) database: Arc<Database>,
    pub(crate) snapshots: Snapshots,
    pub(crate) promised: Promised,
    path: PathBuf,
}

/// What outlives a database that is closed and opened again by this process.
#[derive(Debug, Clone)]
pub(crate) struct Outlives {
    pub(crate) snapshots: Snapshots,
    promised: Promised,
}

impl Disk {
    /// Opens the directory, which must be there.
    pub(crate) fn open(directory: &Path) -> Result<Self, DiskError> {
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            return Self::open_with(directory, Outlives::none(directory));
        }
        // A draft is what a crash left of a file that never counted.
        for name in [SNAPSHOT_FILE, SAVED_FILE] {
            let _ = fs::remove_file(directory.join(draft_of(name)));
        }
        make_if_missing(directory)
            .map_err(|reason| DiskError { path: directory.join(DATABASE_FILE), reason: reason.into() })?;
        Self::open_with(directory, Outlives::none(directory))
    }

    /// Opens it again, after it has failed: what is still being written for the one before is known to this one.
    pub(crate) fn open_again(directory: &Path, before: &Outlives, me: NodeStart) -> Result<Self, DiskError> {
        // A node that has forgotten what it promised is another node: this process goes on without a disk.
        let disk = Self::open_with(directory, before.clone())?;
        let promised = *before.promised.kept();
        let lacks = disk.kept_leader()? < promised.leader || disk.kept_last()? < promised.last;
        if lacks || disk.kept_start()? != Some(me) {
            return Err(disk.fault(Damage::OfAnother));
        }
        Ok(disk)
    }

    /// What is to be known when it is opened again.
    pub(crate) fn outlives(&self) -> Outlives {
        Outlives { snapshots: self.snapshots.clone(), promised: self.promised.clone() }
    }

    fn open_with(directory: &Path, before: Outlives) -> Result<Self, DiskError> {
        let path = directory.join(DATABASE_FILE);
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            return Self::simulated(directory, path, before);
        }
        let database = open(&path).map_err(|reason| DiskError { path: path.clone(), reason })?;
        Self::made_of(database, before, path).prepared()
    }

    fn made_of(database: Database, before: Outlives, path: PathBuf) -> Self {
        let Outlives { snapshots, promised } = before;
        Self { database: Arc::new(database), snapshots, promised, path }
    }

    /// A directory of a simulated machine.
    #[cfg(feature = "simulation")]
    fn simulated(directory: &Path, path: PathBuf, before: Outlives) -> Result<Self, DiskError> {
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
        let disk = Self::made_of(database, Outlives::in_memory(), PathBuf::from("test"));
        disk.prepared().expect("it can be written")
    }

    /// Begins with nothing, and keeps nothing.
    pub(crate) fn in_memory() -> Result<Self, DiskError> {
        let path = PathBuf::from("memory");
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| DiskError { path: path.clone(), reason: error.into() })?;
        Self::made_of(database, Outlives::in_memory(), path).prepared()
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
            match known {
                None | Some(Some(READABLE_FORMAT)) => {
                    meta.insert(KEY_FORMAT, &FORMAT.to_be_bytes()[..])?;
                    Some(FORMAT)
                }
                Some(other) => other,
            }
        };
        transaction.commit()?;
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
            let boot = boot_id();
            let is_first = meta.get(KEY_NODE)?.is_none();
            if is_first {
                meta.insert(KEY_BOOT, &boot[..])?;
            }
            let is_of_this_boot = |kept: AccessGuard<'_, &[u8]>| kept.value() == boot && !boot.is_empty();
            let came_from_elsewhere = !is_first && !meta.get(KEY_BOOT)?.is_some_and(is_of_this_boot);
            if let Some(node) = node {
                meta.insert(KEY_NODE, &node.to_be_bytes()[..])?;
            }
            node.map(|node| DiskIdentity { node, incarnation, came_from_elsewhere })
        };
        transaction.commit()?;
        Ok(identity)
    }

    /// Notes that the node runs on this system, once no earlier start of it can have a session on another one.
    pub(crate) fn note_system(&self) -> Result<(), DiskError> {
        let note = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(META)?.insert(KEY_BOOT, &boot_id()[..])?;
            Ok(transaction.commit()?)
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
            Ok(transaction.commit()?)
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
        Ok(last.max(self.decoded(KEY_PURGED)?))
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

impl Outlives {
    /// Of a directory that this process has not opened yet.
    fn none(directory: &Path) -> Self {
        Self { snapshots: Snapshots::of(directory), promised: Promised::default() }
    }

    fn in_memory() -> Self {
        Self { snapshots: Snapshots::Memory(Arc::default()), promised: Promised::default() }
    }
}

/// Makes an empty database where there is none. It is there whole or not at all: redb cannot open what a crash leaves of one that
/// it was making.
fn make_if_missing(directory: &Path) -> Result<(), redb::Error> {
    // One that cannot be looked at is not missing: nothing ever replaces a database.
    match fs::symlink_metadata(directory.join(DATABASE_FILE)) {
        // Its name may not be on the disk yet, if the machine stopped as it was made.
        Ok(_) => return Ok(sync_names(directory)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let draft = directory.join(draft_of(DATABASE_FILE));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    drop(create(&draft)?);
    sync(&File::open(&draft)?)?;
    fs::rename(&draft, directory.join(DATABASE_FILE))?;
    Ok(sync_names(directory)?)
}

/// Waits until the names in a directory are on the disk. Some network file systems cannot be asked that.
fn sync_names(directory: &Path) -> io::Result<()> {
    match sync(&File::open(directory)?) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Opens the database, which must be there: one that was cut off to nothing would be made anew, and with it another node.
fn open(path: &Path) -> Result<Database, Box<dyn std::error::Error + Send + Sync>> {
    if fs::metadata(path)?.len() == 0 {
        return Err(Damage::Empty.into());
    }
    Ok(create(path)?)
}

/// Opens the database, and makes it if it is not there.
#[cfg(not(feature = "fault-injection"))]
fn create(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path)
}

/// The same on a disk that can fail.
#[cfg(feature = "fault-injection")]
fn create(path: &Path) -> Result<Database, DatabaseError> {
    let file = crate::injection::disk::open(path)?;
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(file)
}

/// Which start of which machine this process runs in; nothing where the system does not say.
fn boot_id() -> Vec<u8> {
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
mod tests {
    use super::*;
    use crate::raft::files::{load_buckets, save_buckets};

    #[test]
    fn a_node_is_the_same_after_a_restart_and_its_incarnation_grows_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let first = Disk::open(directory.path()).unwrap().start(1_000).unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let second = disk.start(7).unwrap();
        assert_eq!((first.node, disk.kept_identity().unwrap().1), (second.node, None));
        assert_eq!((first.incarnation, second.incarnation), (1_000, 1_001));
        disk.belong_to(ClusterId::from_bytes([7; 16])).unwrap();
        drop(disk);
        let disk = Disk::open(directory.path()).unwrap();
        assert_eq!(disk.start(5_000).unwrap().incarnation, 5_000);
        assert_eq!(disk.kept_identity().unwrap(), (Some(first.node), Some(ClusterId::from_bytes([7; 16]))));
        let other = Disk::in_memory().unwrap().start(1).unwrap();
        assert_ne!(other.node, first.node);
    }

    #[test]
    fn a_node_knows_whether_its_disk_was_last_used_by_the_system_that_it_runs_on() {
        let directory = tempfile::tempdir().unwrap();
        let start = |now| Disk::open(directory.path()).unwrap().start(now).unwrap().came_from_elsewhere;
        let used_by = |boot: Option<&[u8]>| {
            let disk = Disk::open(directory.path()).unwrap();
            let transaction = disk.database.begin_write().unwrap();
            {
                let mut meta = transaction.open_table(META).unwrap();
                match boot {
                    Some(boot) => drop(meta.insert(KEY_BOOT, boot).unwrap()),
                    None => drop(meta.remove(KEY_BOOT).unwrap()),
                }
            }
            transaction.commit().unwrap();
        };
        assert!(!start(1), "there was no start before");
        assert!(!start(2));
        used_by(Some(b"another"));
        assert!(start(3));
        assert!(start(4), "the start before may have ended before it could wait");
        Disk::open(directory.path()).unwrap().note_system().unwrap();
        assert!(!start(5));
        used_by(None);
        assert!(start(6), "a version that did not note it");
    }

    #[test]
    fn what_a_crash_left_of_a_snapshot_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        disk.snapshots.write(1, b"one").unwrap();
        fs::write(directory.path().join(draft_of(SNAPSHOT_FILE)), b"TGS1 half of").unwrap();
        drop(disk);
        let disk = Disk::open(directory.path()).unwrap();
        assert_eq!(disk.snapshots.read().unwrap().unwrap(), b"one");
        assert!(!directory.path().join(draft_of(SNAPSHOT_FILE)).exists());
    }

    /// Found by starts on a busy disk: redb writes the mark of its files last, and refuses one that was being made.
    #[test]
    fn what_a_crash_left_of_a_database_that_was_being_made_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let draft = directory.path().join(draft_of(DATABASE_FILE));
        fs::write(&draft, [0; 4096]).unwrap();
        drop(Disk::open(directory.path()).unwrap());
        assert!(!draft.exists());
        // What has the name of the database is one, or damaged.
        for left in [&[0; 4096][..], &[]] {
            fs::write(directory.path().join(DATABASE_FILE), left).unwrap();
            assert!(Disk::open(directory.path()).is_err());
            assert_eq!(fs::read(directory.path().join(DATABASE_FILE)).unwrap(), left, "nothing replaces it");
        }
    }

    /// Found by review: whoever cuts the file off must not make this node forget what it has voted.
    #[test]
    fn a_log_that_was_replaced_or_cut_off_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let me = disk.start(1_000).unwrap();
        let me = NodeStart { node: me.node, incarnation: me.incarnation };
        let before = disk.outlives();
        drop(disk);
        drop(Disk::open_again(directory.path(), &before, me).unwrap());
        let path = directory.path().join(DATABASE_FILE);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, b"").unwrap();
        assert!(Disk::open_again(directory.path(), &before, me).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is made in its place");
        fs::remove_file(&path).unwrap();
        Disk::open(directory.path()).unwrap().start(2_000).unwrap();
        let error = Disk::open_again(directory.path(), &before, me).unwrap_err().to_string();
        assert!(error.contains("not the log of the node"), "{error}");
        fs::write(&path, &kept).unwrap();
        drop(Disk::open_again(directory.path(), &before, me).unwrap());
        // A copy that an earlier start has left is not what this one has written.
        let later = Disk::open(directory.path()).unwrap().start(3_000).unwrap();
        let later = NodeStart { incarnation: later.incarnation, ..me };
        drop(Disk::open_again(directory.path(), &before, later).unwrap());
        fs::write(&path, &kept).unwrap();
        assert!(Disk::open_again(directory.path(), &before, later).is_err());
    }

    #[tokio::test]
    async fn a_log_that_lacks_a_vote_or_an_entry_of_this_process_is_not_gone_on_with() {
        use openraft::{
            CommittedLeaderId, EntryPayload,
            storage::{RaftLogStorage as _, RaftLogStorageExt as _},
        };

        use crate::raft::log::Log;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DATABASE_FILE);
        let disk = Disk::open(directory.path()).unwrap();
        let me = disk.start(4_000).unwrap();
        let me = NodeStart { node: me.node, incarnation: me.incarnation };
        let before = disk.outlives();
        drop(disk);
        let again = || Disk::open_again(directory.path(), &before, me);
        // The thread of a log that was dropped closes the database a moment later.
        let closed = || async {
            while again().is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let id = |term, index| LogId::new(CommittedLeaderId::new(term, me.node), index);
        let mut earlier = Vec::new();
        for step in 0..3_u64 {
            earlier.push(fs::read(&path).unwrap());
            let mut log = Log::start(again().unwrap()).unwrap();
            if step == 1 {
                log.save_vote(&Vote::new(3, me.node)).await.unwrap();
            } else {
                let entry = Entry { log_id: id(1 + step, step / 2), payload: EntryPayload::Blank };
                log.blocking_append([entry]).await.unwrap();
            }
            drop(log);
            closed().await;
        }
        let whole = fs::read(&path).unwrap();
        for (step, copy) in earlier.into_iter().enumerate() {
            fs::write(&path, copy).unwrap();
            assert!(again().is_err(), "what step {step} wrote is missing");
        }
        fs::write(&path, &whole).unwrap();
        // What Raft itself takes away is not missing.
        let mut log = Log::start(again().unwrap()).unwrap();
        log.truncate(id(3, 1)).await.unwrap();
        drop(log);
        closed().await;
        again().unwrap().forget_cluster().unwrap();
        again().unwrap();
    }

    /// Found by an hour of faults: a node that ended while Raft wrote a snapshot found its buckets' debts in its place, and did
    /// not start any more.
    #[test]
    fn snapshots_and_debts_are_written_at_once_and_are_what_they_should_be() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        std::thread::scope(|scope| {
            for writer in 1..=2_u64 {
                let snapshots = disk.snapshots.clone();
                scope.spawn(move || {
                    for index in 0..100 {
                        snapshots.write(2 * index + writer, &vec![b's'; 10 * writer as usize]).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..100 {
                    save_buckets(directory.path(), b"debts of some buckets").unwrap();
                }
            });
        });
        assert_eq!(disk.snapshots.read().unwrap().unwrap(), [b's'; 20]);
        assert_eq!(load_buckets(directory.path()).unwrap().unwrap(), b"debts of some buckets");
    }
}
