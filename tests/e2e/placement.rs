//! The promise: slots are owned in proportion to weights, and who takes them over stands in another zone.

use crate::kit;
use tidegate_jepsen::cluster::{Cluster, free_ports, wait_for};

#[test]
fn slots_go_by_weight_and_their_successors_stand_in_another_zone() {
    let mut cluster = Cluster::empty(kit::settings(&kit::per_user("5/1h", 5, "deny")));
    let places = [("a", "100"), ("a", "50"), ("b", "150")];
    let ports: Vec<u16> = places.iter().map(|_| free_ports()).collect();
    for (port, (zone, weight)) in ports.iter().zip(places) {
        let flags = ["--bootstrap-expect", "3", "--zone", zone, "--weight", weight].map(str::to_owned);
        cluster.spawn(*port, &ports, &flags);
    }
    cluster.await_ready();

    let status = |cluster: &Cluster| cluster.node("n1").status().unwrap();
    wait_for("each slot has a successor", kit::CHECK_TIMEOUT * 100, || {
        status(&cluster)["slot_successors"].as_array().unwrap().iter().all(serde_json::Value::is_string)
    });
    let now = status(&cluster);
    let names = |of: &str| -> Vec<String> {
        let all = now[of].as_array().unwrap().iter();
        all.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let (owners, successors) = (names("slot_owners"), names("slot_successors"));
    let owned = |name: &str| owners.iter().filter(|owner| *owner == name).count();
    // A third, a sixth, a half; nobody more than a tenth above.
    assert!((1229..=1502).contains(&owned("n1")), "{}", owned("n1"));
    assert!((614..=752).contains(&owned("n2")), "{}", owned("n2"));
    assert!((1843..=2253).contains(&owned("n3")), "{}", owned("n3"));
    for (owner, successor) in owners.iter().zip(&successors) {
        assert_ne!(owner == "n3", successor == "n3", "{owner} {successor}");
    }
    let weights: Vec<u64> =
        now["members"].as_array().unwrap().iter().map(|one| one["weight"].as_u64().unwrap()).collect();
    assert_eq!(weights, [100, 50, 150]);

    // Whose owner is lost goes to its successor, and then by plan to where it should be.
    cluster.kill("n3");
    wait_for("the others have all slots", kit::CHECK_TIMEOUT * 100, || {
        let owners = cluster.node("n1").slot_owners();
        !owners.is_empty() && owners.iter().all(|owner| owner != "n3")
    });
    cluster.await_ready();
    let owners = cluster.node("n2").slot_owners();
    let of_n1 = owners.iter().filter(|owner| *owner == "n1").count();
    assert!((2458..=3004).contains(&of_n1), "two thirds: {of_n1}");
}
