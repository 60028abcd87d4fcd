//! From the attributes of a request to the fingerprint of a bucket.
//!
//! A bucket is known by 63 bits, a keyed pseudo-random function (SipHash-1-3) of the domain, the rule and the values of
//! its key. The key itself is not kept. Two keys with the same fingerprint share a bucket, which is stricter than it
//! should be for both; among n buckets that happens with a chance of about n² / 2^64 (ten million: 5 in a million).
//! Without the secret nobody can look for such pairs, nor for keys that fall together in one shard or slot.

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher, RandomState},
};

use crate::{
    Algorithm, Limit,
    limit_bits::{ASIDE, BAN, LIMIT_BITS},
    siphash::SipHash,
};

/// The fingerprint of a bucket: 63 bits and one for its kind, from a keyed pseudo-random function (SipHash-1-3) of the domain, the rule, what
/// tells limits apart (see [`Rules::inline_key`](crate::Rules::inline_key)) and the values of the key.
///
/// The key itself is not kept. Two keys with the same fingerprint share a bucket, which is stricter than it should be for
/// both. Among n buckets some pair does so with a chance of about n² / 2^64: ten million, 5 in a million; a thousand
/// million, 5 in a hundred. Without the secret nobody can look for such pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The fingerprint that another node worked out.
    pub const fn from_raw(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits. All of them but the last are equally random.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its bits without those that tell the limits of a key apart: the same before and after a limit has changed. By these a
    /// bucket has its place in a cluster.
    pub const fn place(self) -> u64 {
        self.0 & !LIMIT_BITS
    }

    /// Whether the bucket is one of windows, by its last bit: their states mean another thing on another clock.
    pub const fn is_of_window(self) -> bool {
        self.0 & 1 == 1
    }

    /// The bucket of the same key under another limit.
    pub(crate) fn under(self, known: &Limit, other: &Limit) -> Self {
        Self(self.0 ^ known.bits() ^ other.bits())
    }

    /// Where it is kept what is known of bans of the same key, under whichever limit.
    pub const fn of_ban(self) -> Self {
        Self(self.0 & !LIMIT_BITS | BAN)
    }

    /// Whether it is such a one. (Of a limit that came with a check, one of millions looks like it.)
    pub const fn is_of_ban(self) -> bool {
        self.0 & LIMIT_BITS == BAN
    }

    /// Where the same bucket is kept for a limit that comes back.
    pub(crate) const fn aside(self) -> Self {
        Self(self.0 ^ ASIDE)
    }
}

/// The number of a rule: a keyed pseudo-random function of its domain and its name, the same on all nodes that share buckets.
/// It stays the same when the limit of the rule changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u64);

impl RuleId {
    /// No rule: the limit came with the request.
    pub const INLINE: Self = Self(0);

    /// Stands for those rules of which a [`Store`](crate::Store) does not tell apart whose a bucket is, because there are too
    /// many rules for that: no rule has these numbers.
    pub(crate) const SHARED: Self = Self(u64::MAX - 1);
    /// The same, of those with [`OnMemoryFull::Strict`](crate::OnMemoryFull::Strict).
    pub(crate) const SHARED_STRICT: Self = Self(u64::MAX);

    /// The number that another node worked out.
    pub const fn from_raw(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether it is that of a bucket of one of several rules.
    pub fn is_shared(self) -> bool {
        self == Self::SHARED || self == Self::SHARED_STRICT
    }
}

/// The secret that fingerprints are keyed with: the same on all nodes that share buckets.
#[derive(Clone, PartialEq, Eq)]
pub struct HashSecret([u8; 16]);

impl HashSecret {
    /// Takes 16 secret bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// One that nobody knows and no other process has, from the seeds that the standard library has of the system for its
    /// maps.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        for (half, number) in bytes.chunks_exact_mut(8).zip(0u64..) {
            half.copy_from_slice(&RandomState::new().hash_one(number).to_le_bytes());
        }
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret(..)")
    }
}

/// A hash that has taken in everything but the values of the key: a rule makes one of these once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(SipHash);

impl KeyHasher {
    /// For the buckets of a rule.
    pub(crate) fn of_rule(secret: &HashSecret, domain: &str, rule: &str) -> Self {
        Self(SipHash::new(secret.bytes())).with("rule").with(domain).with(rule)
    }

    /// For the buckets of limits that a request brings along.
    pub(crate) fn of_inline(secret: &HashSecret) -> Self {
        Self(SipHash::new(secret.bytes())).with("inline")
    }

    /// For a limiter with one limit.
    pub(crate) fn of_keyed(secret: &HashSecret) -> Self {
        Self(SipHash::new(secret.bytes())).with("keyed")
    }

    /// Takes in a text of the prefix.
    fn with(self, text: &str) -> Self {
        let mut key = self.key();
        key.text(text);
        Self(key.0)
    }

    /// The number of the rule itself.
    pub(crate) fn rule(self) -> RuleId {
        RuleId(self.key().finish(None).get())
    }

    /// Begins with the values of a key.
    #[inline]
    pub(crate) fn key(self) -> KeyBytes {
        KeyBytes(self.0)
    }
}

/// The values of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyBytes(SipHash);

impl KeyBytes {
    /// Takes in a text. Its length goes first, so that no two sequences of texts look alike.
    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.bytes(text.as_bytes());
    }

    /// Takes in a number.
    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        self.0.word(number, u64::BITS);
    }

    /// Takes in all by which a limit is the [same](Limit::is_same) as another one.
    #[inline]
    pub(crate) fn limit(&mut self, limit: &Limit) {
        let has_burst = limit.burst_size() != limit.count();
        self.number(limit.period_number() << 8 | u64::from(has_burst) << 7 | limit.algorithm() as u64);
        self.number(limit.count());
        if has_burst {
            self.number(limit.burst_size());
        }
    }

    /// The fingerprint of the bucket of one of a rule's limits, by the [bits](Limit::bits) of that limit.
    #[inline]
    pub(crate) fn finish_under(self, bits: u64) -> KeyHash {
        KeyHash(self.0.finish() & !1 ^ bits)
    }

    /// The fingerprint of the bucket of a limit that is part of what was taken in.
    #[inline]
    pub(crate) fn finish(self, limit: Option<&Limit>) -> KeyHash {
        let windows = limit.is_some_and(|limit| {
            matches!(limit.algorithm(), Algorithm::FixedWindow | Algorithm::SlidingWindow)
        });
        KeyHash(self.0.finish() & !1 | u64::from(windows))
    }
}

/// For keys that are values of the application. The methods of this trait are for [`std::hash::Hash`], which keeps two values of
/// a type from looking alike. Numbers go in as they are, whatever the order of bytes of the machine.
impl Hasher for KeyBytes {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.0.word(number.into(), u8::BITS);
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.0.word(number.into(), u16::BITS);
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.0.word(number.into(), u32::BITS);
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0.word(number, u64::BITS);
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
        self.write_u64((number >> u64::BITS) as u64);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_do_not_run_into_each_other_and_the_secret_matters() {
        let hash = |secret: u8, texts: [&str; 2]| {
            let secret = HashSecret::new([secret; 16]);
            let mut key = KeyHasher::of_rule(&secret, "d", "r").key();
            texts.into_iter().for_each(|text| key.text(text));
            key.finish(None)
        };
        assert_ne!(hash(1, ["ab", "c"]), hash(1, ["a", "bc"]));
        assert_ne!(hash(1, ["ab", "c"]), hash(2, ["ab", "c"]));
        assert_eq!(hash(1, ["ab", "c"]), hash(1, ["ab", "c"]));
    }

    #[test]
    fn values_that_differ_hash_differently_and_borrowed_ones_as_their_owners() {
        use std::{collections::HashSet, hash::Hash, net::IpAddr};

        fn hash<K: Hash + ?Sized>(key: &K) -> KeyHash {
            let mut bytes = KeyHasher::of_keyed(&HashSecret::new([1; 16])).key();
            key.hash(&mut bytes);
            bytes.finish(None)
        }
        #[derive(Hash)]
        enum Caller<'c> {
            User(&'c str),
            Number(u64),
        }
        let all = [
            hash(&("ab", "c")),
            hash(&("a", "bc")),
            hash(&("tenant", 42_u64)),
            hash(&("tenant", 43_u64)),
            hash(&Caller::User("42")),
            hash(&Caller::Number(42)),
            hash(&IpAddr::from([10, 0, 0, 1])),
            hash(&IpAddr::from([10, 0, 0, 2])),
            hash(&1_u128),
            hash(&(1_u128 << 64)),
            hash(&[1_u16, 2]),
            hash(&[2_u16, 1]),
            hash(&-1_i32),
            hash(&()),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(hash("ada"), hash(&"ada".to_owned()));
        assert_eq!(hash(&[1_u8, 2][..]), hash(&vec![1_u8, 2]));
    }
}
