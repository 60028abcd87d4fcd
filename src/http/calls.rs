//! Which calls there are.

/// The hot call.
pub(super) const CHECK_PATH: &str = "/v1/check";
/// Its methods.
pub(super) const CHECK_METHODS: &str = "GET, POST";
/// Bytes of its body.
pub(super) const MAX_CHECK_BYTES: usize = 64 << 10;
/// What proxies call, by any method.
pub(super) const AUTH_PATH: &str = "/v1/auth";

/// All of ours, for somebody who asked for another one: methods and path.
pub(super) const CALLS: [(&str, &str); 23] = [
    (CHECK_METHODS, CHECK_PATH),
    ("POST", "/v1/check/batch"),
    ("ANY", AUTH_PATH),
    ("POST", "/v1/refund"),
    ("POST", "/v1/reset"),
    ("GET, POST", "/v1/explain"),
    ("GET", "/v1/cluster"),
    ("POST", "/v1/cluster/drain/{node}"),
    ("POST", "/v1/cluster/remove/{node}"),
    ("GET", "/v1/rules"),
    ("GET, PUT", "/v1/rules/{domain}"),
    ("GET", "/v1/rules/{domain}/history"),
    ("POST", "/v1/rules/{domain}/rollback"),
    ("GET, POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/{token}"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/backup"),
    ("GET", "/v1/backup/buckets"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
];

/// Those of Gubernator and of throttlecrab, whose contracts are not ours to describe.
const FOREIGN_CALLS: [(&str, &str); 4] = [
    ("POST", "/v1/GetRateLimits"),
    ("GET", "/v1/HealthCheck"),
    ("GET", "/v1/LiveCheck"),
    ("POST", "/throttle"),
];

/// All that are answered.
pub(super) fn all() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    CALLS.iter().chain(&FOREIGN_CALLS)
}

/// Whether a path is of a call, in which a name in braces stands for one part.
pub(super) fn fits(call: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    call.split('/').all(|part| parts.next().is_some_and(|own| own == part || part.starts_with('{')))
        && parts.next().is_none()
}
