//! The promise: a node that joins takes its share of the slots, and nothing else moves.

use crate::kit;

#[test]
fn a_fourth_node_takes_about_a_quarter_of_the_slots_and_only_those_move() {
    let mut cluster = kit::nodes(3, &kit::per_user("5/1m", 5, "share"));
    let before = cluster.node("n1").slot_owners();
    assert_eq!(before.len(), 4096);
    cluster.join();
    let after = cluster.node("n1").slot_owners();
    for node in cluster.running() {
        assert_eq!(node.slot_owners(), after, "{} sees other owners", node.name);
    }
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| *after == "n4"), "slots moved among the others");
    // A quarter, ± 15 %.
    assert!((871..=1177).contains(&moved.len()), "{} slots moved", moved.len());
}
