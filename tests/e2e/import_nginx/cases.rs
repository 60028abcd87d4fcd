//! Configurations, and what is asked of them.

/// What is asked, and how often.
pub(super) struct Asked {
    /// Which of the two ports.
    pub(super) port: u16,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    /// The last number of the address of the client.
    pub(super) client: u8,
    pub(super) header: Option<(&'static str, &'static str)>,
}

const fn asked(port: u16, host: &'static str, path: &'static str, client: u8) -> Asked {
    Asked { port, host, path, method: "GET", client, header: None }
}

const fn with(header: (&'static str, &'static str), path: &'static str, client: u8) -> Asked {
    Asked { header: Some(header), ..asked(0, "any.test", path, client) }
}

const fn by(method: &'static str, path: &'static str, client: u8) -> Asked {
    Asked { method, ..asked(0, "any.test", path, client) }
}

/// A configuration's block of http, `PORT0` and `PORT1` in it, and what is asked. Each file that is asked for is missing, which is
/// answered 404 after the limits, but `/index.html`, `/slow.html`, `/shop/index.html`
/// and `/shop/index.php`.
pub(super) const CASES: [(&str, &[Asked]); 24] = [
    // As certificate tools write it: the redirect comes last, and is limited by nothing.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { server_name s.test; listen 127.0.0.1:PORT0; location / { limit_req zone=a burst=5 nodelay; } }
server { if ($host = s.test) { return 301 http://$host$request_uri; } listen 127.0.0.1:PORT1; server_name s.test; return 404; }",
        &[asked(0, "s.test", "/", 2), asked(1, "s.test", "/", 3), asked(0, "else.test", "/", 4), asked(1, "else.test", "/", 5)],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location / { try_files $uri @app; }
  location /own { limit_req zone=a burst=1 nodelay; try_files $uri @app; }
  location /none { }
  location /all { error_page 418 = @app; return 418; }
  location = /index.php { limit_req zone=a burst=3 nodelay; }
  location /wp { try_files $uri /index.php?$args; }
  location @app { limit_req zone=a burst=2 nodelay; } }",
        &[asked(0, "x", "/", 2), asked(0, "x", "/own", 3), asked(0, "x", "/none", 4), asked(0, "x", "/all", 5), asked(0, "x", "/wp/a", 6)],
    ),
    (
        "limit_req_zone $binary_remote_addr$http_x_api_key zone=a:1m rate=1r/m;
limit_req_zone $http_x_only zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; limit_req zone=a burst=2 nodelay; limit_req zone=b burst=1 nodelay; }",
        &[
            asked(0, "x", "/", 2),
            with(("x-api-key", "k"), "/", 2),
            with(("x-api-key", "l"), "/", 2),
            with(("x-only", "o"), "/", 3),
            with(("x-only", ""), "/", 4),
        ],
    ),
    (
        "geo $limited { ranges; default 1; 127.0.0.2-127.0.0.3 0; 127.0.0.8-127.0.0.9 0; }
map $limited $key { 0 \"\"; 1 $binary_remote_addr; }
map $http_x_plan $by_plan { \"\" $binary_remote_addr; gold \"\"; default $http_x_plan; }
limit_req_zone $key zone=a:1m rate=1r/m;
limit_req_zone $by_plan zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; location / { limit_req zone=a burst=2 nodelay; } location /plan { limit_req zone=b burst=3 nodelay; } }",
        &[
            asked(0, "x", "/", 8),
            asked(0, "x", "/", 10),
            asked(0, "x", "/plan", 11),
            with(("x-plan", "gold"), "/plan", 12),
            with(("x-plan", "silver"), "/plan", 13),
        ],
    ),
    (
        "geo $limited { default 1; 127.0.0.2/31 0; 127.0.0.3 1; }
map $limited $key { 0 \"\"; default $binary_remote_addr; }
map $uri $by_path { default \"\"; ~^/api/ $binary_remote_addr; /api/free \"\"; ~\\.cgi$ $binary_remote_addr; }
limit_req_zone $key zone=a:1m rate=1r/m;
limit_req_zone $by_path zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name x; limit_req zone=a burst=2 nodelay; }
server { listen 127.0.0.1:PORT0; server_name y; limit_req zone=b burst=1 nodelay; }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "x", "/", 3),
            asked(0, "x", "/", 4),
            asked(0, "y", "/", 5),
            asked(0, "y", "/api/a", 6),
            asked(0, "y", "/api/free", 7),
            asked(0, "y", "/b.cgi", 8),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name none.test; }
server { listen 127.0.0.1:PORT0; server_name *.w.test; limit_req zone=a burst=1 nodelay; }
server { listen 127.0.0.1:PORT0 default_server; server_name .both.test; limit_req zone=a burst=2 nodelay; }
server { listen 127.0.0.1:PORT0; server_name mail.*; limit_req zone=a burst=3 nodelay; }
server { listen 127.0.0.1:PORT0; server_name ~^re[12]\\.test$; limit_req zone=a burst=4 nodelay; }
server { listen 127.0.0.1:PORT0; server_name x.w.test *.deep.w.test; }",
        &[
            asked(0, "none.test", "/", 2),
            asked(0, "else.test", "/", 3),
            asked(0, "b.w.test", "/", 4),
            asked(0, "x.w.test", "/", 5),
            asked(0, "y.deep.w.test", "/", 6),
            asked(0, "deep.w.test", "/", 7),
            asked(0, "both.test", "/", 8),
            asked(0, "mail.org", "/", 9),
            asked(0, "mail.w.test", "/", 10),
            asked(0, "re1.test", "/", 11),
            asked(0, "re3.test", "/", 12),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req zone=a burst=1 nodelay;
server { listen 127.0.0.1:PORT0;
  location /free/ { limit_req_dry_run on; location /free/not { limit_req zone=a burst=2 nodelay; limit_req_dry_run off; } }
  location = /exact { limit_req zone=a burst=3 nodelay; }
  location ^~ /static/ { limit_req zone=a burst=4 nodelay; }
  location ~ \\.php$ { limit_req zone=a burst=5 nodelay; }
  location ~* \\.(png|jpe?g)$ { limit_req zone=a burst=6 nodelay; }
  location ~ ^/(v1|v2)/ { limit_req zone=a burst=7 nodelay; location ~ \\.js$ { limit_req zone=a burst=8 nodelay; } }
  location /x.php { limit_req zone=a burst=9 nodelay; } }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "x", "/free/a", 3),
            asked(0, "x", "/free/not", 4),
            asked(0, "x", "/free/a.php", 5),
            asked(0, "x", "/exact", 6),
            asked(0, "x", "/exact/", 7),
            asked(0, "x", "/static/a.php", 8),
            asked(0, "x", "/a.jpeg", 9),
            asked(0, "x", "/v1/x", 10),
            asked(0, "x", "/v1/x.js", 11),
            asked(0, "x", "/x.js", 12),
            asked(0, "x", "/v1/x.php", 13),
            asked(0, "x", "/x.php", 14),
            asked(0, "x", "/x.php5", 15),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
limit_req zone=a burst=7 nodelay;
server { listen 127.0.0.1:PORT0; server_name x; location /free/ { limit_req zone=b burst=20 nodelay; } location ~ \\.php$ { } }
server { listen 127.0.0.1:PORT1; server_name y; location = /one { } location / { limit_req zone=b burst=20 nodelay; } }",
        // All of one client are counted together.
        &[
            asked(0, "x", "/free/a", 2),
            asked(0, "x", "/free/a.php", 2),
            asked(0, "x", "/", 2),
            asked(1, "y", "/one", 2),
            asked(1, "y", "/one", 3),
        ],
    ),
    (
        "limit_req_zone $server_name zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name a.test www.a.test; limit_req zone=a burst=5 nodelay; }
server { listen 127.0.0.1:PORT0; server_name b.test; limit_req zone=a burst=5 nodelay; }
server { listen 127.0.0.1:PORT1; limit_req zone=a burst=5 nodelay; }",
        &[
            asked(0, "a.test", "/", 2),
            asked(0, "www.a.test", "/", 3),
            asked(0, "b.test", "/", 4),
            asked(0, "else.test", "/", 5),
            // It has no name, so its key is empty.
            asked(1, "c.test", "/", 6),
        ],
    ),
    // What reaches limits by another path than its own: a directory by its index file.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location = /index.html { limit_req zone=a burst=1 nodelay; }
  location ~ \\.php$ { limit_req zone=a burst=2 nodelay; }
  location /passed/ { proxy_pass http://127.0.0.1:1; }
  location /files/ { try_files $uri =404; }
  location /shop/ { index index.php; } }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "x", "/shop/", 7),
            asked(0, "x", "/shop/x", 3),
            asked(0, "x", "/shop", 4),
            asked(0, "x", "/passed/", 5),
            asked(0, "x", "/files/", 6),
        ],
    ),
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location / { }
  location = /index.html { limit_req zone=a burst=1 nodelay; }
  location /shop/in { limit_req zone=a burst=2 nodelay; } }",
        &[asked(0, "x", "/", 2), asked(0, "x", "/shop/", 3), asked(0, "x", "/shop", 4), asked(0, "x", "/shop/x", 5)],
    ),
    // What is answered before the limits.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; limit_req zone=a burst=1 nodelay;
  if ($host = \"www.x\") { return 301 http://x$request_uri; }
  if ($request_method !~ ^(GET|HEAD)$ ) { return 403; }
  if ($http_x_probe = 1) { return 204; }
  rewrite ^/gone/(.*)$ /new/$1 permanent;
  rewrite ^/away$ http://x/ redirect;
  location /old/ { if ($uri ~ \\.html$) { return 301 /; } }
  location /page/ { if ($http_x_ok = yes) { break; } return 403; }
  location /shop/ { proxy_pass http://127.0.0.1:1; }
  location /both/ { proxy_pass http://127.0.0.1:1; }
  location ~ ^/bo { }
  location = /both { } }",
        &[
            asked(0, "x", "/", 2),
            asked(0, "www.x", "/", 3),
            by("PUT", "/", 4),
            with(("x-probe", "1"), "/", 5),
            with(("x-probe", "2"), "/", 6),
            asked(0, "x", "/gone/x", 7),
            asked(0, "x", "/away", 8),
            asked(0, "x", "/away/x", 9),
            asked(0, "x", "/old/x", 10),
            asked(0, "x", "/old/x.html", 11),
            asked(0, "x", "/page/", 12),
            with(("x-ok", "yes"), "/page/", 13),
            asked(0, "x", "/shop", 14),
            asked(0, "x", "/shop/", 15),
            asked(0, "x", "/both", 16),
        ],
    ),
    // What is rewritten, or sent on by an answer.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; error_page 418 404 = @l;
  rewrite ^/old$ /api/new?x last;
  rewrite ^/stay$ /api/stay break;
  location /api/ { limit_req zone=a burst=1 nodelay; }
  location / { rewrite ^/in$ /api/in last; rewrite ^/not$ /api/in break; rewrite ^/on$ /api/; }
  location /post { error_page 418 @p; if ($request_method = POST) { return 418; } limit_req zone=a burst=1 nodelay; }
  location /inner { internal; }
  location /text { return 418 text; }
  location @p { error_page 404 /none; limit_req zone=a burst=3 nodelay; }
  location @l { limit_req zone=a burst=2 nodelay; } }",
        &[
            asked(0, "x", "/old", 2),
            asked(0, "x", "/stay", 3),
            asked(0, "x", "/in", 4),
            asked(0, "x", "/on", 5),
            asked(0, "x", "/post", 6),
            by("POST", "/post", 7),
            asked(0, "x", "/inner", 8),
            asked(0, "x", "/text", 9),
        ],
    ),
    // A denial that is sent on is not counted again.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; error_page 429 /slow.html;
  location / { limit_req zone=a burst=1 nodelay; }
  location = /slow.html { limit_req zone=b burst=3 nodelay; } }",
        &[asked(0, "x", "/", 2), asked(0, "x", "/slow.html", 2)],
    ),
    // Each IPv6 address counts by itself.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; set_real_ip_from 127.0.0.0/8; real_ip_header X-Real; limit_req zone=a burst=1 nodelay; }",
        &[
            with(("x-real", "2001:db8::1"), "/", 2),
            with(("x-real", "2001:db8::2"), "/", 2),
            with(("x-real", "2001:db8::1"), "/", 2),
        ],
    ),
    // Keys that differ in a text only.
    (
        "map $uri $k { default w$binary_remote_addr; ~^/api/ a$binary_remote_addr; /none \"\"; }
limit_req_zone $k zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; limit_req zone=a burst=2 nodelay; }",
        &[asked(0, "x", "/", 2), asked(0, "x", "/api/x", 2), asked(0, "x", "/none", 2), asked(0, "x", "/x", 2)],
    ),
    // A key is taken of the path that a request has where it is limited.
    (
        "map $uri $k { default \"\"; ~^/api/ $binary_remote_addr; ~\\.php$ $binary_remote_addr; ~^/y$ $binary_remote_addr; }
map $uri $paid { default $binary_remote_addr; ~^/free$ \"\"; }
limit_req_zone $k zone=a:1m rate=1r/m;
limit_req_zone $paid zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; error_page 418 = /y;
  rewrite ^/login$ /api/login last;
  rewrite ^/api/old$ /gone last;
  location / { limit_req zone=a burst=2 nodelay; }
  location /e { return 418; }
  location /x.php { limit_req zone=a burst=2 nodelay; }
  location /shop/ { index index.php; }
  location = /shop/index.php { limit_req zone=a burst=2 nodelay; }
  location /front { try_files /none /a.php?$args; }
  location /free { limit_req zone=b burst=3 nodelay; rewrite ^/free$ /paid break; rewrite ^/freed$ /free break; } }",
        &[
            asked(0, "x", "/login", 2),
            asked(0, "x", "/api/x", 3),
            asked(0, "x", "/api/old", 4),
            asked(0, "x", "/e/x", 5),
            asked(0, "x", "/y", 6),
            asked(0, "x", "/x.php", 7),
            asked(0, "x", "/x.phpx", 8),
            asked(0, "x", "/shop/", 9),
            asked(0, "x", "/front/x", 10),
            asked(0, "x", "/free", 11),
            asked(0, "x", "/freed", 12),
            asked(0, "x", "/other", 13),
        ],
    ),
    // What is internal is reached by a rewrite, too.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; rewrite ^/s$ /p/y last;
  location /p/ { internal; limit_req zone=a burst=2 nodelay; location /p/q { } }
  location /e { error_page 418 /p/x; return 418; }
  location /r { rewrite ^ /p/q last; } }",
        &[
            asked(0, "x", "/s", 2),
            asked(0, "x", "/e", 3),
            asked(0, "x", "/r", 4),
            asked(0, "x", "/p/x", 5),
            asked(0, "x", "/p/q", 6),
        ],
    ),
    // A star in a path.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location = /a*b { limit_req zone=a burst=2 nodelay; }
  location ~ ^/c\\*d$ { limit_req zone=a burst=2 nodelay; } }",
        &[
            asked(0, "x", "/a*b", 2),
            asked(0, "x", "/axb", 3),
            asked(0, "x", "/c*d", 4),
            asked(0, "x", "/cxd", 5),
        ],
    ),
    // Bytes of an address are no text.
    (
        "map $binary_remote_addr $k { default $binary_remote_addr; 127.0.0.5 \"\"; }
geo $binary_remote_addr $in { default 1; 127.0.0.0/8 0; }
map $in $g { 0 \"\"; 1 $binary_remote_addr; }
limit_req_zone $k zone=a:1m rate=1r/m;
limit_req_zone $g zone=b:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location / { limit_req zone=a burst=2 nodelay; }
  location /g { limit_req zone=b burst=3 nodelay; } }",
        &[asked(0, "x", "/", 5), asked(0, "x", "/", 6), asked(0, "x", "/g", 7)],
    ),
    // Names without case: of variables, and of hosts by a regular expression.
    (
        "limit_req_zone $Binary_Remote_Addr$http_X_Api_Key zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; server_name d; }
server { listen 127.0.0.1:PORT0; server_name ~^(www\\.)?Shop\\.Test$ any.test;
  if ($http_X_Vip = 1) { return 204; }
  limit_req zone=a burst=2 nodelay; }",
        &[
            asked(0, "shop.test", "/", 2),
            asked(0, "d", "/", 3),
            with(("x-api-key", "k"), "/", 4),
            with(("x-vip", "1"), "/", 5),
        ],
    ),
    // The method after an error page, and errors of error pages.
    (
        "map $request_method $k { default \"\"; GET $binary_remote_addr; }
limit_req_zone $k zone=m:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0; error_page 418 /e; error_page 419 = @b;
  location / { return 418; }
  location /e { limit_req zone=m burst=2 nodelay; }
  location /m { error_page 418 /l; return 418; }
  location /l { if ($request_method ~ ^(POST|PUT)$) { return 204; } limit_req zone=a burst=3 nodelay; }
  location /deep { recursive_error_pages on; error_page 418 = @a; return 418; }
  location /once { error_page 418 = @a; return 418; }
  location @a { return 403; error_page 403 = @b; }
  location @b { limit_req zone=a burst=1 nodelay; } }",
        &[
            asked(0, "x", "/x", 2),
            by("POST", "/x", 3),
            by("POST", "/e", 4),
            asked(0, "x", "/m", 5),
            by("POST", "/m", 6),
            by("POST", "/l", 7),
            asked(0, "x", "/deep", 8),
            asked(0, "x", "/once", 9),
        ],
    ),
    // A block of `if` is a location of its own.
    (
        "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
server { listen 127.0.0.1:PORT0;
  location / { if ($request_method = POST) { add_header X y; } try_files /none @app; }
  location /i { if ($http_x_a = 1) { error_page 418 = @app; } return 418; }
  location @app { limit_req zone=a burst=2 nodelay; } }",
        &[
            asked(0, "x", "/x", 2),
            by("POST", "/x", 3),
            asked(0, "x", "/i", 4),
            with(("x-a", "1"), "/i", 5),
        ],
    ),
    (
        "include http.d/*.conf;",
        &[asked(0, "x", "/", 2), asked(0, "x", "/deep", 3)],
    ),
];
