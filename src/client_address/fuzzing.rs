//! Headers in which proxies say whom they asked for.

use std::net::IpAddr;

use hyper::{HeaderMap, header::HeaderValue};

pub(crate) use super::proxy_protocol::fuzzing::headers as proxy_headers;
use super::{ForwardedHeader, Network, Trust, hops};

/// The first byte says which header; the others are its lines, and what they are as a network.
pub(crate) fn forwarded(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(network) = text.parse::<Network>()
    {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    let (header, attacker): (_, &[u8]) = match which % 2 {
        0 => (ForwardedHeader::XForwardedFor, b"203.0.113.66, "),
        _ => (ForwardedHeader::Forwarded, b"for=203.0.113.66;by=_x, "),
    };
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').take(8).collect();
    let Some(headers) = headers_of(header, &lines) else { return };
    let trust = Trust::new(vec!["10.0.0.0/8".parse().expect("a network")], header, false);

    let stranger: IpAddr = [198, 51, 100, 7].into();
    assert_eq!(trust.client(stranger, &headers), stranger, "a stranger is believed");

    let edge: IpAddr = [10, 0, 0, 1].into();
    let client = trust.client(edge, &headers);
    let is_listed = |line: &&[u8]| match header {
        ForwardedHeader::XForwardedFor => hops::of_list(line).any(|hop| hop == Some(client)),
        ForwardedHeader::Forwarded => hops::of_forwarded(line).any(|hop| hop == Some(client)),
    };
    assert!(client == edge || lines.iter().any(is_listed), "{client} is said by nobody");

    // What stands to the left of it was there before: the client may have written it.
    let more: Vec<u8> = [attacker, lines[0]].concat();
    let forged: Vec<&[u8]> = [&*more].into_iter().chain(lines[1..].iter().copied()).collect();
    if !trust.is_proxy(client)
        && let Some(forged) = headers_of(header, &forged)
    {
        assert_eq!(trust.client(edge, &forged), client, "what the client wrote counts");
    }
}

fn headers_of(header: ForwardedHeader, lines: &[&[u8]]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(header.name(), HeaderValue::from_bytes(line).ok()?);
    }
    Some(headers)
}
