//! The promise: however many rules are about a request, each is asked, wherever its bucket is.

use std::{fmt::Write as _, time::Duration};

use crate::kit;

#[test]
fn more_rules_than_a_frame_takes_charges_are_all_asked() {
    let mut rules = "rules:\n".to_owned();
    for number in 0..400 {
        // Were one of them not asked, all checks would pass.
        let limit = if number == 399 { 3 } else { 1_000 };
        let _ = writeln!(
            rules,
            "  - {{ name: r{number}, key: [user], limit: {limit}/1h, on_owner_loss: allow }}"
        );
    }
    let cluster = kit::patient_nodes(2, &rules);
    for user in ["a", "b", "c"] {
        let mut allowed = 0;
        for turn in 0..8 {
            let mut client = cluster.nodes[turn % 2].client(Duration::from_secs(20));
            let answer = client.get(&format!("/v1/check?user={user}")).unwrap();
            let body = answer.json();
            assert!(["owner", "forwarded"].contains(&body["decided_by"].as_str().unwrap()), "{body}");
            allowed += usize::from(answer.status == 200);
        }
        assert_eq!(allowed, 3, "{user}");
    }
}
