//! Reasons for which a node is not ready, for its operator.

use tokio::time::Instant;

use super::{Controller, Standing};
use crate::{ids::ClusterId, rules::status::GroupRole};

impl Controller {
    /// What keeps this node from having the cluster's rules.
    pub(super) fn waiting_for_rules(&self) -> Option<String> {
        if self.is_complete() {
            return None;
        }
        let group = self.ledger.status();
        if let Some(trouble) = group.trouble {
            return Some(trouble);
        }
        let other = self.live.iter().find(|member| member.group.is_some() && member.group != group.cluster);
        match (group.role, other) {
            (GroupRole::None, Some(_)) => {
                Some("the leader of the Raft group to take this node in".to_owned())
            }
            (GroupRole::None, None) => None,
            (_, _) if group.leader.is_none() => {
                Some(format!("a leader of the Raft group (voters: {})", group.voters.join(", ")))
            }
            (_, _) => Some("the rules of the cluster".to_owned()),
        }
    }

    /// A node that was told of others, and has the log of another cluster than all that it hears of; and what to do. Where one of its
    /// own cluster is there, that decides: others may have got the address of a former node.
    pub(super) fn foreign_cluster(&self) -> Option<String> {
        let ours = self.ledger.group()?;
        if !self.joins || self.status.borrow().was_ready() || self.is_among_its_own() {
            // It is the others who came.
            return None;
        }
        let heard = self.foreign_nodes.heard(Instant::now());
        let (address, theirs) = heard.iter().find(|(_, theirs)| **theirs != ours)?;
        Some(format!(
            "its own cluster: the data directory belongs to the cluster {ours}, the nodes here to {theirs} (heard of at {address}); start it with an empty --data-dir to join these, or with another --join"
        ))
    }

    /// Whether another node of its cluster is there.
    pub(super) fn is_among_its_own(&self) -> bool {
        let ours = self.belongs_to();
        let mut others = self.live.iter().filter(|member| member.id != self.identity.me);
        others.any(|member| member.group.is_some() && member.group == ours)
    }

    pub(super) fn belongs_to(&self) -> Option<ClusterId> {
        self.ledger.belongs_to()
    }

    /// A second cluster of the same name that has more nodes than this node's, which is alone. With others of its own cluster it goes
    /// on: else any cluster that has got the address of one of its nodes could end it.
    pub(super) fn outnumbered(&self) -> Option<String> {
        let foreign = self.foreign.borrow();
        let larger = foreign.as_ref().filter(|foreign| foreign.is_larger && !self.is_among_its_own())?;
        Some(format!("one cluster: {}", larger.text))
    }

    /// Why this node has no slot table, for the operator.
    pub(super) fn waiting_for_others(&self) -> Option<String> {
        let me = &self.identity.me;
        let may_wait = matches!(self.standing, Standing::Joining | Standing::Superseded);
        if let Some(newer) = self.name_conflict.as_ref().filter(|_| may_wait) {
            return Some(format!(
                "another name: a newer node at {} calls itself {} too (--name)",
                newer.peer, me.name
            ));
        }
        if self.standing != Standing::Joining {
            return None;
        }
        let seen = self.live.len();
        if self.ledger.group().is_some() {
            return Some("its slots: the leader gives them out when it has heard of the members".to_owned());
        }
        let expecting = self.live.iter().filter(|member| member.expects).count();
        if let Some(obstacle) = &*self.obstacle.borrow() {
            return Some(format!("its cluster: {obstacle}"));
        }
        Some(match self.expect {
            Some(expect) => {
                let seen = expecting;
                format!(
                    "{seen} of {expect} nodes see each other (--bootstrap-expect {expect}); check --join and that UDP passes"
                )
            }
            None => format!(
                "no serving node answers behind --join ({} other nodes seen, none serving); to form a new cluster, start its nodes with --bootstrap-expect N",
                seen.saturating_sub(1)
            ),
        })
    }
}
