use crate::ids::Leadership;
use crate::owner::{node::*, table::Entry};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

struct World {
    index: u64,
    table: Table,
    nodes: [Node; 2],
}

fn start(node: u64) -> NodeStart {
    NodeStart { node, incarnation: 1 }
}

impl World {
    fn new() -> Self {
        let nodes = [Node::new(start(1), 1), Node::new(start(2), 1)];
        Self { index: 0, table: Table::default(), nodes }
    }

    fn write(&mut self, entry: &Entry) {
        self.index += 1;
        self.table.apply(self.index, LEADERSHIP, entry);
    }

    fn observe(&mut self, node: usize) -> Vec<Effect> {
        let changes = self.nodes[node].observe(self.index, &Arc::new(self.table.clone()));
        changes.into_iter().map(|change| change.effect).collect()
    }
}

fn prepare(to: u64) -> Entry {
    Entry::Prepare { slots: vec![0], to: start(to) }
}

#[test]
fn a_planned_move_hands_over_without_a_gap_in_the_counts() {
    let mut world = World::new();
    world.write(&Entry::Assign(vec![start(1)]));
    assert_eq!(world.observe(0), [Effect::BeginFull]);
    assert_eq!(world.observe(1), []);
    world.write(&prepare(2));
    let one = SlotMove { slot: 0, id: 2 };
    assert_eq!(world.nodes[1].install(one, 1), Install::NotYet);
    assert_eq!(world.observe(0), [Effect::Send]);
    assert_eq!(world.observe(1), []);
    assert!(world.nodes[0].role(0).decides());
    assert_eq!(world.nodes[0].freeze(&[one]), [one]);
    assert!(!world.nodes[0].role(0).decides());
    assert_eq!(world.nodes[1].install(one, 9), Install::Never, "another epoch");
    assert_eq!(world.nodes[1].install(one, world.nodes[0].epoch(0)), Install::Now);
    assert_eq!(world.nodes[1].install(one, 1), Install::Before);
    assert!(!world.nodes[1].refuse(one));
    world.write(&Entry::Commit(vec![one]));
    assert_eq!(world.observe(1), [Effect::Resume]);
    assert_eq!(world.observe(0), [Effect::End]);
}

/// Found by review: what came again after the slot was installed replaced what its new owner had admitted.
#[test]
fn buckets_are_taken_only_between_the_beginning_of_a_move_and_its_last_message() {
    let mut world = World::new();
    world.write(&Entry::Assign(vec![start(1)]));
    world.write(&prepare(2));
    let one = SlotMove { slot: 0, id: 2 };
    assert_eq!(world.nodes[1].awaits(one), Install::NotYet);
    world.observe(0);
    world.observe(1);
    assert_eq!(world.nodes[1].awaits(one), Install::Now);
    assert_eq!(world.nodes[0].awaits(one), Install::Never, "it is not the target");
    world.nodes[0].freeze(&[one]);
    world.nodes[1].install(one, 1);
    assert_eq!(world.nodes[1].awaits(one), Install::Before);
    world.write(&Entry::Commit(vec![one]));
    world.observe(1);
    assert_eq!(world.nodes[1].awaits(one), Install::Never);
    // Back, and once more: a part of the first move is none of the second.
    for (to, from) in [(1, 1), (2, 0)] {
        world.write(&prepare(to));
        let again = SlotMove { slot: 0, id: world.index };
        world.observe(0);
        world.observe(1);
        assert_eq!(world.nodes[1].awaits(one), Install::Never);
        let to = usize::from(to == 2);
        assert_eq!(world.nodes[to].awaits(again), Install::Now);
        let epoch = world.nodes[from].epoch(0);
        world.nodes[from].freeze(&[again]);
        assert_eq!(world.nodes[to].install(again, epoch), Install::Now);
        world.write(&Entry::Commit(vec![again]));
        world.observe(0);
        world.observe(1);
    }
}

#[test]
fn a_refused_move_leaves_the_owner_its_buckets() {
    let mut world = World::new();
    world.write(&Entry::Assign(vec![start(1)]));
    world.write(&prepare(2));
    assert_eq!(world.observe(0), [Effect::BeginFull, Effect::Send]);
    assert_eq!(world.observe(1), []);
    let one = SlotMove { slot: 0, id: 2 };
    world.nodes[0].freeze(&[one]);
    assert!(world.nodes[1].refuse(one));
    assert_eq!(world.nodes[1].install(one, 1), Install::Never);
    world.write(&Entry::Abort { moves: vec![one], refused: true });
    assert_eq!(world.observe(0), [Effect::Resume]);
    assert_eq!(world.nodes[0].role(0), Role::Owner);
}

#[test]
fn an_owner_whose_move_was_given_up_keeps_its_buckets_only_if_it_had_not_frozen_them() {
    for frozen in [false, true] {
        let mut world = World::new();
        world.write(&Entry::Assign(vec![start(1)]));
        world.write(&prepare(2));
        world.observe(0);
        let one = SlotMove { slot: 0, id: 2 };
        if frozen {
            world.nodes[0].freeze(&[one]);
        }
        world.write(&Entry::Abort { moves: vec![one], refused: false });
        assert_eq!(world.observe(0), [if frozen { Effect::BeginDrained } else { Effect::Resume }]);
    }
}

#[test]
fn who_skipped_what_happened_to_its_slot_begins_drained() {
    let mut world = World::new();
    world.write(&Entry::Assign(vec![start(1)]));
    world.observe(0);
    let expire = |from, to| Entry::Expire {
        leadership: LEADERSHIP,
        lapsed: vec![start(from)],
        slots: vec![(0, start(to))],
    };
    world.write(&expire(1, 2));
    world.write(&expire(2, 1));
    assert_eq!(world.observe(0), [Effect::BeginDrained]);
}
