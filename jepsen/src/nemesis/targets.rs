//! Who is who right now, as the nodes were seen a moment ago.

use std::collections::BTreeMap;

use super::Aim;
use crate::sampler::Sighting;

/// What the nodes say of each other.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) leader: Option<String>,
    pub(super) hot_owner: Option<String>,
}

impl Roles {
    /// What most say; where they differ, what was said last.
    pub(super) fn of(seen: &BTreeMap<String, Sighting>) -> Self {
        let most = |of: fn(&Sighting) -> Option<&String>| {
            let mut votes: BTreeMap<&String, (usize, u64)> = BTreeMap::new();
            for sighting in seen.values() {
                if let Some(name) = of(sighting) {
                    let vote = votes.entry(name).or_default();
                    *vote = (vote.0 + 1, vote.1.max(sighting.at));
                }
            }
            votes.into_iter().max_by_key(|(_, vote)| *vote).map(|(name, _)| name.clone())
        };
        Self {
            leader: most(|sighting| sighting.leader.as_ref()),
            hot_owner: most(|sighting| sighting.hot_owner.as_ref()),
        }
    }

    /// What a node is.
    pub(super) fn of_node(&self, name: &str, in_move: bool) -> Vec<Aim> {
        let mut roles = Vec::new();
        if self.hot_owner.as_deref() == Some(name) {
            roles.push(Aim::HotOwner);
        }
        if self.leader.as_deref() == Some(name) {
            roles.push(Aim::Leader);
        }
        if in_move {
            roles.push(Aim::Moving);
        }
        roles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_cut_off_is_not_believed() {
        let sees = |leader: &str, at| Sighting { at, leader: Some(leader.to_owned()), ..Sighting::default() };
        let seen = [("n1", sees("n1", 9)), ("n2", sees("n3", 5)), ("n3", sees("n3", 6))];
        let roles = Roles::of(&seen.map(|(name, sighting)| (name.to_owned(), sighting)).into());
        assert_eq!(roles.leader.as_deref(), Some("n3"));
        assert_eq!(roles.of_node("n3", true), [Aim::Leader, Aim::Moving]);
    }
}
