//! What a message would make the gossip library remember, looked at before the library sees a byte of it.
//!
//! The library keeps a state for each node that any message names, for [`DEAD_MEMBER_GRACE`], tells all of them to all
//! others in one datagram, and fails when they do not fit: at about 1,100. It also unpacks what is packed before it looks
//! at the length: one datagram can become 150 MB. Without a cluster key anybody can send both.

use std::{collections::HashMap, time::Duration};

use chitchat::ChitchatId;
use tokio::time::Instant;

use super::{
    DEAD_MEMBER_GRACE,
    message::{self, Change, DIGEST_NUMBERS_BYTES, Parts, changes, node, number, take},
};

/// Most nodes that are known at one time, those that are gone and each start of a node among them. A message that would
/// add more is refused: the nodes that are known go on.
const MAX_NODES: usize = 512;
/// Longest list of changes, unpacked: half a kilobyte for each node.
const MAX_UNPACKED_BYTES: usize = MAX_NODES * 512;
/// How long a node is remembered that nobody names any more: longer than the library does.
const REMEMBERED: Duration = DEAD_MEMBER_GRACE.saturating_add(Duration::from_secs(60));

/// The nodes that the library knows, as far as messages have told it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    known: HashMap<ChitchatId, Instant>,
}

impl Intake {
    /// Whether the library may have the message: it keeps the limits. What can not be read is not for it either.
    pub(super) fn admits(&mut self, message: &[u8], now: Instant) -> bool {
        let Some(named) = nodes_named_in(message) else { return false };
        let new =
            |known: &HashMap<ChitchatId, Instant>| named.iter().filter(|id| !known.contains_key(id)).count();
        if self.known.len() + new(&self.known) > MAX_NODES {
            self.known.retain(|_, seen| now.duration_since(*seen) < REMEMBERED);
            if self.known.len() + new(&self.known) > MAX_NODES {
                return false;
            }
        }
        self.known.extend(named.into_iter().map(|id| (id, now)));
        true
    }
}

/// The nodes in the digest and in the changes; `None`: the message is none, or breaks a limit.
fn nodes_named_in(message: &[u8]) -> Option<Vec<ChitchatId>> {
    let (Parts { has_digest, has_changes }, mut rest) = message::parts(message)?;
    let mut named = Vec::new();
    if has_digest {
        for _ in 0..number(&mut rest)? {
            named.push(node(&mut rest)?);
            take(&mut rest, DIGEST_NUMBERS_BYTES)?;
            (named.len() <= MAX_NODES).then_some(())?;
        }
    }
    if has_changes {
        let unpacked = message::unpack(&mut rest, MAX_UNPACKED_BYTES)?;
        for change in changes(&unpacked) {
            if let Change::Of(node) = change?.0 {
                named.push(node);
                (named.len() <= 2 * MAX_NODES).then_some(())?;
            }
        }
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{Arc, Mutex},
    };

    use chitchat::{
        ChitchatConfig, ChitchatMessage, FailureDetectorConfig, Serializable as _, spawn_chitchat,
        transport::{ChannelTransport, Socket, Transport},
    };

    use super::{super::message::MAX_BLOCK_BYTES, *};

    fn id(number: u32) -> ChitchatId {
        ChitchatId::new(format!("n{number}"), 7, ([127, 0, 0, 1], 7803).into())
    }

    /// A message that lists these nodes, as the library writes it.
    fn digest(nodes: impl Iterator<Item = u32>) -> Vec<u8> {
        let mut nodes: Vec<ChitchatId> = nodes.map(id).collect();
        nodes.sort_unstable();
        let mut message = vec![0x53, 0xb0, 0, 0];
        message.extend((nodes.len() as u16).to_le_bytes());
        for one in &nodes {
            one.serialize(&mut message);
            message.extend([0; DIGEST_NUMBERS_BYTES]);
        }
        "cluster".serialize(&mut message);
        message
    }

    fn packed(blocks: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut message = vec![0x53, 0xb0, 0, 2];
        for block in blocks {
            message.push(1);
            message.extend((block.len() as u16).to_le_bytes());
            message.extend(block);
        }
        message.push(0);
        message
    }

    /// Shows each message that is sent to the intake of the one who gets it.
    struct Watched(ChannelTransport, Arc<Mutex<Vec<Vec<u8>>>>);
    struct WatchedSocket(Box<dyn Socket>, Arc<Mutex<Vec<Vec<u8>>>>);

    #[async_trait::async_trait]
    impl Transport for Watched {
        async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
            Ok(Box::new(WatchedSocket(self.0.open(listen).await?, Arc::clone(&self.1))))
        }
    }

    #[async_trait::async_trait]
    impl Socket for WatchedSocket {
        async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
            self.1.lock().unwrap().push(message.serialize_to_vec());
            self.0.send(to, message).await
        }

        async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
            self.0.recv().await
        }
    }

    #[tokio::test]
    async fn what_the_library_itself_writes_is_read() {
        let messages = Arc::default();
        let transport = Watched(ChannelTransport::with_mtu(65_507), Arc::clone(&messages));
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut nodes = Vec::new();
        for port in 1..=3 {
            let config = ChitchatConfig {
                chitchat_id: ChitchatId::new(format!("n{port}"), 7, address(port)),
                cluster_id: if port == 3 { "other" } else { "cluster" }.to_owned(),
                gossip_interval: Duration::from_millis(10),
                listen_addr: address(port),
                seed_nodes: vec![address(1).to_string(), address(2).to_string()],
                failure_detector_config: FailureDetectorConfig::default(),
                marked_for_deletion_grace_period: DEAD_MEMBER_GRACE,
                catchup_callback: None,
                extra_liveness_predicate: None,
            };
            let about = (0..20).map(|key| (format!("key{key}"), "x".repeat(key * 50))).collect();
            nodes.push(spawn_chitchat(config, about, &transport).await.unwrap());
        }
        let all_kinds = |messages: &[Vec<u8>]| (0..4).all(|kind| messages.iter().any(|one| one[3] == kind));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !all_kinds(&messages.lock().unwrap()) {
            assert!(Instant::now() < deadline, "not all kinds of messages were sent");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut intake = Intake::default();
        let mut named = 0;
        for message in messages.lock().unwrap().iter() {
            assert!(intake.admits(message, Instant::now()), "{message:?}");
            named += nodes_named_in(message).unwrap().len();
        }
        assert!(named >= 4 && intake.known.len() == 3, "{named} {:?}", intake.known);
    }

    #[test]
    fn nodes_that_nobody_names_any_more_make_room_and_until_then_no_more_are_let_in() {
        let mut intake = Intake::default();
        let now = Instant::now();
        for tens in 0..51 {
            assert!(intake.admits(&digest(tens * 10..tens * 10 + 10), now), "{tens}");
        }
        assert!(!intake.admits(&digest(600..610), now), "ten thousand made-up nodes stop here");
        assert!(intake.admits(&digest(0..500), now), "those that are known go on");
        assert!(intake.admits(&digest(700..702), now));
        assert!(!intake.admits(&digest(702..703), now));
        assert!(intake.admits(&digest(600..610), now + REMEMBERED));
        assert!(!intake.admits(&digest(0..1000), now + REMEMBERED));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeros = zstd::bulk::compress(&[0; MAX_BLOCK_BYTES], 19).unwrap();
        assert!(zeros.len() < 64);
        let bomb = packed(std::iter::repeat_n(zeros, 900));
        assert!(bomb.len() < 65_000);
        assert_eq!(nodes_named_in(&bomb), None);
        // A block of its own, or several in one.
        let large = zstd::bulk::compress(&vec![0; 8 << 20], 19).unwrap();
        assert_eq!(nodes_named_in(&packed(std::iter::once(large))), None);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..4, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let message: Vec<u8> = [0x53, 0xb0, 0, kind].into_iter().chain(bytes).collect();
            let _ = Intake::default().admits(&message, Instant::now());
        }
    }
}
