//! About how many buckets a rule has: a count of distinct fingerprints that costs a check one read.
//!
//! HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007) with 256 registers of a byte: of all fingerprints whose first bits
//! lead to a register, it keeps the longest run of zeros behind them. The standard error is 1.04 / √256 = 6.5 %. Sets are
//! joined by the maximum of each register, so several nodes can be asked together. Two generations take turns, so that what
//! was not used for a while is forgotten.

use std::{
    array,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::KeyHash;

const REGISTERS: usize = 256;

type Generation = OnceLock<Box<[AtomicU8; REGISTERS]>>;

/// The buckets that were used lately. It takes memory only when there are any.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    generations: [Generation; 2],
    current: AtomicUsize,
}

impl Cardinality {
    /// Notes that a bucket is used.
    #[inline]
    pub(crate) fn note(&self, key: KeyHash) {
        let generation = &self.generations[self.current.load(Relaxed) & 1];
        let registers = generation.get_or_init(|| Box::new(array::from_fn(|_| AtomicU8::new(0))));
        let bits = key.get();
        let register = &registers[(bits >> 56) as usize];
        // Behind the eight bits that choose the register: the place of the first one, from 1 to 57.
        let rank = ((bits << 8) | 0xFF).leading_zeros() as u8 + 1;
        if register.load(Relaxed) < rank {
            register.fetch_max(rank, Relaxed);
        }
    }

    /// Forgets what was used only before the last time that this was called.
    pub(crate) fn turn(&self) {
        let next = (self.current.load(Relaxed) + 1) & 1;
        if let Some(registers) = self.generations[next].get() {
            registers.iter().for_each(|register| register.store(0, Relaxed));
        }
        self.current.store(next, Relaxed);
    }

    /// The registers of both generations together; empty if nothing was used.
    pub(crate) fn registers(&self) -> Vec<u8> {
        let mut joined = Vec::new();
        for registers in self.generations.iter().filter_map(OnceLock::get) {
            joined.resize(REGISTERS, 0);
            for (joined, register) in joined.iter_mut().zip(registers.iter()) {
                *joined = (*joined).max(register.load(Relaxed));
            }
        }
        joined
    }
}

/// About how many different buckets left these registers (see [`Rule::touched`](crate::Rule::touched)): 0 of none.
pub fn estimate(registers: &[u8]) -> u64 {
    if registers.is_empty() {
        return 0;
    }
    let count = registers.len() as f64;
    let alpha = 0.7213 / (1.0 + 1.079 / count);
    let sum: f64 = registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
    let raw = alpha * count * count / sum;
    let empty = registers.iter().filter(|rank| **rank == 0).count();
    // Where many registers are empty, counting those is more exact.
    let estimate = if raw <= 2.5 * count && empty > 0 { count * (count / empty as f64).ln() } else { raw };
    estimate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: u64, count: u64) -> impl Iterator<Item = KeyHash> {
        // SplitMix64: as random as fingerprints are.
        (from..from + count).map(|number| {
            let mut z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            KeyHash::from_raw(z ^ (z >> 31))
        })
    }

    #[test]
    fn the_estimate_is_near_from_none_to_millions() {
        for count in [0, 1, 10, 100, 1_000, 20_000, 3_000_000] {
            let cardinality = Cardinality::default();
            for _ in 0..2 {
                keys(7, count).for_each(|key| cardinality.note(key));
            }
            let estimate = estimate(&cardinality.registers()) as f64;
            assert!((estimate - count as f64).abs() <= 0.2 * count as f64, "{count}: {estimate}");
        }
    }

    #[test]
    fn what_is_not_used_for_two_turns_is_forgotten() {
        let cardinality = Cardinality::default();
        keys(0, 500).for_each(|key| cardinality.note(key));
        cardinality.turn();
        assert!(estimate(&cardinality.registers()) > 400);
        keys(0, 10).for_each(|key| cardinality.note(key));
        cardinality.turn();
        assert!((8..=12).contains(&estimate(&cardinality.registers())));
    }
}
