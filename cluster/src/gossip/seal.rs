//! What a gossip datagram looks like on the wire, and which ones are let in.
//!
//! ```text
//!   0       3        4      5              13                 37
//!   +-------+--------+------+--------------+------------------+---------------------
//!   | "TGG" | version| mode | cluster tag  | nonce (if sealed)| gossip message
//!   +-------+--------+------+--------------+------------------+---------------------
//! ```
//!
//! With a cluster key the message is sealed (XChaCha20-Poly1305, the header is authenticated with it), and nothing of
//! a datagram that does not open reaches the gossip library's parser. Without a key the datagram is plain and anybody
//! who can reach the port can speak; then the limits here and in `intake` are all that stands between them and the parser.

use std::sync::Arc;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

use super::mark::MARK_BYTES;
use crate::{key::KeyRing, stats::GossipRejection};

/// Longest datagram that is sent or read: what UDP over IPv4 carries.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 65_507;

const VERSION: u8 = 1;
const MAGIC: [u8; 4] = [b'T', b'G', b'G', VERSION];
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const HEADER_BYTES: usize = 13;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Longest message that fits a datagram in any case, with its mark.
pub(super) const MAX_MESSAGE_BYTES: usize =
    MAX_DATAGRAM_BYTES - HEADER_BYTES - NONCE_BYTES - TAG_BYTES - MARK_BYTES;

/// Puts messages into datagrams and takes them out again.
pub(crate) struct Seal {
    cluster_tag: [u8; 8],
    keys: Arc<KeyRing>,
}

impl Seal {
    pub(crate) fn new(cluster: &str, keys: Arc<KeyRing>) -> Self {
        let digest = blake3::hash(cluster.as_bytes());
        let (tag, _) = digest.as_bytes().split_first_chunk::<8>().expect("32 bytes hold 8");
        Self { cluster_tag: *tag, keys }
    }

    /// The datagram for `message`; `nonce` must be fresh random bytes. `None`: it would be longer than UDP carries.
    pub(crate) fn wrap(&self, message: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
        let mut datagram = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + message.len() + TAG_BYTES);
        let cipher = self.ciphers().next();
        datagram.extend_from_slice(&MAGIC);
        datagram.push(if cipher.is_some() { SEALED } else { PLAIN });
        datagram.extend_from_slice(&self.cluster_tag);
        match cipher {
            Some(cipher) => {
                let sealed = cipher
                    .encrypt(XNonce::from_slice(&nonce), Payload { msg: message, aad: &datagram })
                    .expect("XChaCha20-Poly1305 seals anything below 256 GiB");
                datagram.extend_from_slice(&nonce);
                datagram.extend_from_slice(&sealed);
            }
            None => datagram.extend_from_slice(message),
        }
        (datagram.len() <= MAX_DATAGRAM_BYTES).then_some(datagram)
    }

    /// The message in `datagram`.
    pub(crate) fn unwrap(&self, datagram: &[u8]) -> Result<Vec<u8>, GossipRejection> {
        let Some((header, body)) = datagram.split_at_checked(HEADER_BYTES) else {
            return Err(GossipRejection::Foreign);
        };
        if header[..4] != MAGIC {
            return Err(GossipRejection::Foreign);
        }
        if header[5..] != self.cluster_tag {
            return Err(GossipRejection::OtherCluster);
        }
        match (self.keys.is_empty(), header[4]) {
            (false, SEALED) => {
                let (nonce, sealed) = body.split_at_checked(NONCE_BYTES).ok_or(GossipRejection::Malformed)?;
                let nonce = XNonce::from_slice(nonce);
                self.ciphers()
                    .find_map(|cipher| cipher.decrypt(nonce, Payload { msg: sealed, aad: header }).ok())
                    .ok_or(GossipRejection::WrongKey)
            }
            (true, PLAIN) => Ok(body.to_vec()),
            (false, _) => Err(GossipRejection::Unsealed),
            (true, _) => Err(GossipRejection::NoKey),
        }
    }

    /// The first seals, each opens.
    fn ciphers(&self) -> impl Iterator<Item = XChaCha20Poly1305> {
        self.keys.for_gossip().into_iter().map(|key| XChaCha20Poly1305::new(&key.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ClusterKey;

    const NONCE: [u8; 24] = [7; 24];

    fn keyed(cluster: &str, number: u8) -> Seal {
        with_keys(cluster, &[number])
    }

    fn with_keys(cluster: &str, numbers: &[u8]) -> Seal {
        let key = |number: &u8| ClusterKey::parse(&format!("the secret number {number:03}")).unwrap();
        Seal::new(cluster, Arc::new(KeyRing::new(numbers.iter().map(key).collect())))
    }

    #[test]
    fn while_keys_change_the_first_seals_and_each_opens() {
        // In the order in which the nodes of a cluster go through it: no two that are neighbours refuse each other.
        let steps = [keyed("a", 1), with_keys("a", &[1, 2]), with_keys("a", &[2, 1]), keyed("a", 2)];
        for (index, from) in steps.iter().enumerate() {
            let datagram = from.wrap(b"hello gossip", NONCE).unwrap();
            for to in steps.iter().skip(index.saturating_sub(1)).take(3) {
                assert_eq!(to.unwrap(&datagram).unwrap(), b"hello gossip");
            }
        }
        let last = steps[3].wrap(b"hello gossip", NONCE).unwrap();
        assert_eq!(steps[0].unwrap(&last), Err(GossipRejection::WrongKey), "the old one is over");
    }

    #[test]
    fn what_was_sealed_opens_and_nobody_else_can_read_it() {
        let datagram = keyed("a", 1).wrap(b"hello gossip", NONCE).unwrap();
        assert_eq!(keyed("a", 1).unwrap(&datagram).unwrap(), b"hello gossip");
        assert!(!datagram.windows(5).any(|part| part == b"hello"));
    }

    #[test]
    fn each_foreign_datagram_is_refused_for_its_own_reason() {
        let sealed = keyed("a", 1).wrap(b"message", NONCE).unwrap();
        let plain = with_keys("a", &[]).wrap(b"message", NONCE).unwrap();
        assert_eq!(keyed("a", 2).unwrap(&sealed), Err(GossipRejection::WrongKey));
        assert_eq!(keyed("b", 1).unwrap(&sealed), Err(GossipRejection::OtherCluster));
        assert_eq!(keyed("a", 1).unwrap(&plain), Err(GossipRejection::Unsealed));
        assert_eq!(with_keys("a", &[]).unwrap(&sealed), Err(GossipRejection::NoKey));
        assert_eq!(keyed("a", 1).unwrap(b"junk"), Err(GossipRejection::Foreign));
        let mut newer = plain.clone();
        newer[3] = 2;
        assert_eq!(with_keys("a", &[]).unwrap(&newer), Err(GossipRejection::Foreign));
    }

    #[test]
    fn a_sealed_datagram_changed_anywhere_does_not_open() {
        let good = keyed("a", 1).wrap(b"message", NONCE).unwrap();
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(keyed("a", 1).unwrap(&bad).is_err(), "byte {place}");
        }
    }

    #[test]
    fn who_reads_has_the_limit_of_who_writes() {
        for seal in [with_keys("a", &[]), keyed("a", 1)] {
            let message = [7; MAX_MESSAGE_BYTES];
            assert_eq!(seal.unwrap(&seal.wrap(&message, NONCE).unwrap()).unwrap(), message);
            assert!(seal.wrap(&[0; 65_500], NONCE).is_none());
        }
    }
}
