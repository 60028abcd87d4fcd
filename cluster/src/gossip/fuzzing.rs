//! Datagrams as anybody can send them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chitchat::{ChitchatId, ChitchatMessage, Deserializable as _};
use tokio::time::Instant;

use super::{
    foreign::ForeignNodes,
    intake::{Intake, MAX_NODES, MAX_UNPACKED_BYTES, Sifted},
    mark,
    message::{entries, parts},
    seal::{MAX_MESSAGE_BYTES, Seal},
};
use crate::key::{ClusterKey, KeyRing};

/// The bytes as a datagram, and as the message in one that the node can open.
pub(crate) fn intake(data: &[u8]) {
    let plain = Seal::new("cluster", Arc::default());
    if let Ok(message) = plain.unwrap(data) {
        assert!(data.ends_with(&message));
    }
    let key = ClusterKey::parse("a key of a cluster for fuzzing").expect("it is long enough");
    let sealed = Seal::new("cluster", Arc::new(KeyRing::new(vec![key])));
    assert!(sealed.unwrap(data).is_err(), "nobody has sealed it");
    if data.len() <= MAX_MESSAGE_BYTES {
        let datagram = plain.wrap(data, [0; 24]).expect("there is room for it");
        assert_eq!(plain.unwrap(&datagram), Ok(data.to_vec()));
        assert!(sealed.unwrap(&datagram).is_err());
    }
    let mut message = data.to_vec();
    if let Some(cluster) = mark::take(&mut message) {
        let mut again = message.clone();
        mark::put(&mut again, cluster);
        assert_eq!(again, data);
        ForeignNodes::default().hear(address(2), cluster, &message, Instant::now());
    }
    sift(message);
}

/// What is let in is read by the library, and let in whole when it comes again.
fn sift(message: Vec<u8>) {
    let now = Instant::now();
    let mut intake = Intake::new(ChitchatId::new("me", 7, address(1)), Duration::from_millis(300));
    let before = message.len();
    let Some(Sifted { message, .. }) = intake.sift(message, now) else { return };
    assert!(message.len() <= before + MAX_UNPACKED_BYTES, "{before} bytes have become {}", message.len());
    let (parts, mut rest) = parts(&message).expect("it has its parts");
    if parts.has_digest {
        assert!(entries(&mut rest).is_some_and(|nodes| nodes.len() <= MAX_NODES + 1));
    }
    let again = intake.sift(message.clone(), now).expect("what was let in is let in again");
    assert_eq!(again, Sifted { message: message.clone(), is_whole: true });
    // The library may refuse what it has no version of; it does not end.
    let _ = ChitchatMessage::deserialize(&mut &message[..]);
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
