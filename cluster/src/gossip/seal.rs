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

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

use super::mark::MARK_BYTES;
use crate::stats::GossipRejection;

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
    cipher: Option<XChaCha20Poly1305>,
}

impl Seal {
    pub(crate) fn new(cluster: &str, key: Option<[u8; 32]>) -> Self {
        let digest = blake3::hash(cluster.as_bytes());
        let (tag, _) = digest.as_bytes().split_first_chunk::<8>().expect("32 bytes hold 8");
        Self { cluster_tag: *tag, cipher: key.map(|key| XChaCha20Poly1305::new(&key.into())) }
    }

    /// The datagram for `message`; `nonce` must be fresh random bytes. `None`: it would be longer than UDP carries.
    pub(crate) fn wrap(&self, message: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
        let mut datagram = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + message.len() + TAG_BYTES);
        datagram.extend_from_slice(&MAGIC);
        datagram.push(if self.cipher.is_some() { SEALED } else { PLAIN });
        datagram.extend_from_slice(&self.cluster_tag);
        match &self.cipher {
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
        let message = match (&self.cipher, header[4]) {
            (Some(cipher), SEALED) => {
                let (nonce, sealed) = body.split_at_checked(NONCE_BYTES).ok_or(GossipRejection::Malformed)?;
                cipher
                    .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: header })
                    .map_err(|_| GossipRejection::WrongKey)?
            }
            (None, PLAIN) => body.to_vec(),
            (Some(_), _) => return Err(GossipRejection::Unsealed),
            (None, _) => return Err(GossipRejection::NoKey),
        };
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 24] = [7; 24];

    fn keyed(cluster: &str, byte: u8) -> Seal {
        Seal::new(cluster, Some([byte; 32]))
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
        let plain = Seal::new("a", None).wrap(b"message", NONCE).unwrap();
        assert_eq!(keyed("a", 2).unwrap(&sealed), Err(GossipRejection::WrongKey));
        assert_eq!(keyed("b", 1).unwrap(&sealed), Err(GossipRejection::OtherCluster));
        assert_eq!(keyed("a", 1).unwrap(&plain), Err(GossipRejection::Unsealed));
        assert_eq!(Seal::new("a", None).unwrap(&sealed), Err(GossipRejection::NoKey));
        assert_eq!(keyed("a", 1).unwrap(b"junk"), Err(GossipRejection::Foreign));
        let mut newer = plain.clone();
        newer[3] = 2;
        assert_eq!(Seal::new("a", None).unwrap(&newer), Err(GossipRejection::Foreign));
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
        for seal in [Seal::new("a", None), keyed("a", 1)] {
            let message = [7; MAX_MESSAGE_BYTES];
            assert_eq!(seal.unwrap(&seal.wrap(&message, NONCE).unwrap()).unwrap(), message);
            assert!(seal.wrap(&[0; 65_500], NONCE).is_none());
        }
    }
}
