//! No acknowledged change of rules is lost, and all nodes have them in one order, whoever is killed. The long form:
//! `cargo run --release -p jepsen -- rules --cycles 200`.

use crate::kit;
use tidegate_jepsen::{
    cluster::{Cluster, Settings},
    history::monotonic,
    workload::rules::{Plan, run},
};

#[test]
fn acknowledged_rules_survive_kills_of_any_node_in_one_order_and_linearizably() {
    let seed = monotonic();
    let settings = Settings { keeps_data: true, ..kit::settings("rules: []\n") };
    let mut cluster = Cluster::start(3, settings);
    let report = run(&mut cluster, Plan { cycles: 8, clients: 3, seed }, |_, _| {});
    assert!(report.faults.is_empty(), "seed {seed}: {report:#?}");
    assert!(report.covers(), "seed {seed}: the kills hit too little: {report:#?}");
}
