//! What the front ends of a node share: the rules in force, who decides, and what is counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tidegate_cluster::{Clock, Cluster, Readiness, Router};
use tidegate_limiter::cluster::{Rules, Store};
use tokio::sync::Semaphore;

use crate::{
    accept::ServerStats,
    access::Access,
    allowed_hosts::AllowedHosts,
    client_address::Trust,
    config::{EnvoyHeaders, LegacyHeaders},
    connections::client_of,
    desk::{BodyRooms, Desk},
    ending::Ending,
    metrics::WorkerMetrics,
    parts::Part,
    tls::Certificates,
};

/// A running node.
pub(crate) struct Node {
    /// The node's name.
    pub(crate) name: String,
    /// The rules in force: a snapshot, swapped whole.
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    pub(crate) router: Arc<Router>,
    pub(crate) cluster: Cluster,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Clock,
    /// Who may do what.
    pub(crate) access: Arc<Access>,
    /// Whom proxies may speak for.
    pub(crate) trust: Trust,
    /// By which names people ask for it.
    pub(crate) allowed_hosts: AllowedHosts,
    pub(crate) legacy_headers: LegacyHeaders,
    /// By worker.
    pub(crate) metrics: Vec<WorkerMetrics>,
    pub(crate) http: Arc<ServerStats>,
    pub(crate) grpc: Arc<ServerStats>,
    pub(crate) resp: Arc<ServerStats>,
    /// Where gRPC is listened for.
    pub(crate) grpc_address: SocketAddr,
    /// What Envoy is told to add to answers.
    pub(crate) envoy_headers: EnvoyHeaders,
    /// For bodies that are being read, and for answers.
    pub(crate) body_rooms: BodyRooms,
    /// For work with rules.
    pub(crate) desk: Desk,
    /// Room for notes that wait to be written into the audit trail.
    pub(crate) notes: Arc<Semaphore>,
    /// How far this node is on its way to its end.
    pub(crate) ending: Ending,
    /// What it shows others, and the cluster keys.
    pub(crate) certificates: Arc<Certificates>,
}

impl Node {
    /// The client at this address, where each client has a part of something; none: a trusted proxy, which asks for many.
    pub(crate) fn client(&self, peer: IpAddr) -> Option<IpAddr> {
        (!self.trust.is_proxy(peer)).then(|| client_of(peer))
    }

    /// Room for the body of a request.
    pub(crate) fn body_part(&self, peer: IpAddr) -> Part {
        self.body_rooms.ordinary.part(self.client(peer))
    }

    /// The same of a call that only operators and administrators may make, where that needs a token.
    pub(crate) fn administrative_body_part(&self, peer: IpAddr) -> Part {
        self.body_rooms.administrative.part(self.client(peer))
    }

    /// Room for a large answer, until its client has taken it.
    pub(crate) fn untaken_part(&self, peer: IpAddr) -> Part {
        self.body_rooms.untaken.part(self.client(peer))
    }

    /// Whether this node is to be asked: it decides checks, and is not about to stop.
    pub(crate) fn readiness(&self) -> Readiness {
        if self.ending.is_closing() {
            return Readiness::NotReady("this node stops".to_owned());
        }
        self.cluster.readiness()
    }
}
