//! What is in the files of a data directory. Checksums and the rights of the directory stand before most of it; whatever passes must
//! still be read or refused.

use openraft::{Entry, Vote};

use super::{messages::take_over, stable, written};
use crate::{
    ids::{Leadership, NodeId},
    ownership::saved::Saved,
    raft::applied::read,
    state::{Replicated, command::Command, types::Group},
};

/// The first byte says which file the others are of.
pub(super) fn disk(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 5 {
        0 => {
            if let Some(saved) = stable::<Saved>(bytes) {
                take_over(saved.buckets, saved.let_go);
            }
        }
        1 => _ = stable::<Entry<Group>>(bytes),
        2 => _ = stable::<Replicated>(bytes),
        3 => _ = stable::<Vote<NodeId>>(bytes),
        _ => log(bytes),
    }
}

/// Applies the commands of a log. Nodes that apply the same are the same, and so is one that begins with a snapshot.
fn log(bytes: &[u8]) {
    let Some(commands) = stable::<Vec<Command>>(bytes) else { return };
    let leadership = Leadership { term: 1, leader: 1 };
    let (mut state, mut other) = (Replicated::default(), Replicated::default());
    let half = commands.len() / 2;
    for (index, command) in (1..).zip(commands) {
        if index == half as u64 {
            other = read(&written(&other)).expect("a snapshot can be read");
        }
        let outcome = state.apply(index, leadership, command.clone());
        assert_eq!(outcome, other.apply(index, leadership, command));
    }
    assert_eq!(other, state);
}
