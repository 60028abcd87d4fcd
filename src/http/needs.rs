//! What each call needs of who makes it. **A call that is not named here needs all**: who adds one says here what it needs.

use hyper::Method;
use tidegate_cluster::state::Role;

use super::calls::{self, AUTH_PATH, CHECK_PATH};
use crate::access::Needs;

/// By method (`*`: any) and path.
const NEEDS: [(&str, &str, Needs); 30] = [
    ("*", CHECK_PATH, Needs::Role(Role::Check)),
    ("*", AUTH_PATH, Needs::Role(Role::Check)),
    ("POST", "/v1/check/batch", Needs::Role(Role::Check)),
    // Services give back what they have not used.
    ("POST", "/v1/refund", Needs::Role(Role::Check)),
    ("POST", "/v1/reset", Needs::Role(Role::Operate)),
    ("GET", "/v1/explain", Needs::Role(Role::Read)),
    ("POST", "/v1/explain", Needs::Role(Role::Read)),
    ("GET", "/v1/cluster", Needs::Role(Role::Read)),
    ("POST", "/v1/cluster/drain/{node}", Needs::Role(Role::Operate)),
    ("POST", "/v1/cluster/remove/{node}", Needs::Role(Role::Operate)),
    ("GET", "/v1/rules", Needs::Role(Role::Read)),
    ("GET", "/v1/rules/{domain}", Needs::Role(Role::Read)),
    ("PUT", "/v1/rules/{domain}", Needs::Role(Role::Admin)),
    ("GET", "/v1/rules/{domain}/history", Needs::Role(Role::Read)),
    ("POST", "/v1/rules/{domain}/rollback", Needs::Role(Role::Admin)),
    ("GET", "/v1/tokens", Needs::Role(Role::Admin)),
    ("POST", "/v1/tokens", Needs::Role(Role::Admin)),
    ("DELETE", "/v1/tokens/{token}", Needs::Role(Role::Admin)),
    ("GET", "/v1/audit", Needs::Role(Role::Read)),
    // The hash secret and the hashes of tokens are in it.
    ("GET", "/v1/backup", Needs::Role(Role::Admin)),
    ("GET", "/v1/backup/buckets", Needs::Role(Role::Admin)),
    ("GET", "/metrics", Needs::Role(Role::Read)),
    ("GET", "/healthz", Needs::Nothing),
    ("GET", "/readyz", Needs::Nothing),
    ("GET", "/openapi.json", Needs::Nothing),
    ("GET", "/", Needs::Nothing),
    ("POST", "/v1/GetRateLimits", Needs::Role(Role::Check)),
    // It names all nodes.
    ("GET", "/v1/HealthCheck", Needs::Role(Role::Check)),
    ("GET", "/v1/LiveCheck", Needs::Nothing),
    ("POST", "/throttle", Needs::Role(Role::Check)),
];

/// What a request needs. One that is none of the calls needs nothing: it is told so.
pub(super) fn of(method: &Method, path: &str, query: Option<&str>) -> Needs {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let is_it = |named: &str| named == "*" || named == method.as_str();
    let named = NEEDS.iter().find(|(named, call, _)| is_it(named) && calls::fits(call, path));
    match named {
        Some((_, _, Needs::Role(Role::Admin))) if path.starts_with("/v1/rules/") && is_dry_run(query) => {
            Needs::Role(Role::Read)
        }
        Some((_, _, needs)) => *needs,
        None if calls::all().any(|(methods, call)| calls::fits(call, path) && takes(methods, method)) => {
            Needs::Role(Role::Admin)
        }
        None => Needs::Nothing,
    }
}

fn takes(methods: &str, method: &Method) -> bool {
    methods == "ANY" || methods.split(", ").any(|one| one == method.as_str())
}

/// Whether nothing is to be changed. A query that is not quite clear, such as one that says it twice, is none of these: the call
/// itself refuses that, and reads no less as a dry run than what is one here.
fn is_dry_run(query: Option<&str>) -> bool {
    let mut said = query.unwrap_or_default().split('&').filter(|pair| pair.starts_with("dry_run="));
    said.next() == Some("dry_run=true") && said.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(method: &str, uri: &str) -> Needs {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        of(&method.parse().unwrap(), path, query)
    }

    #[test]
    fn each_call_says_what_it_needs() {
        for (methods, path) in calls::all() {
            let methods = if *methods == "ANY" { "GET, PUT, POST, DELETE, PATCH, OPTIONS" } else { methods };
            for method in methods.split(", ") {
                let is_named =
                    NEEDS.iter().any(|(named, call, _)| (*named == "*" || *named == method) && call == path);
                assert!(is_named, "what does {method} {path} need? (NEEDS)");
            }
        }
    }

    #[test]
    fn what_is_no_call_needs_nothing_and_what_changes_something_does() {
        assert_eq!(needed("GET", "/nowhere"), Needs::Nothing);
        assert_eq!(
            needed("DELETE", "/v1/rules/default"),
            Needs::Nothing,
            "it is told that there is no such method"
        );
        assert_eq!(needed("PUT", "/v1/rules/default"), Needs::Role(Role::Admin));
        assert_eq!(needed("PUT", "/v1/rules/a%2fb"), Needs::Role(Role::Admin));
        assert_eq!(needed("HEAD", "/v1/rules"), Needs::Role(Role::Read));
        assert_eq!(needed("HEAD", "/metrics"), Needs::Role(Role::Read));
        assert_eq!(needed("POST", "/v1/cluster/drain/n1"), Needs::Role(Role::Operate));
        assert_eq!(needed("DELETE", "/v1/tokens/ci"), Needs::Role(Role::Admin));
    }

    #[test]
    fn a_dry_run_only_reads() {
        for (query, role) in [
            ("dry_run=true", Role::Read),
            ("author=a&dry_run=true&message=b", Role::Read),
            ("dry_run=false", Role::Admin),
            ("dry_run=true&dry_run=false", Role::Admin),
            ("dry_run=true&dry_run=true", Role::Admin),
            ("dry_run=", Role::Admin),
            ("dry%5Frun=true", Role::Admin),
            ("dry_run=True", Role::Admin),
            ("", Role::Admin),
        ] {
            for call in ["PUT /v1/rules/a", "POST /v1/rules/a/rollback"] {
                let (method, path) = call.split_once(' ').unwrap();
                assert_eq!(needed(method, &format!("{path}?{query}")), Needs::Role(role), "{call} {query}");
            }
        }
        assert_eq!(needed("POST", "/v1/tokens?dry_run=true"), Needs::Role(Role::Admin));
    }
}
