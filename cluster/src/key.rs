//! The cluster key: the secret that the nodes of one cluster share, and what is derived from it.
//!
//! Each use has its own key, derived with BLAKE3's key derivation and a context string of its own, so that none of
//! them tells anything about another.

use std::fmt;

/// Shortest secret that is accepted, in characters. `openssl rand -hex 32` makes a good one.
pub const MIN_KEY_CHARS: usize = 16;

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
    "the cluster key has {found} characters, at least {MIN_KEY_CHARS} are needed; `openssl rand -hex 32` makes a good one"
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
    fn each_use_has_its_own_key_and_the_secret_is_not_printed() {
        let key = ClusterKey::parse("correct horse battery staple").unwrap();
        assert_ne!(key.gossip(), key.handshake());
        assert!(!format!("{key:?}").contains("horse"));
    }
}
