//! The cluster key: the secret that the nodes of one cluster share, and what is derived from it.
//!
//! Each use has its own key, derived with BLAKE3's key derivation and a context string of its own, so that none of
//! them tells anything about another.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

/// Shortest secret that is accepted, in characters. `openssl rand -hex 32` makes a good one.
pub const MIN_KEY_CHARS: usize = 16;

/// Secrets that a cluster may have at one time: the one in force, and one that it had before or is to have next.
pub const MAX_KEYS: usize = 2;

/// What begins a line of a key file that is a remark, where it has other lines too.
pub const REMARK: &str = "# ";

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

/// Why a text is no cluster key, or no file of them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// It is too short.
    #[error(
        "the cluster key has {found} characters, at least {MIN_KEY_CHARS} are needed, and they must be random: who is on the path \
         between two nodes can try keys out; `openssl rand -hex 32` makes a good one"
    )]
    TooShort {
        /// Its characters.
        found: usize,
    },
    /// There are too many lines.
    #[error("there are {found} cluster keys, one a line; at most {MAX_KEYS} can be in force at one time")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Both lines are the same.
    #[error("both cluster keys are the same: the second one is to be the one before, or the next")]
    Same,
}

impl ClusterKey {
    /// Takes a secret as text; white space around it does not count.
    ///
    /// # Errors
    /// When fewer than [`MIN_KEY_CHARS`] characters are left.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let secret = text.trim();
        let found = secret.chars().count();
        if found < MIN_KEY_CHARS {
            return Err(KeyError::TooShort { found });
        }
        Ok(Self { secret: secret.to_owned() })
    }

    /// Takes the secrets of a file, one a line, the one that seals first. Empty lines do not count, and neither do remarks
    /// ([`REMARK`]) beside other lines.
    ///
    /// # Errors
    /// When there are more than [`MAX_KEYS`], one is too short, or both are the same.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, KeyError> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let keys: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with(REMARK)).collect();
        // A secret that looks like a remark is one, where it is all that there is.
        let keys = if keys.is_empty() { lines } else { keys };
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany { found: keys.len() });
        }
        if keys.is_empty() {
            return Err(KeyError::TooShort { found: 0 });
        }
        let keys = keys.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if let [one, other] = &keys[..]
            && one == other
        {
            return Err(KeyError::Same);
        }
        Ok(keys)
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

/// The secrets of a cluster, which can change while it runs: **the first one seals what this node says, each of them opens what
/// it hears**. Nodes that go from one to the next in steps, so that each has what any other seals with, never refuse each other.
#[derive(Debug, Default)]
pub struct KeyRing(ArcSwap<Vec<ClusterKey>>);

impl KeyRing {
    /// With these; none: nothing is sealed.
    pub fn new(keys: Vec<ClusterKey>) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// Puts others in their place, for what is said from now on. Streams that are open keep theirs.
    pub fn replace(&self, keys: Vec<ClusterKey>) {
        self.0.store(Arc::new(keys));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// By which the streams are sealed that this node opens; without a key by zeros, which find accidents only.
    pub(crate) fn to_seal(&self) -> [u8; 32] {
        self.0.load().first().map(ClusterKey::handshake).unwrap_or_default()
    }

    /// By which the streams may be sealed that others open: at least one.
    pub(crate) fn to_open(&self) -> Vec<[u8; 32]> {
        let keys: Vec<_> = self.0.load().iter().map(ClusterKey::handshake).collect();
        if keys.is_empty() { vec![[0; 32]] } else { keys }
    }

    /// Those of gossip, in their order.
    pub(crate) fn for_gossip(&self) -> Vec<[u8; 32]> {
        self.0.load().iter().map(ClusterKey::gossip).collect()
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
    fn a_file_has_one_key_or_two_and_remarks() {
        let (one, two) = ("0123456789abcdef", "fedcba9876543210");
        let parsed = |text: &str| ClusterKey::parse_all(text);
        let key = |text: &str| ClusterKey::parse(text).unwrap();
        assert_eq!(parsed(one).unwrap(), [key(one)]);
        assert_eq!(parsed(&format!("\n {one} \r\n")).unwrap(), [key(one)]);
        assert_eq!(parsed(&format!("# step 1\n{one}\n\n{two}\n")).unwrap(), [key(one), key(two)]);
        assert_eq!(parsed("# a key of old, that looks so").unwrap(), [key("# a key of old, that looks so")]);
        assert_eq!(parsed("#0123456789abcdef").unwrap(), [key("#0123456789abcdef")]);
        assert_eq!(parsed(""), Err(KeyError::TooShort { found: 0 }));
        assert_eq!(parsed(&format!("{one}\nshort")), Err(KeyError::TooShort { found: 5 }));
        assert_eq!(parsed(&format!("{one}\n{two}\n{one}x")), Err(KeyError::TooMany { found: 3 }));
        assert_eq!(parsed(&format!("{one}\n{one}")), Err(KeyError::Same));
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
