//! A file of floors whose checksums fit, whatever is in it.

use redb::{Database, backends::InMemoryBackend};

use super::{FileError, HEAD, LET_GO, LOG, META, SLOTS, STAMP, read};
use crate::{ids::NodeStart, slots::SlotId};

const ME: NodeStart = NodeStart { node: 1, incarnation: 9 };

/// Each value has two bytes before it that say how long it is: head, stamp, and what was let go of; then slots with their records and
/// entries of the log by turns.
pub(crate) fn floors(data: &[u8]) {
    let mut rest = data;
    let mut values = std::iter::from_fn(|| {
        let (length, behind) = rest.split_first_chunk()?;
        let length = behind.len().min(u16::from_le_bytes(*length).into());
        let (value, behind) = behind.split_at(length);
        rest = behind;
        Some(value)
    });
    let database = written(&mut values).expect("memory does not fail");
    let Ok((left, _, next, log_bytes)) = read(&database, ME) else { return };
    assert!(left.slots.values().all(|record| record.from <= next));
    for (slot, floors) in &left.floors {
        assert!(left.slots.contains_key(slot));
        assert!(floors.iter().all(|(key, floor)| *key == floor.key.get()));
        assert!(floors.values().all(|floor| SlotId::of(floor.key).get() == *slot));
        assert!(floors.len() as u64 * 24 <= log_bytes);
    }
    assert!(left.readers.iter().all(|reader| reader.node == ME.node));
}

fn written<'d>(values: &mut impl Iterator<Item = &'d [u8]>) -> Result<Database, FileError> {
    let database = Database::builder().create_with_backend(InMemoryBackend::new())?;
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        for name in [HEAD, STAMP, LET_GO] {
            if let Some(value) = values.next() {
                meta.insert(name, value)?;
            }
        }
        let mut slots = transaction.open_table(SLOTS)?;
        let mut log = transaction.open_table(LOG)?;
        let mut is_slot = false;
        for value in values {
            is_slot = !is_slot;
            match value {
                [low, high, record @ ..] if is_slot => {
                    drop(slots.insert(u16::from_le_bytes([*low, *high]), record)?);
                }
                [number, entry @ ..] if !is_slot => drop(log.insert(u64::from(*number), entry)?),
                _ => {}
            }
        }
    }
    transaction.commit()?;
    Ok(database)
}
