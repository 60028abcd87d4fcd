//! `/v1/auth`: what a proxy asks before it lets a request through. It says nothing in a body; the attributes come from the
//! headers that proxies send, and from the address of the client.

use std::borrow::Cow;

use hyper::{
    HeaderMap, StatusCode,
    header::{HOST, HeaderName},
    http::request::Parts,
};
use tidegate_limiter::rules::Attributes as _;

use super::{
    fields::Fields,
    path::{self, AmbiguousPath},
    query,
};
use crate::{
    check::{AttributeList, CheckRequest, Problem, ProblemKind, echo},
    client_address::{Trust, text},
};

/// Headers that may be taken as attributes.
const MAX_CHOSEN: usize = 16;
/// Attributes that are always told by headers and address, never by the query.
const FROM_HEADERS: [&str; 6] = ["ip", "address", "method", "path", "host", "scheme"];

/// The headers in which proxies name the method, and the path.
const METHOD: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];
const TARGET: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-uri"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
];
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a proxy asks.
pub(super) struct AuthRequest<'a> {
    pub(super) check: CheckRequest<'a>,
    /// The status of a denial.
    pub(super) denial: StatusCode,
}

/// Reads the head of a request that came from `peer`.
pub(super) fn read<'a>(
    head: &'a Parts,
    peer: std::net::IpAddr,
    trust: &Trust,
) -> Result<AuthRequest<'a>, Problem> {
    let mut fields = Fields::default();
    let mut attributes = AttributeList::default();
    let (mut denial, mut lower_case) = (None, None);
    let mut chosen: Vec<(String, String)> = Vec::new();

    let client = trust.client(peer, &head.headers);
    attributes.insert("ip".into(), client.to_string().into())?;
    attributes.insert("address".into(), client.to_string().into())?;
    if let Some(method) = agreed(&head.headers, &METHOD, |method| Ok(upper_case(method.trim())))? {
        attributes.insert("method".into(), method)?;
    }
    let path = agreed(&head.headers, &TARGET, path::of_target)?;
    let host = single(&head.headers, &FORWARDED_HOST)?
        .map_or_else(|| single(&head.headers, &HOST), |host| Ok(Some(host)))?;
    if let Some(host) = host {
        attributes.insert("host".into(), bare_host(nearest(&host)).into())?;
    }
    if let Some(scheme) = single(&head.headers, &FORWARDED_PROTO)? {
        attributes.insert("scheme".into(), nearest(&scheme).to_ascii_lowercase().into())?;
    }

    is_the_proxys(head)?;
    let mut brought = query::OwnLimit::default();
    query::pairs(head.uri.query(), |name, value| match &*name {
        "domain" => query::set_once(&mut fields.domain, value, "domain"),
        "cost" => query::set_once(&mut fields.cost, query::parse_cost("cost", &value)?, "cost"),
        "costs" => query::set_once(&mut fields.costs, query::parse_costs(&value)?, "costs"),
        "request_id" => query::set_once(&mut fields.request_id, value, "request_id"),
        "deny_status" => query::set_once(&mut denial, parse_status(&value)?, "deny_status"),
        "path_case" => query::set_once(&mut lower_case, parse_case(&value)?, "path_case"),
        "header" => value.split(',').try_for_each(|one| choose(one, &mut chosen)),
        taken if FROM_HEADERS.contains(&taken) => {
            let detail = format!("{taken} comes from the proxy's headers, not from the query");
            Err(Problem::of_field(ProblemKind::InvalidValue, taken, detail))
        }
        _ => {
            brought.note(&name, &value)?;
            attributes.insert(name, value)
        }
    })?;
    brought.is_none()?;
    if let Some(path) = path {
        let path = if lower_case == Some(true) { path.to_lowercase().into() } else { path };
        attributes.insert("path".into(), path)?;
    }
    for (header, attribute) in chosen {
        let name = HeaderName::from_bytes(header.as_bytes()).map_err(|_| {
            let detail = format!("{:?} cannot name a header", echo(&header));
            Problem::of_field(ProblemKind::InvalidValue, "header", detail)
        })?;
        if attributes.get(&attribute).is_some() {
            let detail = format!(
                "the attribute {:?} is there already; name it as in header={header}:another",
                echo(&attribute)
            );
            return Err(Problem::of_field(ProblemKind::InvalidValue, "header", detail));
        }
        if let Some(value) = single(&head.headers, &name)? {
            attributes.insert(attribute.into(), value.into_owned().into())?;
        }
    }
    fields.attributes = Some(attributes);
    Ok(AuthRequest { check: fields.into_request()?, denial: denial.unwrap_or(StatusCode::TOO_MANY_REQUESTS) })
}

/// Some proxies (Caddy with `uri /v1/auth`) pass the client's query on, which would let the client choose domain and cost.
fn is_the_proxys(head: &Parts) -> Result<(), Problem> {
    let Some(query) = head.uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    for value in TARGET.iter().flat_map(|name| head.headers.get_all(name)) {
        let target = value.as_bytes();
        let Some(start) = target.iter().position(|byte| *byte == b'?') else { continue };
        let clients = target[start + 1..].split(|byte| *byte == b'#').next().unwrap_or_default();
        let before = query.as_bytes().strip_suffix(clients);
        if !clients.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with(b"&")) {
            let detail = "the query ends with the one of the client's request: the proxy must not pass that on (Caddy: uri /v1/auth?)";
            return Err(Problem::new(ProblemKind::InvalidValue, detail));
        }
    }
    Ok(())
}

/// `x-api-key`, or `x-api-key:user` for another name of the attribute.
fn choose(text: &str, chosen: &mut Vec<(String, String)>) -> Result<(), Problem> {
    if chosen.len() == MAX_CHOSEN {
        let detail = format!("more than {MAX_CHOSEN} headers are taken as attributes");
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "header", detail));
    }
    let (header, attribute) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
    let header = header.to_ascii_lowercase();
    let attribute = if attribute.is_empty() { header.clone() } else { attribute.to_owned() };
    chosen.push((header, attribute));
    Ok(())
}

fn parse_status(text: &str) -> Result<StatusCode, Problem> {
    let status = text.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    status.filter(StatusCode::is_client_error).ok_or_else(|| {
        let detail =
            format!("{:?} is no status of a denial: from 400 to 499; nginx needs 401 or 403", echo(text));
        Problem::of_field(ProblemKind::InvalidValue, "deny_status", detail)
    })
}

/// Whether the path is told in lower case.
fn parse_case(text: &str) -> Result<bool, Problem> {
    match text {
        "lower" => Ok(true),
        "keep" => Ok(false),
        _ => {
            let detail =
                format!("{:?} is no case of a path: keep, or lower where the server ignores it", echo(text));
            Err(Problem::of_field(ProblemKind::InvalidValue, "path_case", detail))
        }
    }
}

/// Servers that take `post` take it for `POST`.
fn upper_case(method: &str) -> Cow<'_, str> {
    match method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Owned(method.to_ascii_uppercase()),
        false => Cow::Borrowed(method),
    }
}

/// The value of a header that there may be once. Who reads the first of two and who reads the last would see two requests.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<Cow<'h, str>>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(text(value))),
        (Some(_), Some(_)) => {
            let detail =
                format!("the header {name} is there more than once, so nobody knows which one counts");
            Err(Problem::of_field(ProblemKind::DuplicateParameter, name.as_str(), detail))
        }
    }
}

/// What headers say that mean the same. Proxies send one of them and let those through that they do not know, which then are
/// the client's: if they contradict each other, nothing is believed.
fn agreed<'h>(
    headers: &'h HeaderMap,
    names: &[HeaderName],
    meaning: impl Fn(&str) -> Result<Cow<'_, str>, AmbiguousPath>,
) -> Result<Option<Cow<'h, str>>, Problem> {
    let mut found: Option<(&HeaderName, Cow<'h, str>)> = None;
    for name in names {
        let Some(value) = single(headers, name)? else { continue };
        let value = match value {
            Cow::Borrowed(value) => meaning(value),
            Cow::Owned(value) => meaning(&value).map(|value| Cow::Owned(value.into_owned())),
        };
        let value = value.map_err(|error| {
            Problem::of_field(ProblemKind::InvalidValue, name.as_str(), error.to_string())
        })?;
        match &found {
            None => found = Some((name, value)),
            Some((_, first)) if *first == value => {}
            Some((first, _)) => {
                let detail = format!(
                    "{first} and {name} contradict each other: the proxy must remove the one that it does not set"
                );
                return Err(Problem::of_field(ProblemKind::InvalidValue, name.as_str(), detail));
            }
        }
    }
    Ok(found.map(|(_, value)| value))
}

/// Of a list to which each proxy has added, what the nearest one added.
fn nearest(list: &str) -> &str {
    list.rsplit(',').next().unwrap_or(list).trim()
}

/// A host without its port, as names are compared.
fn bare_host(host: &str) -> String {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    host[..end].trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
