//! What a shard has beside its table. All of it belongs to the thread that has the shard's lock.

use std::collections::{HashMap, HashSet};

use super::{class::Class, journal::Journal};
use crate::algorithm::log::Log;

#[derive(Debug)]
pub(super) struct Shard {
    /// Buckets in the table.
    pub(super) buckets: usize,
    /// The soonest that one of them knows of nothing, and how many there were, when all of them were last looked at.
    soonest: u64,
    settled: usize,
    pub(super) logs: HashMap<u64, ClassLog, Unhashed>,
    /// Of all logs of the shard, and how many there have to be before it is worth a look again which of them can go.
    log_bytes: usize,
    look_at: usize,
    pub(super) journals: HashMap<u64, JournaledBucket, Unhashed>,
    /// Buckets that were reset while marks said something of their like: these are not meant. Each is let go of with its bucket,
    /// and all of them when no mark says anything.
    pub(super) spared: HashSet<u64, Unhashed>,
}

/// By this part the logs of a shard grow before all of them are looked at again. Less than what one look frees, so that they
/// grow no further; and not much less, since each look is at all of them.
const LOOK_STEP: usize = 16;

/// Buckets of a shard that are spared at the same time; one more than that, and all count as before.
pub(super) const MAX_SPARED: usize = 64;

/// A log, and whose it is.
#[derive(Debug)]
pub(super) struct ClassLog {
    pub(super) class: Class,
    pub(super) log: Log,
}

/// A journal. It also keeps its bucket's state, while that is in the table: nobody can charge the bucket without the lock
/// then, and each charge is noted.
#[derive(Debug)]
pub(super) struct JournaledBucket {
    pub(super) journal: Journal,
    /// `None`: the bucket is a log, knows of nothing any more, or its state has been taken out for the moment.
    pub(super) state: Option<u64>,
}

impl JournaledBucket {
    /// The state that others are told.
    pub(super) fn tell(&mut self) -> u64 {
        self.state = self.state.map(|state| self.journal.tell(state));
        self.state.unwrap_or(0)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            buckets: 0,
            soonest: u64::MAX,
            settled: 0,
            logs: HashMap::default(),
            log_bytes: 0,
            look_at: 0,
            journals: HashMap::default(),
            spared: HashSet::default(),
        }
    }
}

impl Shard {
    pub(super) fn settle(&mut self, soonest: u64) {
        self.soonest = soonest;
        self.settled = self.buckets;
    }

    /// The bytes of a log have changed.
    pub(super) fn count_log(&mut self, before: usize, after: usize) {
        self.log_bytes = self.log_bytes + after - before;
        if after < before {
            // Else those that went would be room for as many others before anybody looks.
            self.look_at = self.look_at.min(self.next_look());
        }
    }

    /// Whether the logs have grown enough since all of them were looked at, for another look to be paid by what has come since.
    pub(super) fn are_logs_worth_a_look(&self) -> bool {
        self.log_bytes >= self.look_at
    }

    pub(super) fn settle_logs(&mut self) {
        self.look_at = self.next_look();
    }

    fn next_look(&self) -> usize {
        self.log_bytes + self.log_bytes / LOOK_STEP
    }

    /// Whether looking at all buckets of the table could find one that knows of nothing.
    pub(super) fn is_worth_a_look(&self, now: u64) -> bool {
        self.buckets > 0 && (self.soonest <= now || self.settled != self.buckets)
    }
}

/// Fingerprints are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unhashed;

/// Hands the bits through.
#[derive(Debug, Default)]
pub(super) struct Bits(u64);

impl std::hash::BuildHasher for Unhashed {
    type Hasher = Bits;

    fn build_hasher(&self) -> Bits {
        Bits(0)
    }
}

impl std::hash::Hasher for Bits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for fingerprints; any function of the bytes is right.
        self.0 = bytes.iter().fold(self.0, |bits, byte| bits.rotate_left(8) ^ u64::from(*byte));
    }
}
