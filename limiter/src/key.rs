//! From the attributes of a request to the fingerprint of a bucket.
//!
//! A bucket is known by 64 bits, a keyed pseudo-random function (SipHash-1-3) of the domain, the rule and the values of
//! its key. The key itself is not kept. Two keys with the same fingerprint share a bucket, which is stricter than it
//! should be for both; among n buckets that happens with a chance of about n² / 2^65 (ten million: 3 in a million).
//! Who does not know the secret can not look for such pairs, nor for keys that fall together in one shard or slot.

use std::{fmt, hash::Hasher as _};

use siphasher::sip::SipHasher13;

/// The fingerprint of a bucket: 64 bits, from a keyed pseudo-random function (SipHash-1-3) of the domain, the rule, what
/// tells limits apart (see [`Rules::inline_key`](crate::Rules::inline_key)) and the values of the key.
///
/// The key itself is not kept. Two keys with the same fingerprint share a bucket, which is stricter than it should be for
/// both. Among n buckets some pair does so with a chance of about n² / 2^65: ten million, 3 in a million; a thousand
/// million, 3 in a hundred. Who does not know the secret can not look for such pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The fingerprint that another node worked out.
    pub const fn from_raw(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits. All of them are equally random.
    pub const fn get(self) -> u64 {
        self.0
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
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSecret(..)")
    }
}

/// A hash that has taken in everything but the values of the key: a rule makes one of these once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// For the buckets of a rule.
    pub(crate) fn of_rule(secret: &HashSecret, domain: &str, rule: &str) -> Self {
        Self(SipHasher13::new_with_key(&secret.0)).with("rule").with(domain).with(rule)
    }

    /// For the buckets of limits that a request brings along.
    pub(crate) fn of_inline(secret: &HashSecret) -> Self {
        Self(SipHasher13::new_with_key(&secret.0)).with("inline")
    }

    /// Takes in a text of the prefix.
    fn with(self, text: &str) -> Self {
        let mut key = self.key();
        key.text(text);
        Self(key.flushed())
    }

    /// Begins with the values of a key.
    #[inline]
    pub(crate) fn key(self) -> KeyBytes {
        KeyBytes { prefix: self.0, bytes: [0; BUFFER], length: 0 }
    }
}

/// Bytes that are hashed at once.
const BUFFER: usize = 128;

/// The values of one key. They are put together before they are hashed: many small steps would take twice as long.
pub(crate) struct KeyBytes {
    prefix: SipHasher13,
    bytes: [u8; BUFFER],
    length: usize,
}

impl KeyBytes {
    /// Takes in a text. Its length goes first, so that no two sequences of texts look alike.
    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.write(text.as_bytes());
    }

    /// Takes in a number.
    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    #[inline]
    pub(crate) fn finish(self) -> KeyHash {
        KeyHash(self.flushed().finish())
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.write_long(bytes),
        }
    }

    #[cold]
    fn write_long(&mut self, bytes: &[u8]) {
        self.prefix.write(&self.bytes[..self.length]);
        self.prefix.write(bytes);
        self.length = 0;
    }

    #[inline]
    fn flushed(mut self) -> SipHasher13 {
        self.prefix.write(&self.bytes[..self.length]);
        self.prefix
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
            key.finish()
        };
        assert_ne!(hash(1, ["ab", "c"]), hash(1, ["a", "bc"]));
        assert_ne!(hash(1, ["ab", "c"]), hash(2, ["ab", "c"]));
        assert_eq!(hash(1, ["ab", "c"]), hash(1, ["ab", "c"]));
    }

    #[test]
    fn long_texts_are_hashed_as_short_ones_are() {
        let secret = HashSecret::new([3; 16]);
        let prefix = KeyHasher::of_rule(&secret, "some domain", "rule");
        for length in [0, 1, 7, 111, 119, 120, 121, 128, 300, 5_000] {
            let text = "x".repeat(length);
            let mut key = prefix.key();
            key.text(&text);
            key.number(7);
            let mut plain = SipHasher13::new_with_key(&secret.0);
            for part in ["rule", "some domain", "rule", &text] {
                plain.write(&(part.len() as u64).to_le_bytes());
                plain.write(part.as_bytes());
            }
            plain.write(&7u64.to_le_bytes());
            assert_eq!(key.finish().get(), plain.finish(), "{length}");
        }
    }
}
