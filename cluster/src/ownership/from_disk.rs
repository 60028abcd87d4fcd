//! What the disk has of floors when a node starts, until its slots begin with them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_limiter::{
    Nanos,
    cluster::{Bucket, KeyHash, LetGo, Mark, RuleId, Store},
};
use tracing::{info, warn};

use super::{
    disk_time::{DiskTime, Reading, away, when},
    floor_file::{DiskFloor, DiskLetGo, FileError, FloorFile, Left, SlotRecord},
};
use crate::{
    clock::Clock,
    fabric,
    ids::NodeStart,
    owner::kept::{Kept, KeptFloors, KeptSlot},
};

/// The floors on this node's disk.
#[derive(Debug)]
pub(crate) struct DiskFloors {
    pub(super) directory: PathBuf,
    pub(super) time: DiskTime,
    left: Mutex<Option<LeftFloors>>,
}

/// What waits for its slots to begin.
#[derive(Debug)]
struct LeftFloors {
    floors: BTreeMap<u16, HashMap<u64, DiskFloor>>,
    /// By slot, by the clock of the disk: when its owner was alive for the last time.
    heard: BTreeMap<u16, u64>,
    last: u64,
    let_go: DiskLetGo,
}

/// What a node finds when it starts.
pub(crate) struct Found {
    pub(crate) floors: DiskFloors,
    pub(crate) file: Option<FloorFile>,
    pub(crate) kept: Kept,
}

impl Found {
    /// Opens the file in this directory, or makes it. What cannot be read counts as if it were not there.
    pub(crate) async fn open(directory: &Path, me: NodeStart, clock: Clock) -> Self {
        let path = directory.to_owned();
        let reading = Reading::of(clock);
        let opening = {
            let (path, reading) = (path.clone(), reading.clone());
            fabric::blocking(move || {
                FloorFile::open(&path, me, &|stamp| DiskTime::after(Some(stamp), &reading).stamp(clock))
            })
        };
        // A library that panics over what it reads says no more than that it is damaged.
        let opened = opening.await.unwrap_or_else(|panicked| Err(FileError::from(panicked.to_string())));
        match opened {
            Ok(Some((file, left))) => Self::with(path, file, left, &reading),
            Ok(None) => Self::without(path, me, clock, &reading).await,
            Err(reason) => {
                warn!(
                    file = %directory.display(), %reason,
                    "the floors on the disk cannot be read: what buckets of this node had admitted before is not known to it"
                );
                Self::without(path, me, clock, &reading).await
            }
        }
    }

    async fn without(directory: PathBuf, me: NodeStart, clock: Clock, reading: &Reading) -> Self {
        let time = DiskTime::after(None, reading);
        let made = {
            let (directory, stamp) = (directory.clone(), time.stamp(clock));
            fabric::blocking(move || FloorFile::create(&directory, me, &stamp)).await
        };
        let file = match made.unwrap_or_else(|panicked| Err(FileError::from(panicked.to_string()))) {
            Ok(file) => Some(file),
            Err(reason) => {
                warn!(%reason, "no floors can be kept on the disk: it is tried again");
                None
            }
        };
        let floors = DiskFloors { directory, time, left: Mutex::default() };
        Self { floors, file, kept: Kept::default() }
    }

    fn with(directory: PathBuf, file: FloorFile, left: Left, reading: &Reading) -> Self {
        let Left { stamp, readers, slots, floors, let_go } = left;
        let time = DiskTime::after(Some(&stamp), reading);
        let heard = slots
            .iter()
            .map(|(slot, record)| (*slot, record.heard.as_ref().map_or(stamp.disk, |heard| heard.disk)));
        let heard = heard.collect();
        let kept = |record: &SlotRecord| {
            let state = record.complete.as_ref()?;
            let at = |disk: u64| time.of_disk(disk);
            let last = record.heard.as_ref().unwrap_or(&stamp);
            let floors = KeptFloors {
                fingerprint: state.fingerprint,
                since: state.since,
                before: state.before.map(at),
                earlier: state.earlier.iter().map(|(heard, begun)| (at(*heard), at(*begun))).collect(),
                heard: when(last, reading),
                shown: last.shown(),
            };
            Some(KeptSlot { start: record.start, epoch: record.epoch, saved: None, floors: Some(floors) })
        };
        let kept_slots: BTreeMap<u16, KeptSlot> =
            slots.iter().filter_map(|(slot, record)| Some((*slot, kept(record)?))).collect();
        info!(
            slots = kept_slots.len(),
            buckets = floors.values().map(HashMap::len).sum::<usize>(),
            away = ?away(&stamp, reading),
            "the floors on the disk are read"
        );
        let left = LeftFloors { floors, heard, last: stamp.disk, let_go };
        let floors = DiskFloors { directory, time, left: Mutex::new(Some(left)) };
        Self { floors, file: Some(file), kept: Kept { slots: kept_slots, readers } }
    }
}

impl DiskFloors {
    fn left(&self) -> MutexGuard<'_, Option<LeftFloors>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the disk has of these slots. `puts`: it is put where the buckets are. `is_alone`: nobody else has given shares of them,
    /// so that the time counts in which this node did not run; else debts are what they were when it was alive.
    pub(crate) fn take(
        &self,
        slots: &[usize],
        puts: bool,
        is_alone: bool,
        store: &Store,
        now: Nanos,
    ) -> Option<Vec<(KeyHash, Mark)>> {
        let mut left = self.left();
        let left = left.as_mut()?;
        let disk_now = self.time.to_disk(now);
        if puts {
            // Whose slot it was of which something was let go is not known.
            let first = left.heard.values().copied().fold(left.last, u64::min);
            let since = if is_alone { disk_now } else { first };
            for (rule, is_of_window, mark) in std::mem::take(&mut left.let_go) {
                let kind = KeyHash::from_raw(u64::from(is_of_window));
                let held = Mark::new(mark).held(kind, Nanos::new(since));
                store.take_over_let_go(&LetGo { rule: RuleId::from_raw(rule), held }, now);
            }
        }
        let mut marks = Vec::new();
        for slot in slots {
            let slot = *slot as u16;
            let heard = left.heard.get(&slot).copied().unwrap_or(left.last);
            let since = Nanos::new(if is_alone { disk_now } else { heard.min(disk_now) });
            for DiskFloor { key, rule, mark } in left.floors.remove(&slot).unwrap_or_default().into_values() {
                if puts {
                    let held = mark.held(key, since);
                    store.take_over(&Bucket { key, rule: RuleId::from_raw(rule), held }, now);
                }
                marks.push((key, self.time.mark_from_disk(key, mark)));
            }
        }
        Some(marks)
    }

    /// What strict rules had let go of, while no slot has begun with it.
    pub(super) fn let_go_left(&self) -> DiskLetGo {
        self.left().as_ref().map_or_else(Vec::new, |left| left.let_go.clone())
    }

    /// Whether something may still begin with it.
    pub(super) fn has_left(&self) -> bool {
        self.left().is_some()
    }

    /// Nothing begins with it any more.
    pub(super) fn forget(&self) {
        *self.left() = None;
    }
}
