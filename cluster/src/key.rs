//! The cluster key: the secret that the nodes of one cluster share, and what is derived from it.
//!
//! Each use has its own key, derived with BLAKE3's key derivation and a context string of its own, so that none of
//! them tells anything about another.

use std::fmt;

/// Shortest secret that is accepted, in characters. `openssl rand -hex 32` makes a good one.
pub const MIN_KEY_CHARS: usize = 16;

/// As many characters have 128 random bits in base64.
const RANDOM_CHARS: usize = 22;
/// Fewer different characters are hardly ever in so many random ones.
const DIFFERENT_CHARS: usize = 8;

const GOSSIP: &str = "tidegate 2026-11 gossip seal";
const HANDSHAKE: &str = "tidegate 2026-11 peer handshake";

/// The secret of a cluster. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    secret: String,
}

/// Why a text is no cluster key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the cluster key has {found} characters, at least {MIN_KEY_CHARS} are needed, and they must be random: who is on the path \
     between two nodes can try keys out; `openssl rand -hex 32` makes a good one"
)]
pub struct KeyTooShort {
    found: usize,
}

impl ClusterKey {
    /// Takes a secret as text; white space around it does not count.
    ///
    /// # Errors
    /// When fewer than [`MIN_KEY_CHARS`] characters are left.
    pub fn parse(text: &str) -> Result<Self, KeyTooShort> {
        let secret = text.trim();
        let found = secret.chars().count();
        if found < MIN_KEY_CHARS {
            return Err(KeyTooShort { found });
        }
        Ok(Self { secret: secret.to_owned() })
    }

    /// Whether somebody might guess it who has recorded a handshake: it is short for a text of random characters, or has few
    /// different ones.
    pub fn looks_guessable(&self) -> bool {
        let different: std::collections::BTreeSet<char> = self.secret.chars().collect();
        self.secret.chars().count() < RANDOM_CHARS || different.len() < DIFFERENT_CHARS
    }

    pub(crate) fn gossip(&self) -> [u8; 32] {
        blake3::derive_key(GOSSIP, self.secret.as_bytes())
    }

    pub(crate) fn handshake(&self) -> [u8; 32] {
        blake3::derive_key(HANDSHAKE, self.secret.as_bytes())
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_key_is_refused_and_told_how_to_make_one() {
        let fault = ClusterKey::parse(" secret \n").unwrap_err();
        assert!(fault.to_string().contains("6 characters"), "{fault}");
    }

    #[test]
    fn a_word_looks_guessable_and_random_digits_do_not() {
        let looks = |text: &str| ClusterKey::parse(text).unwrap().looks_guessable();
        assert!(looks("tidegate-cluster") && looks(&"ab".repeat(40)));
        assert!(!looks("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"));
    }

    #[test]
    fn each_use_has_its_own_key_and_the_secret_is_not_printed() {
        let key = ClusterKey::parse("correct horse battery staple").unwrap();
        assert_ne!(key.gossip(), key.handshake());
        assert!(!format!("{key:?}").contains("horse"));
    }
}
