//! From the table that was applied to the routes of checks, and the links to the members in it.

use std::{collections::BTreeSet, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::Controller;
use crate::{
    ids::NodeId,
    link::Link,
    link::LostSince,
    member::Member,
    routes::{Peer, Routes},
    slots::SlotTable,
    state::machine::Replicated,
};

impl Controller {
    /// Puts the table where the router reads it; links to members that stay are kept.
    pub(super) fn publish(&self, state: &Replicated) {
        let before = self.router.routes();
        let known = |member: &Member| {
            let peers = &before.as_ref()?.peers;
            peers.iter().flatten().find(|peer| peer.member.id == member.id && peer.member.peer == member.peer)
        };
        let me = self.ledger.id();
        let rows = state.slots.rows();
        // Who owns something, or will.
        let starts = rows.iter().flat_map(|row| [Some(row.owner), row.moving.map(|pending| pending.to)]);
        let mut ids: BTreeSet<NodeId> = starts.flatten().map(|start| start.node).collect();
        ids.insert(me);
        let mut members: Vec<(NodeId, Member)> = ids
            .into_iter()
            .filter_map(|id| {
                let row = state.members.get(&id)?;
                Some((id, Member::of(row)))
            })
            .collect();
        members.sort_unstable_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        let place = |id: NodeId| members.iter().position(|(known, _)| *known == id);
        // A member is not forgotten while it owns slots.
        let Some(mine) = place(me) else { return };
        let owners = rows.iter().map(|row| place(row.owner.node).unwrap_or(mine) as u16).collect();
        let targets =
            (0u16..).zip(rows).filter_map(|(slot, row)| Some((slot, place(row.moving?.to.node)?))).collect();
        let names = members.iter().map(|(_, member)| Arc::clone(&member.id.name)).collect();
        let peers = members
            .iter()
            .map(|(id, member)| {
                (*id != me).then(|| known(member).cloned().unwrap_or_else(|| Arc::new(self.link_to(member))))
            })
            .collect();
        if before.is_none() {
            self.ownership.links_begin(self.clock.now());
        }
        self.router.publish(Some(Arc::new(Routes {
            table: Arc::new(SlotTable::of(names, owners)),
            rows: Arc::clone(&state.slots),
            rows_of: state.members.clone(),
            me: mine,
            peers,
            targets,
        })));
    }

    fn link_to(&self, member: &Member) -> Peer {
        let end = CancellationToken::new();
        let lost_since = Arc::new(LostSince::default());
        let links = self
            .workers
            .iter()
            .map(|(runtime, stats)| {
                let (link, run) = Link::start(
                    member.id.clone(),
                    member.peer,
                    Arc::clone(&self.identity),
                    Arc::clone(stats),
                    Arc::clone(&lost_since),
                    end.clone(),
                );
                self.tasks.spawn_on(run, runtime);
                link
            })
            .collect();
        Peer::new(member.clone(), links, lost_since, end.drop_guard())
    }
}
