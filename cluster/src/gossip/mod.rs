//! Who seems to be alive: membership by gossip (chitchat), a hint and never a right.

mod foreign;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod intake;
mod keys;
mod mark;
mod message;
mod seal;
mod starts;
mod transport;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::foreign::ForeignNodes;
pub use self::keys::is_valid_name;
use self::{
    foreign::{Invited, Seeds},
    intake::Intake,
    keys::{
        DEAD_MEMBER_GRACE, KEY_EXPECT, KEY_GROUP, KEY_GRPC, KEY_HTTP, KEY_IN_FORCE, KEY_NODE, KEY_STATE,
        KEY_WEIGHT, KEY_ZONE, LONGEST_PAUSE, PHI_THRESHOLD,
    },
    seal::Seal,
    transport::{Kinship, SealedUdp},
};
use crate::{
    fabric::Datagrams,
    ids::{ClusterId, NodeId, Weight},
    key::KeyRing,
    member::{Member, MemberId, MemberState},
    stats::GossipStats,
};

/// What a node needs to know to gossip.
pub(crate) struct GossipConfig {
    pub(crate) me: MemberId,
    pub(crate) advertise: SocketAddr,
    pub(crate) cluster: String,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) seeds: Vec<String>,
    /// This node was told of others, by address or by name.
    pub(crate) joins: bool,
    pub(crate) interval: Duration,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) zone: Option<String>,
    pub(crate) weight: Weight,
    pub(crate) node: NodeId,
    /// The cluster in whose group this node has a part.
    pub(crate) group: Option<ClusterId>,
    /// To which cluster this node belongs, at any time.
    pub(crate) belongs: Box<dyn Fn() -> Option<ClusterId> + Send + Sync>,
    /// Who of other clusters is heard of.
    pub(crate) foreign: Arc<ForeignNodes>,
    /// How many nodes this one expects to found a cluster with.
    pub(crate) expect: Option<u32>,
}

/// This node's part in the gossip.
pub(crate) struct Gossip {
    handle: Arc<ChitchatHandle>,
    live: watch::Receiver<BTreeMap<ChitchatId, NodeState>>,
    seeds: Arc<Seeds>,
}

impl Gossip {
    pub(crate) async fn start(
        config: GossipConfig,
        socket: Datagrams,
        stats: Arc<GossipStats>,
    ) -> anyhow::Result<Self> {
        let seal = Seal::new(&config.cluster, config.keys);
        let mut about_me = vec![
            (KEY_STATE.to_owned(), MemberState::Joining.as_str().to_owned()),
            (KEY_HTTP.to_owned(), config.http.to_string()),
            (KEY_GRPC.to_owned(), config.grpc.to_string()),
            (KEY_NODE.to_owned(), format!("{:016x}", config.node)),
            (KEY_WEIGHT.to_owned(), config.weight.to_string()),
        ];
        about_me.extend(config.zone.map(|zone| (KEY_ZONE.to_owned(), zone)));
        about_me.extend(config.expect.map(|expect| (KEY_EXPECT.to_owned(), expect.to_string())));
        about_me.extend(config.group.map(|group| (KEY_GROUP.to_owned(), group.to_string())));
        let chitchat = ChitchatConfig {
            chitchat_id: ChitchatId::new(config.me.name, config.me.incarnation, config.advertise),
            cluster_id: config.cluster,
            gossip_interval: config.interval,
            listen_addr: socket.local_addr()?,
            seed_nodes: config.seeds,
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI_THRESHOLD,
                sampling_window_size: 100,
                max_interval: config.interval * LONGEST_PAUSE,
                initial_interval: config.interval / 3,
                dead_node_grace_period: DEAD_MEMBER_GRACE,
            },
            marked_for_deletion_grace_period: DEAD_MEMBER_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let intake = Intake::new(chitchat.chitchat_id.clone(), config.interval);
        let seeds = Arc::new(Seeds::default());
        chitchat.seed_nodes.iter().filter_map(|seed| seed.parse().ok()).for_each(|seed| seeds.add(seed));
        let invited = Invited::new(Arc::clone(&seeds), config.joins, Instant::now());
        let kinship = Kinship { belongs: config.belongs, foreign: config.foreign, invited };
        let transport = SealedUdp::new(socket, seal, intake, kinship, stats);
        let handle = spawn_chitchat(chitchat, about_me, &transport).await?;
        let live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        Ok(Self { handle: Arc::new(handle), live, seeds })
    }

    /// Begins to gossip with whoever is at an address of which this node was told.
    pub(crate) fn greeter(&self) -> impl Fn(SocketAddr) + Send + 'static {
        let (handle, seeds) = (Arc::clone(&self.handle), Arc::clone(&self.seeds));
        move |address| {
            seeds.add(address);
            // It may have stopped.
            let _ = handle.gossip(address);
        }
    }

    /// Signals each change of the live members.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<ChitchatId, NodeState>> {
        self.live.clone()
    }

    /// Tells the others where this node stands.
    pub(crate) async fn announce(&self, state: MemberState) {
        self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set(KEY_STATE, state.as_str())).await;
    }

    /// Tells the others of this node's part in the Raft group.
    pub(crate) async fn announce_group(&self, group: Option<ClusterId>, in_force: u64) {
        self.handle
            .with_chitchat(|chitchat| {
                let about_me = chitchat.self_node_state();
                match group {
                    Some(group) => about_me.set(KEY_GROUP, group.to_string()),
                    // It was left: nothing of it ever counted.
                    None if about_me.get(KEY_GROUP).is_some() => about_me.set(KEY_GROUP, ""),
                    None => {}
                }
                about_me.set(KEY_IN_FORCE, in_force.to_string());
            })
            .await;
    }

    /// Ends with the reason when gossip has died.
    pub(crate) async fn died(&self) -> String {
        match self.handle.termination_watcher().await {
            Ok(()) => "gossip has stopped".to_owned(),
            Err(error) => format!("gossip has failed: {error}"),
        }
    }

    pub(crate) fn stop(&self) {
        // It may have stopped by itself already.
        let _ = self.handle.initiate_shutdown();
    }
}

/// The live members, each name once: after a restart the newest incarnation counts, but `me` stands for its name, whoever else
/// is said to have it. What another node says of itself is checked here; one that does not make sense is left out. So is one of
/// another cluster than `ours`.
pub(crate) fn members_of(
    live: &BTreeMap<ChitchatId, NodeState>,
    me: Option<&MemberId>,
    ours: Option<ClusterId>,
) -> Vec<Member> {
    let mut newest: BTreeMap<Arc<str>, Member> = BTreeMap::new();
    for (id, about) in live {
        let Some(member) = member_of(id, about).filter(|member| !member.is_foreign_to(ours)) else {
            continue;
        };
        let is_me = |member: &Member| Some(&member.id) == me;
        let counts = |known: &Member| !is_me(known) && known.id.incarnation < member.id.incarnation;
        if is_me(&member) || newest.get(&member.id.name).is_none_or(counts) {
            newest.insert(Arc::clone(&member.id.name), member);
        }
    }
    newest.into_values().collect()
}

/// The nodes of other clusters, of which a node has told that belongs to none yet.
pub(crate) fn foreigners_of(
    live: &BTreeMap<ChitchatId, NodeState>,
    ours: Option<ClusterId>,
) -> Vec<(SocketAddr, ClusterId)> {
    let foreign = live.iter().filter_map(|(id, about)| member_of(id, about));
    foreign
        .filter(|member| member.is_foreign_to(ours))
        .filter_map(|member| Some((member.peer, member.group?)))
        .collect()
}

/// Names under which several nodes are there that are not about to go, with their addresses. For a moment that is so after a crash.
pub(crate) fn twins_of(
    live: &BTreeMap<ChitchatId, NodeState>,
    ours: Option<ClusterId>,
) -> BTreeMap<Arc<str>, Vec<SocketAddr>> {
    let mut places: BTreeMap<Arc<str>, Vec<SocketAddr>> = BTreeMap::new();
    for member in live.iter().filter_map(|(id, about)| member_of(id, about)) {
        if member.state != MemberState::Leaving && !member.is_foreign_to(ours) {
            places.entry(member.id.name).or_default().push(member.peer);
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

/// The newest of those that are said to have this node's name, and to have started after it.
pub(crate) fn name_conflict_of(
    live: &BTreeMap<ChitchatId, NodeState>,
    me: &MemberId,
    ours: Option<ClusterId>,
) -> Option<Member> {
    let members = live.iter().filter_map(|(id, about)| member_of(id, about));
    let members = members.filter(|member| !member.is_foreign_to(ours));
    let later = members.filter(|member| member.id.name == me.name && member.id.incarnation > me.incarnation);
    later.max_by_key(|member| member.id.incarnation)
}

fn member_of(id: &ChitchatId, about: &NodeState) -> Option<Member> {
    let state = about.get(KEY_STATE).and_then(MemberState::parse)?;
    is_valid_name(&id.node_id).then(|| Member {
        id: MemberId { name: Arc::clone(&id.node_id), incarnation: id.generation_id },
        state,
        peer: id.gossip_advertise_addr,
        http: about.get(KEY_HTTP).and_then(|http| http.parse().ok()),
        grpc: about.get(KEY_GRPC).and_then(|grpc| grpc.parse().ok()),
        zone: about.get(KEY_ZONE).map(str::to_owned),
        weight: about
            .get(KEY_WEIGHT)
            .and_then(|weight| Weight::new(weight.parse().ok()?))
            .unwrap_or_default(),
        node: about.get(KEY_NODE).and_then(|hex| NodeId::from_str_radix(hex, 16).ok()),
        group: about.get(KEY_GROUP).and_then(ClusterId::parse),
        expects: about.get(KEY_EXPECT).is_some(),
        in_force: about.get(KEY_IN_FORCE).and_then(|index| index.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(name: &str, incarnation: u64) -> (ChitchatId, NodeState) {
        let mut about = NodeState::for_test();
        about.set(KEY_STATE, "serving");
        (ChitchatId::new(name, incarnation, ([127, 0, 0, 1], 7803).into()), about)
    }

    #[test]
    fn of_each_name_the_newest_start_counts_but_a_node_is_itself() {
        let live =
            BTreeMap::from([start("a", 1), start("a", 2), start("b", 5), start("b", 9), start("b", 7)]);
        let me = |incarnation| MemberId { name: "b".into(), incarnation };
        let seen_by = |me: Option<&MemberId>| -> Vec<u64> {
            members_of(&live, me, None).iter().map(|member| member.id.incarnation).collect()
        };
        assert_eq!(seen_by(None), [2, 9]);
        for (mine, later) in [(5, Some(9)), (7, Some(9)), (9, None)] {
            assert_eq!(seen_by(Some(&me(mine))), [2, mine]);
            let name_conflict = name_conflict_of(&live, &me(mine), None);
            assert_eq!(name_conflict.map(|member| member.id.incarnation), later);
        }
    }

    #[test]
    fn nodes_of_other_clusters_are_no_members_and_have_nobodys_name() {
        let of = |name: &str, incarnation, cluster: Option<ClusterId>| {
            let (id, mut about) = start(name, incarnation);
            cluster.iter().for_each(|cluster| about.set(KEY_GROUP, cluster.to_string()));
            (id, about)
        };
        let [ours, theirs] = [1, 2].map(|byte| ClusterId::from_bytes([byte; 16]));
        let live = BTreeMap::from([
            of("a", 1, Some(ours)),
            of("b", 1, None),
            of("c", 1, Some(theirs)),
            of("a", 2, Some(theirs)),
        ]);
        let me = MemberId { name: "a".into(), incarnation: 1 };
        let names = |ours| {
            let members = members_of(&live, Some(&me), ours);
            members.iter().map(|member| member.id.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(Some(ours)), "a@1 b@1");
        assert_eq!(names(None), "a@1 b@1 c@1", "who belongs to none yet sees all");
        assert_eq!(name_conflict_of(&live, &me, Some(ours)), None);
        assert_eq!(twins_of(&live, Some(ours)), BTreeMap::new());
        let twins = twins_of(&live, None);
        assert_eq!(
            twins.into_iter().map(|(name, at)| (name, at.len())).collect::<Vec<_>>(),
            [("a".into(), 2)]
        );
        assert!(name_conflict_of(&live, &me, None).is_some());
        assert_eq!(foreigners_of(&live, Some(ours)).len(), 2);
        assert_eq!(foreigners_of(&live, None), []);
    }

    #[test]
    fn a_name_is_short_and_plain() {
        assert!(is_valid_name("node-1.eu_west"));
        assert!(!is_valid_name(""));
        assert!(!is_valid_name("a b"));
        assert!(!is_valid_name(&"x".repeat(65)));
    }
}
