//! Bits of a fingerprint that tell the limits of one key apart.
//!
//! So that the buckets of a key under all limits that its rule has, or had, are in one slot, one shard and one lock: these are chosen
//! by other bits.

/// Not the upper ones, by which stores choose a shard, and the last one, which says whether it is a window.
pub(crate) const LIMIT_BITS: u64 = ((1 << 22) - 1) << 20 | 1;

/// One of them: a limit and another with that bit turned have the same state with the same chance as any two limits.
pub(crate) const ASIDE: u64 = 1 << 20;

/// All of them: what is known of bans of the key (`ban.rs`). Its states travel as those of windows do. No limit has these.
pub(crate) const BAN: u64 = LIMIT_BITS;

/// The bits for a limit whose states mean this. Two limits have the same ones with a chance of 1 in 4 million; then a change
/// from one to the other leaves the states of buckets as they are.
pub(crate) fn limit_bits(meaning: [u64; 3], is_window: bool) -> u64 {
    let mixed = mix(meaning.into_iter().fold(0, mix), 0);
    let bits = mixed & LIMIT_BITS & !1 | u64::from(is_window);
    if bits | ASIDE == BAN { bits ^ ASIDE << 1 } else { bits }
}

/// One more word of a fingerprint.
pub(crate) fn mix(bits: u64, word: u64) -> u64 {
    (bits ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
