//! How the cluster of a run comes to be: in one go or not, with nodes that own nothing, with one that is short of memory.

use std::{fmt, sync::atomic::AtomicBool, time::Duration};

use super::settled::{NOT_READY, READY_WITHIN, await_settled, last_lines};
use crate::{
    cluster::Cluster,
    history::monotonic,
    nemesis::{Kind, Special},
    ports::port_apart,
};

/// So few found a cluster where not all of them do.
const FEW: u8 = 3;
/// What a node that is short of memory has for buckets.
const LITTLE: &str = "1MiB";
/// How long giving all slots away may take.
const DRAINED_WITHIN: u64 = 30_000_000_000;
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How nodes found a cluster. Whatever it is, there must be one in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Founding {
    /// All at once, and as many are expected.
    AllExpected,
    /// All at once, and fewer are expected: any of them may be the founders.
    FewExpected,
    /// Some found it, and then all others come at once, with the same arguments as the first ones.
    ThenMore,
}

impl Founding {
    pub(super) fn of(seed: u64, nodes: u8) -> Self {
        match seed % 3 {
            _ if nodes <= FEW => Self::AllExpected,
            1 => Self::ThenMore,
            2 => Self::FewExpected,
            _ => Self::AllExpected,
        }
    }
}

impl fmt::Display for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllExpected => "founded by all nodes at once",
            Self::FewExpected => "all nodes began at once, and three of them were expected to found it",
            Self::ThenMore => "founded by three; all others came at once, with the same arguments",
        })
    }
}

/// Which nodes are not like the others. Two own slots at least.
pub(super) fn special(kinds: &[Kind], seed: u64, nodes: u8) -> Special {
    let idle = match seed % 4 {
        1 => 2.min(nodes.saturating_sub(2)),
        3 => nodes.saturating_sub(2),
        _ => 0,
    };
    let idle = (nodes - idle + 1..=nodes).map(|node| format!("n{node}")).collect();
    // One that owns slots.
    let small =
        if kinds.contains(&Kind::Flood) { vec![format!("n{}", seed / 4 % 2 + 1)] } else { Vec::new() };
    Special { idle, small }
}

/// Starts the nodes, and waits until each has what it should.
pub(super) fn found(
    cluster: &mut Cluster,
    founding: Founding,
    nodes: u8,
    special: &Special,
    interrupted: &AtomicBool,
) -> Result<(), String> {
    let ports: Vec<u16> = (1..=nodes).map(port_apart).collect();
    let expected = if founding == Founding::AllExpected { nodes } else { FEW };
    let ready = |cluster: &Cluster| {
        await_settled(cluster, READY_WITHIN, interrupted)
            .ok_or_else(|| format!("{NOT_READY} within {READY_WITHIN:?}\n{}", last_lines(cluster)))
    };
    for (node, port) in (1..=nodes).zip(&ports) {
        if founding == Founding::ThenMore && node == FEW + 1 {
            ready(cluster)?;
        }
        let mut flags = vec!["--bootstrap-expect".to_owned(), expected.to_string()];
        if special.small.contains(&format!("n{node}")) {
            flags.extend(["--max-memory".to_owned(), LITTLE.to_owned()]);
        }
        cluster.spawn(*port, &ports, &flags);
    }
    ready(cluster)?;
    for name in &special.idle {
        let path = format!("/v1/cluster/drain/{name}");
        let asked = cluster.node("n1").client(ASK_WITHIN).request("POST", &path, &[], "");
        if !asked.is_ok_and(|answer| answer.status == 200) {
            return Err(format!("{name} could not be drained before the run\n{}", last_lines(cluster)));
        }
    }
    let end = monotonic() + DRAINED_WITHIN;
    while !special.idle.iter().all(|name| owns_nothing(cluster, name)) {
        if monotonic() > end {
            return Err(format!(
                "{} did not give all slots away\n{}",
                special.idle.join(","),
                last_lines(cluster)
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ready(cluster)
}

fn owns_nothing(cluster: &Cluster, name: &str) -> bool {
    let Ok(status) = cluster.node("n1").status() else { return false };
    let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
    members.iter().any(|member| member["name"] == name && member["slots"] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_founding_comes_and_two_nodes_own_slots_always() {
        let all = [Founding::AllExpected, Founding::FewExpected, Founding::ThenMore];
        assert!(all.iter().all(|one| (1..4).any(|seed| Founding::of(seed, 5) == *one)));
        assert!((1..4).all(|seed| Founding::of(seed, 3) == Founding::AllExpected));
        for nodes in 3..=9 {
            for seed in 0..16 {
                let Special { idle, small } = special(&Kind::ALL, seed, nodes);
                assert!(idle.len() <= usize::from(nodes) - 2 && !idle.contains(&small[0]), "{seed} {nodes}");
                assert_eq!(idle.is_empty(), seed % 2 == 0);
            }
        }
        assert_eq!(special(&[Kind::Kill], 1, 5).small, [""; 0]);
        assert_eq!(special(&[Kind::Kill], 3, 5).idle, ["n3", "n4", "n5"]);
    }
}
