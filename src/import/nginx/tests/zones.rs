//! What a zone means in rules.

use super::*;

#[test]
fn a_part_of_a_configuration_is_for_all_hosts() {
    let made = with_zones("limit_req zone=a;");
    assert_eq!(
        (made.at("any", "/"), made.lost().len(), made.imported.domains[0].rules.len()),
        ("a:1".to_owned(), 0, 1)
    );
    let made = with_zones("location /api { limit_req zone=b; }");
    assert_eq!((made.at("any", "/api/x"), made.at("any", "/")), ("b:1".to_owned(), String::new()));
    let made = with_zones("location /api { limit_req zone=b; } server { limit_req zone=a; }");
    assert!(
        matches!(made.lost()[..], [(3, message)] if message.contains("in no server")),
        "{:?}",
        made.lost()
    );
    assert!(import("worker_processes 1;").lost()[0].1.contains("neither"));
}

#[test]
fn what_a_zone_counts_together_has_one_bucket() {
    let made = with_zones(
        "limit_req zone=a;
server { server_name x; location /free/ { limit_req zone=b; } location ~ \\.php$ { } }
server { server_name y; location = /one { } location / { limit_req zone=b; } }",
    );
    let key = |host: &str, path: &str| {
        let mut found = SmallVec::new();
        let attributes = [("ip", "1.1.1.1"), ("host", host), ("path", path)];
        made.rules.matching("default", &attributes[..], &mut found);
        let limited = found.iter().filter(|one| one.limit.is_some());
        limited.map(|one| (one.rule.name().to_owned(), one.key)).collect::<Vec<_>>()
    };
    let expected = key("x", "/");
    assert_eq!((expected.len(), &*expected[0].0), (1, "a"));
    assert_eq!((key("x", "/free/x.php"), key("y", "/one")), (expected.clone(), expected));
    assert_eq!((made.at("x", "/free/x"), made.at("y", "/two")), ("b:1".to_owned(), "b:1".to_owned()));
    assert_eq!(made.imported.domains[0].rules.len(), 2);
}

#[test]
fn what_never_limits_is_said() {
    let made = with_zones("limit_req zone=a; server { limit_req zone=a; location / { limit_req zone=b; } }");
    assert_eq!((made.at("any", "/"), made.of(&[("ip", "1.1.1.1")])), ("b:1".to_owned(), "b:1".to_owned()));
    assert_eq!(made.lost(), []);
    assert!(
        made.notes().iter().any(|(line, note)| *line == 3 && note.contains("no request is limited by it"))
    );
    assert!(with_zones("server { }").notes()[0].1.contains("used nowhere"));
}
