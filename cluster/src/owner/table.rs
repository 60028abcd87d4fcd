//! Who owns each slot, as the log says: rows, and the entries that change them.
//!
//! A planned move is three entries: *Prepare* names the new owner, *Commit* (or *Abort*) ends it. Whoever may decide about a
//! slot is its owner, or the target of the move that is pending. *Expire* takes slots from nodes whose sessions have
//! lapsed. What keeps two nodes from deciding at the same time:
//!
//! - Commit and Abort name the move that they end, by the log index of its Prepare, and do nothing if that is over.
//! - While a move is pending, a third node gets the slot only after the sessions of both its owner and its target have
//!   lapsed.
//! - Expire names the leader that proposed it, whose clock says that a session has lapsed; from another leader's log it
//!   does nothing.
//!
//! Each row also names a *successor*, who takes the slot over when the owner's session has lapsed. Who that is decides
//! nothing while the owner lives; what an owner sends its successor ahead counts only from the log index on that named it.

use serde::{Deserialize, Serialize};

use crate::ids::{Leadership, NodeStart};

/// How the owner of a slot came to it: from where its buckets begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Start {
    /// It is the first: nobody has admitted anything.
    Full,
    /// Nobody can tell what was admitted before: each bucket counts as exhausted. Only who has what this owner knew in the end
    /// can, if nobody else was about to decide (then the epoch is 0, which is none).
    Drained {
        /// The owner before.
        from: NodeStart,
        /// Of the row before.
        epoch: u64,
        /// The log index that had named the owner as successor, if it was named: it may have received floors.
        named: Option<u64>,
    },
    /// The move with this id gave it the buckets; if it never got them, they count as exhausted.
    Moved(u64),
    /// The move with this id was given up. If the owner had not begun to hand over it has all, else they count as exhausted:
    /// the target may have decided.
    Aborted(u64),
}

/// A move that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Move {
    /// To whom.
    pub to: NodeStart,
    /// The log index of its beginning.
    pub id: u64,
}

/// Who takes a slot over when the session of its owner has lapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Successor {
    /// The node.
    pub node: NodeStart,
    /// The log index that named it. It was named without a break since, but the owner, and with it the epoch, may have
    /// changed: what the owner sends it belongs to both.
    pub since: u64,
}

/// Who owns a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotRow {
    /// The owner.
    pub owner: NodeStart,
    /// The log index of the last change of who decides.
    pub epoch: u64,
    /// Who takes it over; never the owner. `None`: nobody could, or the leader has not said yet.
    pub successor: Option<Successor>,
    /// How the owner came to it.
    pub start: Start,
    /// Where it is going.
    pub moving: Option<Move>,
}

/// Slots that have something in common: from one of them, so many in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotMove {
    pub(crate) slot: u16,
    /// The id of the move.
    pub(crate) id: u64,
}

/// What changes the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Gives all slots to their first owners: only while nobody owns any.
    Assign(Vec<NodeStart>),
    /// Begins to move slots.
    Prepare { slots: Vec<u16>, to: NodeStart },
    /// The targets have the buckets, and own the slots.
    Commit(Vec<SlotMove>),
    /// The moves are over, and the owners stay. `refused`: the target has promised not to decide.
    Abort { moves: Vec<SlotMove>, refused: bool },
    /// The sessions of these nodes have lapsed. Their slots go to others; moves to them are over.
    Expire { leadership: Leadership, lapsed: Vec<NodeStart>, slots: Vec<(u16, NodeStart)> },
    /// Names the successors of these slots.
    Succeed(Vec<(Option<NodeStart>, Vec<u16>)>),
}

/// The rows of all slots, or none before the first entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    rows: Vec<SlotRow>,
}

impl Table {
    /// Whether somebody owns each slot.
    pub fn is_assigned(&self) -> bool {
        !self.rows.is_empty()
    }

    /// All rows, in the order of the slots.
    pub fn rows(&self) -> &[SlotRow] {
        &self.rows
    }

    /// The row of a slot.
    pub fn row(&self, slot: usize) -> Option<&SlotRow> {
        self.rows.get(slot)
    }

    /// How many moves are pending.
    pub fn moving(&self) -> usize {
        self.rows.iter().filter(|row| row.moving.is_some()).count()
    }

    /// Applies the entry with this index, written by that leader.
    pub(crate) fn apply(&mut self, index: u64, leadership: Leadership, entry: &Entry) {
        match entry {
            Entry::Assign(owners) => {
                if self.rows.is_empty() {
                    let row = |owner: &NodeStart| SlotRow {
                        owner: *owner,
                        epoch: index,
                        successor: None,
                        start: Start::Full,
                        moving: None,
                    };
                    self.rows = owners.iter().map(row).collect();
                }
            }
            Entry::Prepare { slots, to } => {
                for slot in slots {
                    if let Some(row) = self.rows.get_mut(usize::from(*slot))
                        && row.moving.is_none()
                        && row.owner != *to
                    {
                        row.moving = Some(Move { to: *to, id: index });
                    }
                }
            }
            Entry::Commit(moves) => {
                for (row, pending) in pending(&mut self.rows, moves) {
                    // It lives and knows all of the slot; the leader names another if another is wanted.
                    let successor = Some(Successor { node: row.owner, since: index });
                    *row = SlotRow {
                        owner: pending.to,
                        epoch: index,
                        successor,
                        start: Start::Moved(pending.id),
                        moving: None,
                    };
                }
            }
            Entry::Abort { moves, refused } => {
                for (row, pending) in pending(&mut self.rows, moves) {
                    row.moving = None;
                    if !refused {
                        (row.epoch, row.start) = (index, Start::Aborted(pending.id));
                    }
                }
            }
            Entry::Expire { leadership: proposed_by, lapsed, slots } => {
                if *proposed_by == leadership {
                    self.expire(index, lapsed, slots);
                }
            }
            Entry::Succeed(named) => {
                for (successor, slots) in named {
                    for slot in slots {
                        if let Some(row) = self.rows.get_mut(usize::from(*slot)) {
                            row.name_successor(index, *successor);
                        }
                    }
                }
            }
        }
    }

    fn expire(&mut self, index: u64, lapsed: &[NodeStart], slots: &[(u16, NodeStart)]) {
        for (slot, to) in slots {
            let Some(row) = self.rows.get_mut(usize::from(*slot)) else { continue };
            if !lapsed.contains(&row.owner) || lapsed.contains(to) {
                continue;
            }
            let start = match row.moving {
                Some(pending) if pending.to == *to => Start::Moved(pending.id),
                // It may be deciding, from the moment that it has the buckets.
                Some(pending) if !lapsed.contains(&pending.to) => continue,
                Some(_) => Start::Drained { from: row.owner, epoch: 0, named: None },
                None => {
                    let named = row.successor.filter(|next| next.node == *to).map(|next| next.since);
                    Start::Drained { from: row.owner, epoch: row.epoch, named }
                }
            };
            // Who was to come after the dead one can come after the next too, if that was another.
            let successor = row.successor.filter(|next| next.node != *to && !lapsed.contains(&next.node));
            *row = SlotRow { owner: *to, epoch: index, successor, start, moving: None };
        }
        for row in &mut self.rows {
            if let Some(pending) = row.moving
                && lapsed.contains(&pending.to)
                && !lapsed.contains(&row.owner)
            {
                *row = SlotRow { epoch: index, start: Start::Aborted(pending.id), moving: None, ..*row };
            }
        }
    }
}

impl SlotRow {
    fn name_successor(&mut self, index: u64, successor: Option<NodeStart>) {
        if successor != Some(self.owner) && successor != self.successor.map(|known| known.node) {
            self.successor = successor.map(|node| Successor { node, since: index });
        }
    }
}

/// The rows whose pending move is the one that is named.
fn pending<'t>(
    rows: &'t mut [SlotRow],
    moves: &'t [SlotMove],
) -> impl Iterator<Item = (&'t mut SlotRow, Move)> {
    // Sorted or not: each slot is named once, and there are few of them.
    rows.iter_mut().enumerate().filter_map(|(slot, row)| {
        let pending = row.moving?;
        let named = |one: &SlotMove| usize::from(one.slot) == slot && one.id == pending.id;
        moves.iter().any(named).then_some((row, pending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

    fn node(node: NodeId) -> NodeStart {
        NodeStart { node, incarnation: 1 }
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.apply(3, LEADERSHIP, &Entry::Assign(vec![node(1), node(2)]));
        table
    }

    fn prepare(table: &mut Table, index: u64, slot: u16, to: NodeId) {
        table.apply(index, LEADERSHIP, &Entry::Prepare { slots: vec![slot], to: node(to) });
    }

    fn expire(lapsed: &[NodeId], slot: u16, to: NodeId) -> Entry {
        let lapsed = lapsed.iter().copied().map(node).collect();
        Entry::Expire { leadership: LEADERSHIP, lapsed, slots: vec![(slot, node(to))] }
    }

    #[test]
    fn slots_are_given_out_once() {
        let mut table = table();
        table.apply(4, LEADERSHIP, &Entry::Assign(vec![node(9), node(9)]));
        assert_eq!(table.row(1).unwrap().owner, node(2));
        assert_eq!(table.row(0).unwrap().start, Start::Full);
    }

    #[test]
    fn a_commit_ends_the_move_that_it_names_and_no_other() {
        let mut table = table();
        prepare(&mut table, 5, 0, 3);
        table.apply(
            6,
            LEADERSHIP,
            &Entry::Abort { moves: vec![SlotMove { slot: 0, id: 5 }], refused: false },
        );
        assert_eq!(table.row(0).unwrap().start, Start::Aborted(5));
        prepare(&mut table, 7, 0, 2);
        table.apply(8, LEADERSHIP, &Entry::Commit(vec![SlotMove { slot: 0, id: 5 }]));
        assert_eq!(table.row(0).unwrap().owner, node(1));
        table.apply(9, LEADERSHIP, &Entry::Commit(vec![SlotMove { slot: 0, id: 7 }]));
        let row = *table.row(0).unwrap();
        assert_eq!((row.owner, row.epoch, row.start), (node(2), 9, Start::Moved(7)));
    }

    #[test]
    fn a_refused_move_changes_nothing() {
        let mut table = table();
        let before = table.clone();
        prepare(&mut table, 5, 0, 3);
        table.apply(6, LEADERSHIP, &Entry::Abort { moves: vec![SlotMove { slot: 0, id: 5 }], refused: true });
        assert_eq!(table, before);
    }

    #[test]
    fn a_second_move_waits_for_the_first() {
        let mut table = table();
        prepare(&mut table, 5, 0, 3);
        prepare(&mut table, 6, 0, 2);
        assert_eq!(table.row(0).unwrap().moving, Some(Move { to: node(3), id: 5 }));
    }

    #[test]
    fn only_the_leader_that_waited_takes_slots_away() {
        let mut table = table();
        let before = table.clone();
        table.apply(5, Leadership { term: 2, leader: 1 }, &expire(&[1], 0, 2));
        table.apply(6, Leadership { term: 1, leader: 2 }, &expire(&[1], 0, 2));
        assert_eq!(table, before);
        table.apply(7, LEADERSHIP, &expire(&[1], 0, 2));
        assert_eq!(table.row(0).unwrap().owner, node(2));
        assert_eq!(table.row(0).unwrap().start, Start::Drained { from: node(1), epoch: 3, named: None });
    }

    #[test]
    fn a_third_node_gets_a_moving_slot_only_when_the_target_has_lapsed_too() {
        let mut table = table();
        prepare(&mut table, 5, 0, 3);
        table.apply(6, LEADERSHIP, &expire(&[1], 0, 2));
        assert_eq!(table.row(0).unwrap().owner, node(1));
        let mut other = table.clone();
        table.apply(7, LEADERSHIP, &expire(&[1, 3], 0, 2));
        assert_eq!(table.row(0).unwrap().start, Start::Drained { from: node(1), epoch: 0, named: None });
        other.apply(7, LEADERSHIP, &expire(&[1], 0, 3));
        assert_eq!(other.row(0).unwrap().start, Start::Moved(5));
    }

    #[test]
    fn a_move_to_a_lapsed_node_is_given_up() {
        let mut table = table();
        prepare(&mut table, 5, 0, 3);
        table.apply(
            6,
            LEADERSHIP,
            &Entry::Expire { leadership: LEADERSHIP, lapsed: vec![node(3)], slots: vec![] },
        );
        let row = *table.row(0).unwrap();
        assert_eq!((row.owner, row.moving, row.start), (node(1), None, Start::Aborted(5)));
    }

    #[test]
    fn a_successor_is_named_at_one_index_and_never_owns_the_slot() {
        let mut table = table();
        let succeed = |successor: Option<NodeStart>| Entry::Succeed(vec![(successor, vec![0, 9999])]);
        let named = |table: &Table| table.row(0).unwrap().successor.map(|next| (next.node, next.since));
        assert_eq!(named(&table), None);
        table.apply(5, LEADERSHIP, &succeed(Some(node(2))));
        table.apply(6, LEADERSHIP, &succeed(Some(node(2))));
        table.apply(7, LEADERSHIP, &succeed(Some(node(1))));
        assert_eq!(named(&table), Some((node(2), 5)), "the owner is none");
        assert_eq!(table.row(0).unwrap().epoch, 3, "who decides is the same");
        // By plan: the owner before knows the most.
        prepare(&mut table, 8, 0, 3);
        table.apply(9, LEADERSHIP, &Entry::Commit(vec![SlotMove { slot: 0, id: 8 }]));
        assert_eq!(named(&table), Some((node(1), 9)));
        // By force: who has it now is no successor of itself.
        table.apply(10, LEADERSHIP, &expire(&[3], 0, 1));
        let named_at = Start::Drained { from: node(3), epoch: 9, named: Some(9) };
        assert_eq!(table.row(0).unwrap().start, named_at, "it was the successor");
        assert_eq!((table.row(0).unwrap().owner, named(&table)), (node(1), None));
        table.apply(11, LEADERSHIP, &succeed(Some(node(2))));
        table.apply(12, LEADERSHIP, &expire(&[1], 0, 3));
        assert_eq!((table.row(0).unwrap().owner, named(&table)), (node(3), Some((node(2), 11))));
        table.apply(13, LEADERSHIP, &succeed(None));
        assert_eq!(named(&table), None);
    }

    #[test]
    fn a_restarted_node_is_not_the_owner_that_it_was() {
        let mut table = table();
        let again = NodeStart { node: 1, incarnation: 2 };
        let entry = Entry::Expire { leadership: LEADERSHIP, lapsed: vec![node(1)], slots: vec![(0, again)] };
        table.apply(5, LEADERSHIP, &entry);
        assert_eq!(table.row(0).unwrap().owner, again);
        assert_eq!(table.row(0).unwrap().start, Start::Drained { from: node(1), epoch: 3, named: None });
    }
}
