//! The nodes of another cluster, of which one gets an address that a node of this one had.

use std::time::Duration;

use serde_json::Value;

use crate::{cluster::Cluster, node::Node};

/// They run on the same machine.
const PATIENCE: Duration = Duration::from_millis(250);

/// A cluster of two nodes. One alone would give way to a larger cluster of its name, as it says.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) cluster: Cluster,
    /// The one that gets the address.
    pub(super) name: String,
    /// Its cluster, as it said before it got the address.
    pub(super) id: String,
    /// Whether it has the key of the other cluster.
    pub(super) shares_key: bool,
    /// Whether it has been ready at the address.
    pub(super) was_ready: bool,
    /// When the one that had the address starts again, from then on.
    pub(super) returns_after: u64,
}

impl Stranger {
    pub(super) fn node(&self) -> &Node {
        self.cluster.node(&self.name)
    }

    /// The cluster that both belong to, when they do.
    pub(super) fn founded(&self) -> Option<String> {
        let ids: Vec<Option<String>> = self.cluster.nodes.iter().map(|node| id_of(&status(node)?)).collect();
        let first = ids.first()?.clone()?;
        ids.iter().all(|id| id.as_ref() == Some(&first)).then_some(first)
    }

    /// What they should not say.
    pub(super) fn complaint(&mut self) -> Option<String> {
        for node in &self.cluster.nodes {
            let Some(status) = status(node) else { continue };
            let (name, id) = (&node.name, &self.id);
            if let Some(now) = status["raft"]["cluster"].as_str().filter(|now| now != id) {
                return Some(format!("{name} of the cluster {id} says that it belongs to {now}"));
            }
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            let names = members.iter().filter_map(|member| member["name"].as_str());
            let others: Vec<&str> =
                names.filter(|one| self.cluster.nodes.iter().all(|own| own.name != *one)).collect();
            if !others.is_empty() {
                return Some(format!("{name} of another cluster lists {}", others.join(", ")));
            }
            if *name != self.name {
                continue;
            }
            if status["ready"] == true {
                self.was_ready = true;
            } else if self.was_ready {
                return Some(format!("{name} was ready there, and is not any more: {}", readiness(node)));
            }
        }
        None
    }

    /// How it is known that the clusters have met.
    pub(super) fn has_met(&self) -> Option<String> {
        let node = self.node();
        let page = node.client(PATIENCE).get("/metrics").ok()?.text();
        let sum = |name: &str| -> f64 {
            let values = page.lines().filter(|line| line.starts_with(name));
            values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        if self.shares_key {
            let met = sum("tidegate_foreign_cluster ") > 0.0;
            return met.then(|| "it says that it has met a node of a second cluster".to_owned());
        }
        let refused = sum("tidegate_gossip_rejected_total");
        (refused > 0.0).then(|| format!("it has refused {refused} datagrams of another key"))
    }
}

fn status(node: &Node) -> Option<Value> {
    let answer = node.client(PATIENCE).get("/v1/cluster").ok()?;
    serde_json::from_slice(&answer.body).ok()
}

fn id_of(status: &Value) -> Option<String> {
    (status["ready"] == true).then(|| status["raft"]["cluster"].as_str().map(str::to_owned)).flatten()
}

fn readiness(node: &Node) -> String {
    node.client(PATIENCE).get("/readyz").map_or_else(|error| error.to_string(), |answer| answer.text())
}
