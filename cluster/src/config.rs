//! What a node is told about its cluster.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tidegate_tls::{Watched, files::FileError, peers::PeerConfigs};

use crate::{ids::Weight, key::KeyRing};

/// The port for peers that an entry of `join` without one means.
pub const DEFAULT_PEER_PORT: u16 = 7803;

/// What an entry of `join` that is a service, whose records (SRV) name nodes, begins with.
pub const SERVICE_PREFIX: &str = "dnssrv+";

/// Settings of a node as a member of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The node's name, unique in the cluster; see [`crate::is_valid_name`].
    pub name: String,
    /// The cluster's name: nodes of clusters with other names are refused.
    pub cluster: String,
    /// Where the node stands, told to the others.
    pub zone: Option<String>,
    /// How many slots the node should own beside the others.
    pub weight: Weight,
    /// The address to listen on.
    pub listen: IpAddr,
    /// The address that the others are told; by default `listen`, or the one that packets to the others leave from.
    pub advertise: Option<IpAddr>,
    /// The port for peers: TCP for checks, UDP for gossip.
    pub peer_port: u16,
    /// The node's HTTP address, told to the others (`0.0.0.0` is replaced by the advertised address).
    pub http: SocketAddr,
    /// The same of its gRPC address.
    pub grpc: SocketAddr,
    /// Peer addresses of other nodes, `HOST[:PORT]`, or `dnssrv+SERVICE`.
    pub join: Vec<String>,
    /// How many nodes found a new cluster. `None`: this node only joins one; with no `join` either, it is one alone.
    pub bootstrap_expect: Option<u32>,
    /// The cluster's secrets.
    pub keys: Arc<KeyRing>,
    /// TLS between the nodes; none: their streams are sealed, and not encrypted.
    pub tls: Option<PeerTls>,
    /// Where the node keeps its part of the replicated log. `None`: in memory, and it is a new member at each start.
    pub data_dir: Option<PathBuf>,
    /// Rules to begin with, by domain: written where the cluster has none.
    pub rules: Vec<(String, String)>,
    /// How long things may take.
    pub timing: Timing,
}

/// TLS between the nodes.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// What this node shows the others, and whom it believes. Streams that are opened when it changes have the new one.
    pub configs: Arc<Watched<PeerConfigs, FileError>>,
    /// Whether all others must have it.
    pub encryption: PeerEncryption,
}

/// Whether streams between nodes may be plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEncryption {
    /// With peers that have no TLS yet; with all others they are not.
    Optional,
    /// Never.
    Required,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A check is answered within this time.
    pub check_timeout: Duration,
    /// How often the nodes gossip. A dead node is noticed after 4 to 7 times this long.
    pub gossip_interval: Duration,
    /// How long nobody else gets the slots of a node that has fallen silent. When that was the leader, the election of
    /// another comes on top, and both together must be less than five seconds.
    pub session: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            check_timeout: Duration::from_millis(100),
            gossip_interval: Duration::from_millis(300),
            session: Duration::from_millis(2200),
        }
    }
}

impl Timing {
    /// How long an owner is waited for: what is left of the check timeout is for answering without it.
    pub(crate) fn forward_timeout(&self) -> Duration {
        self.check_timeout * 3 / 4
    }
}
