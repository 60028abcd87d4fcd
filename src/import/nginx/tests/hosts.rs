//! Which server a request meets, by host and port, and so by which limits.

use super::*;

#[test]
fn of_two_servers_of_one_name_the_port_tells_which_answers() {
    // As certificate tools write it.
    let made = with_zones(
        "server { server_name s.test; listen 443 ssl; location / { limit_req zone=a burst=5 nodelay; } }
server { if ($host = s.test) { return 301 https://$host$request_uri; } listen 80; server_name s.test; return 404; }",
    );
    assert_eq!(made.at("s.test", "/"), "a:6");
    let at =
        |scheme: &str| made.of(&[("ip", "1.1.1.1"), ("host", "s.test"), ("path", "/"), ("scheme", scheme)]);
    assert_eq!((at("https"), at("http")), ("a:6".to_owned(), String::new()));
    assert_eq!(made.lost(), []);

    // Without TLS only the number of the port differs.
    let made = with_zones(
        "server { server_name s.test; listen 8443; limit_req zone=a burst=5 nodelay; }
server { listen 8080; server_name s.test; return 301 https://s.test; }",
    );
    assert_eq!(made.at("s.test", "/"), "a:6");
    let at = |port: &str| made.of(&[("ip", "1.1.1.1"), ("host", "s.test"), ("server_port", port)]);
    assert_eq!((at("8443"), at("8080")), ("a:6".to_owned(), String::new()));
    assert!(made.notes().iter().any(|(_, note)| note.contains("server_port=$server_port")));
}

#[test]
fn limits_of_a_server_hold_for_the_hosts_that_reach_it() {
    let made = with_zones(
        "server { listen 80; server_name first.test; }
server { listen 80; server_name a.test; limit_req zone=a; }
server { listen 80 default_server; server_name _; limit_req zone=b; }
server { listen 80; limit_req zone=a burst=9 nodelay; }",
    );
    assert_eq!(made.at("first.test", "/"), "");
    assert_eq!(made.at("a.test", "/x"), "a:1");
    assert_eq!(made.at("A.test", "/"), "b:1", "front ends say hosts in lower case");
    assert_eq!(made.at("else.test", "/"), "b:1");
    assert_eq!(made.of(&[("ip", "1.1.1.1")]), "b:1", "without a host");
    // The last one has no name and is no default: nothing that has a host comes there.
    assert!(
        matches!(made.lost()[..], [(6, limit), (6, server)] if limit.contains("limit_req: no host") && server.contains("without a host")),
        "{:?}",
        made.lost()
    );
}

#[test]
fn names_of_hosts_are_chosen_as_nginx_chooses() {
    let made = with_zones(
        "server { server_name none.test; }
server { server_name *.w.test; limit_req zone=a burst=1 nodelay; }
server { server_name .both.test; limit_req zone=a burst=2 nodelay; }
server { server_name mail.*; limit_req zone=a burst=3 nodelay; }
server { server_name ~^re[12]\\.test$; limit_req zone=a burst=4 nodelay; }
server { server_name x.w.test *.deep.w.test; }
server { server_name UPPER.test; limit_req zone=a burst=5 nodelay; }
server { server_name \"\"; }",
    );
    for (host, expected) in [
        ("none.test", ""),
        ("other.test", ""),
        ("w.test", ""),
        ("b.w.test", "a:2"),
        ("c.b.w.test", "a:2"),
        ("x.w.test", ""),
        ("y.deep.w.test", ""),
        ("deep.w.test", "a:2"),
        ("both.test", "a:3"),
        ("www.both.test", "a:3"),
        ("mail.org", "a:4"),
        ("mail.w.test", "a:2"),
        ("mail.both.test", "a:3"),
        ("re1.test", "a:5"),
        ("re3.test", ""),
        ("upper.test", "a:6"),
    ] {
        assert_eq!(made.at(host, "/"), expected, "{host}\n{}", made.imported.to_yaml(&made.sources));
    }
    assert_eq!(made.lost_but_counts(), []);
}

#[test]
fn servers_of_different_ports_answer_for_each_other_by_default() {
    let made = with_zones(
        "server { listen 443 ssl; server_name a.test; limit_req zone=a; }
server { listen 80; server_name b.test; limit_req zone=b; }",
    );
    let at = |host: &str, scheme: &str| made.of(&[("ip", "1.1.1.1"), ("host", host), ("scheme", scheme)]);
    assert_eq!((at("a.test", "https"), at("a.test", "http")), ("a:1".to_owned(), "b:1".to_owned()));
    assert_eq!((at("b.test", "https"), at("b.test", "http")), ("a:1".to_owned(), "b:1".to_owned()));
    // Where the scheme is not told, the name decides.
    assert_eq!((made.at("a.test", "/"), made.at("b.test", "/")), ("a:1".to_owned(), "b:1".to_owned()));
}

#[test]
fn an_address_that_decides_is_told() {
    let is_lost = |servers: &str| {
        let made = with_zones(servers);
        made.lost().iter().any(|(_, message)| message.starts_with("listen: port"))
    };
    for servers in [
        // The default of both is the first, and b is on one of them only.
        "server { listen 8080 default_server; listen 127.0.0.1:8080 default_server; server_name a; limit_req zone=a; } server { listen 8080; server_name b; }",
        "server { listen 127.0.0.1:80 default_server; listen 127.0.0.9:80 default_server; server_name _; } server { listen 127.0.0.9:80; server_name a; } server { listen 127.0.0.1:80; server_name a; limit_req zone=a; }",
        "server { listen 80; server_name a; } server { listen 127.0.0.1:80; server_name a; limit_req zone=a; }",
        "server { listen 80; listen [::]:80; server_name a; limit_req zone=a; } server { listen 80; server_name b; }",
        "server { listen 80; server_name a; limit_req zone=a; } server { listen 127.0.0.1; server_name b; return 204; }",
    ] {
        assert!(is_lost(servers), "{servers}");
    }
    for servers in [
        "server { listen 80; listen [::]:80; server_name a; limit_req zone=a; } server { listen *:80; listen [::]:80; server_name b; }",
        "server { listen 127.0.0.1:80; server_name a; limit_req zone=a; } server { listen 127.0.0.1; server_name b; }",
        "server { listen 127.0.0.1:80; server_name a; limit_req zone=a; } server { listen 10.0.0.1:81; server_name b; }",
        // All have the same limits, or none.
        "limit_req zone=a; server { listen 80; listen [::]:80; server_name a; } server { listen 80; server_name b; }",
        "server { listen 80; listen [::]:80; server_name a; } server { listen 80; server_name b; } server { listen 81; limit_req zone=a; }",
    ] {
        assert!(!is_lost(servers), "{servers}");
    }
}

#[test]
fn each_port_of_a_range_is_one() {
    let made = with_zones(
        "server { listen 8080-8082; server_name a; limit_req zone=a; } server { listen 8081; server_name a; } server { listen 9000-9900; }",
    );
    let at = |port: &str| made.of(&[("ip", "1.1.1.1"), ("host", "b"), ("server_port", port)]);
    assert_eq!((at("8080"), at("8082")), ("a:1".into(), "a:1".into()));
    let lost = made.lost();
    assert!(lost.iter().any(|(_, message)| message.contains("9000-9900")), "{lost:?}");
    // A request without a host.
    let made = with_zones("server { server_name a; limit_req zone=a; } server { server_name b \"\"; }");
    assert!(made.lost().iter().any(|(_, message)| message.contains("without a host")), "{:?}", made.lost());
    let made = with_zones("server { server_name a; limit_req zone=a; } server { }");
    assert!(made.lost().iter().any(|(_, message)| message.contains("without a host")), "{:?}", made.lost());
    let made = with_zones("server { server_name \"\"; limit_req zone=a; } server { server_name b; }");
    assert_eq!(made.lost(), []);
}

#[test]
fn a_name_that_nginx_ignores_is_told() {
    for (servers, expected) in [
        ("server { server_name *.a.test; } server { server_name .a.test; limit_req zone=a; }", true),
        ("server { server_name a.test; } server { server_name .a.test; limit_req zone=a; }", true),
        ("server { server_name a.test .a.test; limit_req zone=a; }", true),
        (
            "server { server_name .a.test; limit_req zone=a; } server { server_name a.test *.a.test b.a.test; }",
            false,
        ),
        (
            "server { server_name .a.test; limit_req zone=a; } server { listen 81; server_name a.test; }",
            false,
        ),
    ] {
        let made = with_zones(servers);
        let is_told = made.lost().iter().any(|(_, message)| message.contains("conflicting"));
        assert_eq!(is_told, expected, "{servers}");
    }
}

#[test]
fn a_regular_expression_for_names_has_no_case() {
    let made = with_zones(
        "server { listen 80; } server { listen 80; server_name ~^(www\\.)?Shop\\.Test$; limit_req zone=a; }",
    );
    assert_eq!(
        (made.at("shop.test", "/"), made.at("www.shop.test", "/"), made.at("x", "/")),
        ("a:1".into(), "a:1".into(), String::new())
    );
    assert_eq!(made.lost(), []);
}
