//! A node without a cluster, and the leaders of two that both send it their first entries, while its disk is slow: it follows
//! one of them, wholly, also after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, Vote,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest},
};
use redb::{Database, StorageBackend, backends::InMemoryBackend};
use tokio::time::sleep;

use super::{
    belonging::Belonging,
    disk::Disk,
    group::{GroupConfig, RaftGroup},
    service::RaftService,
};
use crate::{
    clock::Clock,
    ids::{ClusterId, NodeId, NodeStart, RaftNode, Weight},
    link::{Identity, Peer},
    member::{MemberId, MemberRow},
    owner::{session::SessionTiming, slot_ownership::SlotOwnership},
    rpc::{
        message::{Call, Envelope, Proposal, Reply, Standing},
        server::CallServer,
        server::{Service, Services},
    },
    state::{
        command::{Command, Founding},
        types::Group,
    },
};

const ONE: NodeId = 1;
const TWO: NodeId = 2;

/// A disk in memory whose syncs take some milliseconds, and which is still there after a restart.
#[derive(Debug, Clone)]
struct SlowDisk {
    bytes: Arc<InMemoryBackend>,
    sync_ms: Arc<AtomicU64>,
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> Result<u64, io::Error> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        thread::sleep(Duration::from_millis(self.sync_ms.load(Relaxed)));
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.bytes.write(offset, data)
    }
}

impl SlowDisk {
    fn new() -> Self {
        Self { bytes: Arc::new(InMemoryBackend::new()), sync_ms: Arc::default() }
    }

    fn open(&self) -> Disk {
        // The thread that writes the log ends a moment after Raft.
        while Arc::strong_count(&self.bytes) > 1 {
            thread::yield_now();
        }
        Disk::on(Database::builder().create_with_backend(self.clone()).unwrap())
    }

    /// A node that starts on it, as one that expects others or not.
    async fn node(&self, expect: Option<u32>) -> (RaftGroup, Arc<CallServer>, NodeId) {
        let disk = self.open();
        let on_disk = disk.start(1).unwrap();
        let clock = Clock::start();
        let timing = SessionTiming::of(Duration::from_secs(2));
        let start = NodeStart { node: on_disk.node, incarnation: on_disk.incarnation };
        let me = MemberId { name: "n3".into(), incarnation: on_disk.incarnation };
        let config = GroupConfig {
            identity: Arc::new(Identity {
                me,
                id: on_disk.node,
                cluster: "c".to_owned(),
                keys: Arc::default(),
                tls: None,
                stats: Arc::default(),
            }),
            row: MemberRow {
                id: on_disk.node,
                name: "n3".to_owned(),
                incarnation: on_disk.incarnation,
                peer: ([127, 0, 0, 1], 9).into(),
                zone: None,
                weight: Weight::default(),
                keeps: false,
            },
            // What is on the disk is there after a restart; where, it does not know.
            data_dir: None::<PathBuf>,
            expect,
            join: Vec::new(),
            alive: tokio::sync::watch::channel(crate::member::Alive::default()).1,
            ownership: Arc::new(SlotOwnership::new(start, timing, clock.now())),
            calls: Arc::default(),
            clock,
        };
        let group = RaftGroup::start(config, disk).await.unwrap();
        let raft = Arc::new(RaftService::new(group.shared()));
        // It refuses what is no call of Raft.
        let service = || Arc::clone(&raft) as Arc<dyn Service>;
        let services = Services { raft: service(), rules: service(), leader: service(), owner: service() };
        let server = Arc::new(CallServer::new(raft.clone(), services, Arc::default()));
        (group, server, on_disk.node)
    }
}

fn cluster(leader: NodeId) -> ClusterId {
    ClusterId::from_bytes([leader as u8; 16])
}

fn name(node: NodeId) -> String {
    format!("n{node}")
}

fn id(leader: NodeId, index: u64) -> LogId<NodeId> {
    LogId::new(CommittedLeaderId::new(leader, leader), index)
}

/// The first entries of a cluster of one, which takes a node in.
fn first_entries(leader: NodeId, node: NodeId) -> AppendEntriesRequest<Group> {
    let nodes: BTreeMap<NodeId, RaftNode> =
        [leader, node].into_iter().map(|id| (id, RaftNode::default())).collect();
    let membership = Membership::new(vec![BTreeSet::from([leader])], nodes);
    let founding = Founding { cluster: cluster(leader), hash_secret: [leader as u8; 16] };
    let payloads = [
        EntryPayload::Membership(membership),
        EntryPayload::Normal(Command::Found(founding)),
        EntryPayload::Blank,
    ];
    let entries = (0..).zip(payloads).map(|(index, payload)| Entry { log_id: id(leader, index), payload });
    AppendEntriesRequest {
        vote: Vote::new_committed(leader, leader),
        prev_log_id: None,
        entries: entries.collect(),
        leader_commit: Some(id(leader, 2)),
    }
}

async fn send(server: &CallServer, from: NodeId, to: NodeId, call: Call) -> Reply {
    let peer = Peer { member: MemberId { name: name(from).into(), incarnation: 1 }, id: from };
    server.answer(&peer, Envelope { cluster: cluster(from), from, to, call }, 0).await
}

async fn append(server: &CallServer, from: NodeId, to: NodeId) -> bool {
    match send(server, from, to, Call::Append(first_entries(from, to))).await {
        Reply::Append(answer) => matches!(answer, Ok(AppendEntriesResponse::Success)),
        Reply::Refused(reason) => {
            assert!(reason.contains("belongs to the cluster"), "{reason}");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_leaders_a_node_follows_the_one_that_came_first_with_its_rules_and_no_other() {
    for (sync_ms, apart_ms) in [(200, 0), (200, 30), (200, 150), (60, 5), (0, 0), (0, 1)] {
        for (first, second) in [(ONE, TWO), (TWO, ONE)] {
            let slow = SlowDisk::new();
            let (group, server, me) = slow.node(None).await;
            slow.sync_ms.store(sync_ms, Relaxed);
            let later = async {
                sleep(Duration::from_millis(apart_ms)).await;
                append(&server, second, me).await
            };
            let (one, other) = tokio::join!(append(&server, first, me), later);
            assert!(one != other, "{sync_ms} {apart_ms}: exactly one is followed: {one} {other}");
            let followed = if one { first } else { second };
            let shared = group.shared();
            let mut applied = shared.applied.subscribe();
            let founded = applied.wait_for(|applied| applied.state.founding.is_some());
            let founded = tokio::time::timeout(Duration::from_secs(10), founded).await.unwrap().unwrap();
            assert_eq!(founded.state.founding.as_ref().unwrap().cluster, cluster(followed));
            drop(founded);
            assert_eq!(shared.belonging.get(), Some(cluster(followed)));
            // And so it stays.
            let other = if followed == ONE { TWO } else { ONE };
            assert!(!append(&server, other, me).await);
            assert!(append(&server, followed, me).await);
            slow.sync_ms.store(0, Relaxed);
            group.stop_raft().await;
        }
    }
}

/// The window before anything of the log is on the disk: the decision is, and the next start knows it.
#[tokio::test]
async fn a_node_that_ends_before_it_has_an_entry_is_bound_all_the_same() {
    let slow = SlowDisk::new();
    let me = {
        let disk = slow.open();
        let me = disk.start(1).unwrap().node;
        let belonging = Belonging::of(&disk, tokio::time::Instant::now()).unwrap();
        belonging.bind(cluster(ONE), &disk, None).await.unwrap();
        assert!(belonging.bind(cluster(TWO), &disk, None).await.is_err());
        me
    };
    let (group, server, again) = slow.node(Some(1)).await;
    assert_eq!(again, me);
    assert!(!append(&server, TWO, me).await);
    let refused = send(&server, TWO, me, Call::Found(proposal(TWO, me))).await;
    assert!(
        matches!(&refused, Reply::Found(Err(reason)) if reason.contains("belongs to the cluster")),
        "{refused:?}"
    );
    assert!(append(&server, ONE, me).await);
    group.stop_raft().await;
}

fn proposal(from: NodeId, me: NodeId) -> Proposal {
    let node = |id| RaftNode { name: name(id), ..RaftNode::default() };
    let founders = [from, me].into_iter().map(|id| (id, node(id))).collect();
    Proposal { cluster: cluster(from), founders }
}

#[tokio::test]
async fn a_promise_is_kept_over_a_restart_until_a_cluster_comes_or_the_proposer_gives_it_up() {
    let slow = SlowDisk::new();
    let (group, server, me) = slow.node(Some(3)).await;
    let found = |reply: Reply| matches!(reply, Reply::Found(Ok(())));
    let vote = || Call::Vote(VoteRequest { vote: Vote::new(2, TWO), last_log_id: Some(id(1, 0)) });
    assert!(matches!(send(&server, TWO, me, vote()).await, Reply::Refused(_)), "nothing was promised");
    assert!(found(send(&server, ONE, me, Call::Found(proposal(ONE, me))).await));
    assert!(found(send(&server, ONE, me, Call::Found(proposal(ONE, me))).await), "again");
    assert!(!found(send(&server, TWO, me, Call::Found(proposal(TWO, me))).await));
    group.stop_raft().await;
    drop((group, server));

    let (group, server, me) = slow.node(Some(3)).await;
    assert!(!found(send(&server, TWO, me, Call::Found(proposal(TWO, me))).await));
    send(&server, TWO, me, Call::Release(cluster(ONE))).await;
    assert!(!found(send(&server, TWO, me, Call::Found(proposal(TWO, me))).await), "it was not its promise");
    send(&server, ONE, me, Call::Release(cluster(ONE))).await;
    assert!(found(send(&server, TWO, me, Call::Found(proposal(TWO, me))).await));
    let introduced = send(&server, 9, me, Call::Introduce).await;
    let Reply::Introduced(introduction) = introduced else { panic!("{introduced:?}") };
    assert_eq!((introduction.standing, introduction.has_log), (Standing::Promised(TWO), false));
    // A vote binds: Raft has been given something.
    let voted = send(&server, TWO, me, vote()).await;
    assert!(matches!(&voted, Reply::Vote(Ok(answer)) if answer.vote_granted), "{voted:?}");
    assert!(!append(&server, ONE, me).await);
    assert!(append(&server, TWO, me).await);
    group.stop_raft().await;
}

/// All but the proposer were down when it stood for election for the first time: it asks again when they are back, and they have
/// to find it to say yes, though they have no log that names it.
#[tokio::test]
async fn a_founder_without_a_log_finds_who_asks_for_its_vote_by_its_promise_also_after_a_restart() {
    let slow = SlowDisk::new();
    let (group, server, me) = slow.node(Some(3)).await;
    let known = |group: &RaftGroup, id| {
        let shared = group.shared();
        shared.raft.running().and_then(|running| shared.node_of(&running, id)).map(|node| node.name)
    };
    assert_eq!(known(&group, ONE), None);
    send(&server, ONE, me, Call::Found(proposal(ONE, me))).await;
    assert_eq!(known(&group, ONE), Some(name(ONE)));
    group.stop_raft().await;
    drop((group, server));
    let (group, _server, _) = slow.node(Some(3)).await;
    assert_eq!((known(&group, ONE), known(&group, TWO)), (Some(name(ONE)), None));
    group.stop_raft().await;
}

/// So a founder without a cluster can find one that is bound already.
#[tokio::test]
async fn whoever_can_be_reached_says_so_to_nodes_of_no_cluster_and_of_others() {
    let (group, server, me) = SlowDisk::new().node(None).await;
    for bound in [false, true] {
        if bound {
            assert!(append(&server, ONE, me).await);
        }
        for from in [ONE, TWO] {
            let reply = send(&server, from, me, Call::Reach).await;
            assert!(matches!(&reply, Reply::Reached), "{bound} {from}: {reply:?}");
        }
    }
    group.stop_raft().await;
}

/// What no log is made of is refused before the node is bound by it.
#[tokio::test]
async fn entries_with_a_gap_bind_nobody() {
    let (group, server, me) = SlowDisk::new().node(None).await;
    for wrong in [(0, 1), (1, 2), (2, u64::MAX)] {
        let mut request = first_entries(ONE, me);
        request.entries[wrong.0].log_id.index = wrong.1 + 7_u64.min(u64::MAX - wrong.1);
        let reply = send(&server, ONE, me, Call::Append(request)).await;
        assert!(matches!(&reply, Reply::Refused(_)), "{reply:?}");
    }
    assert_eq!(group.shared().belonging.get(), None);
    assert!(append(&server, TWO, me).await);
    group.stop_raft().await;
}

#[tokio::test]
async fn a_node_that_only_joins_founds_nothing() {
    let (group, server, me) = SlowDisk::new().node(None).await;
    let reply = send(&server, ONE, me, Call::Found(proposal(ONE, me))).await;
    assert!(matches!(&reply, Reply::Found(Err(reason)) if reason.contains("only joins")), "{reply:?}");
    group.stop_raft().await;
}
