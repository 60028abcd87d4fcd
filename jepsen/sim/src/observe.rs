//! What is seen of the simulated nodes, from inside, while they run and in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    rc::Rc,
};

use tidegate_cluster::Readiness;

use super::{
    fault::{Fault, Kind},
    outcome::Outcome,
    shared::{DOMAINS, name},
    verdict,
    world::World,
};

impl World {
    /// At no instant do two nodes decide about one slot, for rules that are `strict`.
    pub(super) fn one_decider(&mut self) {
        let lingers = self.shared.plan.session_ms + 1_000;
        let was_stunned = |fault: &&Fault| {
            matches!(fault.kind, Kind::Stun(_))
                && (fault.at_ms..fault.ends_ms() + lingers).contains(&self.now)
        };
        if self.shared.plan.faults.iter().any(|fault| was_stunned(&fault)) {
            // Whoever does not know how long it was stopped may decide for a session more: that is said.
            return;
        }
        for (key, hash) in &*self.shared.hashes.borrow() {
            let mut deciders: Option<usize> = None;
            for node in 0..self.started {
                let state = self.shared.nodes[node].borrow();
                let Some(inside) = state.inside.as_ref().filter(|_| !state.paused) else { continue };
                if !inside.probe.decides_strictly(*hash) {
                    continue;
                }
                if let Some(other) = deciders.replace(node) {
                    self.faults.insert(format!(
                        "two deciders of one slot: {} and {} both decide about key {key}",
                        name(other),
                        name(node)
                    ));
                    tracing::error!("two deciders: {} and {}", name(other), name(node));
                }
            }
        }
    }

    /// What a node has applied, and epochs, never fall.
    pub(super) fn nothing_falls(&mut self) {
        for node in 0..self.started {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { continue };
            let seen = self.seen.entry(node).or_default();
            if seen.0 != state.starts {
                *seen = (state.starts, 0, BTreeMap::new());
            }
            let applied = inside.probe.applied();
            if applied < seen.1 {
                self.faults.insert(format!("{} has applied less than before", name(node)));
            }
            seen.1 = applied;
            for (key, hash) in &*self.shared.hashes.borrow() {
                let Some(epoch) = inside.probe.epoch(*hash) else { continue };
                let before = seen.2.insert(*key, epoch).unwrap_or(0);
                if epoch < before {
                    self.faults.insert(format!("an epoch has fallen at {}", name(node)));
                }
            }
        }
    }

    /// Whether all nodes are there, agree, and have the slots that they should.
    pub(super) fn is_whole(&self) -> Result<(), String> {
        let mut index = None;
        for node in 0..self.shared.plan.nodes {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { return Err(format!("{} does not run", name(node))) };
            if let Readiness::NotReady(reason) = inside.cluster.readiness() {
                return Err(format!("{} is not ready: {reason}", name(node)));
            }
            let status = inside.cluster.status();
            if !status.has_session || !inside.probe.has_session() {
                return Err(format!("{} has no session", name(node)));
            }
            if status.moving + status.misplaced > 0 {
                let (moving, misplaced) = (status.moving, status.misplaced);
                return Err(format!("{}: {moving} slots move, {misplaced} are misplaced", name(node)));
            }
            // Rules are written all the time.
            let applied = inside.probe.applied();
            if index.replace(applied).is_some_and(|other: u64| other.abs_diff(applied) > 20) {
                return Err(format!("{} is behind", name(node)));
            }
        }
        Ok(())
    }

    pub(super) fn judge(mut self) -> Outcome {
        let mut faults: Vec<String> = std::mem::take(&mut self.faults).into_iter().collect();
        let shared = Rc::clone(&self.shared);
        match (self.whole_at, self.is_whole()) {
            (None, Err(reason)) if faults.is_empty() => {
                faults.push(format!("the cluster does not become whole again: {reason}"));
            }
            _ => {}
        }
        let operations = shared.operations.take();
        let rules = shared.rule_operations.take();
        let refunds = shared.refunds.take();
        let changes = shared.changes.take();
        faults.extend(verdict::bounds(&shared.plan, &operations, &refunds, &changes));
        faults.extend(verdict::owners_are_replaced(&shared.plan, &self.begun, &operations));
        faults.extend(shared.locked_out.take().into_iter().next());
        let clusters: BTreeSet<String> = (0..self.started)
            .filter_map(|node| shared.nodes[node].borrow().inside.as_ref()?.probe.cluster())
            .map(|cluster| cluster.to_string())
            .collect();
        if clusters.len() > 1 {
            faults.push(format!("there are {} clusters", clusters.len()));
        }
        faults.extend(self.mixed_up());
        if let Some(since) = self.whole_at {
            faults.extend(verdict::owners_decide(&operations, since));
        }
        let histories = self.histories();
        let (broken, unknown) = verdict::rules(&rules, &histories);
        faults.extend(broken);

        let mut hasher = DefaultHasher::new();
        for operation in &operations {
            (operation.invoked, operation.completed, operation.key, operation.node).hash(&mut hasher);
            (operation.outcome as u8, &operation.decided_by).hash(&mut hasher);
        }
        for refund in &refunds {
            (refund.invoked, refund.completed, refund.node).hash(&mut hasher);
        }
        for operation in &rules {
            format!("{operation:?}").hash(&mut hasher);
        }
        format!("{histories:?} {} {faults:?}", self.now).hash(&mut hasher);
        for node in 0..self.started {
            let state = shared.nodes[node].borrow();
            state.inside.as_ref().map(|inside| inside.probe.applied()).hash(&mut hasher);
        }
        tracing::info!("{} checks", operations.len());
        Outcome {
            hash: hasher.finish(),
            faults,
            unknown,
            checks: operations.len(),
            admitted: operations
                .iter()
                .filter(|one| one.outcome == tidegate_jepsen::history::Outcome::Admitted)
                .count(),
            rule_operations: rules.iter().filter(|one| one.answered.is_some()).count(),
            simulated_ms: self.now,
        }
    }

    /// Whether this cluster and those whose nodes have former addresses of it have taken each other in.
    fn mixed_up(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (node, (id, probe)) in &*self.shared.strangers.borrow() {
            if let Some(now) = probe.cluster().filter(|now| now != id) {
                let name = name(*node);
                faults.push(format!(
                    "at a former address of {name} is a node of the cluster {id}, and it belongs to {now} now"
                ));
            }
        }
        for node in 0..self.started {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { continue };
            let rows = inside.cluster.ledger().applied();
            let is_strange = |row: &&str| row.starts_with('s');
            if let Some(row) = rows.state.members.values().map(|row| &*row.name).find(is_strange) {
                faults.push(format!("{} has {row} for a member, which is of another cluster", name(node)));
            }
        }
        faults
    }

    /// What each node tells of the rules that were written.
    fn histories(&self) -> Vec<verdict::Histories> {
        let mut histories = vec![verdict::Histories::new(); DOMAINS];
        for node in 0..self.started {
            let state = self.shared.nodes[node].borrow();
            let Some(inside) = &state.inside else { continue };
            let applied = inside.cluster.ledger().applied();
            for (domain, of_nodes) in histories.iter_mut().enumerate() {
                let history = applied.state.domains.get(format!("d{domain}").as_str());
                let lines = history.map(|history| {
                    let line = |change: &tidegate_cluster::state::Change| {
                        let value = change.message.strip_prefix('v').and_then(|value| value.parse().ok());
                        (change.revision.get(), value)
                    };
                    history.changes().iter().map(line).collect()
                });
                of_nodes.insert(name(node), lines.unwrap_or_default());
            }
        }
        histories
    }
}
