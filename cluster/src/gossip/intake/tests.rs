//! What is let in, against what the library itself writes, and what would end it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatMessage, Deserializable as _, FailureDetectorConfig,
    Serializable as _, spawn_chitchat,
    transport::{ChannelTransport, Socket, Transport},
};

use tokio::sync::mpsc;

use super::*;
use crate::gossip::{message::MAX_BLOCK_BYTES, seal::MAX_DATAGRAM_BYTES};

fn id(number: u32) -> ChitchatId {
    named(&format!("n{number}"))
}

fn named(name: &str) -> ChitchatId {
    ChitchatId::new(name, 7, ([127, 0, 0, 1], 7803).into())
}

fn me() -> ChitchatId {
    ChitchatId::new("me", 7, address(1))
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn intake() -> Intake {
    Intake::new(me(), Duration::from_millis(300))
}

/// A message that lists these nodes, as the library writes it.
fn digest_of(nodes: &[ChitchatId], heartbeat: u64) -> Vec<u8> {
    let mut message = vec![0x53, 0xb0, 0, 0];
    message.extend((nodes.len() as u16).to_le_bytes());
    for one in nodes {
        one.serialize(&mut message);
        message.extend(heartbeat.to_le_bytes());
        message.extend([0; 16]);
    }
    "cluster".serialize(&mut message);
    message
}

fn digest(nodes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut nodes: Vec<ChitchatId> = nodes.map(id).collect();
    nodes.sort_unstable();
    digest_of(&nodes, 1)
}

/// How many nodes of a message are let in, if it is.
fn let_in(intake: &mut Intake, message: Vec<u8>, now: Instant) -> Option<usize> {
    let Sifted { message, .. } = intake.sift(message, now)?;
    ChitchatMessage::deserialize(&mut &message[..]).expect("the library reads it");
    Some(entries(&mut &message[HEAD_BYTES..]).unwrap().len())
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

/// Changes, as the library writes them.
#[derive(Default)]
struct News(Vec<u8>);

impl News {
    fn of(self, node: &ChitchatId) -> Self {
        self.since(node, 0)
    }

    fn since(mut self, node: &ChitchatId, dropped: u64) -> Self {
        self.0.push(0);
        node.serialize(&mut self.0);
        self.0.extend(dropped.to_le_bytes());
        self.0.extend([0; 8]);
        self
    }

    fn key(self, key: &str, value: &str, version: u64) -> Self {
        self.change(key, value, version, 0)
    }

    fn change(mut self, key: &str, value: &str, version: u64, deleted: u8) -> Self {
        self.0.push(1);
        key.serialize(&mut self.0);
        value.serialize(&mut self.0);
        self.0.extend(version.to_le_bytes());
        self.0.push(deleted);
        self
    }

    fn highest(mut self, version: u64) -> Self {
        self.0.push(2);
        self.0.extend(version.to_le_bytes());
        self
    }

    fn message(self) -> Vec<u8> {
        let mut message = vec![0x53, 0xb0, 0, 2];
        pack(&self.0, &mut message);
        message
    }
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

fn config(me: ChitchatId, cluster: &str, seeds: &[SocketAddr]) -> ChitchatConfig {
    ChitchatConfig {
        listen_addr: me.gossip_advertise_addr,
        chitchat_id: me,
        cluster_id: cluster.to_owned(),
        gossip_interval: Duration::from_millis(10),
        seed_nodes: seeds.iter().map(SocketAddr::to_string).collect(),
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: DEAD_MEMBER_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

#[tokio::test]
async fn what_the_library_itself_writes_is_let_in_as_it_is() {
    let messages = Arc::default();
    let transport = Watched(ChannelTransport::with_mtu(MAX_DATAGRAM_BYTES), Arc::clone(&messages));
    let mut nodes = Vec::new();
    for port in 1..=3 {
        let cluster = if port == 3 { "other" } else { "cluster" };
        let me = ChitchatId::new(format!("n{port}"), 7, address(port));
        let about = KEYS.map(|key| (key.to_owned(), "x".repeat(MAX_VALUE_BYTES)));
        let config = config(me, cluster, &[address(1), address(2)]);
        nodes.push(spawn_chitchat(config, about.into(), &transport).await.unwrap());
    }
    let all_kinds = |messages: &[Vec<u8>]| (0..4).all(|kind| messages.iter().any(|one| one[3] == kind));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !all_kinds(&messages.lock().unwrap()) {
        assert!(Instant::now() < deadline, "not all kinds of messages were sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut intake = intake();
    for message in messages.lock().unwrap().iter() {
        let sifted = intake.sift(message.clone(), Instant::now());
        assert_eq!(sifted, Some(Sifted { message: message.clone(), is_whole: true }));
    }
    assert_eq!(intake.known.len(), 3, "{:?}", intake.known);
}

#[test]
fn nodes_that_nobody_names_any_more_make_room_and_until_then_no_more_are_let_in() {
    let mut intake = intake();
    let now = Instant::now();
    assert_eq!(let_in(&mut intake, digest(0..507), now), Some(507));
    let crowd = intake.sift(digest(600..610), now).unwrap();
    assert!(!crowd.is_whole);
    assert_eq!(let_in(&mut intake, digest(600..610), now), Some(5), "ten thousand made-up nodes stop here");
    assert_eq!(let_in(&mut intake, digest((100..507).chain(700..800)), now), Some(407), "those known go on");
    let later = now + intake.remembered;
    assert_eq!(let_in(&mut intake, digest(600..1300), later), Some(MAX_NODES));
    assert_eq!(intake.known.len(), MAX_NODES);
}

#[test]
fn what_no_node_says_is_left_out_and_the_rest_is_news() {
    let (n1, n2) = (id(1), id(2));
    let mut intake = intake();
    let now = Instant::now();
    let lists = |nodes: &[ChitchatId], heartbeat| digest_of(nodes, heartbeat);
    for bad in [named(&"x".repeat(65)), named(""), named("a b")] {
        assert_eq!(let_in(&mut intake, lists(&[n1.clone(), bad, n2.clone()], 1), now), Some(2));
    }
    assert_eq!(let_in(&mut intake, lists(std::slice::from_ref(&n1), MAX_VERSION + 1), now), Some(0));
    assert_eq!(let_in(&mut intake, lists(&[me()], u64::MAX), now), Some(1), "it knows better");

    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    let news = || News::default().of(&n1).key("state", "leaving", 3);
    let rest = News::default().of(&n1).key("state", "leaving", 3).of(&n2).highest(9).message();
    let behind = |news: News| news.of(&n2).highest(9).message();
    for (message, is_whole) in [
        (behind(news()), true),
        (behind(news().key("http", &long, 4)), false),
        (behind(news().change("zone", "", 4, 1)), false),
        (behind(news().change("zone", "a", 4, 2)), false),
        (behind(news().key("zone", "a", MAX_VERSION + 1)), false),
        (behind(news().highest(MAX_VERSION + 1)), false),
        (behind(news().of(&me()).key("state", "leaving", u64::MAX)), false),
        (behind(news().since(&id(3), 5).key("state", "leaving", 6)), false),
        (behind(news().of(&named("a b")).key("state", "leaving", 6)), false),
        // Nothing is wrong with these, but of no use: nobody has listed the node, or a later version knows the key.
        (behind(news().of(&id(3)).key("state", "leaving", 6)), true),
        (behind(news().key("colour", "green", 4)), true),
    ] {
        let sifted = intake.sift(message, now);
        assert_eq!(sifted, Some(Sifted { message: rest.clone(), is_whole }));
    }
}

#[test]
fn what_the_library_never_writes_is_refused() {
    let n1 = id(1);
    let mut intake = intake();
    for message in [
        News::default().of(&n1).key("state", "leaving", 10).highest(5),
        News::default().of(&n1).key("state", "leaving", 10).key("zone", "a", 10),
        News::default().of(&n1).highest(10).key("zone", "a", 10),
        News::default().of(&n1).key("state", "leaving", 0),
        News::default().key("state", "leaving", 1),
        News::default().highest(1),
    ] {
        assert_eq!(intake.sift(message.message(), Instant::now()), None);
    }
}

/// What a node hears, and, written as it goes out, what it says.
struct Wire(Mutex<Option<WireSocket>>);
struct WireSocket {
    hears: mpsc::Receiver<ChitchatMessage>,
    says: mpsc::UnboundedSender<Vec<u8>>,
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.0.lock().unwrap().take().unwrap()))
    }
}

#[async_trait::async_trait]
impl Socket for WireSocket {
    async fn send(&mut self, _to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        Ok(self.says.send(message.serialize_to_vec())?)
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        match self.hears.recv().await {
            Some(message) => Ok((address(2), message)),
            None => std::future::pending().await,
        }
    }
}

/// A node that hears these messages.
struct Victim {
    handle: ChitchatHandle,
    said: mpsc::UnboundedReceiver<Vec<u8>>,
    /// How many of the messages are answered.
    asked: usize,
}

impl Victim {
    async fn hears(messages: &[Vec<u8>], mut intake: Option<Intake>) -> Self {
        let (tell, hears) = mpsc::channel(messages.len());
        let (says, said) = mpsc::unbounded_channel();
        let wire = Wire(Mutex::new(Some(WireSocket { hears, says })));
        let about = vec![("state".to_owned(), "joining".to_owned())];
        let handle = spawn_chitchat(config(me(), "cluster", &[]), about, &wire).await.unwrap();
        for message in messages {
            let message = match &mut intake {
                Some(intake) => intake.sift(message.clone(), Instant::now()).map(|sifted| sifted.message),
                None => Some(message.clone()),
            };
            let message = message.map(|message| ChitchatMessage::deserialize(&mut &message[..]).unwrap());
            if let Some(message) = message {
                tell.try_send(message).unwrap();
            }
        }
        let asked = messages.iter().filter(|message| message[3] == 0).count();
        Self { handle, said, asked }
    }

    /// What it answers to the last one, if it lives for so long.
    async fn answer(&mut self) -> Option<Vec<u8>> {
        let died = self.handle.termination_watcher();
        let ask = async {
            while let Some(message) = self.said.recv().await {
                self.asked -= usize::from(message[3] == 1);
                if self.asked == 0 {
                    return Some(message);
                }
            }
            None
        };
        tokio::select! {
            _ = died => None,
            answer = ask => answer,
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("neither an answer nor an end"),
        }
    }

    /// Whether it can still say something new.
    async fn speaks(self) -> bool {
        let says = async move {
            self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set("state", "serving")).await;
        };
        tokio::spawn(says).await.is_ok()
    }
}

fn asks() -> Vec<u8> {
    digest_of(&[], 0)
}

#[tokio::test]
async fn what_ends_the_library_does_not_reach_it() {
    let n1 = id(1);
    let long = |number| named(&format!("{number:05}{}", "x".repeat(15_000)));
    let crowd: Vec<_> = (0..700).map(|number| named(&format!("{number:064}"))).collect();
    let mut fills: Vec<_> = crowd.chunks(350).map(|some| digest_of(some, 1)).collect();
    for some in crowd.chunks(20) {
        let mut news = News::default();
        for node in some {
            let value = blake3::hash(node.node_id.as_bytes()).to_hex().repeat(4);
            news = news.of(node).key("zone", &value, 1);
        }
        fills.push(news.message());
    }
    fills.push(asks());
    let known = digest_of(std::slice::from_ref(&n1), 1);
    let attacks = [
        (
            "a highest version below that of a key",
            vec![known, News::default().of(&n1).key("state", "a", 10).highest(5).message(), asks()],
        ),
        (
            "names as long as a datagram",
            vec![digest_of(&[1, 2, 3, 4].map(long), 1), digest_of(&[5, 6, 7, 8].map(long), 1)],
        ),
        ("more nodes than a datagram lists", fills),
    ];
    for (attack, messages) in &attacks {
        let unprotected = Victim::hears(messages, None).await.answer().await;
        let is_mute = unprotected.is_none_or(|answer| answer.len() > MAX_DATAGRAM_BYTES);
        assert!(is_mute, "{attack}: what is it good for?");
        let mut victim = Victim::hears(messages, Some(intake())).await;
        let answer = victim.answer().await.expect(attack);
        assert!(answer.len() <= MAX_DATAGRAM_BYTES, "{attack}");
    }
    let about_me = [News::default().of(&me()).key("state", "a", u64::MAX).message(), asks()];
    let mut deaf = Victim::hears(&about_me, None).await;
    deaf.answer().await.unwrap();
    assert!(!deaf.speaks().await);
    let mut victim = Victim::hears(&about_me, Some(intake())).await;
    victim.answer().await.unwrap();
    assert!(victim.speaks().await);
}

#[test]
fn a_bomb_is_not_unpacked() {
    let zeros = zstd::bulk::compress(&[0; MAX_BLOCK_BYTES], 19).unwrap();
    assert!(zeros.len() < 64);
    let bomb = packed(std::iter::repeat_n(zeros, 900));
    assert!(bomb.len() < 65_000);
    assert_eq!(intake().sift(bomb, Instant::now()), None);
    // A block of its own, or several in one.
    let large = zstd::bulk::compress(&vec![0; 8 << 20], 19).unwrap();
    assert_eq!(intake().sift(packed(std::iter::once(large)), Instant::now()), None);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0u8..4, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let message: Vec<u8> = [0x53, 0xb0, 0, kind].into_iter().chain(bytes).collect();
        let _ = intake().sift(message, Instant::now());
    }
}
