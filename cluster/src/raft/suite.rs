//! openraft's own tests for storage, run on ours; and what they do not ask: a power cut.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader as _, StorageError, Vote,
    storage::{RaftLogStorage, RaftLogStorageExt as _},
    testing::{StoreBuilder, Suite},
};
use redb::{Database, StorageBackend};
use tokio::{sync::watch, time::Instant};

use super::{
    applied::Machine,
    disk::Disk,
    files::Snapshots,
    log::{Log, is_in_order},
};
use crate::{
    ids::NodeId,
    injection::{
        Switches,
        disk::{Dice, open_under},
    },
    state::{
        command::{Command, Expected, Extent, Origin, RuleWrite},
        types::Group,
    },
};

struct InDirectory;

impl StoreBuilder<Group, Log, Machine, tempfile::TempDir> for InDirectory {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError<NodeId>> {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let machine = Machine::open(&disk, watch::Sender::default()).unwrap();
        // The suite purges the log where there are no snapshots.
        let mut for_log = disk;
        for_log.snapshots = Snapshots::Memory(Arc::default());
        Ok((directory, Log::start(for_log).unwrap(), machine))
    }
}

struct InMemory;

impl StoreBuilder<Group, Log, Machine, ()> for InMemory {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<NodeId>> {
        let disk = Disk::in_memory().unwrap();
        let machine = Machine::open(&disk, watch::Sender::default()).unwrap();
        Ok(((), Log::start(disk).unwrap(), machine))
    }
}

#[test]
fn the_storage_passes_openrafts_own_suite_on_a_disk() {
    Suite::test_all(InDirectory).unwrap();
}

#[test]
fn the_storage_passes_openrafts_own_suite_in_memory() {
    Suite::test_all(InMemory).unwrap();
}

/// A disk that forgets what was not synced when the power is cut, and can fail.
#[derive(Debug, Clone, Default)]
struct Fragile(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    synced: Vec<u8>,
    seen: Vec<u8>,
    full: bool,
}

impl Fragile {
    fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after_a_power_cut(&self) -> Self {
        let synced = self.platter().synced.clone();
        Self(Arc::new(Mutex::new(Platter { seen: synced.clone(), synced, full: false })))
    }

    fn disk(&self) -> Disk {
        Disk::on(Database::builder().create_with_backend(self.clone()).unwrap())
    }
}

impl StorageBackend for Fragile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let offset = offset as usize;
        out.copy_from_slice(&self.platter().seen[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.platter().seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut platter = self.platter();
        if platter.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        platter.synced = platter.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut platter = self.platter();
        if platter.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        platter.seen[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn entry(index: u64) -> Entry<Group> {
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(Command::Forget(index)) }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_after_each_step() {
    let disk = Fragile::default();
    let mut log = Log::start(disk.disk()).unwrap();
    for index in 0..20 {
        log.blocking_append([entry(index)]).await.unwrap();
        log.save_vote(&Vote::new(index, 1)).await.unwrap();
        let mut after = Log::start(disk.after_a_power_cut().disk()).unwrap();
        assert_eq!(after.get_log_state().await.unwrap().last_log_id.unwrap().index, index);
        assert_eq!(after.read_vote().await.unwrap(), Some(Vote::new(index, 1)));
        let entries = after.try_get_log_entries(0..100).await.unwrap();
        assert_eq!(entries.len() as u64, index + 1);
    }
    log.truncate(LogId::new(CommittedLeaderId::new(1, 1), 15)).await.unwrap();
    log.purge(LogId::new(CommittedLeaderId::new(1, 1), 4)).await.unwrap();
    let mut after = Log::start(disk.after_a_power_cut().disk()).unwrap();
    let left: Vec<u64> =
        after.try_get_log_entries(0..100).await.unwrap().iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(left, (5..15).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_led_when_it_ended_does_not_lead_on() {
    let disk = Fragile::default();
    let mut log = Log::start(disk.disk()).unwrap();
    for (vote, after) in [
        (Vote::new_committed(7, 1), Vote::new(7, 1)),
        (Vote::new_committed(8, 2), Vote::new_committed(8, 2)),
        (Vote::new(9, 1), Vote::new(9, 1)),
    ] {
        log.save_vote(&vote).await.unwrap();
        log.step_down(1).await.unwrap();
        let mut again = Log::start(disk.after_a_power_cut().disk()).unwrap();
        assert_eq!(again.read_vote().await.unwrap(), Some(after));
    }
}

#[tokio::test]
async fn a_torn_write_leaves_what_was_acknowledged_before_it() {
    const SECTOR: usize = 512;
    let disk = Fragile::default();
    let mut log = Log::start(disk.disk()).unwrap();
    for index in 0..30 {
        let before = disk.platter().synced.clone();
        log.blocking_append([entry(index)]).await.unwrap();
        let after = disk.platter().synced.clone();
        if index < 25 || before.len() != after.len() {
            continue;
        }
        let changed = (0..after.len()).step_by(SECTOR).filter(|at| {
            let end = after.len().min(at + SECTOR);
            before[*at..end] != after[*at..end]
        });
        for at in changed {
            let end = after.len().min(at + SECTOR);
            // Only this sector is missing, or only this one was written.
            for (most, one) in [(&after, &before), (&before, &after)] {
                let mut torn = most.clone();
                torn[at..end].copy_from_slice(&one[at..end]);
                let torn =
                    Fragile(Arc::new(Mutex::new(Platter { seen: torn.clone(), synced: torn, full: false })));
                let mut begun = Log::start(torn.disk()).unwrap();
                let last = begun.get_log_state().await.unwrap().last_log_id.unwrap().index;
                assert!(last == index - 1 || last == index, "{last} of {index}, sector at {at}");
                let entries = begun.try_get_log_entries(0..100).await.unwrap();
                assert!(entries.iter().map(|entry| entry.log_id.index).eq(0..=last));
            }
        }
    }
}

/// A Raft core that had been given the logs of two clusters asked for such a range, and the map under it panicked.
#[tokio::test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
async fn a_range_that_ends_before_it_begins_and_entries_with_a_gap_are_errors() {
    let mut log = Log::start(Fragile::default().disk()).unwrap();
    log.blocking_append((0..10).map(entry)).await.unwrap();
    assert!(log.try_get_log_entries(7..3).await.is_err());
    assert!(log.try_get_log_entries(u64::MAX..0).await.is_err());
    assert!(log.try_get_log_entries(8..=6).await.is_err());
    assert!(log.limited_get_log_entries(9, 2).await.is_err());
    assert_eq!(log.try_get_log_entries(3..3).await.unwrap().len(), 0);
    assert_eq!(log.try_get_log_entries(3..7).await.unwrap().len(), 4);
    for wrong in [vec![entry(10), entry(12)], vec![entry(11), entry(10)], vec![entry(u64::MAX), entry(0)]] {
        assert!(log.blocking_append(wrong).await.is_err());
    }
    assert_eq!(log.get_log_state().await.unwrap().last_log_id.unwrap().index, 9);
    log.blocking_append([entry(10)]).await.unwrap();
}

#[test]
fn entries_that_a_node_begins_with_are_some_of_one_log() {
    let of = |term, index| {
        let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
        Entry::<Group> { log_id, payload: EntryPayload::Blank }
    };
    let is_sound = |before: Option<(u64, u64)>, entries: &[(u64, u64)]| {
        let before = before.map(|(term, index)| of(term, index).log_id);
        let entries: Vec<_> = entries.iter().map(|(term, index)| of(*term, *index)).collect();
        is_in_order(before, &entries)
    };
    assert!(is_sound(None, &[]) && is_sound(Some((3, 9)), &[]));
    assert!(is_sound(None, &[(0, 0), (1, 1), (3, 2)]) && is_sound(Some((3, 9)), &[(3, 10), (4, 11)]));
    assert!(!is_sound(None, &[(1, 1)]), "it does not begin");
    assert!(!is_sound(Some((3, 9)), &[(3, 11)]) && !is_sound(Some((3, 9)), &[(3, 9)]));
    assert!(!is_sound(Some((3, 9)), &[(2, 10)]), "of an earlier leader");
    assert!(!is_sound(Some((3, u64::MAX)), &[(3, 0)]) && !is_sound(None, &[(0, 0), (0, 2)]));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_what_was_there_before_stays() {
    let disk = Fragile::default();
    let mut log = Log::start(disk.disk()).unwrap();
    log.blocking_append([entry(0)]).await.unwrap();
    disk.platter().full = true;
    assert!(log.blocking_append([entry(1)]).await.is_err());
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err());
    let mut after = Log::start(disk.after_a_power_cut().disk()).unwrap();
    assert_eq!(after.get_log_state().await.unwrap().last_log_id.unwrap().index, 0);
    assert_eq!(after.read_vote().await.unwrap(), None);
    // With room again the same log goes on.
    after.blocking_append([entry(1)]).await.unwrap();
    assert_eq!(after.get_log_state().await.unwrap().last_log_id.unwrap().index, 1);
}

/// On a file: what a real node has under it in a run that injects faults. What fails leaves some sectors written and others
/// not, as a power cut does.
#[tokio::test]
async fn what_was_acknowledged_survives_syncs_that_fail_and_leave_torn_writes_in_a_real_file() {
    let directory = tempfile::tempdir().unwrap();
    let switches = Arc::new(Switches::default());
    let open = || {
        let file = open_under(&directory.path().join("log"), Arc::clone(&switches)).unwrap();
        Database::builder().create_with_backend(file)
    };
    let start = |database| Log::start(Disk::on(database)).unwrap();
    let mut dice = Dice(1);
    let (mut log, mut index) = (start(open().unwrap()), 0);
    let (mut failed, mut kept) = (0, 0);
    for order in 1..60 {
        for _ in 0..dice.below(4) {
            log.blocking_append([entry(index)]).await.unwrap();
            index += 1;
        }
        switches.obey(format!("fail-syncs {order} {}", 1 + dice.below(2)).parse().unwrap());
        assert!(log.blocking_append([entry(index)]).await.is_err(), "{index}");
        failed += 1;
        // It takes nothing more, whatever the disk would do.
        switches.obey("".parse().unwrap());
        assert!(log.save_vote(&Vote::new(order, 1)).await.is_err());
        drop(log);
        // Whoever writes it has it open for a moment.
        log = loop {
            match open() {
                Ok(database) => break start(database),
                Err(redb::DatabaseError::DatabaseAlreadyOpen) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let entries = log.try_get_log_entries(0..u64::MAX).await.unwrap();
        // What was not acknowledged may be there, or not.
        assert!([index, index + 1].contains(&(entries.len() as u64)), "{} of {index}", entries.len());
        assert!(entries.iter().map(|entry| entry.log_id.index).eq(0..entries.len() as u64));
        kept += entries.len() as u64 - index;
        index = entries.len() as u64;
    }
    assert!((1..failed).contains(&kept), "{kept} of {failed} that failed were there all the same");
}

/// Found by review: what waits for the disk went to a follower whole, in one call that nobody takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_gets_at_once_has_an_end_whether_it_is_on_the_disk_or_waits_for_it() {
    const LARGE: usize = 1 << 20;
    let large = |index: u64| {
        let text = "x".repeat(LARGE);
        let write = RuleWrite {
            domain: "d".into(),
            text: text.into(),
            origin: Origin::Apply,
            expected: Expected::Any,
            key: index.to_string(),
            author: String::new(),
            message: String::new(),
            node: "n1".to_owned(),
            at_ms: 0,
            extent: Extent::default(),
        };
        Entry { payload: EntryPayload::Normal(Command::Write(write)), ..entry(index) }
    };
    let directory = tempfile::tempdir().unwrap();
    let switches = Arc::new(Switches::default());
    let file = open_under(&directory.path().join("log"), Arc::clone(&switches)).unwrap();
    let mut log = Log::start(Disk::on(Database::builder().create_with_backend(file).unwrap())).unwrap();
    log.blocking_append((0..6).map(large)).await.unwrap();
    let now = Instant::now();
    assert!(log.hangs(now + Duration::from_secs(3600)).is_none(), "nothing is being written");

    switches.obey("hang-syncs".parse().unwrap());
    let mut writer = log.clone();
    let waits = tokio::spawn(async move { writer.blocking_append((6..20).map(large)).await });
    // What is being written waits: it was noted before.
    while log.hangs(now + Duration::from_secs(3600)).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(log.hangs(Instant::now()).is_none(), "a write may take its time");
    // Only what waits: a file that grows syncs, and whoever begins to read the disk then waits for that.
    let mut sizes = Vec::new();
    for start in 6..20 {
        let read = log.limited_get_log_entries(start, 20).await.unwrap();
        let bytes: usize = read.iter().map(|entry| super::log::encode(entry).unwrap().len()).sum();
        assert!(bytes <= 4 << 20, "{bytes} bytes from {start}");
        let indexes = read.iter().map(|entry| entry.log_id.index);
        assert!(indexes.eq(start..start + read.len() as u64), "from {start}: all, and in order");
        sizes.push(read.len());
    }
    assert!(sizes[..11].iter().all(|size| *size == 3), "{sizes:?}");
    assert_eq!(sizes[13], 1);

    switches.obey("".parse().unwrap());
    waits.await.unwrap().unwrap();
    while log.hangs(now + Duration::from_secs(3600)).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for start in 0..18 {
        assert_eq!(log.limited_get_log_entries(start, 20).await.unwrap().len(), 3, "{start}");
    }
    assert_eq!(log.try_get_log_entries(0..20).await.unwrap().len(), 20, "who wants all gets all");
}
