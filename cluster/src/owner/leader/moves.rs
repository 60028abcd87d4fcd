//! Slots that are not where they should be move there, one batch after the other.

use std::time::Duration;

use tidegate_limiter::Nanos;

use super::{Leader, SETTLE, Step, View, pace::BATCH};
use crate::owner::table::{Entry, SlotMove, SlotRow, Table};

/// A move that takes longer is given up.
const MOVE_PATIENCE: Duration = Duration::from_secs(4);

impl Leader {
    /// Gives a move up that takes too long.
    pub(super) fn end_slow_move(&mut self, table: &Table, now: Nanos) -> Option<Step> {
        let oldest = table.rows().iter().filter_map(|row| row.moving).min_by_key(|pending| pending.id);
        let Some(oldest) = oldest else {
            self.watched = None;
            return None;
        };
        let since = match self.watched {
            Some((id, since)) if id == oldest.id => since,
            _ => {
                self.watched = Some((oldest.id, now));
                now
            }
        };
        if now < since.saturating_add(MOVE_PATIENCE) {
            return None;
        }
        // Asked again after as long, if it does not answer.
        self.watched = Some((oldest.id, now));
        let moves = (0u16..)
            .zip(table.rows())
            .filter(|(_, row)| row.moving == Some(oldest))
            .map(|(slot, _)| SlotMove { slot, id: oldest.id })
            .collect();
        Some(Step::Refuse { target: oldest.to, moves })
    }

    /// Begins the next move: slots of one owner that should be another's.
    pub(super) fn rebalance(&mut self, view: View<'_>, now: Nanos) -> Option<Step> {
        if view.table.moving() > 0 {
            return None;
        }
        self.pace.arrived(now);
        let wanted = self.wanted.as_ref()?;
        let may_move = |row: &&SlotRow| self.is_there(row.owner, view, now);
        let leaves = view.table.rows().iter().any(|row| view.draining.contains(&row.owner));
        if !leaves && (now < wanted.since.saturating_add(SETTLE) || self.pace.rests(now)) {
            return None;
        }
        let misplaced = || {
            let rows = (0u16..).zip(view.table.rows()).zip(&wanted.owners);
            rows.filter(|((_, row), to)| row.owner != **to && may_move(row))
        };
        // Those who want to leave first.
        let ((_, first), to) = misplaced()
            .find(|((_, row), _)| view.draining.contains(&row.owner))
            .or_else(|| misplaced().next())?;
        let slots = misplaced()
            .filter(|((_, row), other)| row.owner == first.owner && *other == to)
            .map(|((slot, _), _)| slot)
            .take(BATCH)
            .collect();
        Some(Step::Write(Entry::Prepare { slots, to: *to }))
    }
}
