//! Which path and which method a limit is by, where nginx has sent a request on before.

use super::*;

/// What a request with these attributes is limited by.
fn by(made: &Made, method: &str, path: &str) -> String {
    made.of(&[("ip", "1.1.1.1"), ("host", "any"), ("path", path), ("method", method), ("scheme", "http")])
}

fn at(made: &Made, path: &str) -> String {
    by(made, "GET", path)
}

/// By a map of `$uri`.
fn with_map(entries: &str, server: &str) -> Made {
    import(&format!(
        "map $uri $k {{ {entries} }}
limit_req_zone $k zone=a:1m rate=1r/m;
server {{ {server} }}"
    ))
}

#[test]
fn a_key_has_the_path_that_a_request_was_rewritten_to() {
    let made = with_map(
        "default \"\"; ~^/api/ $binary_remote_addr;",
        "rewrite ^/login$ /api/login last; rewrite ^/api/old$ /gone last; location / { limit_req zone=a; }",
    );
    assert_eq!(made.lost(), []);
    for (path, expected) in
        [("/login", "a:1"), ("/api/x", "a:1"), ("/x", ""), ("/api/old", ""), ("/api/login", "a:1")]
    {
        assert_eq!(at(&made, path), expected, "{path}\n{}", made.imported.to_yaml(&made.sources));
    }
    // An exemption.
    let made = with_map(
        "default $binary_remote_addr; ~^/free$ \"\";",
        "location / { rewrite ^/free$ /paid break; rewrite ^/gift$ /free break; } limit_req zone=a;",
    );
    assert_eq!(made.lost(), []);
    assert_eq!(
        (at(&made, "/free"), at(&made, "/gift"), at(&made, "/x")),
        ("a:1".into(), String::new(), "a:1".into())
    );
}

#[test]
fn a_key_has_the_path_of_an_error_page_of_the_last_file_and_of_an_index() {
    let made = with_map(
        "default \"\"; ~^/y$ $binary_remote_addr; ~^/n/ $binary_remote_addr;",
        "location / { error_page 418 = /y; return 418; } location = /y { limit_req zone=a; }
location /n/ { error_page 418 = @n; return 418; } location /m/ { error_page 418 = @n; return 418; } location @n { limit_req zone=a; }",
    );
    assert_eq!(made.lost(), []);
    assert_eq!((at(&made, "/x"), at(&made, "/y")), ("a:1".into(), "a:1".into()));
    assert_eq!((at(&made, "/n/x"), at(&made, "/m/x")), ("a:1".into(), String::new()));

    let made = with_map(
        "default \"\"; ~^/index.php$ \"\"; ~^/index\\.php$ $binary_remote_addr;",
        "location / { try_files $uri /index.php?$args; } location ~ \\.php$ { limit_req zone=a; }",
    );
    assert_eq!(
        (at(&made, "/x"), at(&made, "/index.php"), at(&made, "/b.php")),
        ("a:1".into(), "a:1".into(), String::new())
    );

    let made = with_map(
        "default \"\"; ~\\.php$ $binary_remote_addr;",
        "index index.php; location /shop/ { } location ~ ^/shop/index.php$ { } location ~ \\.php$ { limit_req zone=a; }",
    );
    assert_eq!(
        (at(&made, "/shop/"), at(&made, "/shop/b.php"), at(&made, "/x")),
        ("a:1".into(), "a:1".into(), String::new())
    );
    // What overlaps in a short path.
    let made =
        with_map("default \"\"; ~\\.php$ $binary_remote_addr;", "location /x.php { limit_req zone=a; }");
    assert_eq!(
        (at(&made, "/x.php"), at(&made, "/x.php/a.php"), at(&made, "/x.php5")),
        ("a:1".into(), "a:1".into(), String::new())
    );
}

#[test]
fn a_key_by_a_path_that_is_made_of_variables_is_lost() {
    let map = "default \"\"; ~^/api/ $binary_remote_addr;";
    for server in [
        "limit_req zone=a; rewrite ^/v1/(.*)$ /api/$1 last;",
        "location / { limit_req zone=a; rewrite ^/v1/(.*)$ /api/$1 break; }",
        "location / { limit_req zone=a; rewrite ^/v[0-9]/ /api/x break; }",
        "location / { limit_req zone=a; rewrite ^/v[0-9]/(.*)$ /api/$1 break; }",
        "location / { rewrite ^/v1/(.*)$ /api/$1 break; try_files /none @n; } location @n { limit_req zone=a; }",
        "location / { error_page 418 /api/$host; return 418; } location /api/ { limit_req zone=a; }",
    ] {
        assert!(with_map(map, server).imported.has_lost(), "{server}");
        let others = format!("limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m; server {{ {server} }}");
        let is_told = server.contains("return") || server.contains("@n");
        assert_eq!(import(&others).imported.has_lost(), is_told, "{server}");
    }
    // nginx keeps what a map has said before.
    let made =
        with_map(map, "if ($K = \"\") { set $x 1; } rewrite ^/login$ /api/login last; limit_req zone=a;");
    assert!(made.lost().iter().any(|(_, message)| message.contains("nginx keeps")), "{:?}", made.lost());
    let made = import(
        "map $uri $new { default \"\"; ~^/old /new; } limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { if ($new) { return 301 $new; } limit_req zone=a; }",
    );
    assert!(!made.lost().iter().any(|(_, message)| message.contains("nginx keeps")), "{:?}", made.lost());
    // By the path itself.
    let made = import(
        "limit_req_zone $binary_remote_addr$uri zone=a:1m rate=1r/m;
server { location / { try_files $uri /index.php; } location ~ \\.php$ { limit_req zone=a; } }",
    );
    assert!(made.lost().iter().any(|(_, message)| message.contains("sent on before")), "{:?}", made.lost());
    // What the client asked for stays what it is.
    let made = import(
        "map $request_uri $k { default \"\"; ~^/old $binary_remote_addr; }
limit_req_zone $k zone=a:1m rate=1r/m;
server { rewrite ^/old$ /new last; location / { limit_req zone=a; } }",
    );
    assert_eq!((at(&made, "/old"), at(&made, "/new")), ("a:1".into(), String::new()));
}

#[test]
fn an_error_page_that_is_a_path_makes_the_request_a_get() {
    let made = import(
        "map $request_method $k { default \"\"; GET $binary_remote_addr; }
limit_req_zone $k zone=a:1m rate=1r/m;
server { error_page 418 /e; error_page 419 @n; location / { return 418; } location /n { return 419; }
  location /e { limit_req zone=a; } location @n { limit_req zone=a; } }",
    );
    assert_eq!(made.lost(), []);
    for (method, path, expected) in [
        ("GET", "/x", "a:1"),
        ("POST", "/x", "a:1"),
        ("HEAD", "/x", ""),
        ("POST", "/e", ""),
        ("GET", "/n", "a:1"),
        ("POST", "/n", ""),
    ] {
        assert_eq!(by(&made, method, path), expected, "{method} {path}");
    }
    let made = with_zones(
        "server { error_page 418 /e; location / { if ($request_method = POST) { return 418; } limit_req zone=b; }
  location /e { if ($request_method ~ ^(POST|HEAD)$) { return 204; } limit_req zone=a; } }",
    );
    assert_eq!(made.lost(), []);
    for (method, path, expected) in
        [("POST", "/x", "a:1"), ("GET", "/x", "b:1"), ("POST", "/e", ""), ("GET", "/e", "a:1")]
    {
        assert_eq!(by(&made, method, path), expected, "{method} {path}");
    }
    let made = import(
        "limit_req_zone $binary_remote_addr$request_method zone=a:1m rate=1r/m;
server { error_page 418 /e; location / { return 418; } location /e { limit_req zone=a; } }",
    );
    assert!(
        made.lost().iter().any(|(_, message)| message.contains("which is GET here")),
        "{:?}",
        made.lost()
    );
}

#[test]
fn an_error_of_an_error_page_is_sent_on_where_the_configuration_says_so() {
    let pages = "error_page 418 = @a; error_page 419 = @b; location / { return 418; } location /direct { return 419; }
location @a { return 419; } location @b { limit_req zone=a; }";
    let made = with_zones(&format!("server {{ recursive_error_pages on; {pages} }}"));
    assert_eq!((at(&made, "/"), at(&made, "/direct"), made.lost()), ("a:1".into(), "a:1".into(), vec![]));
    let made = with_zones(&format!("server {{ {pages} }}"));
    assert_eq!((at(&made, "/"), at(&made, "/direct"), made.lost()), (String::new(), "a:1".into(), vec![]));
    // Of one location only; and a circle.
    let made = with_zones(
        "server { error_page 419 = @b; location / { recursive_error_pages on; error_page 418 = /in; return 418; }
  location = /in { return 419; } location @b { limit_req zone=a; }
  location /c { recursive_error_pages on; error_page 418 = /c; return 418; } }",
    );
    assert_eq!((at(&made, "/"), at(&made, "/c"), made.lost()), ("a:1".into(), String::new(), vec![]));
    let made = with_zones(
        "recursive_error_pages on; error_page 404 /404.html; error_page 500 502 503 504 /50x.html; server { location / { } location /api { limit_req zone=a; } }",
    );
    assert_eq!((at(&made, "/"), at(&made, "/api"), made.lost()), (String::new(), "a:1".into(), vec![]));
}

#[test]
fn a_rewritten_request_reaches_what_is_internal() {
    let made = with_zones(
        "server { rewrite ^/s$ /p/y last; location /p/ { internal; limit_req zone=a; location /p/q { } }
  location /e { error_page 418 /p/x; return 418; } location /r { rewrite ^ /p/x last; } }",
    );
    assert_eq!(made.lost(), []);
    for (path, expected) in [("/s", "a:1"), ("/e", "a:1"), ("/r", "a:1"), ("/p/x", ""), ("/p/q", "")] {
        assert_eq!(at(&made, path), expected, "{path}");
    }
}

#[test]
fn an_if_does_not_have_the_files_of_its_location() {
    let made = with_zones(
        "server { location / { if ($request_method = POST) { add_header X y; } try_files /none @app; } location @app { limit_req zone=a; }
  location /p/ { if ($http_x = 1) { proxy_pass http://a; } } location = /p/index.html { limit_req zone=b; }
  location /i/ { if ($http_x = 1) { error_page 418 = @app; } return 418; } }",
    );
    let lost: Vec<&str> = made.lost().into_iter().map(|(_, message)| message).collect();
    assert!(
        matches!(lost[..], [index, files] | [files, index] if files.contains("try_files") && index.contains("index")),
        "{lost:?}"
    );
    assert_eq!((by(&made, "GET", "/x"), by(&made, "POST", "/x")), ("a:1".into(), String::new()));
    let header = |path: &str| made.of(&[("ip", "1.1.1.1"), ("host", "any"), ("path", path), ("x", "1")]);
    assert_eq!((at(&made, "/p/"), header("/p/")), ("b:1".into(), String::new()));
    assert_eq!((at(&made, "/i/"), header("/i/")), (String::new(), "a:1".into()));
    let made = with_zones(
        "server { location / { if ($arg_x) { set $y 1; } try_files /none @app; } location @app { limit_req zone=a; } }",
    );
    assert!(made.lost().iter().any(|(_, message)| message.starts_with("if:")), "{:?}", made.lost());
    let made = with_zones(
        "server { location / { limit_except GET { deny all; } try_files /none @app; } location @app { limit_req zone=a; } }",
    );
    assert!(made.lost().iter().any(|(_, message)| message.contains("limit_except")), "{:?}", made.lost());
}
