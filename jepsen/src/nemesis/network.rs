//! Faults of the network between the nodes.

use std::time::Duration;

use super::{Kind, actions::number};
use crate::network::Network;

/// Groups of nodes of which each reaches all of its own, and nobody else.
pub(super) type Sides = Vec<Vec<String>>;

/// One against all others.
pub(super) fn alone(target: &str, nodes: u8) -> Sides {
    let others = (1..=nodes).map(|node| format!("n{node}")).filter(|node| node != target);
    vec![vec![target.to_owned()], others.collect()]
}

/// Does one. Tells what exactly, and into which sides the nodes fall, if they do.
pub(super) fn begin(
    net: &Network,
    kind: Kind,
    target: &str,
    nodes: u8,
    random: &mut fastrand::Rng,
) -> (String, Sides) {
    let name = target;
    let target = number(target);
    let mut others: Vec<u8> = (1..=nodes).filter(|node| *node != target).collect();
    random.shuffle(&mut others);
    let from_target: Vec<(u8, u8)> = others.iter().map(|other| (target, *other)).collect();
    let to_target: Vec<(u8, u8)> = others.iter().map(|other| (*other, target)).collect();
    let both = [&from_target[..], &to_target].concat();
    let mut sides = Sides::new();
    let what = match kind {
        Kind::Halves => {
            // The target is on the smaller side.
            let (small, large) = others.split_at(usize::from((nodes - 1) / 2).saturating_sub(1));
            let small = [&[target], small].concat();
            net.split(&[&small, large]);
            let named = |side: &[u8]| side.iter().map(|node| format!("n{node}")).collect();
            sides = vec![named(&small), named(large)];
            format!("{} apart from {}", names(&small), names(large))
        }
        Kind::MajorityRing => {
            let ring = [&[target], &others[..]].concat();
            let count = ring.len();
            // Itself and as many neighbours on each side as make a majority.
            let reach = (count / 2).div_ceil(2);
            let mut pairs = Vec::new();
            for (place, one) in ring.iter().enumerate() {
                for (other_place, other) in ring.iter().enumerate() {
                    let apart = place.abs_diff(other_place);
                    if apart.min(count - apart) > reach {
                        pairs.push((*one, *other));
                    }
                }
            }
            if let (true, [one, other, ..]) = (pairs.is_empty(), &others[..]) {
                pairs.extend([(*one, *other), (*other, *one)]);
            }
            net.cut_all(&pairs);
            format!("each reaches its neighbours only: {}", names(&ring))
        }
        Kind::OneWay => {
            if random.bool() {
                net.cut_all(&from_target);
                format!("nobody hears n{target}")
            } else {
                net.cut_all(&to_target);
                format!("n{target} hears nobody")
            }
        }
        Kind::Bridge => {
            let (one, other) = others.split_at(others.len() / 2);
            net.split(&[one, other]);
            format!("{} and {} reach each other over n{target} only", names(one), names(other))
        }
        Kind::Alone => {
            net.cut_all(&both);
            sides = alone(name, nodes);
            format!("n{target} alone")
        }
        Kind::Slow => {
            let rate = [128, 256, 512][random.usize(..3)];
            net.slow(target, rate);
            format!("n{target} sends {rate} kbit/s")
        }
        Kind::Loss => {
            let percent = [5, 20, 50][random.usize(..3)];
            net.lose(&both, percent);
            format!("{percent} % of the packets of n{target} are lost")
        }
        Kind::Delay => {
            let delay = [20, 60, 150][random.usize(..3)];
            net.delay(&both, Duration::from_millis(delay), Duration::from_millis(delay / 2));
            format!("packets of n{target} take {delay} to {} ms longer", delay * 3 / 2)
        }
        Kind::Reorder => {
            let percent = [10, 30, 60][random.usize(..3)];
            net.reorder(&both, percent);
            format!("{percent} % of the packets of n{target} are overtaken by others")
        }
        Kind::Unconnectable => {
            net.refuse_connections(target);
            format!("nobody gets a new connection to n{target}")
        }
        Kind::LostAnswers => {
            let percent = [3, 10, 30][random.usize(..3)];
            net.lose_answers(&from_target, percent);
            format!("{percent} % of the answers of n{target} are lost, and their streams")
        }
        Kind::FarApart => {
            let round_trip = [5, 20, 40, 80, 150][random.usize(..5)];
            let all: Vec<(u8, u8)> = (1..=nodes)
                .flat_map(|from| (1..=nodes).map(move |to| (from, to)))
                .filter(|(from, to)| from != to)
                .collect();
            let way = Duration::from_micros(round_trip * 500);
            net.delay(&all, way, way / 10);
            format!("all nodes are {round_trip} ms from each other, there and back")
        }
        _ => {
            net.double(&both);
            format!("packets of n{target} arrive twice")
        }
    };
    (what, sides)
}

fn names(nodes: &[u8]) -> String {
    nodes.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(",")
}
