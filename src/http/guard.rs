//! Keeps web pages of others away from the calls that are for people and their programs: a browser sends what any page tells
//! it to, to whatever its visitor can reach, and a node on localhost asks nobody for a password.
//!
//! Checks are not guarded: proxies pass on the headers of their clients, whose origins are not this node's business, and the
//! names under which nodes are asked are as many as there are networks.

use hyper::{
    HeaderMap, Method, Request,
    header::{HOST, HeaderName, ORIGIN},
};

use crate::{
    allowed_hosts::AllowedHosts,
    check::{Problem, ProblemKind, echo},
};

/// Calls of services and of what watches them.
const OPEN: [&str; 8] = [
    "/v1/check",
    "/v1/check/batch",
    "/v1/auth",
    "/v1/GetRateLimits",
    "/v1/HealthCheck",
    "/v1/LiveCheck",
    "/healthz",
    "/readyz",
];
/// Calls of services too, which know a node by whatever name their network has for it; a web page that makes them says so.
const OF_SERVICES: [&str; 3] = ["/throttle", "/v1/refund", "/v1/reset"];
const METRICS: &str = "/metrics";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused; none: it is not.
pub(super) fn refusal<B>(request: &Request<B>, hosts: &AllowedHosts) -> Option<Problem> {
    let path = request.uri().path();
    if OPEN.contains(&path) || path == METRICS {
        return None;
    }
    if OF_SERVICES.contains(&path) {
        return page_refusal(request, hosts);
    }
    asked_by_anybody(request, hosts)
}

/// Why a request is refused if a web page makes it; none: no page does, or one of this node.
pub(super) fn page_refusal<B>(request: &Request<B>, hosts: &AllowedHosts) -> Option<Problem> {
    let headers = request.headers();
    let is_of_page = headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE);
    if is_of_page { asked_by_anybody(request, hosts) } else { None }
}

fn asked_by_anybody<B>(request: &Request<B>, hosts: &AllowedHosts) -> Option<Problem> {
    let headers = request.headers();
    let host = text(headers, &HOST);
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if let Some(foreign) = [authority, host].into_iter().flatten().find(|host| !hosts.allows(host)) {
        let detail = format!(
            "this node does not answer to the name {:?}, which may be anybody's: ask it by its address, or allow the name (--allowed-hosts)",
            echo(foreign)
        );
        return Some(Problem::new(ProblemKind::UnknownHost, detail));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let is_own = origin
            .split_once("://")
            .is_some_and(|(_, origin)| host.is_some_and(|host| same_host(origin, host)));
        if !is_own {
            return Some(foreign("Origin", origin));
        }
    }
    let site = headers.get(FETCH_SITE)?.to_str().unwrap_or_default();
    (!["same-origin", "none"].contains(&site)).then(|| foreign("Sec-Fetch-Site", site))
}

fn same_host(origin: &str, host: &str) -> bool {
    // Origins leave out the usual port.
    let bare = |host: &str| {
        host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host).to_ascii_lowercase()
    };
    bare(origin) == bare(host)
}

fn foreign(header: &str, value: &str) -> Problem {
    let detail = format!(
        "a web page of another site asks ({header}: {}): calls that change something are for programs and for pages of this node",
        echo(value)
    );
    Problem::new(ProblemKind::ForeignOrigin, detail)
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    // What is not ASCII is nobody's name.
    headers.get(name).map(|value| value.to_str().unwrap_or("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<ProblemKind> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = AllowedHosts::new(["limits.example.com".to_owned()]);
        refusal(&request.body(()).unwrap(), &hosts).map(|problem| problem.kind)
    }

    const OWN: (&str, &str) = ("host", "127.0.0.1:7800");

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        for (method, uri) in [
            ("POST", "/v1/cluster/drain/n3"),
            ("POST", "/v1/cluster/remove/n3"),
            ("PUT", "/v1/rules/default"),
            ("POST", "/v1/rules/default/rollback"),
            ("POST", "/v1/refund"),
            ("POST", "/v1/reset?rule=a"),
            ("DELETE", "/v1/anything"),
        ] {
            for foreign in [
                ("origin", "http://evil.example"),
                ("origin", "http://127.0.0.1:3000"),
                ("origin", "http://127.0.0.1"),
                ("origin", "null"),
                ("origin", ""),
                ("origin", "127.0.0.1:7800"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
                ("sec-fetch-site", ""),
            ] {
                assert_eq!(
                    refused(method, uri, &[OWN, foreign]),
                    Some(ProblemKind::ForeignOrigin),
                    "{uri} {foreign:?}"
                );
            }
            for own in [
                ("origin", "http://127.0.0.1:7800"),
                ("origin", "https://127.0.0.1:7800"),
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "none"),
                ("content-type", "text/plain"),
            ] {
                assert_eq!(refused(method, uri, &[OWN, own]), None, "{uri} {own:?}");
            }
            let rebound = [("host", "evil.example:7800"), ("origin", "http://evil.example:7800")];
            assert_eq!(refused(method, uri, &rebound), Some(ProblemKind::UnknownHost));
        }
        let usual_port = [("host", "limits.example.com:443"), ("origin", "https://limits.example.com")];
        assert_eq!(refused("PUT", "/v1/rules/a", &usual_port), None);
    }

    #[test]
    fn a_name_that_may_be_anybodys_reads_nothing() {
        for uri in ["/", "/v1/rules", "/v1/cluster", "/openapi.json", "/v1/check/", "/anything"] {
            assert_eq!(
                refused("GET", uri, &[("host", "evil.example")]),
                Some(ProblemKind::UnknownHost),
                "{uri}"
            );
            assert_eq!(
                refused("GET", uri, &[OWN, ("origin", "http://evil.example")]),
                None,
                "its answer is not readable"
            );
            assert_eq!(refused("GET", uri, &[]), None, "HTTP/1.0");
        }
        let absolute = "http://evil.example/v1/rules";
        assert_eq!(refused("GET", absolute, &[OWN]), Some(ProblemKind::UnknownHost));
    }

    #[test]
    fn checks_and_what_watches_a_node_are_not_guarded() {
        let client =
            [("host", "shop.example"), ("origin", "https://other.example"), ("sec-fetch-site", "cross-site")];
        for uri in OPEN.into_iter().chain([METRICS]) {
            assert_eq!(refused("POST", uri, &client), None, "{uri}");
        }
    }
}
