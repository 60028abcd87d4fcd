//! Behind each gossip message stands to which cluster its sender belongs, if it belongs to one:
//!
//! ```text
//!     +-----------------+------------+--------------+
//!     | gossip message  | "TGcluste" | cluster (16) |
//!     +-----------------+------------+--------------+
//! ```
//!
//! Two clusters of one name may come to gossip with each other, because an address was given to another machine. Each would take in
//! the other's nodes. The mark is sealed with the message. Versions that know of no marks read the message, and nothing behind it.

use crate::ids::ClusterId;

const MAGIC: &[u8; 8] = b"TGcluste";
/// How long it is.
pub(super) const MARK_BYTES: usize = MAGIC.len() + 16;

/// Puts it behind a message.
pub(super) fn put(message: &mut Vec<u8>, cluster: ClusterId) {
    message.extend_from_slice(MAGIC);
    message.extend_from_slice(&cluster.bytes());
}

/// Takes it off again.
pub(super) fn take(message: &mut Vec<u8>) -> Option<ClusterId> {
    let (rest, mark) = message.split_last_chunk::<MARK_BYTES>()?;
    let cluster = mark.strip_prefix(MAGIC)?.try_into().ok()?;
    let length = rest.len();
    message.truncate(length);
    Some(ClusterId::from_bytes(cluster))
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Deserializable as _, Serializable as _};

    use super::*;

    #[test]
    fn a_message_has_its_mark_and_nothing_else_is_taken_for_one() {
        let cluster = ClusterId::from_bytes([7; 16]);
        let mut message = ChitchatMessage::BadCluster.serialize_to_vec();
        let plain = message.clone();
        assert_eq!(take(&mut message), None);
        put(&mut message, cluster);
        assert_eq!(message.len(), plain.len() + MARK_BYTES);
        // As versions without marks read it.
        assert_eq!(ChitchatMessage::deserialize(&mut &message[..]).unwrap(), ChitchatMessage::BadCluster);
        assert_eq!(take(&mut message), Some(cluster));
        assert_eq!(message, plain);
        assert_eq!(take(&mut vec![7; 100]), None);
    }
}
