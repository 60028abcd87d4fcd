//! SipHash-1-3 of a few numbers and short texts, from a prefix that was taken in before.
//!
//! (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012.) The same function as that of the crate `siphasher`,
//! which the test compares it with. Written for what fingerprints need: the crate's hasher looks after its buffer for
//! each piece, which takes twice as long as hashing 40 bytes.

/// All bytes so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SipHash {
    state: [u64; 4],
    /// Bytes that do not fill a word yet, the first one lowest.
    tail: u64,
    /// Bits in it: a multiple of 8 below 64.
    tail_bits: u32,
    /// Of which the lowest eight bits count.
    length: u64,
}

impl SipHash {
    pub(crate) fn new(secret: &[u8; 16]) -> Self {
        let secret = u128::from_le_bytes(*secret);
        let (low, high) = (secret as u64, (secret >> 64) as u64);
        // "somepseudorandomlygeneratedbytes"
        let state = [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ];
        Self { state, tail: 0, tail_bits: 0, length: 0 }
    }

    /// Takes in the lowest `bits` (8 to 64, a multiple of 8) of `word`; those above must be 0.
    #[inline]
    pub(crate) fn word(&mut self, word: u64, bits: u32) {
        self.length = self.length.wrapping_add(u64::from(bits / 8));
        let joined = self.tail | word << self.tail_bits;
        let all = self.tail_bits + bits;
        if all < u64::BITS {
            (self.tail, self.tail_bits) = (joined, all);
            return;
        }
        self.compress(joined);
        // Where nothing was in the tail, nothing is left over.
        self.tail = word.checked_shr(u64::BITS - self.tail_bits).unwrap_or(0);
        self.tail_bits = all - u64::BITS;
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word), u64::BITS);
        }
        let (half, rest) = rest.as_chunks();
        for half in half {
            self.word(u32::from_le_bytes(*half).into(), u32::BITS);
        }
        for byte in rest {
            self.word((*byte).into(), u8::BITS);
        }
    }

    #[inline]
    pub(crate) fn finish(mut self) -> u64 {
        self.compress(self.tail | self.length << 56);
        self.state[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.state.into_iter().fold(0, |all, part| all ^ part)
    }

    #[inline]
    fn compress(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.state[0] ^= word;
    }

    #[inline]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.state;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.state = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_function_of_the_crate_siphasher(
            secret in any::<[u8; 16]>(),
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            number in any::<u64>(),
        ) {
            let (mut ours, mut theirs) = (SipHash::new(&secret), SipHasher13::new_with_key(&secret));
            for part in &parts {
                ours.bytes(part);
                theirs.write(part);
                ours.word(number, 64);
                theirs.write(&number.to_le_bytes());
                prop_assert_eq!(ours.finish(), theirs.finish());
            }
        }
    }
}
