//! A node of another cluster, with the same name and key, at an address that a node of this cluster had before.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tidegate_cluster::{Cluster, ClusterConfig, ids::ClusterId, simulation::disk};
use tidegate_limiter::{
    cluster::{Rules, Store, StoreConfig},
    rules::HashSecret,
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::shared::{Shared, name, port_after};

/// Where it founds its cluster: nobody of this one was ever there.
const HOME_PORT: u16 = 9_993;
/// How long that may take.
const FOUNDED_WITHIN: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const STORE: StoreConfig = StoreConfig { max_memory: 1 << 20, shards: 8 };

/// Runs on the machine of the node that had the address, until that ends.
pub(super) struct Stranger(Cluster);

impl Stranger {
    /// Founds its cluster elsewhere, if that has not been, and gets the address that the node had after so many moves.
    /// `like`: how the node is started that had the address.
    pub(super) async fn start(
        shared: &Shared,
        node: usize,
        moves: u16,
        like: impl Fn() -> ClusterConfig,
    ) -> turmoil::Result<Self> {
        let founded = shared.strangers.borrow().get(&node).map(|(id, _)| *id);
        let id = match founded {
            Some(id) => id,
            None => {
                let at_home = start(shared, node, HOME_PORT, like()).await?;
                let id = timeout(FOUNDED_WITHIN, founded_by(&at_home)).await?;
                at_home.stop().await;
                // What it still has open is gone with it.
                disk::power_off(&shared.stranger_disk(node), || true);
                id
            }
        };
        let cluster = start(shared, node, port_after(moves), like()).await?;
        shared.strangers.borrow_mut().insert(node, (id, cluster.probe()));
        Ok(Self(cluster))
    }

    /// It ends with the node on whose machine it is.
    pub(super) async fn stop(self) {
        self.0.stop().await;
    }
}

async fn founded_by(cluster: &Cluster) -> ClusterId {
    loop {
        if let Some(id) = cluster.probe().cluster() {
            return id;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn start(shared: &Shared, node: usize, port: u16, like: ClusterConfig) -> turmoil::Result<Cluster> {
    let clock = shared.clocks[node];
    let rules = Arc::new(ArcSwap::from_pointee(Rules::empty(&HashSecret::new([0; 16]))));
    let store = || Store::new(STORE, clock.now());
    let config = ClusterConfig {
        name: format!("s{}", name(node)),
        peer_port: port,
        join: Vec::new(),
        bootstrap_expect: None,
        data_dir: Some(shared.stranger_disk(node)),
        ..like
    };
    let workers = vec![Handle::current()];
    Ok(Cluster::start(config, Arc::new(store()), store(), rules, clock, workers).await?)
}
