//! Faults of a plan in which nodes move: with how many at a time, and how they end.

use fastrand::Rng;

use super::{
    fault::{Fault, Kind, Nodes},
    plan::Plan,
};

/// Between two of them: slots move back, and voters change.
const BETWEEN_MS: std::ops::Range<u64> = 3_500..6_500;

/// Nodes move, leave and come back, and lose their addresses to others, one fault after the other.
pub(super) fn add_moves(plan: &mut Plan, dice: &mut Rng, begin: u64, end: u64) {
    let mut at_ms = begin;
    while at_ms < end {
        let (kind, lasts_ms) = match dice.u8(..6) {
            0..3 => {
                let count = match dice.u8(..3) {
                    0 => 1,
                    1 => dice.usize(1..=plan.nodes),
                    _ => plan.nodes,
                };
                (
                    Kind::MoveAddresses { nodes: some(plan.nodes, count, dice), crash: dice.bool() },
                    dice.u64(200..3_500),
                )
            }
            // What is left is a majority.
            3 => (Kind::Scale(some(plan.nodes, (plan.nodes - 1) / 2, dice)), dice.u64(6_000..9_000)),
            _ => {
                let node = dice.usize(..plan.nodes);
                (Kind::ReuseAddress { node, crash: dice.bool() }, dice.u64(200..3_500))
            }
        };
        plan.faults.push(Fault { place: 0, at_ms, lasts_ms, kind });
        at_ms += lasts_ms + dice.u64(BETWEEN_MS);
    }
}

/// So many of the nodes.
fn some(nodes: usize, count: usize, dice: &mut Rng) -> Nodes {
    let mut all: Vec<usize> = (0..nodes).collect();
    dice.shuffle(&mut all);
    all.iter().take(count).fold(0, |side: Nodes, node| side | (1_u64 << *node))
}

/// Whether a node is one of these.
pub(super) fn is_of(nodes: Nodes, node: usize) -> bool {
    nodes >> node & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Shape, theme::Theme};

    #[test]
    fn plans_about_moves_have_each_kind_and_move_one_some_and_all() {
        let (mut sizes, mut scales, mut reuses) = ([0; 3], 0, 0);
        for seed in (19..2_000).step_by(20) {
            let plan = Plan::of(seed, Shape::default());
            assert_eq!(plan.theme, Theme::Moves);
            for fault in &plan.faults {
                match fault.kind {
                    Kind::MoveAddresses { nodes, .. } => {
                        let count = nodes.count_ones() as usize;
                        assert!((1..=plan.nodes).contains(&count));
                        sizes[if count == 1 { 0 } else { 1 + usize::from(count == plan.nodes) }] += 1;
                    }
                    Kind::Scale(nodes) => {
                        let stay = plan.nodes - nodes.count_ones() as usize;
                        assert!(2 * stay > plan.nodes);
                        scales += 1;
                    }
                    Kind::ReuseAddress { .. } => reuses += 1,
                    _ => {}
                }
            }
        }
        assert!(
            sizes.iter().all(|count| *count > 10) && scales > 20 && reuses > 20,
            "{sizes:?} {scales} {reuses}"
        );
    }
}
