//! What becomes of whole configurations: which rules a request matches, as nginx would limit it.

use smallvec::SmallVec;
use tidegate_limiter::{cluster::Rules, rules::HashSecret};

use super::*;

struct Made {
    imported: Imported,
    sources: Sources,
    rules: Rules,
}

fn import(text: &str) -> Made {
    made(|sources| sources.add("nginx.conf", text.as_bytes().to_vec()).unwrap())
}

fn made(add: impl FnOnce(&mut Sources)) -> Made {
    let mut sources = Sources::default();
    add(&mut sources);
    let imported = read(&mut sources).unwrap();
    let yaml = imported.to_yaml(&sources);
    let rules = Rules::from_yaml(&yaml, &HashSecret::new([0; 16])).unwrap_or_else(|_| panic!("{yaml}"));
    Made { imported, sources, rules }
}

impl Made {
    /// The rules that are about a request, by name without number and by burst: `a:3`.
    fn of(&self, attributes: &[(&str, &str)]) -> String {
        let mut found = SmallVec::new();
        self.rules.matching("default", attributes, &mut found);
        let mut names: Vec<String> = found
            .iter()
            .filter_map(|one| {
                let zone = one.rule.name().split('-').next().unwrap().to_owned();
                Some(format!("{zone}:{}", one.limit?.burst_size()))
            })
            .collect();
        names.sort();
        names.join(" ")
    }

    fn at(&self, host: &str, path: &str) -> String {
        self.of(&[("ip", "203.0.113.1"), ("host", host), ("path", path)])
    }

    fn lost(&self) -> Vec<(u64, &str)> {
        let lost = self.imported.remarks.iter().filter(|remark| remark.lost);
        lost.map(|remark| (remark.line, remark.message.as_str())).collect()
    }

    fn notes(&self) -> Vec<(u64, &str)> {
        let notes = self.imported.remarks.iter().filter(|remark| !remark.lost);
        notes.map(|remark| (remark.line, remark.message.as_str())).collect()
    }
}

/// Zones `a` and `b`, by the client's address.
const ZONES: &str = "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
";

fn with_zones(text: &str) -> Made {
    import(&format!("{ZONES}{text}"))
}

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
        matches!(made.lost()[..], [(6, message)] if message.contains("limit_req: no host")),
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
    assert_eq!(made.lost(), []);
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
fn locations_are_chosen_as_nginx_chooses() {
    let made = with_zones(
        "server {
  limit_req zone=a burst=1 nodelay;
  location /free/ { limit_req zone=b burst=50 nodelay; location /free/not { limit_req zone=a burst=2 nodelay; } }
  location = /exact { limit_req zone=a burst=3 nodelay; }
  location ^~ /static/ { limit_req zone=a burst=4 nodelay; location /static/in { } }
  location ~ \\.php$ { limit_req zone=a burst=5 nodelay; }
  location ~* \\.(png|jpe?g)$ { limit_req zone=a burst=6 nodelay; }
  location ~ ^/(v1|v2)/ { limit_req zone=a burst=7 nodelay; location ~ \\.js$ { limit_req zone=a burst=8 nodelay; } }
  location /inner { location = /inner/exact { limit_req zone=a burst=9 nodelay; } }
  location /x.php { limit_req zone=a burst=10 nodelay; }
}",
    );
    for (path, expected) in [
        ("/", "a:2"),
        ("/free", "a:2"),
        ("/free/x", "b:51"),
        ("/free/not/x", "a:3"),
        ("/free/x.php", "a:6"),
        ("/exact", "a:4"),
        ("/exact/", "a:2"),
        ("/static/a.php", "a:5"),
        ("/static/in.php", "a:5"),
        ("/a.png", "a:7"),
        ("/a.jpeg", "a:7"),
        ("/v1/x", "a:8"),
        ("/v1/x.js", "a:9"),
        ("/x.js", "a:2"),
        // The first expression that fits.
        ("/v1/x.php", "a:6"),
        ("/inner/exact", "a:10"),
        ("/inner/exact.php", "a:6"),
        ("/x.php", "a:6"),
        ("/x.php5", "a:11"),
    ] {
        assert_eq!(made.at("any", path), expected, "{path}\n{}", made.imported.to_yaml(&made.sources));
    }
    assert!(matches!(made.lost()[..], [(9, message)] if message.contains("other case")), "{:?}", made.lost());
}

#[test]
fn what_no_pattern_says_is_lost_only_where_it_matters() {
    let made = with_zones("server { limit_req zone=a; location ~ ^/v[0-9]+/ { } }");
    assert_eq!((made.at("any", "/v1/x"), made.lost().len()), ("a:1".to_owned(), 0));
    let made =
        with_zones("server { location / { limit_req zone=a; } location ~ ^/v[0-9]+/ { limit_req zone=b; } }");
    let lost: Vec<u64> = made.lost().iter().map(|(line, _)| *line).collect();
    assert_eq!(lost, [3, 3], "the location, and its limit");
    let made = with_zones("server { server_name ~^(?<sub>.+)\\.test$; limit_req zone=a; }");
    assert!(made.lost()[0].1.contains("server_name ~"), "{:?}", made.lost());
}

#[test]
fn named_locations_are_followed_or_lost() {
    let made = with_zones(
        "server {
  location / { try_files $uri @app; }
  location /own { limit_req zone=b; try_files $uri @app; }
  location /img/ { try_files $uri =404; }
  location = /index.php { limit_req zone=a burst=2 nodelay; }
  location /wp { try_files $uri $uri/ /index.php?$args; }
  location @app { limit_req zone=a burst=1 nodelay; proxy_pass http://a; }
}",
    );
    assert_eq!(made.at("any", "/"), "a:2");
    assert_eq!(made.at("any", "/own"), "b:1");
    assert_eq!(made.at("any", "/img/x"), "");
    assert_eq!(made.at("any", "/wp/x"), "a:3");
    let lost: Vec<u64> = made.lost().iter().map(|(line, _)| *line).collect();
    assert_eq!(lost, [4, 8], "that files are counted too");

    let made = with_zones(
        "server { location / { error_page 502 = @down; } location @down { limit_req zone=a; } }
server { server_name x.test; location / { error_page 418 = @all; return 418; } location @all { limit_req zone=b; } }",
    );
    assert!(
        matches!(made.lost()[..], [(3, message)] if message.contains("limit_req: no host")),
        "{:?}",
        made.lost()
    );
    assert_eq!((made.at("x.test", "/"), made.at("y.test", "/")), ("b:1".to_owned(), String::new()));

    let made = with_zones(
        "server { location /a { internal; limit_req zone=a; } location / { limit_req zone=b; return 200; } }",
    );
    assert_eq!((made.at("any", "/a"), made.at("any", "/")), (String::new(), String::new()));
    assert_eq!(made.lost().len(), 1, "{:?}", made.lost());
}

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
map $http_x_key $by_key { \"\" $binary_remote_addr; secret \"\"; default $http_x_key; }
map $uri $by_path { default \"\"; ~^/api/ $binary_remote_addr; ~^/api/free \"\"; /api/free2 \"\"; }
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
        assert_eq!(made.of(&[("ip", ip), ("x-key", "secret")]), expected, "{ip}");
    }
    let ten = ("ip", "10.2.0.1");
    assert_eq!(made.of(&[ten, ("method", "POST"), ("x-key", "secret")]), "b:1");
    assert_eq!(made.of(&[ten, ("method", "GET"), ("x-key", "secret")]), "");
    assert_eq!((made.of(&[ten]), made.of(&[ten, ("x-key", "")])), ("c:1".to_owned(), "c:1".to_owned()));
    assert_eq!(made.of(&[ten, ("x-key", "k")]), "c:1");
    for (path, expected) in [("/", ""), ("/api/x", "d:1"), ("/api/freely", "d:1"), ("/api/free2", "")] {
        assert_eq!(made.of(&[ten, ("x-key", "secret"), ("path", path)]), expected, "{path}");
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

const DUMP: &str = "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok
# configuration file /etc/nginx/nginx.conf:
# Zugriffe: f\u{fc}r alle
http {
  include conf.d/*.conf;
  include /etc/nginx/missing.conf;
  include mime.types;
}

# configuration file /etc/nginx/conf.d/b.conf:
server { limit_req zone=a; }
# configuration file /etc/nginx/conf.d/a.conf:
limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
";

#[test]
fn what_nginx_prints_of_a_configuration_is_read_with_all_its_files() {
    let made = import(DUMP);
    assert_eq!(made.at("any", "/"), "a:1");
    let lost = made.lost();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let place = made.sources.place(lost[0].0);
    assert_eq!((place.name, place.line), ("/etc/nginx/nginx.conf", 4));
    assert!(lost[0].1.contains("/etc/nginx/missing.conf"));
    assert!(made.imported.to_yaml(&made.sources).contains("# /etc/nginx/conf.d/b.conf:1\n"));
    // A text of the standard input has no directory.
    let made = import("include conf.d/*.conf;");
    assert!(made.lost().iter().any(|(_, message)| message.contains("nginx -T")), "{:?}", made.lost());
}

#[test]
fn includes_are_followed_from_the_directory_of_the_main_file() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let main = write(
        "nginx.conf",
        b"events {}\nhttp { include conf.d/*.conf; include sites/*; include nowhere/*.conf; include x.conf; }\n",
    );
    write("conf.d/zone.conf", b"# caf\xe9 }\nlimit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;\n");
    let site = write("sites/shop", b"server { include snippets/limit.conf; include sites/shop; }\n");
    write("snippets/limit.conf", b"limit_req zone=a;\n");
    let of = |paths: &[&std::path::Path]| {
        made(|sources| {
            paths.iter().for_each(|path| sources.read_file(path).unwrap());
        })
    };
    let from_main = of(&[&main]);
    assert_eq!(from_main.at("any", "/"), "a:1");
    let lost: Vec<(String, u64, &str)> = from_main
        .lost()
        .into_iter()
        .map(|(line, message)| {
            let place = from_main.sources.place(line);
            (place.name.rsplit('/').next().unwrap().to_owned(), place.line, message)
        })
        .collect();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert_eq!((&*lost[0].0, lost[0].1), ("nginx.conf", 2));
    assert!(lost[0].2.contains("nowhere") && lost[1].2.contains("x.conf"), "{lost:?}");
    assert!(lost[2].0 == "shop" && lost[2].2.contains("includes itself"), "{lost:?}");
    // A part alone, and a part that is named beside the file that includes it.
    assert_eq!(of(&[&site]).lost().len(), 2, "itself, and the zone of another file");
    assert_eq!(of(&[&main, &site]).imported.domains, from_main.imported.domains);
}

#[test]
fn includes_that_grow_without_end_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let text = format!("include {}.conf; include {}.conf; a b;\n", number + 1, number + 1);
        std::fs::write(directory.path().join(format!("{number}.conf")), text).unwrap();
    }
    let mut sources = Sources::default();
    sources.read_file(&directory.path().join("0.conf")).unwrap();
    let error = read(&mut sources).unwrap_err();
    assert!(error.message.contains("more than 200000 directives"), "{}", error.message);
}

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
