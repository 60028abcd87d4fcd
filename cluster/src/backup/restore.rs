//! A data directory for the first node of a new cluster, made of a backup.
//!
//! **It is another cluster** ([`ClusterId`]), so that it never mixes with the one that was backed up, should that live on. It has the
//! same hash secret, without which no bucket would be found again, and goes on counting revisions where the other was.
//!
//! What the buckets have used is there before the node decides for the first time: it begins like a node that was stopped by plan,
//! with what it had saved ([`saved`](crate::ownership::saved)). Other nodes join it, and get their slots by moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use openraft::{CommittedLeaderId, LogId, Membership, Vote};
use tidegate_limiter::cluster::Held;
use tidegate_proto::codec;

use super::{
    file::{BackupError, Reader, Section, Summary, verify},
    parts::BucketPart,
};
use crate::{
    ids::{ClusterId, Leadership, NodeId, NodeStart, RaftNode, Weight},
    member::MemberRow,
    owner::{shares::ShareTable, table::Entry},
    ownership::saved::{MAX_BYTES, Saved, SavedSlot},
    raft::{
        applied::write_snapshot,
        database::{DATABASE_FILE, WITNESS_FILE},
        disk::{Disk, KEY_CLUSTER, KEY_PURGED, KEY_VOTE, META},
        files::{RESTORING, SAVED_FILE, SNAPSHOT_FILE, save_buckets, sync},
        log::encode,
    },
    rpc::buckets::{WireBucket, WireHeld},
    slots::SLOTS,
    state::{Founding, Replicated},
};

/// What may be in the directory.
const HARMLESS: [&str; 3] = ["lock", "node-name", "node-name.check"];
/// What a restore has put there that did not come to its end: the database is not among it.
const UNFINISHED: [&str; 4] = [RESTORING, SNAPSHOT_FILE, WITNESS_FILE, SAVED_FILE];

/// What was made of a backup.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What was in the backup.
    pub summary: Summary,
    /// The new cluster.
    pub cluster: ClusterId,
    /// Buckets that are not full again meanwhile.
    pub buckets: usize,
}

/// Makes the data directory of a node of this name, which is the first of a new cluster. The directory must be there, and be empty,
/// but for what a restore has left that was interrupted. `with_counts`: buckets begin with what they had used, if the backup has it,
/// and else full.
///
/// # Errors
/// When the backup is not whole, or the directory not empty, or cannot be written. No node starts from one that was made in part:
/// as long as the directory `restoring` is there and no database, it is refused.
pub fn restore(
    file: &Path,
    directory: &Path,
    name: &str,
    with_counts: bool,
    now_ms: u64,
) -> Result<Restored, BackupError> {
    let summary = verify(file)?;
    clear(directory)?;
    // One without counts knows nothing that could have been used.
    let with_counts = with_counts && summary.slots > 0;
    let (state, used) = read(file, with_counts, now_ms)?;
    if with_counts && used.buckets.len() as u64 > (MAX_BYTES / 64) as u64 {
        return Err(BackupError::TooManyBuckets(used.buckets.len() as u64));
    }

    let work = directory.join(RESTORING);
    DirBuilder::new().mode(0o700).create(&work).map_err(io(&work))?;
    sync(&File::open(directory).map_err(io(directory))?).map_err(io(directory))?;
    let disk = Disk::open(&work)?;
    let me = disk.start(now_ms)?;
    let start = NodeStart { node: me.node, incarnation: me.incarnation };
    let cluster = ClusterId::random();
    let buckets = used.buckets.len();
    make(&disk, state, start, name, cluster, summary.applied, with_counts)?;
    drop(disk);
    if with_counts {
        save(&work, start, used, summary.applied + 1).map_err(io(&work))?;
    }
    // The database comes last: without it a node says that it is missing, and does not start.
    let mut files: Vec<_> = fs::read_dir(&work).map_err(io(&work))?.filter_map(Result::ok).collect();
    files.sort_by_key(|file| file.file_name() == DATABASE_FILE);
    for file in files {
        fs::rename(file.path(), directory.join(file.file_name())).map_err(io(directory))?;
        sync(&File::open(directory).map_err(io(directory))?).map_err(io(directory))?;
    }
    fs::remove_dir(&work).map_err(io(&work))?;
    Ok(Restored { summary, cluster, buckets })
}

fn io(path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |reason| BackupError::Io { path: path.clone(), reason }
}

/// Removes what an interrupted restore has left. Whatever else there is stays, and is refused.
fn clear(directory: &Path) -> Result<(), BackupError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        found.push(entry.map_err(io(directory))?.file_name().to_string_lossy().into_owned());
    }
    found.retain(|name| !HARMLESS.contains(&&**name));
    let is_unfinished =
        found.iter().any(|name| name == RESTORING) && found.iter().all(|name| UNFINISHED.contains(&&**name));
    if !is_unfinished && !found.is_empty() {
        found.sort();
        let found = found.join(", ");
        return Err(BackupError::NotEmpty { directory: directory.to_owned(), found });
    }
    // What says that it is unfinished goes last.
    found.sort_by_key(|name| name == RESTORING);
    for path in found.iter().map(|name| directory.join(name)) {
        let removed =
            if path.ends_with(RESTORING) { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(io(&path))?;
    }
    Ok(())
}

/// What is restored of a backup that is whole: the state, and the buckets as they are by now.
fn read(file: &Path, with_counts: bool, now_ms: u64) -> Result<(Replicated, BucketPart), BackupError> {
    let mut reader = Reader::open(file)?;
    let mut state = Replicated::default();
    let mut used = BucketPart::default();
    let mut slots: BTreeMap<u16, SavedSlot> = BTreeMap::new();
    while let Some(section) = reader.next_section()? {
        match section {
            Section::Head(_) => {}
            Section::State(read) => state = *read,
            Section::Buckets(_) if !with_counts => {}
            Section::Buckets(part) => {
                // A wall clock that went back says nothing of how much time has passed.
                let passed = Duration::from_millis(now_ms.saturating_sub(part.taken_ms));
                for slot in part.slots {
                    let slot =
                        SavedSlot { drained_ago: slot.drained_ago.map(|ago| later(ago, passed)), ..slot };
                    slots
                        .entry(slot.slot)
                        .and_modify(|known| *known = stricter(*known, slot))
                        .or_insert(slot);
                }
                used.buckets.extend(part.buckets.into_iter().filter_map(|bucket| aged(bucket, passed)));
                used.let_go.extend(part.let_go);
            }
        }
    }
    used.slots = slots.into_values().collect();
    Ok((state, used))
}

fn later(ago: u64, passed: Duration) -> u64 {
    ago.saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
}

/// Of a slot that moved while the backup was made, which therefore is in it twice.
fn stricter(one: SavedSlot, other: SavedSlot) -> SavedSlot {
    let drained_ago = match (one.drained_ago, other.drained_ago) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    SavedSlot { drained_ago, basis: one.basis.or(other.basis), ..one }
}

/// A bucket after so much time; `None`: it knows of nothing any more.
fn aged(WireBucket { key, rule, held }: WireBucket, passed: Duration) -> Option<WireBucket> {
    let held = Held::from(held).aged(passed)?;
    // A window whose end is past is dropped by whoever looks at it.
    Some(WireBucket { key, rule, held: WireHeld::from(held) })
}

/// Writes the state as the snapshot of a node that is the only one of its cluster.
fn make(
    disk: &Disk,
    mut state: Replicated,
    me: NodeStart,
    name: &str,
    cluster: ClusterId,
    applied: u64,
    owns: bool,
) -> Result<(), BackupError> {
    const TERM: u64 = 1;
    let at = LogId::new(CommittedLeaderId::new(TERM, me.node), applied + 1);
    // It says where it is when it starts.
    let peer = RaftNode::default().peer;
    let node = RaftNode { name: name.to_owned(), peer };
    let row = MemberRow {
        id: me.node,
        name: name.to_owned(),
        incarnation: me.incarnation,
        peer,
        zone: None,
        weight: Weight::default(),
        keeps: false,
    };
    state.founding = state.founding.map(|founding| Founding { cluster, ..founding });
    state.members = BTreeMap::from([(me.node, row)]);
    state.slots = Arc::default();
    state.draining = BTreeSet::new();
    state.evicted = BTreeSet::new();
    state.shares = Arc::<ShareTable>::default();
    if owns {
        let leadership = Leadership { term: TERM, leader: me.node };
        Arc::make_mut(&mut state.slots).apply(at.index, leadership, &Entry::Assign(vec![me; SLOTS]));
    }
    let only_me: BTreeMap<NodeId, RaftNode> = BTreeMap::from([(me.node, node)]);
    let members = Membership::new(vec![BTreeSet::from([me.node])], only_me);
    write_snapshot(&disk.snapshots, state, at, members)?;
    let write = || -> Result<(), redb::Error> {
        let transaction = disk.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(KEY_PURGED, encode(&at)?.as_slice())?;
            meta.insert(KEY_VOTE, encode(&Vote::new(TERM, me.node))?.as_slice())?;
            meta.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
        }
        disk.commit(transaction)
    };
    write().map_err(|error| disk.fault(error))?;
    Ok(())
}

fn save(directory: &Path, start: NodeStart, used: BucketPart, epoch: u64) -> io::Result<()> {
    let slots = used.slots.into_iter().map(|slot| SavedSlot { epoch, ..slot }).collect();
    let saved = Saved { start, slots, buckets: used.buckets, let_go: used.let_go };
    let mut bytes = Vec::new();
    codec::encode(&saved, &mut bytes, MAX_BYTES).map_err(io::Error::other)?;
    save_buckets(directory, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_by_the_time_since_the_backup_and_a_window_stays_where_it_lies() {
        let held = |held, secs| {
            aged(WireBucket { key: 2, rule: 3, held }, Duration::from_secs(secs)).map(|bucket| bucket.held)
        };
        let second = 4_000_000_000;
        assert!(
            matches!(held(WireHeld::Debt(5 * second), 3), Some(WireHeld::Debt(debt)) if debt == 2 * second)
        );
        assert!(held(WireHeld::Debt(5 * second), 5).is_none());
        assert!(matches!(held(WireHeld::Window(77), 1 << 40), Some(WireHeld::Window(77))));
        let log = || WireHeld::Log { memory: 10 * second, entries: vec![(8 * second, 1), (second, 2)] };
        let Some(WireHeld::Log { entries, .. }) = held(log(), 4) else { panic!("one entry counts still") };
        assert_eq!(entries, [(5 * second, 2)]);
        assert!(held(log(), 20).is_none());
    }

    #[test]
    fn of_a_slot_that_is_there_twice_the_stricter_counts() {
        let slot = |drained_ago| SavedSlot { slot: 1, epoch: 2, drained_ago, basis: None };
        for (one, other, expected) in
            [(None, None, None), (Some(5), None, Some(5)), (Some(9), Some(5), Some(5))]
        {
            assert_eq!(stricter(slot(one), slot(other)).drained_ago, expected);
            assert_eq!(stricter(slot(other), slot(one)).drained_ago, expected);
        }
    }
}
