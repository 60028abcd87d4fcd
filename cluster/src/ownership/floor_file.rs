//! The file of floors in a data directory: a redb database that is used as a log.
//!
//! ```text
//!   head     version, node, and which of its starts have read the file
//!   written  which file it is, and how many commits it has had
//!   stamp    when it was last written, by each clock
//!   let_go   what strict rules had let go of
//!   slots    slot -> whose, since when, and whether all of its floors are here
//!   log      number -> floors, 24 bytes each: fingerprint, rule, mark (little-endian)
//! ```
//!
//! Each commit appends its floors as one entry of the log, so that it writes a few pages however many buckets there are. Of a
//! bucket the largest mark counts. What is in the way of new entries is cleaned from the old end, a bounded part with each commit:
//! floors that are over, or that a later one of the same bucket has passed, go; the others are appended again.
//!
//! redb keeps a checksum of each page; all are looked at when the file is opened. A file that does not pass counts as none, as does
//! one of another node or version, and one that has fewer commits than its [witness](crate::raft::witness) has seen. Each commit is one of two phases, so that a last commit that was acknowledged and does not pass is not
//! taken for one that was cut short.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidegate_limiter::cluster::{KeyHash, Mark};
use tidegate_proto::codec;

use super::disk_time::Stamp;
use crate::{
    fabric,
    ids::NodeStart,
    raft::{
        database::create,
        files::{FLOORS_FILE as NAME, draft_of, sync},
        witness::{Lacking, Witness, Written},
    },
    slots::SlotId,
};

const VERSION: u64 = 1;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SLOTS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("slots");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const WITNESS: &str = "floors.witness";
const HEAD: &str = "head";
const WRITTEN: &str = "written";
const STAMP: &str = "stamp";
const LET_GO: &str = "let_go";

/// Bytes of one floor.
const FLOOR: usize = 24;
/// Bytes of one value that is encoded.
const MAX_VALUE: usize = 1 << 20;
/// The log is cleaned when it holds more than this, and more than [`SPREAD`] times what counts.
const MIN_LOG: u64 = 1 << 20;
const SPREAD: u64 = 3;
/// What is cleaned with each commit: so many times what it appends, and this.
const CLEAN_TIMES: u64 = 4;
const CLEAN_MORE: u64 = 64 << 10;
/// Starts that have read the file and could not write it. A node that is started again and again before it takes part is let off.
const MAX_READERS: usize = 64;

pub(super) type FileError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it was written by another version of Tidegate: {0}, this version writes {VERSION}")]
    Version(u64),
    #[error("it is another node's")]
    OfAnother,
    #[error("it has no {0:?}")]
    Lacks(&'static str),
    #[error("an entry of its log was cut off")]
    Cut,
    #[error("its log has no room for a further entry")]
    Full,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    version: u64,
    /// Starts of the node that have read the file: the last one, and those before it that had nothing written.
    readers: Vec<NodeStart>,
}

/// What the file says of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotRecord {
    pub(super) start: NodeStart,
    pub(super) epoch: u64,
    /// Floors in earlier entries of the log are of owners before.
    pub(super) from: u64,
    /// All floors are here: then what a start needs to begin from them.
    pub(super) complete: Option<DiskState>,
    /// When its owner was alive for the last time; `None`: the owner is the one that writes the file.
    pub(super) heard: Option<Stamp>,
}

/// As [`TakeoverState`](crate::owner::takeover::TakeoverState), by the clock of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskState {
    pub(super) fingerprint: u64,
    pub(super) since: u64,
    pub(super) before: Option<u64>,
    pub(super) earlier: Vec<(u64, u64)>,
}

/// A floor by the clock of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskFloor {
    pub(super) key: KeyHash,
    pub(super) rule: u64,
    pub(super) mark: Mark,
}

impl DiskFloor {
    fn write(&self, out: &mut Vec<u8>) {
        for word in [self.key.get(), self.rule, self.mark.get()] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn all(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        bytes.as_chunks::<FLOOR>().0.iter().map(|floor| {
            let word = |place: usize| {
                let bytes = floor[place * 8..].first_chunk().expect("a floor is three words");
                u64::from_le_bytes(*bytes)
            };
            Self { key: KeyHash::from_raw(word(0)), rule: word(1), mark: Mark::new(word(2)) }
        })
    }
}

/// What strict rules had let go of: rule, whether of windows, and the mark by the clock of the disk.
pub(super) type DiskLetGo = Vec<(u64, bool, u64)>;

/// What is written at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) slots: Vec<(u16, Option<SlotRecord>)>,
    pub(super) floors: Vec<DiskFloor>,
    pub(super) let_go: Option<DiskLetGo>,
    /// From now on the file names all slots as the log has them.
    pub(super) is_adopted: bool,
}

/// What an earlier start has left.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) stamp: Stamp,
    pub(super) readers: Vec<NodeStart>,
    pub(super) slots: BTreeMap<u16, SlotRecord>,
    /// By slot and bucket.
    pub(super) floors: BTreeMap<u16, HashMap<u64, DiskFloor>>,
    pub(super) let_go: DiskLetGo,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct FloorFile {
    database: Database,
    directory: PathBuf,
    witness: Witness,
    written: Written,
    me: NodeStart,
    readers: Vec<NodeStart>,
    slots: BTreeMap<u16, SlotRecord>,
    /// The next entry of the log.
    next: u64,
    /// Of all entries.
    log_bytes: u64,
}

impl FloorFile {
    /// Opens the file, if there is one; `me` has then read it.
    pub(super) fn open(
        directory: &Path,
        me: NodeStart,
        stamp: &dyn Fn(&Stamp) -> Stamp,
    ) -> Result<Option<(Self, Left)>, FileError> {
        let path = directory.join(NAME);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let database = create(&path)?;
        let (left, written, next, log_bytes) = read(&database, me)?;
        let (witness, seen) = Witness::open(&directory.join(WITNESS));
        match (written, seen) {
            (Some(written), seen) => written.compare(seen)?,
            // It was written by a version that counts nothing: one that did count is newer.
            (None, Some(_)) => return Err(Lacking::Another.into()),
            (None, None) => {}
        }
        let written = written.unwrap_or_else(|| Written { database: new_id(), count: 0 });
        let mut readers = left.readers.clone();
        readers.push(me);
        readers.drain(..readers.len().saturating_sub(MAX_READERS));
        let mut file = Self {
            database,
            directory: directory.to_owned(),
            witness,
            written,
            me,
            readers,
            slots: left.slots.clone(),
            next,
            log_bytes,
        };
        // What this start writes says nothing of when the owners before were alive.
        let dated = left.slots.iter().map(|(slot, record)| {
            let heard = record.heard.clone().or_else(|| Some(left.stamp.clone()));
            (*slot, Some(SlotRecord { heard, ..record.clone() }))
        });
        let change = Change { slots: dated.collect(), ..Change::default() };
        file.commit(&change, &stamp(&left.stamp), |_| true, usize::MAX)?;
        Ok(Some((file, left)))
    }

    /// Makes an empty file in place of whatever is there.
    pub(super) fn create(directory: &Path, me: NodeStart, stamp: &Stamp) -> Result<Self, FileError> {
        let draft = directory.join(draft_of(NAME));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = create(&draft)?;
        let written = Written { database: new_id(), count: 0 };
        let mut file = Self {
            database,
            directory: directory.to_owned(),
            witness: Witness::default(),
            written,
            me,
            readers: vec![me],
            slots: BTreeMap::new(),
            next: 0,
            log_bytes: 0,
        };
        file.commit(&Change::default(), stamp, |_| true, usize::MAX)?;
        // First: one that was there before is not to be believed any more.
        file.witness = Witness::make(&directory.join(WITNESS), file.written)?;
        fs::rename(&draft, directory.join(NAME))?;
        sync(&File::open(directory)?)?;
        Ok(file)
    }

    /// Removes the file: from then on the disk knows of no slot.
    pub(super) fn remove(directory: &Path) -> io::Result<()> {
        #[cfg(feature = "fault-injection")]
        crate::injection::before_sync()?;
        match fs::remove_file(directory.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync(&File::open(directory)?),
        }
    }

    /// What it says of a slot.
    pub(super) fn slot(&self, slot: u16) -> Option<&SlotRecord> {
        self.slots.get(&slot)
    }

    /// The slots of other owners than this start.
    pub(super) fn slots_of_others(&self) -> Vec<u16> {
        self.slots.iter().filter(|(_, record)| record.start != self.me).map(|(slot, _)| *slot).collect()
    }

    /// The slots of this start, with their epochs.
    pub(super) fn slots_of_me(&self) -> Vec<(u16, u64)> {
        let own = self.slots.iter().filter(|(_, record)| record.start == self.me);
        own.map(|(slot, record)| (*slot, record.epoch)).collect()
    }

    /// The entry of the log that the next commit writes.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How long the file is.
    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(self.directory.join(NAME)).map_or(0, |file| file.len())
    }

    /// Writes all of it and waits until it is on the disk. `counts`: whether a floor of this start is still needed; `known`: of how
    /// many buckets there are floors. After an error nobody knows what is there.
    pub(super) fn commit(
        &mut self,
        change: &Change,
        stamp: &Stamp,
        counts: impl Fn(&DiskFloor) -> bool,
        known: usize,
    ) -> Result<(), FileError> {
        if change.is_adopted {
            self.readers = vec![self.me];
        }
        for (slot, record) in &change.slots {
            match record {
                Some(record) => drop(self.slots.insert(*slot, record.clone())),
                None => drop(self.slots.remove(slot)),
            }
        }
        let mut transaction = self.database.begin_write()?;
        // Else redb goes back, after a crash, to the commit before where the last one does not fit its checksums.
        transaction.set_two_phase_commit(true);
        let mut entry = Vec::with_capacity(change.floors.len() * FLOOR);
        change.floors.iter().for_each(|floor| floor.write(&mut entry));
        {
            let mut meta = transaction.open_table(META)?;
            let head = Head { version: VERSION, readers: self.readers.clone() };
            meta.insert(HEAD, encode(&head)?.as_slice())?;
            meta.insert(STAMP, encode(stamp)?.as_slice())?;
            self.written.count += 1;
            meta.insert(WRITTEN, encode(&(self.written.database, self.written.count))?.as_slice())?;
            if let Some(let_go) = &change.let_go {
                meta.insert(LET_GO, encode(let_go)?.as_slice())?;
            }
            let mut slots = transaction.open_table(SLOTS)?;
            for (slot, record) in &change.slots {
                match record {
                    Some(record) => drop(slots.insert(*slot, encode(record)?.as_slice())?),
                    None => drop(slots.remove(*slot)?),
                }
            }
            let mut log = transaction.open_table(LOG)?;
            let mut to_clean = entry.len() as u64 * CLEAN_TIMES + CLEAN_MORE;
            let enough = MIN_LOG.max((known as u64).saturating_mul(FLOOR as u64 * SPREAD));
            while self.log_bytes > enough
                && to_clean > 0
                && let Some((number, old)) = log.pop_first()?
            {
                let (number, old) = (number.value(), old.value());
                to_clean = to_clean.saturating_sub((old.len() as u64).max(1));
                self.log_bytes -= old.len() as u64;
                for floor in DiskFloor::all(old) {
                    let record = self.slots.get(&SlotId::of(floor.key).get());
                    let is_kept = record.is_some_and(|record| {
                        number >= record.from && (record.start != self.me || counts(&floor))
                    });
                    if is_kept {
                        floor.write(&mut entry);
                    }
                }
            }
            if !entry.is_empty() {
                log.insert(self.next, entry.as_slice())?;
                self.log_bytes += entry.len() as u64;
                self.next += 1;
            }
        }
        transaction.commit()?;
        self.witness.note(self.written);
        Ok(())
    }
}

/// One that no other file has.
fn new_id() -> u64 {
    u64::from_be_bytes(fabric::random_bytes())
}

fn read(database: &Database, me: NodeStart) -> Result<(Left, Option<Written>, u64, u64), FileError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let value = |name: &'static str| -> Result<Vec<u8>, FileError> {
        Ok(meta.get(name)?.ok_or(Damage::Lacks(name))?.value().to_vec())
    };
    let head = value(HEAD)?;
    let version = head.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if version != VERSION {
        return Err(Damage::Version(version).into());
    }
    let head: Head = decode(&head)?;
    if head.readers.iter().any(|reader| reader.node != me.node) {
        return Err(Damage::OfAnother.into());
    }
    let stamp: Stamp = decode(&value(STAMP)?)?;
    let written: Option<(u64, u64)> = meta.get(WRITTEN)?.map(|bytes| decode(bytes.value())).transpose()?;
    let written = written.map(|(database, count)| Written { database, count });
    let let_go = meta.get(LET_GO)?.map(|bytes| decode(bytes.value())).transpose()?.unwrap_or_default();
    let mut slots: BTreeMap<u16, SlotRecord> = BTreeMap::new();
    for row in transaction.open_table(SLOTS)?.iter()? {
        let (slot, record) = row?;
        slots.insert(slot.value(), decode(record.value())?);
    }
    let mut floors: BTreeMap<u16, HashMap<u64, DiskFloor>> = BTreeMap::new();
    let (mut next, mut log_bytes) = (0, 0);
    for entry in transaction.open_table(LOG)?.iter()? {
        let (number, bytes) = entry?;
        let (number, bytes) = (number.value(), bytes.value());
        if bytes.len() % FLOOR != 0 {
            return Err(Damage::Cut.into());
        }
        next = number.checked_add(1).ok_or(Damage::Full)?;
        log_bytes += bytes.len() as u64;
        for floor in DiskFloor::all(bytes) {
            let slot = SlotId::of(floor.key).get();
            if slots.get(&slot).is_some_and(|record| number >= record.from) {
                let known = floors.entry(slot).or_default().entry(floor.key.get()).or_insert(floor);
                known.mark = known.mark.max(floor.mark);
            }
        }
    }
    // An entry that was cleaned away may have had a larger number than any that is left.
    let next = slots.values().map(|record| record.from).fold(next, u64::max);
    // There are never so many: whoever wrote that made it up.
    if next == u64::MAX {
        return Err(Damage::Full.into());
    }
    Ok((Left { stamp, readers: head.readers, slots, floors, let_go }, written, next, log_bytes))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes, MAX_VALUE)?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FileError> {
    Ok(codec::decode(bytes)?)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
