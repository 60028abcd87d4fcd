//! What hyper lets pass in the head of a request, though it does not say what is asked of whom, or how its body is to be read
//! (RFC 9112).

use hyper::{
    HeaderMap, Request, Version,
    header::{CONTENT_ENCODING, EXPECT, HOST, HeaderName, TRANSFER_ENCODING},
};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum HeadError {
    #[error("an HTTP/1.1 request has one Host header, which names the node; here is none")]
    NoHost,
    #[error("there is more than one Host header: nobody knows which one counts")]
    TwoHosts,
    #[error("the Host header has what no host can have; HOST or HOST:PORT is expected")]
    NoName,
    #[error("the body has a Transfer-Encoding that this node does not know; there is only chunked")]
    UnknownCoding,
}

/// Looks at the head of a request that is being answered.
pub(in crate::http) fn examine<B>(request: &Request<B>) -> Result<(), HeadError> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 {
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => return Err(HeadError::NoHost),
            (Some(_), Some(_)) => return Err(HeadError::TwoHosts),
            (Some(host), None) if !is_host(host.as_bytes()) => return Err(HeadError::NoName),
            (Some(_), None) => {}
        }
    }
    match words(headers, &TRANSFER_ENCODING).eq([&b"chunked"[..]]) || !headers.contains_key(TRANSFER_ENCODING)
    {
        true => Ok(()),
        false => Err(HeadError::UnknownCoding),
    }
}

/// Whether a value of `Host` can be one: a name or an address, with a port or without; or nothing.
pub(super) fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(byte))
}

/// Whether the body is what it is meant to be, and not compressed.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    words(headers, &CONTENT_ENCODING).all(|word| word.is_empty() || word == b"identity")
}

/// Whether the client sends its body only when it is told to.
pub(super) fn waits(headers: &HeaderMap) -> bool {
    words(headers, &EXPECT).any(|word| word == b"100-continue")
}

/// The elements of a header, in lower case.
fn words<'h>(headers: &'h HeaderMap, name: &'h HeaderName) -> impl Iterator<Item = Vec<u8>> + 'h {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| {
        line.as_bytes().split(|byte| *byte == b',').map(|word| word.trim_ascii().to_ascii_lowercase())
    })
}
