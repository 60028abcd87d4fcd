//! Rules, as other members ask for them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tidegate_limiter::rules::Rule;

use crate::{
    ids::NodeId,
    raft::consensus::Consensus,
    rpc::{
        message::{Call, Reply},
        server::Service,
    },
    rules_in_force::RulesInForce,
    state::command::Command,
};

/// Longest time that a change may take at the leader.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Answers about rules.
pub(crate) struct RulesService {
    pub(crate) raft: Arc<Consensus>,
    pub(crate) rules: Arc<RulesInForce>,
}

#[async_trait]
impl Service for RulesService {
    async fn call(&self, _from: NodeId, call: Call, _bytes: usize) -> Reply {
        let Some(running) = self.raft.running() else { return self.raft.not_running() };
        match call {
            Call::Write { write, patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::Write(running.write_here(write, patience).await)
            }
            Call::Act { action, patience_ms } => {
                let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
                Reply::Write(running.propose(Command::By(Box::new(action)), patience).await)
            }
            Call::Touched { domain, rules } => Reply::Touched(touched(&self.rules, &domain, &rules)),
            _ => Reply::Refused("that is no call about rules".to_owned()),
        }
    }
}

/// For each of some rules of a domain the registers of this node; see [`tidegate_limiter::cluster::estimate`].
pub(crate) fn touched(rules: &RulesInForce, domain: &str, names: &[String]) -> Vec<Vec<u8>> {
    let in_force = rules.load();
    let known: HashMap<&str, &Rule> = in_force.rules(domain).iter().map(|rule| (rule.name(), rule)).collect();
    names.iter().map(|name| known.get(name.as_str()).map_or_else(Vec::new, |rule| rule.touched())).collect()
}
