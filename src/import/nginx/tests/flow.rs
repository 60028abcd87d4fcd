//! What comes before the limits of a location, and where requests go on that it does not limit.

use super::*;

/// The limits of a path, and what is lost.
fn check(made: &Made, expected: &[(&str, &str)], lost: &[(u64, &str)]) {
    for (path, limits) in expected {
        let asked =
            [("ip", "203.0.113.1"), ("host", "any"), ("path", *path), ("method", "GET"), ("scheme", "http")];
        assert_eq!(made.of(&asked), *limits, "{path}\n{}", made.imported.to_yaml(&made.sources));
    }
    let found = made.lost_but_counts();
    let is_as = |(found, expected): (&(u64, &str), &(u64, &str))| {
        found.0 == expected.0 && found.1.contains(expected.1)
    };
    assert!(found.len() == lost.len() && found.iter().zip(lost).all(is_as), "{found:?}");
}

fn asked(made: &Made, more: &[(&str, &str)]) -> String {
    let attributes =
        [&[("ip", "1.1.1.1"), ("host", "any"), ("path", "/"), ("scheme", "http"), ("method", "GET")], more]
            .concat();
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for one in attributes.into_iter().rev() {
        if kept.iter().all(|(name, _)| *name != one.0) {
            kept.push(one);
        }
    }
    made.of(&kept)
}

#[test]
fn a_directory_has_the_limits_of_its_index_file() {
    let made = with_zones(
        "server {
  location / { }
  location /open/ { index x.html /own.php; }
  location /proxied/ { proxy_pass http://a; }
  location = /index.html { limit_req zone=a burst=1 nodelay; }
  location /shop/ind { limit_req zone=a burst=2 nodelay; }
  location = /own.php { limit_req zone=a burst=3 nodelay; }
}",
    );
    check(
        &made,
        &[
            ("/", "a:2"),
            ("/shop/", "a:3"),
            ("/shop", ""),
            ("/shop/x/", ""),
            ("/proxied/", ""),
            ("/open/", "a:4"),
            ("/open/deep/", "a:4"),
            ("/open/x", ""),
        ],
        &[(4, "index"), (5, "index")],
    );
    // All directories, by the ending of the file.
    let made = with_zones(
        "index index.php; server { location ~ \\.php$ { limit_req zone=a; } location /blog/ { limit_req zone=b; } }",
    );
    check(&made, &[("/", "a:1"), ("/x/", "a:1"), ("/x", ""), ("/blog/", "b:1")], &[(3, "index")]);
    // Where it makes no difference, nothing is said.
    check(&with_zones("server { limit_req zone=a; location / { } }"), &[("/", "a:1")], &[]);
}

#[test]
fn an_error_that_is_sent_on_to_limits_is_told() {
    let made = with_zones(
        "server {
  error_page 404 = /fallback;
  error_page 429 /slow.html;
  location / { }
  location /own { limit_req zone=b; }
  location = /slow.html { limit_req zone=a; }
  location = /fallback { limit_req zone=a; }
}",
    );
    check(
        &made,
        &[("/x", ""), ("/own", "b:1"), ("/fallback", "a:1")],
        &[(4, "error_page"), (5, "error_page")],
    );
    // The answers that are always given are followed.
    let made = with_zones(
        "error_page 418 404 @l; server {
  location /a { return 418; }
  location /b { return 418 text; }
  location /c { internal; }
  location /d { try_files $uri =404; }
  location @l { limit_req zone=a; error_page 404 /a; return 404; }
}
server { server_name x.test; location @l { limit_req zone=a; } location / { return 418; } location /x { limit_req zone=b; } }",
    );
    check(&made, &[("/a", ""), ("/b", ""), ("/c", ""), ("/d", "")], &[(8, "limit_req: no host")]);
    assert_eq!((made.at("x.test", "/"), made.at("x.test", "/x")), ("a:1".to_owned(), "b:1".to_owned()));
    let made = with_zones(
        "server { location / { internal; error_page 404 @l; } location @l { limit_req zone=a; } location /t { error_page 404 @l; try_files $uri =404; } location /o { limit_req zone=b; } }",
    );
    check(&made, &[("/", "a:1"), ("/t", "a:1")], &[(3, "try_files")]);
}

#[test]
fn what_is_answered_before_the_limits_is_not_counted() {
    let made = with_zones(
        "server {
  limit_req zone=a;
  if ($host = www.test) { return 301 http://any$request_uri; }
  if ($request_method !~ ^(GET|HEAD)$ ) { return 405; }
  if ($http_x_probe = \"1\") { return 204; }
  if ($scheme != http) { set $x 1; }
  rewrite ^/gone/(.*)$ /new/$1 permanent;
  rewrite ^/away$ https://other.test/;
  location /old/ { if ($uri ~ \\.html$) { return 301 /; } }
  location /shop/ { proxy_pass http://a; }
  location /both/ { proxy_pass http://a; }
  location = /both { }
}",
    );
    check(
        &made,
        &[
            ("/", "a:1"),
            ("/gone/x", ""),
            ("/away", ""),
            ("/away/x", "a:1"),
            ("/old/x", "a:1"),
            ("/old/x.html", ""),
            ("/x.html", "a:1"),
            ("/shop", ""),
            ("/shop/", "a:1"),
            ("/both", "a:1"),
        ],
        &[],
    );
    for (more, expected) in [
        (("host", "www.test"), ""),
        (("method", "GET"), "a:1"),
        (("method", "POST"), ""),
        (("x-probe", "1"), ""),
        (("x-probe", "2"), "a:1"),
        (("scheme", "https"), "a:1"),
    ] {
        assert_eq!(asked(&made, &[more]), expected, "{more:?}");
    }
}

#[test]
fn a_condition_that_no_rule_says_is_told_where_it_matters() {
    let made = with_zones(
        "server {
  if ($arg_x) { return 403; }
  if ($http_user_agent ~* (bot|spider)) { return 403; }
  location / { limit_req zone=a; }
}
server { server_name free.test; if ($arg_x) { return 403; } }",
    );
    check(&made, &[("/", "a:1")], &[(4, "if"), (5, "if")]);
    // Sent on to other limits.
    let made = with_zones(
        "server { error_page 418 @l; location / { if ($request_method = POST) { return 418; } limit_req zone=a; } location @l { limit_req zone=b; } }",
    );
    check(&made, &[("/", "a:1")], &[]);
    assert_eq!(
        (asked(&made, &[("method", "POST")]), asked(&made, &[("method", "GET")])),
        ("b:1".into(), "a:1".into())
    );
    // What ends the rewriting ends it for all that follows.
    let made = with_zones(
        "server { location / { if ($http_x_ok = \"yes\") { break; } return 403; } limit_req zone=a; }",
    );
    check(&made, &[("/", "")], &[]);
    assert_eq!(asked(&made, &[("x-ok", "yes")]), "a:1");
}

#[test]
fn a_rewritten_path_has_the_limits_of_its_new_location() {
    let made = with_zones(
        "server {
  rewrite ^/old$ /api/new?x last;
  rewrite ^/stay$ /api/stay break;
  location /api/ { limit_req zone=a; }
  location / { rewrite ^/in$ /api/in last; rewrite ^/not$ /api/in break; rewrite ^/on /api/; rewrite ^/api/ /none; }
  location /loop { rewrite ^ /loop last; }
}",
    );
    check(
        &made,
        &[
            ("/", ""),
            ("/old", "a:1"),
            ("/stay", "a:1"),
            ("/in", "a:1"),
            ("/not", ""),
            ("/on", ""),
            ("/api/x", "a:1"),
            ("/loop", ""),
        ],
        &[],
    );
    let made = with_zones(
        "server { rewrite ^/v1/(.*)$ /api/$1 last; rewrite ^/v[2-9] /api/; location /api/ { limit_req zone=a; } }",
    );
    check(&made, &[("/v1/x", ""), ("/api/x", "a:1")], &[(3, "rewrite"), (3, "rewrite")]);
    // Where all is limited in one way, that does not matter.
    check(
        &with_zones("server { rewrite ^/v1/(.*)$ /api/$1 last; limit_req zone=a; }"),
        &[("/v1/x", "a:1")],
        &[],
    );
}

#[test]
fn requests_that_nginx_makes_itself_are_told() {
    let made = with_zones(
        "server { location / { auth_request /auth; } location = /auth { limit_req zone=a; } location /own { auth_request /auth; limit_req zone=b; } }",
    );
    check(&made, &[("/", ""), ("/auth", "a:1")], &[(3, "subrequest")]);
    let made = import(
        "limit_req_zone $http_x zone=x:1m rate=1r/m; limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { location / { limit_req zone=x; try_files $uri @app; } location @app { limit_req zone=a; } }",
    );
    assert!(made.lost()[0].1.contains("empty key"), "{:?}", made.lost());
}

#[test]
fn conditions_that_multiply_are_given_up() {
    let ifs: String =
        (0..12).map(|n| format!("if ($http_x{n} = \"1\") {{ rewrite ^/{n}$ /x{n}; }}\n")).collect();
    let made = with_zones(&format!("server {{\n{ifs} location / {{ limit_req zone=a; }} }}"));
    assert!(
        made.lost().iter().any(|(_, message)| message.contains("too many conditions")),
        "{:?}",
        made.lost()
    );
}
