//! What requests are counted by, and which are not: keys, `geo` and `map`, the name of a server.

use super::*;

#[test]
fn parts_of_a_key_may_be_empty() {
    let made = import(
        "limit_req_zone $binary_remote_addr$http_x_api_key zone=a:1m rate=1r/m;
limit_req_zone $http_a$http_b zone=b:1m rate=1r/m;
limit_req_zone x$http_c zone=c:1m rate=1r/m;
limit_req_zone \"\" zone=d:1m rate=1r/m;
server { limit_req zone=a; limit_req zone=b; limit_req zone=c; limit_req zone=d; }",
    );
    assert_eq!(made.of(&[("ip", "1.1.1.1")]), "a:1 c:1");
    assert_eq!(made.of(&[("ip", "1.1.1.1"), ("x-api-key", "k"), ("c", "c")]), "a:1 c:1");
    assert_eq!(made.of(&[("b", "b")]), "b:1 c:1");
    assert_eq!(made.of(&[("a", ""), ("b", "")]), "c:1");
    assert_eq!(made.lost(), []);
}

#[test]
fn lists_of_those_that_are_not_limited_are_carried_over() {
    let made = import(
        "geo $limited { default 1; 10.0.0.0/8 0; 10.1.0.0/16 1; 192.168.0.1 0; 172.16.0.0-172.16.0.255 0; 2001:db8::/32 0; }
map $limited $key { 0 \"\"; 1 $binary_remote_addr; }
map $request_method $posts { default \"\"; post $binary_remote_addr; }
map $http_x_key $by_key { \"\" $binary_remote_addr; 4711 \"\"; default $http_x_key; }
map $uri $by_path { default \"\"; ~^/api/ $binary_remote_addr; ~^/api/free \"\"; /77 $binary_remote_addr; }
limit_req_zone $key zone=a:1m rate=1r/m;
limit_req_zone $posts zone=b:1m rate=1r/m;
limit_req_zone $by_key zone=c:1m rate=1r/m;
limit_req_zone $by_path zone=d:1m rate=1r/m;
server { limit_req zone=a; limit_req zone=b; limit_req zone=c; limit_req zone=d; }",
    );
    assert_eq!(made.lost(), []);
    for (ip, expected) in [
        ("203.0.113.1", "a:1"),
        ("10.2.0.1", ""),
        ("10.1.0.1", "a:1"),
        ("192.168.0.1", ""),
        ("192.168.0.2", "a:1"),
        ("172.16.0.77", ""),
        ("172.16.1.1", "a:1"),
        ("2001:db8::1", ""),
        ("2001:db9::1", "a:1"),
    ] {
        assert_eq!(made.of(&[("ip", ip), ("x-key", "4711")]), expected, "{ip}");
    }
    let ten = ("ip", "10.2.0.1");
    assert_eq!(made.of(&[ten, ("method", "POST"), ("x-key", "4711")]), "b:1");
    assert_eq!(made.of(&[ten, ("method", "GET"), ("x-key", "4711")]), "");
    assert_eq!((made.of(&[ten]), made.of(&[ten, ("x-key", "")])), ("c:1".to_owned(), "c:1".to_owned()));
    assert_eq!(made.of(&[ten, ("x-key", "k")]), "c:1");
    for (path, expected) in [("/", ""), ("/api/x", "d:1"), ("/api/freely", "d:1"), ("/77", "d:1")] {
        assert_eq!(made.of(&[ten, ("x-key", "4711"), ("path", path)]), expected, "{path}");
    }
}

#[test]
fn what_a_map_compares_in_any_case_is_lost_where_the_attribute_has_a_case() {
    let made = import(
        "map $http_x_plan $plan { default \"\"; free $binary_remote_addr; ~*^gold $binary_remote_addr; ~^Silver $binary_remote_addr; }
map $uri $path { default \"\"; /api $binary_remote_addr; /1 $binary_remote_addr; }
map $host $by_host { hostnames; default \"\"; *.A.test $binary_remote_addr; ~*^B $binary_remote_addr; ~^C $binary_remote_addr; }
map $request_method $by_method { default \"\"; ~*^p(ost|ut)$ $binary_remote_addr; }
map $http_unused $unused { default \"\"; free x; }
geo $kind { default Plain; 10.0.0.0/8 Net; }
map $kind $by_kind { default \"\"; net $binary_remote_addr; ~^plain x; }
limit_req_zone $plan zone=a:1m rate=1r/m;
limit_req_zone $path zone=b:1m rate=1r/m;
limit_req_zone $by_host zone=c:1m rate=1r/m;
limit_req_zone $by_method zone=d:1m rate=1r/m;
limit_req_zone $by_kind zone=e:1m rate=1r/m;
server { limit_req zone=a; limit_req zone=b; limit_req zone=c; limit_req zone=d; limit_req zone=e; }",
    );
    let lost = made.lost();
    assert!(
        matches!(&lost[..], [(1, free), (1, gold), (2, path)]
            if free.contains("free") && gold.contains("~*^gold") && path.contains("/api")),
        "{lost:?}"
    );
    let of = |name: &str, value: &str| made.of(&[("ip", "1.1.1.1"), (name, value)]);
    assert_eq!(
        (of("x-plan", "free"), of("x-plan", "Silver"), of("path", "/1")),
        ("a:1".into(), "a:1".into(), "b:1".into())
    );
    assert_eq!(
        (of("host", "x.a.test"), of("host", "b.org"), of("host", "c.org")),
        ("c:1".into(), "c:1".into(), String::new())
    );
    assert_eq!((of("method", "POST"), of("method", "GET")), ("d:1".into(), String::new()));
    assert_eq!(made.of(&[("ip", "10.1.1.1")]), "e:1");
}

#[test]
fn networks_of_any_length_are_carried_over() {
    let made = import(
        "geo $limit { default 1; ::1 0; 2001:db8::5 0; 2001:db8:1::/120 0; }
map $limit $key { 0 \"\"; 1 $binary_remote_addr; }
limit_req_zone $key zone=a:1m rate=1r/m;
server { limit_req zone=a; }",
    );
    assert_eq!(made.lost(), []);
    for (ip, expected) in [
        ("::1", ""),
        ("2001:db8::5", ""),
        ("2001:db8::6", "a:1"),
        ("2001:db8:1::ff", ""),
        ("2001:db8:1::100", "a:1"),
        ("1.1.1.1", "a:1"),
    ] {
        assert_eq!(made.of(&[("ip", ip)]), expected, "{ip}");
    }
}

#[test]
fn maps_that_no_rule_can_say_are_lost_with_their_line() {
    let made = import(
        "map $http_user_agent $bot { default \"\"; ~*(google|bing)bot $binary_remote_addr; }
map $a $b { default $c; }
map $b $c { default $b; }
geo $http_x_forwarded_for $g { default 1; }
map \"$host$uri\" $two { default 1; }
limit_req_zone $bot zone=a:1m rate=1r/m;
limit_req_zone $b zone=b:1m rate=1r/m;
limit_req_zone $g zone=c:1m rate=1r/m;
limit_req_zone $two zone=d:1m rate=1r/m;
limit_req_zone $cookie_x zone=e:1m rate=1r/m;
server { limit_req zone=a; limit_req zone=b; }",
    );
    let lost: Vec<u64> = made.lost().iter().map(|(line, _)| *line).collect();
    assert_eq!(lost, [1, 7, 8, 9, 10, 11], "{:?}", made.lost());
}

#[test]
fn the_name_of_a_server_is_the_one_that_it_was_given() {
    let made = import(
        "limit_req_zone $server_name zone=a:1m rate=1r/m;
server { server_name a.test www.a.test; limit_req zone=a; }
server { server_name b.test; limit_req zone=a; }",
    );
    let key = |host: &str| {
        let mut found = SmallVec::new();
        made.rules.matching("default", &[("host", host)][..], &mut found);
        found.iter().map(|one| one.key).collect::<Vec<_>>()
    };
    assert_eq!(key("a.test").len(), 1);
    assert_eq!(key("a.test"), key("www.a.test"));
    assert_eq!(key("a.test"), key("unknown.test"), "the first one is the default");
    assert_ne!(key("a.test"), key("b.test"));
}

#[test]
fn bytes_of_an_address_are_no_text() {
    let made = import(
        "map $binary_remote_addr $by_map { default $binary_remote_addr; 127.0.0.5 \"\"; }
geo $binary_remote_addr $in { default 1; 10.0.0.0/8 0; }
map $in $by_geo { 0 \"\"; 1 $binary_remote_addr; }
geo $binary_remote_addr $all { default 1; 0.0.0.0/0 0; }
map $all $by_all { 0 \"\"; 1 $binary_remote_addr; }
limit_req_zone $by_map zone=a:1m rate=1r/m;
limit_req_zone $by_geo zone=b:1m rate=1r/m;
limit_req_zone $by_all zone=c:1m rate=1r/m;
server { limit_req zone=a; limit_req zone=b; limit_req zone=c; }",
    );
    assert_eq!(made.lost(), []);
    assert_eq!(made.of(&[("ip", "127.0.0.5")]), "a:1 b:1");
    assert_eq!(made.of(&[("ip", "10.0.0.5")]), "a:1 b:1");
    assert!(
        made.notes().iter().any(|(line, note)| *line == 1 && note.contains("bytes")),
        "{:?}",
        made.notes()
    );
    let made = import(
        "map $binary_remote_addr $k { default $binary_remote_addr; ~^abc \"\";
abcd \"\"; abc \"\"; }
limit_req_zone $k zone=a:1m rate=1r/m; server { limit_req zone=a; }",
    );
    assert_eq!(made.lost().len(), 2, "{:?}", made.lost());
}

#[test]
fn names_of_variables_have_no_case() {
    let made = import(
        "map $HTTP_X_Plan $Plan { default \"\"; 1 $Binary_Remote_Addr; }
geo $Remote_Addr $In { default 1; 10.0.0.0/8 0; }
map $in $by_geo { 0 \"\"; 1 $binary_remote_addr; }
limit_req_zone $plan zone=a:1m rate=1;
limit_req_zone $http_X_Api_Key zone=b:1m rate=1r/m;
limit_req_zone $by_geo zone=c:1m rate=1r/m;
server { if ($http_X_Vip = 1) { return 204; } limit_req zone=a; limit_req zone=b; limit_req zone=c; }",
    );
    assert_eq!(made.lost(), []);
    let ip = ("ip", "1.1.1.1");
    assert_eq!(made.of(&[ip, ("x-plan", "1")]), "a:1 c:1");
    assert_eq!(made.of(&[ip, ("x-api-key", "1")]), "b:1 c:1");
    assert_eq!(
        (made.of(&[ip, ("x-vip", "1")]), made.of(&[("ip", "10.1.1.1")])),
        (String::new(), String::new())
    );
    let yaml = made.imported.to_yaml(&made.sources);
    assert!(yaml.contains("limit: 1/1s") && !yaml.contains("x-API"), "{yaml}");
}

#[test]
fn a_header_that_is_called_as_something_else_of_a_call_has_another_name() {
    let made = import(
        "limit_req_zone $http_cost zone=a:1m rate=1r/m;
limit_req_zone $http_ip zone=b:1m rate=1r/m;
server { if ($http_domain = 1) { return 204; } limit_req zone=a; limit_req zone=b; }",
    );
    assert_eq!(made.lost(), []);
    assert_eq!(made.of(&[("ip", "1.1.1.1"), ("http_cost", "1")]), "a:1");
    assert_eq!(made.of(&[("ip", "1.1.1.1"), ("http_ip", "1")]), "b:1");
    assert_eq!(made.of(&[("http_domain", "1"), ("http_ip", "1")]), "");
    assert!(
        made.notes().iter().any(|(_, note)| note.contains("header=cost:http_cost")),
        "{:?}",
        made.notes()
    );
    // What no node takes is one zone that is lost.
    let long = "x".repeat(300);
    let many: String = (0..40).map(|number| format!("$http_x{number}")).collect();
    let made = import(&format!(
        "limit_req_zone $http_{long} zone=a:1m rate=1r/m;
limit_req_zone {many} zone=b:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=c:1m rate=1r/m;
server {{ limit_req zone=a; limit_req zone=b; limit_req zone=c; }}"
    ));
    let lines: Vec<u64> = made.lost().iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 4], "{:?}", made.lost());
    assert_eq!(made.of(&[("ip", "1.1.1.1"), ("x1", "1")]), "c:1");
}

#[test]
fn a_star_of_a_regular_expression_is_no_wildcard() {
    let made = import(
        "map $http_x_t $k { default $binary_remote_addr; ~^a\\* \"\"; ~b\\*$ \"\"; ~^c\\*d$ \"\"; }
limit_req_zone $k zone=a:1m rate=1r/m;
server { limit_req zone=a; }",
    );
    let lost: Vec<&str> = made.lost().into_iter().map(|(_, message)| message).collect();
    assert!(matches!(lost[..], [a, b] if a.contains("^a") && b.contains("b\\*$")), "{lost:?}");
    let of = |value: &str| made.of(&[("ip", "1.1.1.1"), ("x-t", value)]);
    assert_eq!((of("abx"), of("c*d"), of("cxd")), ("a:1".into(), String::new(), "a:1".into()));
    let made = with_zones(
        "server { limit_req zone=a; if ($uri ~ ^/s\\*) { return 204; } location ~ ^/p\\* { limit_req zone=b; } location ~ \\*f$ { limit_req zone=b; } location ~ ^/c\\*d$ { limit_req zone=b; } }",
    );
    assert_eq!(
        (made.at("any", "/search"), made.at("any", "/payments"), made.at("any", "/gxf")),
        ("a:1".into(), "a:1".into(), "a:1".into())
    );
    assert_eq!((made.at("any", "/c*d"), made.at("any", "/cxd")), ("b:1".into(), "a:1".into()));
    let lost: Vec<&str> = made.lost().into_iter().map(|(_, message)| message).collect();
    for part in ["if:", "location ~ ^/p", "location ~ \\*f$"] {
        assert!(lost.iter().any(|one| one.contains(part)), "{part}: {lost:?}");
    }
    // The ending of a file of an index.
    let made = with_zones(
        "index a*b; server { location /x/ { } location ~ \\.php$ { } location = /x/a*b { limit_req zone=a; } }",
    );
    assert_eq!(made.at("any", "/x/"), "a:1");
}
