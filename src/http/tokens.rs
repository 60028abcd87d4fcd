//! `/v1/tokens`: who may do what. The text of a token is told once, when it is made; one that a certificate stands for has none.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_cluster::{
    ids::Revision,
    rules::{NewToken, WriteError},
    state::{
        AccessState, ActError, MAX_CERTIFICATE_NAME_BYTES, MAX_TOKEN_DOMAINS, MAX_TOKEN_NAME_BYTES, Role,
        Roles, Token, TokenId,
    },
};
use tidegate_limiter::cluster::is_valid_name;
use tokio::time::Instant;

use super::json::problem_of as problem_of_json;
use crate::{
    access::Caller,
    check::{MAX_NAME_BYTES, Problem, ProblemKind, echo},
    instant,
    node::Node,
};

/// How long the leader may take to write a change.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long it is waited for that all live nodes know of a token that is revoked.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(3);
/// A token lives for a century at most.
const MAX_LIFE: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The body of a call that makes a token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    roles: Vec<String>,
    #[serde(default)]
    domains: Vec<String>,
    expires_in_s: Option<u64>,
    expires_at: Option<String>,
    certificate: Option<String>,
}

/// What is told of a token.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: String,
    name: String,
    roles: Vec<&'static str>,
    domains: Vec<String>,
    /// The name in the certificate that stands for it.
    certificate: Option<String>,
    created_at: String,
    created_by: Option<String>,
    expires_at: Option<String>,
    expired: bool,
}

impl View {
    fn of(id: TokenId, token: &Token, access: &AccessState, now_ms: u64) -> Self {
        Self {
            id: id.to_string(),
            name: token.name.clone(),
            roles: token.roles.iter().map(Role::as_str).collect(),
            domains: token.domains.clone(),
            certificate: access.certificates.of(id).map(str::to_owned),
            created_at: instant::text_of(token.created_ms),
            created_by: Some(token.created_by.clone()).filter(|name| !name.is_empty()),
            expires_at: token.expires_ms.map(instant::text_of),
            expired: token.is_expired(now_ms),
        }
    }
}

/// `GET /v1/tokens`
pub(super) fn all(node: &Node) -> Value {
    let applied = node.cluster.ledger().applied();
    let now_ms = node.clock.unix_millis();
    let access = &applied.state.access;
    let mut tokens: Vec<View> =
        access.tokens.iter().map(|(id, token)| View::of(id, token, access, now_ms)).collect();
    tokens.sort_by(|one, other| one.name.cmp(&other.name));
    json!({ "node": node.name, "tokens": tokens })
}

/// `POST /v1/tokens`
pub(super) async fn make(node: &Node, caller: &Caller, body: &[u8]) -> Result<Value, Problem> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| problem_of_json(&error))?;
    let new = new_token(wanted, node.clock.unix_millis())?;
    let (ledger, deadline) = (node.cluster.ledger(), Instant::now() + WRITE_WITHIN);
    let made = ledger.make_token(new, caller.actor(), deadline).await;
    let (id, text) = made.map_err(|error| problem(&error))?;
    let applied = ledger.applied();
    node.access.publish(&applied);
    let access = &applied.state.access;
    let view = access.tokens.get(id).map(|token| View::of(id, token, access, node.clock.unix_millis()));
    let mut answer = serde_json::to_value(view).unwrap_or_default();
    if answer.is_null() {
        answer = json!({ "id": id.to_string() });
    }
    if let Some(text) = text {
        answer["token"] = text.into();
    }
    Ok(answer)
}

/// `DELETE /v1/tokens/{token}`
pub(super) async fn revoke(node: &Node, caller: &Caller, named: &str) -> Result<Value, Problem> {
    let (ledger, deadline) = (node.cluster.ledger(), Instant::now() + WRITE_WITHIN);
    // This node may not have heard of it yet.
    let latest = ledger.latest(deadline).await;
    let applied = latest.map_err(|missing| problem(&WriteError::NoQuorum(missing)))?;
    let tokens = &applied.state.access.tokens;
    let Some(id) = tokens.find(named) else {
        let detail = format!("there is no token {:?}; it may have been revoked", echo(named));
        return Err(Problem::new(ProblemKind::NoSuchToken, detail));
    };
    let name = tokens.get(id).map(|token| token.name.clone());
    ledger.revoke_token(id, caller.actor(), deadline).await.map_err(|error| problem(&error))?;
    let applied = ledger.applied();
    node.access.publish(&applied);
    // Whoever revokes a token wants to know when nobody takes it any more.
    let entry = Revision::new(applied.state.access.tokens.version());
    let spread = ledger.everywhere(entry, deadline.min(Instant::now() + EVERYWHERE_WITHIN)).await;
    Ok(json!({
        "id": id.to_string(), "name": name, "revoked": true,
        "applied_by": spread.applied_by, "behind": spread.behind,
    }))
}

fn new_token(wanted: Wanted, now_ms: u64) -> Result<NewToken, Problem> {
    let Wanted { name, roles: words, domains, expires_in_s, expires_at, certificate } = wanted;
    let invalid = |field: &str, detail: String| Problem::of_field(ProblemKind::InvalidValue, field, detail);
    if !is_valid_name(&name) || name.len() > MAX_TOKEN_NAME_BYTES || TokenId::parse(&name).is_some() {
        let detail = format!(
            "{:?} cannot name a token: 1 to {MAX_TOKEN_NAME_BYTES} letters, digits and - _ . / :, and not 16 hexadecimal digits",
            echo(&name)
        );
        return Err(invalid("name", detail));
    }
    let mut roles = Vec::new();
    for word in &words {
        let known = Role::ALL.map(Role::as_str).join(", ");
        let role = Role::from_name(word);
        roles.push(role.ok_or_else(|| {
            invalid("roles", format!("there is no role {:?}; there are: {known}", echo(word)))
        })?);
    }
    let roles: Roles = roles.into_iter().collect();
    if roles.is_empty() {
        return Err(invalid("roles", "a token has at least one role".to_owned()));
    }
    if !domains.is_empty() && !roles.iter().eq([Role::Check]) {
        let detail = "domains limit what may be checked: a token with another role than check has none";
        return Err(invalid("domains", detail.to_owned()));
    }
    if domains.len() > MAX_TOKEN_DOMAINS {
        let detail =
            format!("a token is for at most {MAX_TOKEN_DOMAINS} domains, here are {}", domains.len());
        return Err(invalid("domains", detail));
    }
    if let Some(wrong) = domains.iter().find(|name| !is_valid_name(name) || name.len() > MAX_NAME_BYTES) {
        return Err(invalid("domains", format!("{:?} cannot name a domain", echo(wrong))));
    }
    let expires_ms = match (expires_in_s, expires_at) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            let detail = "a token has either expires_in_s or expires_at, not both".to_owned();
            return Err(invalid("expires_at", detail));
        }
        (Some(seconds), None) => Some(now_ms.saturating_add(seconds.saturating_mul(1000))),
        (None, Some(text)) => Some(instant::parse(&text).ok_or_else(|| {
            let detail = format!(
                "{:?} is no instant in RFC 3339 with a zone, as in 2026-12-31T00:00:00Z",
                echo(&text)
            );
            invalid("expires_at", detail)
        })?),
    };
    if let Some(end) = expires_ms {
        let field = if expires_in_s.is_some() { "expires_in_s" } else { "expires_at" };
        if end <= now_ms || end - now_ms > MAX_LIFE.as_millis() as u64 {
            return Err(invalid(field, "a token expires in the future, within 100 years".to_owned()));
        }
    }
    if let Some(wrong) = certificate.as_deref().filter(|name| !is_certificate_name(name)) {
        let detail = format!(
            "{:?} cannot name a certificate: it is a DNS name, URI or mail address of its subject alternative names, or its common name, \
             exactly as it stands there; 1 to {MAX_CERTIFICATE_NAME_BYTES} characters of ASCII, no * and no address",
            echo(wrong)
        );
        return Err(invalid("certificate", detail));
    }
    Ok(NewToken { name, roles, domains, expires_ms, certificate })
}

/// Names are compared as they are: one with a `*` would be taken for a pattern, and an address is not looked at.
fn is_certificate_name(name: &str) -> bool {
    (1..=MAX_CERTIFICATE_NAME_BYTES).contains(&name.len())
        && name.trim() == name
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'*')
        && name.parse::<IpAddr>().is_err()
}

/// What is told of a change that was not made.
pub(super) fn problem(error: &WriteError) -> Problem {
    let kind = match error {
        WriteError::NotDone(ActError::NotAllowed(_)) => ProblemKind::RoleMissing,
        WriteError::NotDone(ActError::NoSuchToken) => ProblemKind::NoSuchToken,
        WriteError::NotDone(
            ActError::NameTaken(_) | ActError::CertificateTaken(_) | ActError::NoAdminLeft,
        ) => ProblemKind::TokenConflict,
        WriteError::NotDone(ActError::Full) => ProblemKind::NoRoom,
        _ => ProblemKind::NoQuorum,
    };
    Problem::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(json: Value) -> Result<NewToken, Problem> {
        new_token(serde_json::from_value(json).unwrap(), 1_000)
    }

    #[test]
    fn a_token_is_what_was_asked_for_or_it_is_told_what_is_wrong() {
        let new =
            wanted(json!({"name": "shop", "roles": ["check"], "domains": ["a", "b"], "expires_in_s": 2}));
        let new = new.unwrap();
        assert_eq!((new.domains.len(), new.expires_ms), (2, Some(3_000)));
        assert!(new.roles.allow(Role::Check) && !new.roles.allow(Role::Read));
        let ends = wanted(json!({"name": "a", "roles": ["read"], "expires_at": "1970-01-01T01:00:02+01:00"}));
        assert_eq!(ends.unwrap().expires_ms, Some(2_000));
        for name in
            ["deploy", "n1.example.com", "spiffe://example.com/ns/a", "ada@example.com", "Ada Lovelace"]
        {
            let shown = wanted(json!({"name": "a", "roles": ["read"], "certificate": name})).unwrap();
            assert_eq!(shown.certificate.as_deref(), Some(name));
        }
        for (json, field) in [
            (json!({"name": "", "roles": ["check"]}), "name"),
            (json!({"name": "a b", "roles": ["check"]}), "name"),
            (json!({"name": "x".repeat(65), "roles": ["check"]}), "name"),
            (json!({"name": "0123456789abcdef", "roles": ["check"]}), "name"),
            (json!({"name": "a", "roles": []}), "roles"),
            (json!({"name": "a", "roles": ["root"]}), "roles"),
            (json!({"name": "a", "roles": ["check", "read"], "domains": ["a"]}), "domains"),
            (json!({"name": "a", "roles": ["admin"], "domains": ["a"]}), "domains"),
            (json!({"name": "a", "roles": ["check"], "domains": ["a b"]}), "domains"),
            (json!({"name": "a", "roles": ["check"], "domains": vec!["a"; 65]}), "domains"),
            (json!({"name": "a", "roles": ["check"], "expires_in_s": 0}), "expires_in_s"),
            (json!({"name": "a", "roles": ["check"], "expires_in_s": u64::MAX}), "expires_in_s"),
            (json!({"name": "a", "roles": ["check"], "expires_at": "tomorrow"}), "expires_at"),
            (json!({"name": "a", "roles": ["check"], "expires_at": "1970-01-01T00:00:00Z"}), "expires_at"),
            (json!({"name": "a", "roles": ["check"], "certificate": ""}), "certificate"),
            (json!({"name": "a", "roles": ["check"], "certificate": " a"}), "certificate"),
            (json!({"name": "a", "roles": ["check"], "certificate": "*.example.com"}), "certificate"),
            (json!({"name": "a", "roles": ["check"], "certificate": "10.0.0.1"}), "certificate"),
            (json!({"name": "a", "roles": ["check"], "certificate": "a\nb"}), "certificate"),
            (json!({"name": "a", "roles": ["check"], "certificate": "x".repeat(256)}), "certificate"),
        ] {
            assert_eq!(wanted(json.clone()).unwrap_err().field.as_deref(), Some(field), "{json}");
        }
    }
}
