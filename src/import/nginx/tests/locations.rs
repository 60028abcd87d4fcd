//! Which location a request meets, and so by which limits.

use super::*;

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
    let lost = made.lost_but_counts();
    assert!(matches!(lost[..], [(9, message)] if message.contains("other case")), "{lost:?}");
}

#[test]
fn what_no_pattern_says_is_lost_only_where_it_matters() {
    let made = with_zones("server { limit_req zone=a; location ~ ^/v[0-9]+/ { } }");
    assert_eq!((made.at("any", "/v1/x"), made.lost().len()), ("a:1".to_owned(), 0));
    // What answers before the limits is not limited.
    for server in [
        "limit_req zone=a; location ~ ^/v[0-9]+/ { return 204; }",
        "limit_req zone=a; location ~* ^/FREE { return 204; }",
        "limit_req zone=a; rewrite ^/x/(.*)$ /$1 last; location /free/ { return 204; }",
        "limit_req zone=a; rewrite ^/x/(.*)$ /$1 last; location /free/ { proxy_pass http://a; }",
        "limit_req zone=a; merge_slashes off; location /free/ { return 204; }",
    ] {
        assert_eq!(with_zones(&format!("server {{ {server} }}")).lost().len(), 1, "{server}");
        let without = server.replace("limit_req zone=a;", "");
        assert_eq!(with_zones(&format!("server {{ {without} }}")).lost(), [], "{without}");
    }
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
    let lost: Vec<u64> = made.lost_but_counts().iter().map(|(line, _)| *line).collect();
    assert_eq!(lost, [4, 8], "that files are counted too");

    let made = with_zones(
        "server { location / { error_page 502 = @down; } location @down { limit_req zone=a; } }
server { server_name x.test; location / { error_page 418 = @all; return 418; } location @all { limit_req zone=b; } }",
    );
    assert!(
        matches!(made.lost()[..], [(3, page), (3, limit)] if page.contains("error_page") && limit.contains("limit_req: no host")),
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
fn texts_that_are_no_paths_are_in_no_rule() {
    let made = import(
        "map $uri $k { default $binary_remote_addr; x \"\"; ~^y \"\"; /z \"\"; }
limit_req_zone $k zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
server { limit_req zone=a; rewrite ^old /x permanent; if ($uri = none) { return 403; } location (a|b)$ { limit_req zone=b; } location = x { } }",
    );
    assert_eq!((made.at("any", "/"), made.at("any", "/z")), ("a:1".to_owned(), String::new()));
    let yaml = made.imported.to_yaml(&made.sources);
    assert!(yaml.contains("when: { path: { is_not: /z } }"), "{yaml}");
    assert!(made.notes().iter().any(|(_, note)| note.contains("no request is limited by it")));
}
