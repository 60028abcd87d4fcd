//! What a client presents, and where it does so over HTTP and gRPC.

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use crate::tls::Certificate;

/// What a client presents. A token goes first, and alone: what it lacks the certificate does not add.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Presented<'a> {
    /// With this call.
    pub(crate) token: Option<&'a [u8]>,
    /// In the handshake of its connection.
    pub(crate) certificate: Option<&'a Certificate>,
}

/// Proxies pass `Authorization` of their clients on; what they themselves present can stand here.
const OWN: HeaderName = HeaderName::from_static("x-tidegate-token");
const SCHEME: &[u8] = b"bearer";

/// The token in the value of `Authorization`; `None`: there is none, but something of another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_some_and(|byte| *byte == b' ');
    is_bearer.then(|| rest.trim_ascii())
}

/// What the headers present.
pub(crate) fn of_headers(headers: &HeaderMap) -> Option<&[u8]> {
    let value = |name| headers.get(name).map(http::HeaderValue::as_bytes);
    of_values(value(OWN), value(AUTHORIZATION))
}

/// What these two present. An empty one of our own is none, as templates of proxies write it.
pub(crate) fn of_values<'h>(own: Option<&'h [u8]>, authorization: Option<&'h [u8]>) -> Option<&'h [u8]> {
    let own = own.map(<[u8]>::trim_ascii).filter(|own| !own.is_empty());
    own.or_else(|| authorization.and_then(bearer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_clients_put_it() {
        for (value, token) in [
            ("Bearer tg_a", Some("tg_a")),
            ("bearer  tg_a ", Some("tg_a")),
            ("BEARER tg_a", Some("tg_a")),
            ("Bearer", None),
            ("Bearertg_a", None),
            ("Basic dXNlcjp0Z19h", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(of_headers(&headers), None);
        headers.insert(AUTHORIZATION, "Bearer of-a-user".parse().unwrap());
        assert_eq!(of_headers(&headers), Some(&b"of-a-user"[..]));
        headers.insert("X-Tidegate-Token", "tg_a".parse().unwrap());
        assert_eq!(of_headers(&headers), Some(&b"tg_a"[..]));
        headers.insert("X-Tidegate-Token", " ".parse().unwrap());
        assert_eq!(of_headers(&headers), Some(&b"of-a-user"[..]));
    }
}
