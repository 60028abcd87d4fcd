//! What is asked over HTTP, as a query and as JSON; and the headers of proxies.

use std::fmt::Write as _;

use hyper::{
    HeaderMap, Request, Uri,
    header::{HeaderName, HeaderValue},
};
use serde_json::{Map, Value};
use tidegate_limiter::rules::{Address, Attributes as _};

use super::{auth, json, path, query};
use crate::{
    check::{CheckRequest, Subject},
    client_address::{ForwardedHeader, Trust},
};

pub(crate) use super::transport::fuzzing::requests;

/// The first byte says whether the others are a query or JSON.
pub(crate) fn checks(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let request = if which % 2 == 0 {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(request) = query::parse(Some(text)) else { return };
        let again = query_of(&request);
        assert_eq!(told(&query::parse(Some(&again)).expect("it is a query")), told(&request));
        request
    } else {
        let asked = json::parse(bytes);
        let Ok(request) = asked else { return };
        serde_json::from_slice::<Value>(bytes).expect("JSON is JSON for everybody");
        request
    };
    if let Some(text) = json_of(&request) {
        assert_eq!(told(&json::parse(text.as_bytes()).expect("it is a check")), told(&request));
    }
}

/// All that a check says. As what an address was written does not count: another one may stand for it.
fn told(request: &CheckRequest<'_>) -> String {
    let CheckRequest { domain, subject, cost, costs, id } = request;
    let subject = match subject {
        Subject::Attributes(attributes) => format!("{:?}", attributes.iter().collect::<Vec<_>>()),
        others => format!("{others:?}"),
    };
    format!("{domain:?} {subject} {cost:?} {costs:?} {id:?}")
}

fn query_of(request: &CheckRequest<'_>) -> String {
    let mut query = format!("domain={}&cost={}", encoded(&request.domain), request.cost.get());
    let mut costs = request.costs.names().map(|name| {
        let units = request.costs.get(name).map_or(0, |cost| cost.get());
        format!("{}:{units}", encoded(name))
    });
    if let Some(first) = costs.next() {
        let _ = write!(query, "&costs={first}");
        costs.for_each(|next| _ = write!(query, ",{next}"));
    }
    if let Some(id) = &request.id {
        let _ = write!(query, "&request_id={}", encoded(id));
    }
    let Subject::Attributes(attributes) = &request.subject else { panic!("a query has attributes") };
    for (name, value) in attributes.iter() {
        let _ = write!(query, "&{}={}", encoded(name), encoded(value));
    }
    query
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// The same as JSON, where it has attributes: what a limit was written as is not kept.
fn json_of(request: &CheckRequest<'_>) -> Option<String> {
    let Subject::Attributes(attributes) = &request.subject else { return None };
    let attributes: Map<String, Value> =
        attributes.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // A map of this kind has its own order, which is not that of the request.
    if !attributes.keys().map(String::as_str).eq(names(request)) {
        return None;
    }
    let costs: Map<String, Value> = request
        .costs
        .names()
        .map(|name| (name.to_owned(), request.costs.get(name).map_or(0, |cost| cost.get()).into()))
        .collect();
    if !costs.keys().map(String::as_str).eq(request.costs.names()) {
        return None;
    }
    let mut fields = Map::new();
    fields.insert("domain".to_owned(), (&*request.domain).into());
    fields.insert("cost".to_owned(), request.cost.get().into());
    fields.insert("costs".to_owned(), costs.into());
    fields.insert("request_id".to_owned(), request.id.as_deref().into());
    fields.insert("attributes".to_owned(), attributes.into());
    Some(Value::from(fields).to_string())
}

fn names<'r>(request: &'r CheckRequest<'_>) -> Box<dyn Iterator<Item = &'r str> + 'r> {
    match &request.subject {
        Subject::Attributes(attributes) => Box::new(attributes.iter().map(|(name, _)| name)),
        Subject::Inline { .. } | Subject::Named { .. } => Box::new(std::iter::empty()),
    }
}

/// Lines: the target of the request, and headers.
pub(crate) fn proxies(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
        path_of(line);
    }
    let takes_headers = uri.query().is_some_and(|query| query.contains('%') || query.contains("header"));
    let (mut head, ()) = Request::new(()).into_parts();
    (head.uri, head.headers) = (uri, headers);
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let trust = Trust::new(vec!["10.0.0.0/8".parse().expect("a network")], header, false);
        let peer = [10, 0, 0, 1].into();
        let Ok(asked) = auth::read(&head, peer, &trust) else { continue };
        assert!(asked.denial.is_client_error());
        let Subject::Attributes(attributes) = &asked.check.subject else {
            panic!("a proxy tells attributes")
        };
        let client = trust.client(peer, &head.headers);
        assert_eq!(attributes.get("address"), Some(&*client.to_string()));
        assert_eq!(
            attributes.address("ip"),
            Some(Address::from(client)).map(|one| Address::from(one.host()))
        );
        // A header that is taken as an attribute may be taken as this one.
        let method = attributes.get("method").filter(|_| !takes_headers).unwrap_or_default();
        assert!(!method.bytes().any(|byte| byte.is_ascii_lowercase()), "{method:?}");
    }
}

/// A path that begins at the root leads somewhere below it, in one way.
fn path_of(line: &[u8]) {
    let Ok(target) = std::str::from_utf8(line) else { return };
    let Ok(path) = path::of_target(target) else { return };
    if target.starts_with('/') {
        assert!(path.starts_with('/'), "{target:?} -> {path:?}");
        assert!(!path.contains("//") && !path.contains('\\'), "{target:?} -> {path:?}");
        assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{target:?} -> {path:?}");
        assert!(!path.chars().any(char::is_control), "{target:?} -> {path:?}");
        assert!(path.len() <= target.len() + 1, "{target:?} -> {path:?}");
    }
}
