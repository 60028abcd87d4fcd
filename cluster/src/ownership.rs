//! From what gossip says to who owns which slot: a state machine of values.
//!
//! For now the slot table follows gossip's live set; a later version takes it from the replicated log, and only this
//! file changes. What it already keeps:
//!
//! - A node owns nothing until its cluster is *formed*: either it founds it together with as many nodes as it was told
//!   to expect, or it finds one that is there.
//! - **A slot that changes hands starts empty**: its new owner can not know what the old one admitted, so it treats
//!   each bucket as if it had been drained at the *floor* of the slot. Only the founders of a cluster start with full
//!   buckets: before them nobody admitted anything.
//! - The floor lies [`Settings::settle`] ahead: as long as the news of the change may take to reach the node that
//!   owned the slot before.

use std::{sync::Arc, time::Duration};

use tidegate_limiter::Nanos;

use crate::{
    member::{Member, MemberId, MemberState},
    slots::{SLOTS, SlotId, SlotTable},
};

/// What a node is told about forming a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How many nodes found a cluster; `None`: only join one that is there.
    pub(crate) expect: Option<u32>,
    /// How long the news of a changed table may take to reach the former owner.
    pub(crate) settle: Duration,
}

/// The slot table in force at a node, with what it must know to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) table: Arc<SlotTable>,
    /// Those of the table, in its order.
    pub(crate) members: Vec<Member>,
    /// For each slot: when its buckets count as drained. `None`: they start full.
    pub(crate) floors: Box<[Option<Nanos>]>,
}

/// What a look at the live members changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// This assignment is in force from now on.
    Assigned(Arc<Assignment>),
    /// This node owns nothing any more: a newer node has its name.
    Superseded,
}

/// Where a node stands.
#[derive(Debug)]
pub(crate) struct Ownership {
    me: MemberId,
    settings: Settings,
    formation: Formation,
    current: Option<Arc<Assignment>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Formation {
    /// No cluster yet.
    Waiting,
    /// This node took part in the founding, with these.
    Founder(Vec<MemberId>),
    /// This node came to a cluster that was there.
    Joined,
    /// This node is leaving.
    Leaving,
}

impl Ownership {
    pub(crate) fn new(me: MemberId, settings: Settings) -> Self {
        Self { me, settings, formation: Formation::Waiting, current: None }
    }

    /// Takes in the live members, each name once.
    pub(crate) fn observe(&mut self, live: &[Member], now: Nanos) -> Change {
        if self.formation == Formation::Leaving {
            // Decides with the table that it has until it stops: the others take over meanwhile.
            return Change::None;
        }
        if !live.iter().any(|member| member.id == self.me) {
            let Some(_) = self.current.take() else { return Change::None };
            // Should this node come back, it knows no more than one that joins.
            self.formation = Formation::Joined;
            return Change::Superseded;
        }
        if self.formation == Formation::Waiting {
            let Some(formation) = self.try_to_form(live) else { return Change::None };
            self.formation = formation;
        }
        let members = self.eligible(live);
        if self.current.as_ref().is_some_and(|current| current.members == members) {
            return Change::None;
        }
        let assignment = Arc::new(self.assign(members, now));
        self.current = Some(Arc::clone(&assignment));
        Change::Assigned(assignment)
    }

    /// This node gives up all of its slots.
    pub(crate) fn leave(&mut self) {
        self.formation = Formation::Leaving;
    }

    /// What this node says of itself.
    pub(crate) fn state(&self) -> MemberState {
        match self.formation {
            Formation::Waiting => MemberState::Joining,
            Formation::Founder(_) | Formation::Joined => MemberState::Serving,
            Formation::Leaving => MemberState::Leaving,
        }
    }

    /// With whom this node founded the cluster; empty if it did not.
    pub(crate) fn founders(&self) -> &[MemberId] {
        match &self.formation {
            Formation::Founder(founders) => founders,
            _ => &[],
        }
    }

    /// Why this node has no slot table yet, for the operator.
    pub(crate) fn waiting_for(&self, live: &[Member]) -> Option<String> {
        if let Some(newer) = live.iter().find(|member| member.id.name == self.me.name && member.id != self.me)
        {
            return Some(format!(
                "another name: a newer node at {} calls itself {} too (--name)",
                newer.peer, self.me.name
            ));
        }
        if self.formation != Formation::Waiting {
            return None;
        }
        let seen = live.len();
        Some(match self.settings.expect {
            Some(expect) => {
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

    fn try_to_form(&self, live: &[Member]) -> Option<Formation> {
        let mut serving =
            live.iter().filter(|m| m.id != self.me && m.state == MemberState::Serving).peekable();
        if serving.peek().is_some() {
            // A founder may hear that the cluster is founded before it has seen enough nodes itself.
            let named = serving.find(|member| member.founders.contains(&self.me));
            return Some(
                named.map_or(Formation::Joined, |member| Formation::Founder(member.founders.clone())),
            );
        }
        let mut founders: Vec<MemberId> = live
            .iter()
            .filter(|member| member.state == MemberState::Joining)
            .map(|member| member.id.clone())
            .collect();
        founders.sort_unstable();
        let expect = self.settings.expect? as usize;
        (founders.len() >= expect && founders.contains(&self.me)).then_some(Formation::Founder(founders))
    }

    /// The members that own slots: those that serve, and the founders that have not heard yet that they do.
    fn eligible(&self, live: &[Member]) -> Vec<Member> {
        let mut members: Vec<Member> = live
            .iter()
            .filter(|member| match member.state {
                _ if member.id == self.me => true,
                MemberState::Serving => true,
                MemberState::Joining => self.founders().contains(&member.id),
                MemberState::Leaving => false,
            })
            .cloned()
            .map(|mut member| {
                // Only who and where matters for the table, not the news about it.
                member.state = MemberState::Serving;
                member.founders.clear();
                member
            })
            .collect();
        members.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        members
    }

    fn assign(&self, members: Vec<Member>, now: Nanos) -> Assignment {
        let table = Arc::new(SlotTable::assign(members.iter().map(|member| Arc::clone(&member.id.name))));
        debug_assert!(table.members().iter().zip(&members).all(|(name, member)| *name == member.id.name));
        let drained = now.saturating_add(self.settings.settle);
        let floors = SlotId::all()
            .map(|slot| {
                let mine = *table.owner(slot) == self.me.name;
                match &self.current {
                    Some(before) if *before.table.owner(slot) == self.me.name => before.floors[slot.index()],
                    None if mine && matches!(self.formation, Formation::Founder(_)) => None,
                    _ if mine => Some(drained),
                    // Somebody else's. Should it come here, it will have changed hands.
                    _ => None,
                }
            })
            .collect::<Box<[_]>>();
        debug_assert_eq!(floors.len(), SLOTS);
        Assignment { table, members, floors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(600);
    const NOW: Nanos = Nanos::new(1_000_000_000_000);

    fn id(name: &str) -> MemberId {
        MemberId { name: name.into(), incarnation: 1 }
    }

    fn member(name: &str, state: MemberState) -> Member {
        let peer = "127.0.0.1:7803".parse().unwrap();
        Member {
            id: id(name),
            state,
            peer,
            http: None,
            zone: None,
            founders: vec![],
            node: None,
            group: None,
            in_force: None,
        }
    }

    fn joining(names: &[&str]) -> Vec<Member> {
        names.iter().map(|name| member(name, MemberState::Joining)).collect()
    }

    fn node(name: &str, expect: Option<u32>) -> Ownership {
        Ownership::new(id(name), Settings { expect, settle: SETTLE })
    }

    fn assigned(change: Change) -> Arc<Assignment> {
        let Change::Assigned(assignment) = change else { panic!("{change:?}") };
        assignment
    }

    fn mine(assignment: &Assignment, me: &str) -> Vec<SlotId> {
        SlotId::all().filter(|slot| &**assignment.table.owner(*slot) == me).collect()
    }

    #[test]
    fn a_single_node_founds_its_cluster_with_full_buckets() {
        let mut alone = node("n1", Some(1));
        let assignment = assigned(alone.observe(&joining(&["n1"]), NOW));
        assert_eq!(mine(&assignment, "n1").len(), SLOTS);
        assert!(assignment.floors.iter().all(Option::is_none));
        assert_eq!(alone.state(), MemberState::Serving);
        assert_eq!(alone.observe(&joining(&["n1"]), NOW), Change::None);
    }

    #[test]
    fn nobody_owns_anything_before_all_expected_nodes_are_there() {
        let mut first = node("n1", Some(3));
        assert_eq!(first.observe(&joining(&["n1", "n2"]), NOW), Change::None);
        assert!(first.waiting_for(&joining(&["n1", "n2"])).unwrap().contains("2 of 3"));
        let assignment = assigned(first.observe(&joining(&["n1", "n2", "n3"]), NOW));
        assert_eq!(
            assignment.members.len(),
            3,
            "the other founders own slots before they say that they serve"
        );
        assert!(assignment.floors.iter().all(Option::is_none));
    }

    #[test]
    fn a_founder_that_hears_of_the_founding_late_still_starts_full() {
        let mut late = node("n2", Some(3));
        let mut live = joining(&["n1", "n2"]);
        live[0].state = MemberState::Serving;
        live[0].founders = vec![id("n1"), id("n2"), id("n3")];
        let assignment = assigned(late.observe(&live, NOW));
        assert!(assignment.floors.iter().all(Option::is_none));
        assert_eq!(late.founders().len(), 3);
    }

    #[test]
    fn a_node_that_joins_starts_its_slots_empty_and_ahead_of_the_news() {
        let mut fourth = node("n4", None);
        let mut live = joining(&["n1", "n4"]);
        live[0].state = MemberState::Serving;
        live[0].founders = vec![id("n1")];
        let assignment = assigned(fourth.observe(&live, NOW));
        let slots = mine(&assignment, "n4");
        assert!(!slots.is_empty());
        for slot in slots {
            assert_eq!(assignment.floors[slot.index()], Some(NOW.saturating_add(SETTLE)));
        }
    }

    #[test]
    fn a_node_restarted_under_the_same_name_is_no_founder() {
        let mut again = Ownership::new(
            MemberId { incarnation: 2, ..id("n2") },
            Settings { expect: Some(3), settle: SETTLE },
        );
        let mut live = joining(&["n1", "n2"]);
        live[0].state = MemberState::Serving;
        live[0].founders = vec![id("n1"), id("n2"), id("n3")];
        live[1].id.incarnation = 2;
        let assignment = assigned(again.observe(&live, NOW));
        assert!(mine(&assignment, "n2").iter().all(|slot| assignment.floors[slot.index()].is_some()));
    }

    #[test]
    fn slots_of_a_dead_node_start_empty_and_those_kept_go_on() {
        let mut first = node("n1", Some(3));
        let before = assigned(first.observe(&joining(&["n1", "n2", "n3"]), NOW));
        let later = NOW.saturating_add(Duration::from_secs(60));
        let after = assigned(first.observe(&joining(&["n1", "n2"]), later));
        for slot in mine(&after, "n1") {
            let kept = &**before.table.owner(slot) == "n1";
            let floor = after.floors[slot.index()];
            assert_eq!(floor, if kept { None } else { Some(later.saturating_add(SETTLE)) });
        }
    }

    #[test]
    fn a_slot_that_comes_back_starts_empty_again() {
        let mut first = node("n1", Some(2));
        let both = joining(&["n1", "n2"]);
        assigned(first.observe(&both, NOW));
        let alone = assigned(first.observe(&both[..1], NOW.saturating_add(Duration::from_secs(1))));
        assigned(first.observe(&both, NOW.saturating_add(Duration::from_secs(2))));
        let again = assigned(first.observe(&both[..1], NOW.saturating_add(Duration::from_secs(9))));
        let moved = SlotId::all().find(|slot| alone.floors[slot.index()].is_some()).unwrap();
        assert_eq!(again.floors[moved.index()], Some(NOW.saturating_add(Duration::from_secs(9) + SETTLE)));
    }

    #[test]
    fn a_node_that_waits_for_a_cluster_says_what_is_missing() {
        let mut lost = node("n9", None);
        assert_eq!(lost.observe(&joining(&["n9"]), NOW), Change::None);
        assert!(lost.waiting_for(&joining(&["n9"])).unwrap().contains("--bootstrap-expect"));
    }

    #[test]
    fn a_leaving_node_owns_nothing_and_is_left_out_by_the_others() {
        let (mut first, mut second) = (node("n1", Some(2)), node("n2", Some(2)));
        let mut live = joining(&["n1", "n2"]);
        assigned(first.observe(&live, NOW));
        assigned(second.observe(&live, NOW));
        second.leave();
        assert_eq!(second.state(), MemberState::Leaving);
        assert_eq!(second.observe(&live, NOW), Change::None);
        live[1].state = MemberState::Leaving;
        let alone = assigned(first.observe(&live, NOW));
        assert_eq!(mine(&alone, "n1").len(), SLOTS);
    }

    #[test]
    fn a_node_whose_name_a_newer_one_took_owns_nothing_and_comes_back_empty() {
        let mut first = node("n1", Some(1));
        assigned(first.observe(&joining(&["n1"]), NOW));
        let mut live = joining(&["n1"]);
        live[0].id.incarnation = 2;
        assert_eq!(first.observe(&live, NOW), Change::Superseded);
        assert!(first.waiting_for(&live).unwrap().contains("--name"));
        let again = assigned(first.observe(&joining(&["n1"]), NOW));
        assert!(again.floors.iter().all(Option::is_some));
    }
}
