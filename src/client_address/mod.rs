//! Whose request it is that a proxy asks about.
//!
//! Anybody can write any header, so what a connection says of other addresses counts only if it comes from a proxy that
//! this node was told to trust. From there one goes back hop by hop, from the right, for as long as each hop is such a proxy:
//! the first address that is not is the client's. What cannot be read ends the walk at the last address that was good.
//!
//! - `Trust`: which proxies, and in which header they say whom they asked for.
//! - `hops`: the entries of `X-Forwarded-For` and `Forwarded`, from the right.
//! - `proxy_protocol`: the address that a connection begins with.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hops;
mod proxy_protocol;

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use clap::ValueEnum;
use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName, HeaderValue},
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error as _};

pub(crate) use self::proxy_protocol::{NoAddress, announced};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Hops that are gone back; who stands before that many trusted proxies is not looked for.
const MAX_HOPS: usize = 32;

/// The header in which proxies say whom they asked for. Only one is believed: the other one may be the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// X-Forwarded-For, as nearly every proxy has it
    #[default]
    XForwardedFor,
    /// Forwarded (RFC 7239)
    Forwarded,
}

impl ForwardedHeader {
    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }
}

/// Addresses with a common beginning: `10.0.0.0/8`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no [`Network`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address or network; write for example 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")]
pub struct NoNetwork(String);

impl Network {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let text = text.trim();
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| NoNetwork(text.to_owned()))?;
        // Addresses of version 4 that come in those of version 6 are compared as what they are.
        let mapped = match network {
            IpNet::V6(v6) => v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
            IpNet::V4(_) => None,
        };
        let mapped = mapped.and_then(|(v4, length)| Ipv4Net::new(v4, length).ok());
        Ok(Self(mapped.map_or(network, IpNet::from)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which proxies are trusted, and with what.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    proxies: Vec<Network>,
    header: ForwardedHeader,
    /// Whether trusted proxies begin connections with whom they are for.
    proxy_protocol: bool,
    /// It was said that a header was ignored.
    told: AtomicBool,
}

impl Trust {
    pub(crate) fn new(proxies: Vec<Network>, header: ForwardedHeader, proxy_protocol: bool) -> Self {
        Self { proxies, header, proxy_protocol, told: AtomicBool::new(false) }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// Whether this is a trusted proxy, which asks for many clients.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.trusts(peer.to_canonical())
    }

    /// Whether connections from this address may begin with another one.
    pub(crate) fn expects_proxy_protocol(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && self.trusts(peer.to_canonical())
    }

    /// Whose request it is that came from `peer` with these headers.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let name = self.header.name();
        if !self.trusts(client) {
            if headers.contains_key(&name) && !self.told.swap(true, Relaxed) {
                tracing::warn!(
                    from = %client,
                    header = %name,
                    "a header is ignored: it did not come from a trusted proxy (--trusted-proxies); this is said once"
                );
            }
            return client;
        }
        let lines = headers.get_all(&name).iter().rev().map(HeaderValue::as_bytes);
        let hops: &mut dyn Iterator<Item = Option<IpAddr>> = match self.header {
            ForwardedHeader::XForwardedFor => &mut lines.flat_map(hops::of_list),
            ForwardedHeader::Forwarded => &mut lines.flat_map(hops::of_forwarded),
        };
        for hop in hops.take(MAX_HOPS) {
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// A header's value as text: UTF-8, or else each byte as a character of its own.
pub(crate) fn text(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.as_bytes().iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests;
