use hyper::{Request, header::HeaderValue};

use super::*;
use crate::{check::Subject, client_address::ForwardedHeader};

fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn trust() -> Trust {
    Trust::new(vec!["10.0.0.0/8".parse().unwrap()], ForwardedHeader::default(), false)
}

fn asked(uri: &str, headers: &[(&str, &str)], look: impl FnOnce(&AuthRequest<'_>)) {
    look(&read(&head(uri, headers), [10, 0, 0, 1].into(), &trust()).unwrap());
}

fn fault(uri: &str, headers: &[(&str, &str)]) -> (ProblemKind, String) {
    let Err(problem) = read(&head(uri, headers), [10, 0, 0, 1].into(), &trust()) else { panic!("{uri}") };
    (problem.kind, problem.field.unwrap())
}

fn attribute(request: &AuthRequest<'_>, name: &str) -> Option<String> {
    let Subject::Attributes(attributes) = &request.check.subject else { panic!() };
    attributes.get(name).map(str::to_owned)
}

#[test]
fn what_caddy_and_traefik_send_makes_the_attributes() {
    let headers = [
        ("x-forwarded-for", "8.8.8.8, 2001:db8:1:2:3:4:5:6"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/login?next=/"),
        ("x-forwarded-host", "Shop.Example.:8443"),
        ("x-forwarded-proto", "HTTPS"),
        ("host", "tidegate:7800"),
    ];
    asked("/v1/auth", &headers, |request| {
        let expected = [
            ("ip", "2001:db8:1:2:3:4:5:6"),
            ("address", "2001:db8:1:2:3:4:5:6"),
            ("method", "POST"),
            ("path", "/login"),
            ("host", "shop.example"),
            ("scheme", "https"),
        ];
        for (name, value) in expected {
            assert_eq!(attribute(request, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(request.check.domain, "default");
        assert_eq!(request.denial, StatusCode::TOO_MANY_REQUESTS);
    });
}

#[test]
fn what_nginx_sends_makes_them_too_and_the_query_says_the_rest() {
    let headers = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-original-method", "PUT"),
        ("x-original-uri", "/a//b/../c?d"),
        ("x-api-key", "k1"),
    ];
    let uri = "/v1/auth?domain=shop&cost=3&deny_status=403&header=X-Api-Key:user,X-Missing&service=cart";
    asked(uri, &headers, |request| {
        let expected =
            [("ip", "203.0.113.9"), ("method", "PUT"), ("path", "/a/c"), ("user", "k1"), ("service", "cart")];
        for (name, value) in expected {
            assert_eq!(attribute(request, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(attribute(request, "x-missing"), None);
        assert_eq!(request.check.domain, "shop");
        assert_eq!(request.check.cost.get(), 3);
        assert_eq!(request.denial, StatusCode::FORBIDDEN);
    });
}

#[test]
fn without_headers_only_the_address_is_known() {
    asked("/v1/auth", &[], |request| {
        assert_eq!(attribute(request, "ip").as_deref(), Some("10.0.0.1"));
        for missing in ["method", "path", "host", "scheme"] {
            assert_eq!(attribute(request, missing), None);
        }
    });
}

#[test]
fn headers_that_contradict_each_other_are_refused_and_those_that_agree_are_not() {
    let two = [("x-forwarded-uri", "/a"), ("x-original-uri", "/b")];
    assert_eq!(fault("/v1/auth", &two), (ProblemKind::InvalidValue, "x-original-uri".to_owned()));
    let two = [("x-forwarded-method", "GET"), ("x-original-method", "POST")];
    assert_eq!(fault("/v1/auth", &two), (ProblemKind::InvalidValue, "x-original-method".to_owned()));
    let twice = [("x-forwarded-uri", "/a"), ("x-forwarded-uri", "/a")];
    assert_eq!(fault("/v1/auth", &twice).0, ProblemKind::DuplicateParameter);
    let twice = [("x-api-key", "a"), ("x-api-key", "b")];
    assert_eq!(fault("/v1/auth?header=x-api-key", &twice).0, ProblemKind::DuplicateParameter);
    let agreed = [("x-forwarded-uri", "/a"), ("x-original-uri", "/%61?x"), ("x-original-url", "https://b/a")];
    asked("/v1/auth", &agreed, |request| assert_eq!(attribute(request, "path").as_deref(), Some("/a")));
}

#[test]
fn the_query_of_the_client_chooses_nothing() {
    for (uri, target) in [
        ("/v1/auth?cost=0", "/a?cost=0"),
        ("/v1/auth?domain=x&b", "/a?domain=x&b#c"),
        ("/v1/auth?deny_status=403&cost=0", "/a?cost=0"),
    ] {
        let head = head(uri, &[("x-forwarded-uri", target)]);
        let Err(problem) = read(&head, [10, 0, 0, 1].into(), &trust()) else { panic!("{uri}") };
        assert_eq!(problem.kind, ProblemKind::InvalidValue);
    }
    for target in ["/a?cost=0", "/a?2", "/a?", "/a"] {
        asked("/v1/auth?cost=2", &[("x-forwarded-uri", target)], |request| {
            assert_eq!(request.check.cost.get(), 2);
        });
    }
}

#[test]
fn a_query_that_cannot_be_is_refused() {
    for (query, field) in [
        ("deny_status=200", "deny_status"),
        ("deny_status=no", "deny_status"),
        ("deny_status=503", "deny_status"),
        ("deny_status=403&deny_status=401", "deny_status"),
        ("cost=x", "cost"),
        ("ip=10.0.0.9", "ip"),
        ("path=/a", "path"),
        ("header=a%20b", "header"),
        ("header=host:ip", "header"),
        ("header=", "header"),
        ("path_case=upper", "path_case"),
        ("path_case=lower&path_case=lower", "path_case"),
    ] {
        assert_eq!(fault(&format!("/v1/auth?{query}"), &[("host", "a")]).1, field, "{query}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("h{n}")).collect();
    assert_eq!(fault(&format!("/v1/auth?header={}", many.join(",")), &[]).0, ProblemKind::ValueTooLarge);
    let long = "x".repeat(5_000);
    assert_eq!(fault("/v1/auth", &[("x-forwarded-uri", &format!("/{long}"))]).0, ProblemKind::ValueTooLarge);
}

#[test]
fn method_and_path_are_told_in_one_case_and_a_path_without_one_meaning_is_refused() {
    let headers =
        [("x-forwarded-method", "post"), ("x-original-method", "Post"), ("x-forwarded-uri", "/LogIn")];
    for (query, path) in [("", "/LogIn"), ("?path_case=keep", "/LogIn"), ("?path_case=lower", "/login")] {
        asked(&format!("/v1/auth{query}"), &headers, |request| {
            assert_eq!(attribute(request, "method").as_deref(), Some("POST"));
            assert_eq!(attribute(request, "path").as_deref(), Some(path));
        });
    }
    let climbs = [("x-original-uri", "/free/..%2flogin")];
    assert_eq!(fault("/v1/auth", &climbs), (ProblemKind::InvalidValue, "x-original-uri".to_owned()));
}

#[test]
fn a_value_that_is_not_utf8_is_still_one_value() {
    let mut head = head("/v1/auth?header=x-key", &[]);
    head.headers.insert("x-key", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let request = read(&head, [10, 0, 0, 1].into(), &trust()).unwrap();
    assert_eq!(attribute(&request, "x-key").as_deref(), Some("caf\u{e9}"));
}
