//! What a node knows of founding a cluster, before it belongs to one and afterwards.

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{belonging::Foreign, survey::Survey};

/// What a node knows of founding a cluster.
pub(crate) struct Founding {
    /// How many nodes this one expects to found a cluster with; `None`: it only joins one.
    pub(crate) expect: Option<u32>,
    pub(crate) survey: Survey,
    /// A second cluster of this node's cluster's name.
    pub(crate) foreign: watch::Sender<Option<Foreign>>,
    /// The cluster can never have a leader: this node leaves it.
    pub(crate) abandoned: Notify,
    /// What keeps this node from founding a cluster.
    pub(crate) obstacle: watch::Sender<Option<String>>,
}

impl Founding {
    /// `join`: as in [`crate::ClusterConfig::join`], each with a port.
    pub(crate) fn new(expect: Option<u32>, join: &[String], now: Instant) -> Self {
        Self {
            expect,
            survey: Survey::new(join, now),
            foreign: watch::Sender::default(),
            abandoned: Notify::new(),
            obstacle: watch::Sender::default(),
        }
    }

    pub(crate) fn set_obstacle(&self, obstacle: Option<String>) {
        self.obstacle.send_if_modified(|known| {
            let is_news = *known != obstacle;
            *known = obstacle;
            is_news
        });
    }
}
