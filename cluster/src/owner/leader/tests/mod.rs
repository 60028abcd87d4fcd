//! The leader in a world of values: members, their sessions, and a table that does what is written.

mod expiry;
mod moves;
mod reach;
mod shares;
mod successors;

use super::*;
use crate::{ids::Weight, owner::table::SlotRow, slots::SLOTS};

const LENGTH: Duration = Duration::from_secs(3);
const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

struct World {
    leader: Leader,
    table: Table,
    shares: ShareTable,
    /// This node is the first, and alone has a vote, where a test says nothing else.
    voters: Vec<BTreeSet<NodeId>>,
    answered: BTreeMap<NodeId, Nanos>,
    members: BTreeMap<NodeId, MemberRow>,
    draining: BTreeSet<NodeStart>,
    index: u64,
    now: u64,
}

fn start(node: NodeId) -> NodeStart {
    NodeStart { node, incarnation: 1 }
}

fn row(id: NodeId, incarnation: u64) -> MemberRow {
    let peer = "127.0.0.1:7803".parse().unwrap();
    MemberRow {
        id,
        name: format!("n{id}"),
        incarnation,
        peer,
        zone: None,
        keeps: true,
        weight: Weight::default(),
    }
}

impl World {
    fn new(nodes: u64) -> Self {
        let mut world = Self {
            leader: Leader::new(SessionTiming::of(LENGTH)),
            table: Table::default(),
            shares: ShareTable::default(),
            voters: vec![BTreeSet::from([1])],
            answered: BTreeMap::new(),
            members: (1..=nodes).map(|id| (id, row(id, 1))).collect(),
            draining: BTreeSet::new(),
            index: 1,
            now: 1_000_000,
        };
        world.pass(0, &[]);
        world
    }

    fn now(&self) -> Nanos {
        Nanos::new(self.now * 1_000_000)
    }

    /// Lets time pass while these renew.
    fn pass(&mut self, millis: u64, live: &[NodeId]) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 500).min(end);
            self.leader.look(Some(LEADERSHIP), self.now());
            live.iter().for_each(|node| assert!(self.renew(start(*node))));
        }
        self.leader.look(Some(LEADERSHIP), self.now());
    }

    /// A node that has applied all of the log asks.
    fn renew(&mut self, start: NodeStart) -> bool {
        self.renew_from(start, self.index)
    }

    fn renew_from(&mut self, start: NodeStart, applied: u64) -> bool {
        self.leader.note_contact(start.node, applied, self.now());
        let Asked::Granting(granting) = self.leader.begin_grant(start, applied) else { return false };
        self.leader.granted(granting, Some(self.index), self.now())
    }

    fn takes_over_soon(&self) -> bool {
        self.leader.takes_over_soon(start(2), self.now())
    }

    /// What to do next beside shares, which are given at once.
    fn next(&mut self) -> Option<Step> {
        loop {
            match self.next_of_all() {
                Some(Step::Share(change)) => self.carry_out_shares(&change),
                other => return other,
            }
        }
    }

    fn carry_out_shares(&mut self, change: &ShareChange) {
        self.index += 1;
        let (members, before) = (&self.members, self.shares.clone());
        self.shares.apply(self.index, |id| members.contains_key(&id), change);
        assert_ne!(self.shares, before, "{change:?} changes nothing");
    }

    fn next_of_all(&mut self) -> Option<Step> {
        let view = View {
            me: 1,
            index: self.index,
            table: &self.table,
            shares: &self.shares,
            voters: &self.voters,
            answered: &self.answered,
            members: &self.members,
            draining: &self.draining,
            expected: self.members.len(),
        };
        let now = Nanos::new(self.now * 1_000_000);
        self.leader.next(view, now)
    }

    /// What is written is applied, and a move succeeds.
    fn carry_out(&mut self, entry: Entry) {
        self.index += 1;
        self.table.apply(self.index, LEADERSHIP, &entry);
        match entry {
            Entry::Prepare { slots, .. } => {
                assert!(slots.len() <= BATCH);
                let id = self.index;
                self.index += 1;
                let moves = slots.into_iter().map(|slot| SlotMove { slot, id }).collect();
                self.table.apply(self.index, LEADERSHIP, &Entry::Commit(moves));
            }
            Entry::Expire { lapsed, .. } => self.leader.expiry_is_over(&lapsed),
            _ => {}
        }
    }

    /// Does what the leader wants until it wants nothing more, with moves that all succeed. How many moved.
    fn settle(&mut self) -> usize {
        let mut moved = 0;
        while let Some(step) = self.next() {
            let Step::Write(entry) = step else { panic!("{step:?}") };
            if let Entry::Prepare { slots, .. } = &entry {
                moved += slots.len();
            }
            self.carry_out(entry);
        }
        moved
    }

    fn owned(&self, node: NodeId) -> usize {
        self.table.rows().iter().filter(|row| row.owner == start(node)).count()
    }
}

fn founded(nodes: u64) -> World {
    let mut world = World::new(nodes);
    let all: Vec<NodeId> = (1..=nodes).collect();
    assert_eq!(world.next(), None, "nobody has a session");
    world.pass(500, &all);
    world.settle();
    assert_eq!(world.table.rows().len(), SLOTS);
    world
}
