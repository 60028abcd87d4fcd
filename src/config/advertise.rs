//! How other nodes reach this one: as it was given.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// Longest name of a host.
const MAX_NAME_BYTES: usize = 253;

/// An address, or what stands for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// This one.
    Address(IpAddr),
    /// That of a network interface of this name, or of a host.
    Name(String),
}

/// A text that is neither an address nor a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAdvertise {
    /// It has a port, too.
    #[error("{0:?} has a port, and none is wanted: other nodes take --base-port + 3")]
    Port(String),
    /// It is nothing of that kind.
    #[error("{0:?} is no address, no name of a network interface and no name of a host")]
    Neither(String),
}

impl FromStr for Advertise {
    type Err = NoAdvertise;

    fn from_str(text: &str) -> Result<Self, NoAdvertise> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let has_port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
        if text.parse::<std::net::SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(has_port) {
            return Err(NoAdvertise::Port(text.to_owned()));
        }
        // As the names of interfaces and of hosts have them.
        let may_have = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        let looks_like_an_address = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !(1..=MAX_NAME_BYTES).contains(&text.len()) || !text.bytes().all(may_have) || looks_like_an_address
        {
            return Err(NoAdvertise::Neither(text.to_owned()));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Advertise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart_and_ports_are_refused() {
        let address = |text: &str| Ok(Advertise::Address(text.parse().unwrap()));
        let name = |text: &str| Ok(Advertise::Name(text.to_owned()));
        for (text, expected) in [
            ("10.0.0.1", address("10.0.0.1")),
            ("2001:db8::1", address("2001:db8::1")),
            ("[2001:db8::1]", address("2001:db8::1")),
            ("eth0", name("eth0")),
            ("eth0.100", name("eth0.100")),
            ("veth1@if2", name("veth1@if2")),
            ("tidegate-0.peers.default.svc", name("tidegate-0.peers.default.svc")),
            ("10.0.0.1:7803", Err(NoAdvertise::Port("10.0.0.1:7803".to_owned()))),
            ("[::1]:7803", Err(NoAdvertise::Port("[::1]:7803".to_owned()))),
            ("node-1:7803", Err(NoAdvertise::Port("node-1:7803".to_owned()))),
            ("10.0.0.256", Err(NoAdvertise::Neither("10.0.0.256".to_owned()))),
            ("10.0.0.0/8", Err(NoAdvertise::Neither("10.0.0.0/8".to_owned()))),
            ("", Err(NoAdvertise::Neither(String::new()))),
            ("fe80::1%eth0", Err(NoAdvertise::Neither("fe80::1%eth0".to_owned()))),
        ] {
            assert_eq!(text.parse::<Advertise>(), expected, "{text}");
        }
    }
}
