//! Raft's log and vote on the disk.
//!
//! One thread writes, in the order in which it is asked, so that no vote overtakes an entry. What waits for it goes into
//! one transaction: many entries cost one fsync. An entry counts when that is done, but can be read at once: until then
//! it is in `pending`.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use openraft::{
    Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::{Durability, ReadableDatabase as _};
use serde::{Serialize, de::DeserializeOwned};
use tidegate_proto::{MAX_CALL_BYTES, codec};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::disk::{Disk, KEY_PURGED, KEY_VOTE, LOG, META};
use crate::{
    ids::NodeId,
    owner::shares::ShareChange,
    planted::PlantedBug,
    rpc::sane::is_absurd,
    state::{
        command::Command,
        types::{Group, MAX_ENTRY_BYTES},
    },
};

/// What may wait to be written; whoever asks for more waits.
const MAX_WAITING: usize = 256;
/// What is written in one transaction.
const MAX_TOGETHER: usize = 64;
/// Bytes of entries that are read for a follower at once, but at least one entry.
const READ_BYTES: usize = 4 << 20;
const _: () = assert!(READ_BYTES + MAX_ENTRY_BYTES < MAX_CALL_BYTES, "they fit one call");
/// A write that takes so long will perhaps never end.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// Raft begins the next of several writes much sooner after one.
const QUIET_FOR: Duration = Duration::from_millis(50);

pub(crate) const KEY_COMMITTED: &str = "committed";

type Fault = StorageError<NodeId>;
/// Entries that were found, with their bytes.
type Found = BTreeMap<u64, (usize, Entry<Group>)>;

/// The log. Its clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    disk: Disk,
    writer: mpsc::Sender<Job>,
    pending: Pending,
    writes: Writes,
}

/// Entries that are on their way to the disk, with their bytes.
#[derive(Debug, Clone, Default)]
struct Pending(Arc<Mutex<Found>>);

impl Pending {
    fn entries(&self) -> MutexGuard<'_, Found> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When something was last written and synced.
#[derive(Debug, Clone, Default)]
struct Writes(Arc<Mutex<LastWrite>>);

#[derive(Debug, Default)]
struct LastWrite {
    /// Since when one is under way.
    since: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl Writes {
    fn last(&self) -> MutexGuard<'_, LastWrite> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something to write.
enum Job {
    Append { entries: Vec<(LogId<NodeId>, Vec<u8>)>, flushed: LogFlushed<Group> },
    Do { write: Write, done: oneshot::Sender<Result<(), Arc<redb::Error>>> },
}

enum Write {
    /// Nothing: only waits for what was asked for before.
    Nothing,
    Meta {
        key: &'static str,
        value: Vec<u8>,
        durable: bool,
    },
    /// Removes this entry and all behind it.
    Truncate(u64),
    /// Removes this entry and all before it.
    Purge {
        through: LogId<NodeId>,
        id: Vec<u8>,
    },
}

impl Log {
    /// Starts the thread that writes. It ends when nobody has the log any more.
    pub(crate) fn start(disk: Disk) -> io::Result<Self> {
        let (writer, jobs) = mpsc::channel(MAX_WAITING);
        let (pending, writes) = (Pending::default(), Writes::default());
        let work = Writer { disk: disk.clone(), jobs, pending: pending.clone(), writes: writes.clone() };
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            tokio::spawn(work.run_here());
            return Ok(Self { disk, writer, pending, writes });
        }
        thread::Builder::new().name("raft-log".to_owned()).spawn(move || work.run())?;
        Ok(Self { disk, writer, pending, writes })
    }

    /// For how long the disk has not finished what it was given, where that is too long: it neither works nor fails.
    pub(crate) fn hangs(&self, now: Instant) -> Option<Duration> {
        let since = self.writes.last().since?;
        Some(now.saturating_duration_since(since)).filter(|hangs| *hangs >= HANGS_AFTER)
    }

    /// Whether Raft waits for no write, and has not just waited for one. While it does, what it says of itself is of before: it may have
    /// won an election by then, and write that.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        let last = self.writes.last();
        last.since.is_none() && last.ended.is_none_or(|at| now.saturating_duration_since(at) >= QUIET_FOR)
    }

    /// Before Raft starts: who led when it ended does not lead on, but may be elected again. The library would let it, in
    /// the same term and without knowing which entries of this term were acknowledged, so that a read from it could miss
    /// them. And so one term has one process that leads it: what a leader only has in memory, it need not look for.
    pub(crate) async fn step_down(&mut self, me: NodeId) -> Result<(), Fault> {
        let vote = self.read_vote().await?;
        if let Some(vote) = vote.as_ref().filter(|_| !PlantedBug::VoteNotSynced.is_on()) {
            self.disk.promised.note_vote(vote);
        }
        match vote {
            Some(vote) if vote.committed && vote.leader_id.node_id == me => {
                // It has voted for itself in this term, and nobody else gets its vote in it.
                self.save_vote(&Vote { committed: false, ..vote }).await
            }
            _ => Ok(()),
        }
    }

    /// A term or an index in vote or log that no cluster comes to.
    pub(crate) async fn absurd(&mut self) -> Result<Option<u64>, Fault> {
        let vote = self.read_vote().await?.map(|vote| vote.leader_id.term);
        let last = self.get_log_state().await?.last_log_id.map(|id| [id.leader_id.term, id.index]);
        Ok(vote.into_iter().chain(last.into_iter().flatten()).find(|number| is_absurd(*number)))
    }

    /// Returns when all that was asked for is on the disk: another [`Log`] can then begin on it.
    pub(crate) async fn flush(&self) -> Result<(), io::Error> {
        self.write(Write::Nothing).await
    }

    async fn write(&self, write: Write) -> Result<(), io::Error> {
        let (done, written) = oneshot::channel();
        let gone = || io::Error::other("the thread that writes the log has ended");
        self.writer.send(Job::Do { write, done }).await.map_err(|_| gone())?;
        written.await.map_err(|_| gone())?.map_err(io::Error::other)
    }

    /// The changes of shares in the log from this entry on, and the index of its last entry. A few entries at a time: others are
    /// large.
    pub(crate) fn share_changes(&self, mut next: u64) -> Result<(Vec<ShareChange>, u64), io::Error> {
        let (mut changes, mut last) = (Vec::new(), 0);
        loop {
            let entries = self.read((Bound::Included(next), Bound::Unbounded), READ_BYTES)?;
            let Some(end) = entries.last() else { return Ok((changes, last)) };
            last = end.log_id.index;
            next = last + 1;
            for entry in entries {
                if let EntryPayload::Normal(Command::Shares(change)) = entry.payload {
                    changes.push(change);
                }
            }
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, io::Error> {
        let bytes = self.disk.meta(key).map_err(io::Error::other)?;
        bytes.map(|bytes| codec::decode(&bytes).map_err(io::Error::other)).transpose()
    }

    fn read(
        &self,
        range: (Bound<u64>, Bound<u64>),
        most_bytes: usize,
    ) -> Result<Vec<Entry<Group>>, io::Error> {
        if is_inverted(range) {
            // The maps would panic.
            let reason = format!("entries of the log were asked for from behind their end: {range:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        // First what is not on the disk yet: an entry that gets there in between is then found on the disk.
        let mut found: Found =
            self.pending.entries().range(range).map(|(index, entry)| (*index, entry.clone())).collect();
        // What waits has no holes, and nothing on the disk is behind it. So where it has the first entry it has all of them, and a
        // disk that hangs keeps nobody waiting.
        let has_all = matches!((range.0, found.first_key_value()),
            (Bound::Included(start), Some((first, _))) if *first == start);
        if !has_all {
            self.read_disk(range, most_bytes, &mut found).map_err(io::Error::other)?;
        }
        let mut bytes = 0_usize;
        let fit = found.into_values().enumerate().take_while(|(place, (length, _))| {
            bytes = bytes.saturating_add(*length);
            *place == 0 || bytes <= most_bytes
        });
        Ok(fit.map(|(_, (_, entry))| entry).collect())
    }

    /// Adds the entries on the disk, as far as they are not there and the bytes suffice.
    fn read_disk(
        &self,
        range: (Bound<u64>, Bound<u64>),
        most_bytes: usize,
        found: &mut Found,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let table = self.disk.database.begin_read()?.open_table(LOG)?;
        let mut bytes = 0;
        let mut end = None;
        for row in table.range::<u64>(range)? {
            let (index, entry) = row?;
            bytes += entry.value().len();
            if bytes > most_bytes && end.is_none() && bytes > entry.value().len() {
                end = Some(index.value());
                break;
            }
            if let std::collections::btree_map::Entry::Vacant(place) = found.entry(index.value()) {
                place.insert((entry.value().len(), codec::decode(entry.value())?));
            }
        }
        if let Some(end) = end {
            // No holes: what lies behind an entry that was left out is left out too.
            found.split_off(&end);
        }
        Ok(())
    }
}

impl RaftLogReader<Group> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Group>>, Fault> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.read(range, usize::MAX).map_err(|error| StorageIOError::read_logs(&error).into())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Group>>, Fault> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.read(range, READ_BYTES).map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

impl RaftLogStorage<Group> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, Fault> {
        let fault = |error: io::Error| Fault::from(StorageIOError::read_logs(&error));
        let last_purged_log_id: Option<LogId<NodeId>> = self.get(KEY_PURGED).map_err(fault)?;
        let pending = self.pending.entries().last_key_value().map(|(_, (_, entry))| entry.log_id);
        let last = match pending {
            Some(id) => Some(id),
            None => self.disk.last_entry().map_err(|error| fault(io::Error::other(error)))?,
        };
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), Fault> {
        let value = encode(vote).map_err(|error| Fault::from(StorageIOError::write_vote(&error)))?;
        let durable = !PlantedBug::VoteNotSynced.is_on();
        let write = Write::Meta { key: KEY_VOTE, value, durable };
        self.write(write).await.map_err(|error| Fault::from(StorageIOError::write_vote(&error)))?;
        if durable {
            self.disk.promised.note_vote(vote);
        }
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, Fault> {
        self.get(KEY_VOTE).map_err(|error| StorageIOError::read_vote(&error).into())
    }

    /// Only a hint where a restart may begin, so it need not be on the disk at once.
    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> Result<(), Fault> {
        let fault = |error: io::Error| Fault::from(StorageIOError::write_logs(&error));
        let value = encode(&committed).map_err(fault)?;
        self.write(Write::Meta { key: KEY_COMMITTED, value, durable: false }).await.map_err(fault)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<NodeId>>, Fault> {
        let committed = self.get::<Option<LogId<NodeId>>>(KEY_COMMITTED);
        Ok(committed.map_err(|error| StorageIOError::read_logs(&error))?.flatten())
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Group>) -> Result<(), Fault>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let fault = |error: io::Error| Fault::from(StorageIOError::write_logs(&error));
        let mut encoded: Vec<(LogId<NodeId>, Vec<u8>)> = Vec::new();
        let mut fresh = BTreeMap::new();
        for entry in entries {
            if let Some((before, _)) = encoded.last()
                && !is_next(*before, entry.log_id)
            {
                let reason = format!("the entry {} cannot follow {before}", entry.log_id);
                return Err(fault(io::Error::new(io::ErrorKind::InvalidInput, reason)));
            }
            let (id, bytes) = (entry.log_id, encode(&entry).map_err(fault)?);
            fresh.insert(id.index, (bytes.len(), entry));
            encoded.push((id, bytes));
        }
        self.pending.entries().append(&mut fresh);
        let job = Job::Append { entries: encoded, flushed };
        let gone = |_| fault(io::Error::other("the thread that writes the log has ended"));
        self.writer.send(job).await.map_err(gone)
    }

    async fn truncate(&mut self, id: LogId<NodeId>) -> Result<(), Fault> {
        self.pending.entries().split_off(&id.index);
        let written = self.write(Write::Truncate(id.index)).await;
        written.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, id: LogId<NodeId>) -> Result<(), Fault> {
        let fault = |error: io::Error| Fault::from(StorageIOError::write_logs(&error));
        let encoded = encode(&id).map_err(fault)?;
        // Raft says so when it has begun to install a snapshot, which another task writes.
        self.disk.snapshots.has(id.index).await.map_err(fault)?;
        self.write(Write::Purge { through: id, id: encoded }).await.map_err(fault)
    }
}

/// Whether a range ends before it begins.
fn is_inverted(range: (Bound<u64>, Bound<u64>)) -> bool {
    match range {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to)) => from > to,
        (Bound::Included(from), Bound::Excluded(to)) => from > to,
        (Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// Whether an entry may stand behind another one: no gaps, and no earlier leader.
fn is_next(before: LogId<NodeId>, id: LogId<NodeId>) -> bool {
    before.index.checked_add(1) == Some(id.index) && before.leader_id <= id.leader_id
}

/// Whether these entries are some of one log, behind `before`. What is not would be in the log before Raft looks at it.
pub(crate) fn is_in_order(before: Option<LogId<NodeId>>, entries: &[Entry<Group>]) -> bool {
    let mut ids = entries.iter().map(|entry| entry.log_id);
    let mut last = match (before, ids.next()) {
        (_, None) => return true,
        (None, Some(first)) if first.index == 0 => first,
        (Some(before), Some(first)) if is_next(before, first) => first,
        _ => return false,
    };
    ids.all(|id| is_next(std::mem::replace(&mut last, id), id))
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, io::Error> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes, MAX_ENTRY_BYTES).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The thread that writes.
struct Writer {
    disk: Disk,
    jobs: mpsc::Receiver<Job>,
    pending: Pending,
    writes: Writes,
}

impl Writer {
    fn run(mut self) {
        let mut together = Vec::with_capacity(MAX_TOGETHER);
        while let Some(first) = self.jobs.blocking_recv() {
            self.write_together(first, &mut together);
        }
    }

    /// As [`Writer::run`], where there is one thread for everything.
    #[cfg(feature = "simulation")]
    async fn run_here(mut self) {
        let mut together = Vec::with_capacity(MAX_TOGETHER);
        while let Some(first) = self.jobs.recv().await {
            self.writes.last().since = Some(Instant::now());
            // A disk takes its time, and what was asked for meanwhile is lost when the power goes.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            while self.disk.is_hanging() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            self.write_together(first, &mut together);
        }
    }

    fn write_together(&mut self, first: Job, together: &mut Vec<Job>) {
        together.push(first);
        while together.len() < MAX_TOGETHER
            && let Ok(next) = self.jobs.try_recv()
        {
            together.push(next);
        }
        self.writes.last().since.get_or_insert_with(Instant::now);
        let outcome = self.commit(together).map_err(Arc::new);
        *self.writes.last() = LastWrite { since: None, ended: Some(Instant::now()) };
        for job in together.drain(..) {
            self.answer(job, &outcome);
        }
    }

    fn commit(&self, jobs: &[Job]) -> Result<(), redb::Error> {
        let mut transaction = self.disk.database.begin_write()?;
        let lasting = |job: &Job| {
            !matches!(job, Job::Do { write: Write::Nothing | Write::Meta { durable: false, .. }, .. })
        };
        let lasts = jobs.iter().any(lasting);
        if !lasts {
            transaction
                .set_durability(Durability::None)
                .map_err(|error| redb::Error::Io(io::Error::other(error)))?;
        }
        {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            for job in jobs {
                match job {
                    Job::Append { entries, .. } => {
                        for (id, entry) in entries {
                            log.insert(id.index, entry.as_slice())?;
                        }
                    }
                    Job::Do { write: Write::Nothing, .. } => {}
                    Job::Do { write: Write::Meta { key, value, .. }, .. } => {
                        meta.insert(*key, value.as_slice())?;
                    }
                    Job::Do { write: Write::Truncate(from), .. } => log.retain_in(*from.., |_, _| false)?,
                    Job::Do { write: Write::Purge { through, id }, .. } => {
                        meta.insert(KEY_PURGED, id.as_slice())?;
                        log.retain_in(..=through.index, |_, _| false)?;
                    }
                }
            }
        }
        if lasts { self.disk.commit(transaction) } else { Ok(transaction.commit()?) }
    }

    fn answer(&self, job: Job, outcome: &Result<(), Arc<redb::Error>>) {
        match job {
            Job::Append { entries, flushed } => {
                if outcome.is_ok() {
                    self.forget(&entries);
                    if let Some((id, _)) = entries.last() {
                        self.disk.promised.note_entry(*id);
                    }
                }
                flushed.log_io_completed(outcome.clone().map_err(io::Error::other));
            }
            Job::Do { write, done } => {
                match write {
                    Write::Truncate(_) => self.disk.promised.note_truncation(),
                    Write::Purge { through, .. } => self.disk.promised.note_purge(through, outcome.is_ok()),
                    Write::Nothing | Write::Meta { .. } => {}
                }
                // Whoever asked may have been dropped.
                drop(done.send(outcome.clone()));
            }
        }
    }

    /// What is on the disk is read from there, unless it has been overwritten on the way.
    fn forget(&self, written: &[(LogId<NodeId>, Vec<u8>)]) {
        let mut pending = self.pending.entries();
        for (id, _) in written {
            if pending.get(&id.index).is_some_and(|(_, entry)| entry.log_id == *id) {
                pending.remove(&id.index);
            }
        }
    }
}
