//! Directories that crashes, other systems and other nodes have left.

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
    let start = |now| {
        let start = Disk::open(directory.path()).unwrap().start(now).unwrap();
        (start.came_from_elsewhere, start.incarnation)
    };
    let noted = |system: &dyn Fn(&Disk) -> Result<(), DiskError>| {
        system(&Disk::open(directory.path()).unwrap()).unwrap();
    };
    let note = |value: Vec<u8>| {
        noted(&|disk| {
            let transaction = disk.database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert(KEY_SYSTEM, value.as_slice()).unwrap();
            transaction.commit().unwrap();
            Ok(())
        });
    };
    assert_eq!(start(1), (false, 1), "there was no start before");
    assert_eq!(start(2), (false, 2));
    note([&2_u64.to_be_bytes()[..], b"another"].concat());
    assert_eq!(start(3), (true, 3));
    assert_eq!(start(4), (true, 4), "the start before may have ended before it could wait");
    noted(&|disk| disk.note_system(4));
    assert_eq!(start(5), (false, 5));
    // It was elsewhere in between, and nothing was noted there.
    note(system(4));
    assert_eq!(start(6), (true, 6));
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
    let before = disk.lasting();
    drop(disk);
    drop(Disk::open_again(directory.path(), &before, me).unwrap());
    let path = directory.path().join(DATABASE_FILE);
    let kept = fs::read(&path).unwrap();
    fs::write(&path, b"").unwrap();
    assert!(Disk::open_again(directory.path(), &before, me).is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is made in its place");
    fs::remove_file(&path).unwrap();
    let error = Disk::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("is missing") && error.contains(WITNESS_FILE), "{error}");
    fs::remove_file(directory.path().join(WITNESS_FILE)).unwrap();
    Disk::open(directory.path()).unwrap().start(2_000).unwrap();
    let error = Disk::open_again(directory.path(), &before, me).unwrap_err().to_string();
    assert!(error.contains("not the log of the node"), "{error}");
    fs::write(&path, &kept).unwrap();
    fs::remove_file(directory.path().join(WITNESS_FILE)).unwrap();
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
    let before = disk.lasting();
    drop(disk);
    let again = || Disk::open_again(directory.path(), &before, me);
    // The thread of a log that was dropped closes the database a moment later.
    let closed = || async {
        for _ in 0..10_000 {
            if again().is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("the database is not closed within ten seconds: {:?}", again().err());
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
    let disk = again().unwrap();
    let mut log = Log::start(disk.clone()).unwrap();
    log.blocking_append([Entry { log_id: id(3, 1), payload: EntryPayload::Blank }]).await.unwrap();
    // A snapshot of an earlier term is longer than the log, whose last entry it does not have.
    disk.snapshots.note(5);
    drop(disk);
    log.purge(id(2, 5)).await.unwrap();
    drop(log);
    closed().await;
    again().unwrap().forget_cluster().unwrap();
    again().unwrap();
}

#[test]
fn an_older_copy_of_the_database_is_refused_and_one_that_lost_only_its_witness_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let open = || Disk::open(directory.path());
    let start = || open().map(|disk| disk.start(1).unwrap());
    let first = start().unwrap().node;
    let copies: Vec<Vec<u8>> = (0..4)
        .map(|step| {
            let disk = open().unwrap();
            disk.belong_to(ClusterId::from_bytes([step; 16])).unwrap();
            drop(disk);
            fs::read(&path).unwrap()
        })
        .collect();
    for copy in &copies[..3] {
        fs::write(&path, copy).unwrap();
        let refused = open().unwrap_err().to_string();
        assert!(refused.contains("raft.redb") && refused.contains("older copy"), "{refused}");
    }
    fs::write(&path, &copies[3]).unwrap();
    assert_eq!(start().unwrap().node, first);
    // The database of another node.
    let other = tempfile::tempdir().unwrap();
    Disk::open(other.path()).unwrap().start(1).unwrap();
    let own = fs::read(&path).unwrap();
    fs::copy(other.path().join(DATABASE_FILE), &path).unwrap();
    assert!(open().unwrap_err().to_string().contains("not the file that this node wrote last"));
    fs::write(&path, own).unwrap();
    // A witness that is damaged, or gone, as that of an earlier version is.
    fs::write(directory.path().join(WITNESS_FILE), b"noise").unwrap();
    assert_eq!(start().unwrap().node, first);
    fs::remove_file(directory.path().join(WITNESS_FILE)).unwrap();
    assert_eq!(start().unwrap().node, first);
    fs::write(&path, &copies[3]).unwrap();
    assert!(open().is_err(), "from then on it is noticed again");
}

/// redb reads a page without looking at its checksum, and after a stop by plan it looked at none when it opened the file.
#[test]
fn a_database_that_was_closed_well_and_changed_since_is_refused_or_is_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let disk = Disk::open(directory.path()).unwrap();
    let me = disk.start(1_000).unwrap().node;
    let entry = |index: u64| [index as u8; 500];
    let transaction = disk.database.begin_write().unwrap();
    for index in 0..50 {
        transaction.open_table(LOG).unwrap().insert(index, &entry(index)[..]).unwrap();
    }
    disk.commit(transaction).unwrap();
    drop(disk);
    let good = fs::read(&path).unwrap();
    let (mut refused, mut same) = (0, 0);
    let places = (0..320).chain((320..good.len()).filter(|at| good[*at] != 0).step_by(97));
    for place in places {
        for bit in [0x01, 0x40] {
            let mut bad = good.clone();
            bad[place] ^= bit;
            fs::write(&path, bad).unwrap();
            match Disk::open(directory.path()) {
                Err(_) => refused += 1,
                Ok(disk) => {
                    assert_eq!(disk.kept_identity().unwrap().0, Some(me), "byte {place}");
                    let table = disk.database.begin_read().unwrap().open_table(LOG).unwrap();
                    let all: Vec<Vec<u8>> =
                        table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect();
                    assert!(all.len() == 50 && (0..).zip(&all).all(|(at, one)| *one == entry(at)), "{place}");
                    same += 1;
                    // It has written since.
                    fs::remove_file(directory.path().join(WITNESS_FILE)).unwrap();
                }
            }
        }
    }
    assert!(refused > 100 && same > 0, "{refused} refused, {same} as they were");
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
    assert_eq!(load_buckets(directory.path()).unwrap().unwrap().unwrap(), b"debts of some buckets");
}

#[tokio::test]
async fn nothing_leaves_the_log_before_a_snapshot_has_it() {
    use openraft::{CommittedLeaderId, storage::RaftLogStorage as _};

    use crate::raft::log::Log;

    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path()).unwrap();
    let id = LogId::new(CommittedLeaderId::new(1, 1), 7);
    let mut log = Log::start(disk.clone()).unwrap();
    let purged = tokio::spawn(async move { log.purge(id).await });
    // As long as it takes to write the snapshot.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(disk.purged().unwrap(), None, "a crash here would leave neither");
    disk.snapshots.write(7, b"seven").unwrap();
    purged.await.unwrap().unwrap();
    assert_eq!(disk.purged().unwrap(), Some(id));
    // Where it cannot be written the log keeps what it has, and Raft is started again.
    let mut log = Log::start(disk.clone()).unwrap();
    disk.snapshots.note_failed(9);
    assert!(log.purge(LogId { index: 9, ..id }).await.is_err());
    assert_eq!(disk.purged().unwrap(), Some(id));
}
