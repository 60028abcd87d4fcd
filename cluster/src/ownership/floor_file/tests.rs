//! What is read is what was written, in whatever pieces, and nothing else is believed.

use super::*;
use crate::{
    clock::Clock,
    ownership::disk_time::{DiskTime, Reading},
};

const ME: NodeStart = NodeStart { node: 7, incarnation: 1 };
const NEXT: NodeStart = NodeStart { node: 7, incarnation: 2 };

fn stamp() -> Stamp {
    let clock = Clock::start();
    DiskTime::after(None, &Reading::of(clock)).stamp(clock)
}

fn floor(number: u64, mark: u64) -> DiskFloor {
    let key = KeyHash::from_raw(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    DiskFloor { key, rule: 5, mark: Mark::new(mark) }
}

fn record(start: NodeStart, from: u64) -> SlotRecord {
    let state = DiskState { fingerprint: 1, since: 2, before: Some(3), earlier: vec![(4, 5)] };
    SlotRecord { start, epoch: 9, from, complete: Some(state), heard: None }
}

fn slots_of(floors: &[DiskFloor], start: NodeStart, from: u64) -> Vec<(u16, Option<SlotRecord>)> {
    let slots: std::collections::BTreeSet<u16> =
        floors.iter().map(|floor| SlotId::of(floor.key).get()).collect();
    slots.into_iter().map(|slot| (slot, Some(record(start, from)))).collect()
}

fn opened(directory: &Path, me: NodeStart) -> Result<Option<(FloorFile, Left)>, FileError> {
    FloorFile::open(directory, me, &|_| stamp())
}

fn marks(left: &Left) -> BTreeMap<u64, u64> {
    let floors = left.floors.values().flat_map(HashMap::values);
    floors.map(|floor| (floor.key.get(), floor.mark.get())).collect()
}

#[test]
fn a_file_gives_back_the_largest_mark_of_each_bucket_and_who_has_read_it() {
    let directory = tempfile::tempdir().unwrap();
    assert!(opened(directory.path(), ME).unwrap().is_none());
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let floors: Vec<DiskFloor> = (1..100).map(|number| floor(number, 1_000 + number)).collect();
    let slots = slots_of(&floors, ME, file.next());
    let change = Change { slots, floors: floors.clone(), let_go: Some(vec![(1, true, 2)]), is_adopted: true };
    file.commit(&change, &stamp(), |_| true, 99).unwrap();
    let lower = Change { floors: vec![floor(1, 7), floor(2, 9_999)], ..Change::default() };
    file.commit(&lower, &stamp(), |_| true, 99).unwrap();
    drop(file);
    let (file, left) = opened(directory.path(), NEXT).unwrap().unwrap();
    let known = marks(&left);
    assert_eq!(known.len(), 99);
    assert_eq!((known[&floor(1, 0).key.get()], known[&floor(2, 0).key.get()]), (1_001, 9_999));
    assert_eq!((left.readers.as_slice(), left.let_go.as_slice()), (&[ME][..], &[(1, true, 2)][..]));
    assert!(left.slots.values().all(|one| *one == record(ME, 0)));
    drop(file);
    // The next one finds who has read it, and since when its owner is not there.
    let (mut file, again) = opened(directory.path(), NodeStart { incarnation: 3, ..NEXT }).unwrap().unwrap();
    assert_eq!(again.readers, [ME, NEXT]);
    assert!(again.slots.values().all(|one| one.heard.as_ref() == Some(&left.stamp)));
    assert_eq!(marks(&again), known);
    file.commit(&Change { is_adopted: true, ..Change::default() }, &stamp(), |_| true, 99).unwrap();
    drop(file);
    let (_, last) = opened(directory.path(), NEXT).unwrap().unwrap();
    assert_eq!(last.readers, [NodeStart { incarnation: 3, ..NEXT }]);
    let other = NodeStart { node: 8, incarnation: 1 };
    drop(last);
    let refused = opened(directory.path(), other).unwrap_err().to_string();
    assert!(refused.contains("another node"), "{refused}");
}

#[test]
fn floors_of_an_owner_before_do_not_count_for_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let slots = slots_of(&[floor(1, 0)], ME, file.next());
    file.commit(&Change { slots, floors: vec![floor(1, 500)], ..Change::default() }, &stamp(), |_| true, 1)
        .unwrap();
    let slots = slots_of(&[floor(1, 0)], ME, file.next());
    file.commit(&Change { slots, ..Change::default() }, &stamp(), |_| true, 1).unwrap();
    drop(file);
    let (file, left) = opened(directory.path(), NEXT).unwrap().unwrap();
    assert!(left.floors.is_empty());
    drop(file);
    let (mut file, _) = opened(directory.path(), NEXT).unwrap().unwrap();
    file.commit(&Change { floors: vec![floor(1, 600)], ..Change::default() }, &stamp(), |_| true, 1).unwrap();
    drop(file);
    let (_, left) = opened(directory.path(), NEXT).unwrap().unwrap();
    assert_eq!(marks(&left).into_values().collect::<Vec<_>>(), [600]);
}

#[test]
fn the_log_stays_short_and_loses_nothing_that_counts() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let live: Vec<DiskFloor> = (0..2_000).map(|number| floor(number, 1_000_000)).collect();
    let slots = slots_of(&live, ME, file.next());
    file.commit(&Change { slots, floors: live.clone(), ..Change::default() }, &stamp(), |_| true, 2_000)
        .unwrap();
    let mut newest: BTreeMap<u64, u64> = live.iter().map(|one| (one.key.get(), one.mark.get())).collect();
    for round in 1..=300_u64 {
        // Half of the buckets are never written again.
        let floors: Vec<DiskFloor> = (0..1_000).map(|number| floor(number, 1_000_000 + round)).collect();
        newest.extend(floors.iter().map(|one| (one.key.get(), one.mark.get())));
        let known = newest.clone();
        let counts = |one: &DiskFloor| known[&one.key.get()] <= one.mark.get();
        file.commit(&Change { floors, ..Change::default() }, &stamp(), counts, 2_000).unwrap();
        let most = MIN_LOG + 3 * 24 * 1_000 + CLEAN_MORE;
        assert!(file.log_bytes <= most, "{} bytes after {round}", file.log_bytes);
    }
    let bytes = file.bytes();
    assert!(bytes < 16 << 20, "{bytes}");
    drop(file);
    let (_, left) = opened(directory.path(), NEXT).unwrap().unwrap();
    assert_eq!(marks(&left), newest);
}

#[test]
fn a_file_that_was_changed_anywhere_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let floors: Vec<DiskFloor> = (0..500).map(|number| floor(number, 1_000)).collect();
    let slots = slots_of(&floors, ME, file.next());
    file.commit(&Change { slots, floors, ..Change::default() }, &stamp(), |_| true, 500).unwrap();
    drop(file);
    let path = directory.path().join(NAME);
    let good = fs::read(&path).unwrap();
    let whole = marks(&opened(directory.path(), NEXT).unwrap().unwrap().1);
    let (mut refused, mut same) = (0, 0);
    for place in (0..good.len()).step_by(good.len() / 300) {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        fs::write(&path, bad).unwrap();
        // It would notice that what was changed is older than what was opened before.
        let _ = fs::remove_file(directory.path().join(WITNESS));
        let read = std::panic::catch_unwind(|| opened(directory.path(), NEXT));
        match read {
            Ok(Ok(Some((_, left)))) => {
                assert_eq!(marks(&left), whole, "byte {place}");
                same += 1;
            }
            Ok(Ok(None)) => unreachable!("there is a file"),
            Ok(Err(_)) | Err(_) => refused += 1,
        }
    }
    println!("{refused} refused, {same} where nothing is");
    assert!(refused > 0);
    fs::write(&path, b"no database").unwrap();
    assert!(opened(directory.path(), NEXT).is_err());
    assert!(FloorFile::create(directory.path(), NEXT, &stamp()).is_ok());
    assert!(opened(directory.path(), NEXT).unwrap().is_some());
    FloorFile::remove(directory.path()).unwrap();
    FloorFile::remove(directory.path()).unwrap();
    assert!(opened(directory.path(), NEXT).unwrap().is_none());
}

/// Found by a review: with commits of one phase redb went back to the commit before, and said nothing.
#[test]
fn after_a_crash_a_last_commit_that_was_changed_is_not_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let floors = |mark: u64| -> Vec<DiskFloor> { (0..500).map(|number| floor(number, mark)).collect() };
    let slots = slots_of(&floors(0), ME, file.next());
    file.commit(&Change { slots, ..Change::default() }, &stamp(), |_| true, 500).unwrap();
    for mark in 1..=5 {
        file.commit(&Change { floors: floors(mark), ..Change::default() }, &stamp(), |_| true, 500).unwrap();
    }
    // As a crash leaves it: nothing was closed.
    let good = fs::read(directory.path().join(NAME)).unwrap();
    let after = tempfile::tempdir().unwrap();
    let path = after.path().join(NAME);
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let _ = fs::remove_file(after.path().join(WITNESS));
        std::panic::catch_unwind(|| opened(after.path(), NEXT))
    };
    let whole = marks(&read(&good).unwrap().unwrap().unwrap().1);
    assert!(whole.len() == 500 && whole.values().all(|mark| *mark == 5));
    // The magic number, and both slots of commits.
    let header = (0..9).chain(64..320);
    let mut refused = 0;
    for place in header.chain((320..good.len()).step_by(good.len() / 500)) {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        match read(&bad) {
            Ok(Ok(Some((_, left)))) => assert_eq!(marks(&left), whole, "byte {place}"),
            Ok(Ok(None)) => unreachable!("there is a file"),
            Ok(Err(_)) | Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    // Each entry of the log is found by what it is.
    let last = floors(5)[7];
    let mut bytes = Vec::new();
    last.write(&mut bytes);
    let places: Vec<usize> = (0..good.len() - FLOOR).filter(|at| good[*at..].starts_with(&bytes)).collect();
    assert!(!places.is_empty());
    for place in places {
        let mut bad = good.clone();
        bad[place + 16] ^= 0x01;
        match read(&bad) {
            // A page that is not in use any more.
            Ok(Ok(Some((_, left)))) => assert_eq!(marks(&left), whole, "byte {place}"),
            Ok(Ok(None)) => unreachable!("there is a file"),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Found by a review: the log had them for ever, and each commit wrote a part of them again.
#[test]
fn floors_of_slots_that_have_left_are_cleaned_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let floors: Vec<DiskFloor> = (0..60_000).map(|number| floor(number, 1_000_000)).collect();
    let slots = slots_of(&floors, ME, file.next());
    file.commit(&Change { slots, floors, ..Change::default() }, &stamp(), |_| true, 60_000).unwrap();
    let owned = file.slots_of_me();
    assert!(owned.len() > 4_000 && owned.iter().all(|(_, epoch)| *epoch == 9));
    assert!(file.log_bytes > MIN_LOG);
    let slots = owned.into_iter().map(|(slot, _)| (slot, None)).collect();
    file.commit(&Change { slots, ..Change::default() }, &stamp(), |_| true, 0).unwrap();
    assert!(file.slots_of_me().is_empty());
    for _ in 0..100 {
        file.commit(&Change::default(), &stamp(), |_| true, 0).unwrap();
    }
    assert!(file.log_bytes <= MIN_LOG, "{} bytes", file.log_bytes);
}

#[test]
fn an_older_copy_of_the_file_is_not_believed_whichever_of_its_commits_it_is_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(NAME);
    let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
    let mut copies = vec![fs::read(&path).unwrap()];
    for mark in 1..=5 {
        let slots = slots_of(&[floor(1, 0)], ME, 0);
        let change = Change { slots, floors: vec![floor(1, mark)], ..Change::default() };
        file.commit(&change, &stamp(), |_| true, 1).unwrap();
        copies.push(fs::read(&path).unwrap());
    }
    drop(file);
    let newest = copies.pop().unwrap();
    let witness = fs::read(directory.path().join(WITNESS)).unwrap();
    for (count, copy) in copies.iter().enumerate() {
        fs::write(&path, copy).unwrap();
        let refused = opened(directory.path(), NEXT).unwrap_err().to_string();
        assert!(refused.contains("older copy"), "{count}: {refused}");
    }
    // Without its witness nobody could tell.
    fs::remove_file(directory.path().join(WITNESS)).unwrap();
    fs::write(&path, &newest).unwrap();
    let (file, left) = opened(directory.path(), NEXT).unwrap().unwrap();
    assert_eq!(marks(&left)[&floor(1, 0).key.get()], 5);
    drop(file);
    // What that start has written counts from then on.
    fs::write(&path, &newest).unwrap();
    assert!(opened(directory.path(), NEXT).is_err());
    // A witness that was torn away or is old accuses nobody.
    fs::write(directory.path().join(WITNESS), &witness).unwrap();
    assert!(opened(directory.path(), NEXT).unwrap().is_some());
    // A file that was made in its place: the one before is another.
    FloorFile::create(directory.path(), NEXT, &stamp()).unwrap();
    fs::write(&path, &newest).unwrap();
    assert!(opened(directory.path(), NEXT).unwrap_err().to_string().contains("wrote last"));
}

/// Found by a review: the number of the next entry began anew at 0, over those that were there.
#[test]
fn a_log_without_room_for_another_entry_is_damaged() {
    for in_log in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut file = FloorFile::create(directory.path(), ME, &stamp()).unwrap();
        let slots = slots_of(&[floor(1, 0)], ME, if in_log { 0 } else { u64::MAX });
        file.commit(
            &Change { slots, floors: vec![floor(1, 500)], ..Change::default() },
            &stamp(),
            |_| true,
            1,
        )
        .unwrap();
        if in_log {
            let transaction = file.database.begin_write().unwrap();
            transaction.open_table(LOG).unwrap().insert(u64::MAX, &[0u8; FLOOR][..]).unwrap();
            transaction.commit().unwrap();
        }
        drop(file);
        let damage = opened(directory.path(), NEXT).unwrap_err().to_string();
        assert!(damage.contains("no room"), "{damage}");
    }
}
