//! Addresses as texts, and the part of one that stands for a client.
//!
//! **One host is one address, however it is written**, else whoever can choose the spelling has as many buckets as there are
//! spellings. So everything that compares addresses reads them here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};

use crate::key::KeyBytes;

/// Longest zone of an address (`fe80::1%eth0`), in bytes.
const MAX_ZONE_BYTES: usize = 64;
/// 64:ff9b::/96 (RFC 6052): IPv4 hosts as a NAT64 shows them to IPv6 hosts.
const NAT64: u128 = 0x0064_ff9b << 96;
/// `::ffff:0:0/96`: IPv4 hosts on a socket that takes both.
const MAPPED: u128 = 0xffff << 32;
/// Of both: what stands before the IPv4 address.
const EMBEDDING_BITS: u8 = 96;

/// An address of a host, without what its text says beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// As it was written, but for `::ffff:0:0/96`, which is IPv4 in all respects.
    written: IpAddr,
    host: IpAddr,
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let written = address.to_canonical();
        let host = match written {
            IpAddr::V6(v6) => embedded(v6.to_bits(), NAT64).map_or(written, IpAddr::V4),
            IpAddr::V4(_) => written,
        };
        Self { written, host }
    }
}

/// The address of the host.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)
    }
}

impl Address {
    /// Reads an address as callers, proxies and logs write it: bare, in brackets, in quotes (as in `Forwarded`), with a port, with a
    /// zone, in any case, compressed or not. Octets with leading zeros, which some read as octal, are none.
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(address.into()),
            Err(_) => dressed(text).map(Self::from),
        }
    }

    /// Whose it is: the IPv4 host where a NAT64 (64:ff9b::/96) or a socket (`::ffff:0:0/96`) has put its address into IPv6.
    pub const fn host(self) -> IpAddr {
        self.host
    }

    /// The address as it was written: what a connection from it has.
    pub const fn written(self) -> IpAddr {
        self.written
    }

    /// Whether this is the text of the host, to the letter.
    pub fn is_written_as(self, text: &str) -> bool {
        struct Rest<'t>(&'t str);
        impl fmt::Write for Rest<'_> {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
                Ok(())
            }
        }
        let mut rest = Rest(text);
        fmt::Write::write_fmt(&mut rest, format_args!("{self}")).is_ok() && rest.0.is_empty()
    }

    /// The address as it was written, if a NAT64 has made one of version 6 of it.
    pub(crate) fn translated(self) -> Option<IpAddr> {
        (self.written != self.host).then_some(self.written)
    }

    /// Whether it is in a network: one of version 4 has the hosts behind a NAT64 too, one of version 6 those that are written so.
    pub(crate) fn is_in(self, network: &IpNet) -> bool {
        network.contains(&self.host) || network.contains(&self.written)
    }
}

#[cold]
fn dressed(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let text = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let is_whole = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return is_whole.then(|| zoned(inside)).flatten();
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    match text.split_once(':') {
        Some((v4, port)) if is_port(port) => v4.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        _ => zoned(text),
    }
}

/// An IPv6 address. Its zone names an interface of the host that has written it down, and tells no hosts apart.
fn zoned(text: &str) -> Option<IpAddr> {
    let (bare, zone) = text.split_once('%').unwrap_or((text, "0"));
    let is_zone = (1..=MAX_ZONE_BYTES).contains(&zone.len())
        && zone.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    is_zone.then(|| bare.parse::<Ipv6Addr>().ok()).flatten().map(IpAddr::V6)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn embedded(bits: u128, prefix: u128) -> Option<Ipv4Addr> {
    (bits >> 32 == prefix >> 32).then(|| Ipv4Addr::from_bits(bits as u32))
}

/// Reads a network: `10.0.0.0/8`, `2001:db8::/32`. One of IPv4 hosts that is written in IPv6 is one of version 4.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok()?.trunc();
    let IpNet::V6(v6) = network else { return Some(network) };
    let inside = v6.prefix_len().checked_sub(EMBEDDING_BITS).and_then(|length| {
        let bits = v6.network().to_bits();
        // All of 64:ff9b::/96 stays what it is: who writes it means the hosts behind the NAT64, not all that there are.
        let v4 = embedded(bits, MAPPED).or_else(|| embedded(bits, NAT64).filter(|_| length > 0));
        Ipv4Net::new(v4?, length).ok()
    });
    Some(inside.map_or(network, IpNet::from))
}

/// The network of all addresses that begin with these whole octets or groups: of `10.1.`, 10.1.0.0/16; of `2001:db8:`,
/// 2001:db8::/32.
pub(crate) fn network_of_beginning(text: &str) -> Option<IpNet> {
    if let Some(octets) = text.strip_suffix('.') {
        let missing = 3_usize.checked_sub(octets.matches('.').count())?;
        let length = 32 - 8 * u8::try_from(missing).ok().filter(|missing| *missing > 0)?;
        return format!("{octets}{}/{length}", ".0".repeat(missing)).parse().ok();
    }
    let groups = text.strip_suffix(':').filter(|groups| !groups.ends_with(':'))?;
    let count = u8::try_from(groups.matches(':').count()).ok()? + 1;
    if count > 7 || groups.contains("::") {
        return None;
    }
    network(&format!("{groups}::/{}", 16 * count))
}

/// Whether there are addresses whose text begins so, in capitals or not: whole octets without leading zeros, the last of which may go
/// on; or groups as addresses of version 6 have them in their shortest form.
pub(crate) fn can_begin(text: &str) -> bool {
    if text.contains(':') || !text.contains('.') && text.len() > 3 {
        return can_begin_v6(&text.to_ascii_lowercase());
    }
    let is_octet = |octet: &str| octet.parse::<u8>().is_ok_and(|value| value.to_string() == octet);
    let (whole, last) = text.rsplit_once('.').unwrap_or(("", text));
    let whole_fit = whole.is_empty() && !text.starts_with('.') || whole.split('.').all(is_octet);
    let is_group = !text.contains('.') && can_begin_v6(&last.to_ascii_lowercase());
    whole_fit && whole.split('.').count() <= 3 && (last.is_empty() || is_octet(last) || is_group)
}

fn can_begin_v6(text: &str) -> bool {
    // Hosts that a NAT64 shows are of version 4 here.
    if text.starts_with("64:ff9b::") || text.contains(":::") || text.matches("::").count() > 1 {
        return false;
    }
    let groups = text.split(':');
    let is_group = |group: &str| {
        group.len() <= 4
            && (group == "0" || !group.starts_with('0'))
            && group.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let begins = !text.starts_with(':') || text.len() == 1 || text.starts_with("::");
    begins && groups.clone().count() <= 9 && groups.clone().all(is_group)
}

/// How many bits of an address stand for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPrefix {
    /// Of IPv4, 1 to 32.
    v4: u8,
    /// Of IPv6, 1 to 128.
    v6: u8,
}

/// Who has one IPv6 address has all 2^64 of its /64.
impl Default for IpPrefix {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl IpPrefix {
    /// `None`: an address has no such part.
    pub fn new(v4: u8, v6: u8) -> Option<Self> {
        ((1..=32).contains(&v4) && (1..=128).contains(&v6)).then_some(Self { v4, v6 })
    }

    /// The part of a host's address that stands for its client.
    pub fn network_of(self, address: Address) -> IpNet {
        let bits = if address.host.is_ipv4() { self.v4 } else { self.v6 };
        IpNet::new(address.host, bits).map_or_else(|_| address.host.into(), |network| network.trunc())
    }

    /// These, but where `own` says others.
    pub(crate) fn or(self, own: OwnIpPrefix) -> Self {
        Self { v4: own.v4.unwrap_or(self.v4), v6: own.v6.unwrap_or(self.v6) }
    }

    /// Takes the network of a host into a fingerprint.
    #[inline]
    pub(crate) fn feed(self, address: Address, key: &mut KeyBytes) {
        match address.host {
            // No unicast IPv6 network begins with a one bit followed by zeros.
            IpAddr::V4(v4) => {
                let network = v4.to_bits() & u32::MAX << (32 - u32::from(self.v4));
                key.number(u64::from(network) | 1 << 63);
            }
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & u128::MAX << (128 - u32::from(self.v6));
                key.number((network >> 64) as u64);
                if self.v6 > 64 {
                    key.number(network as u64);
                }
            }
        }
    }
}

/// What a rule says of it; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OwnIpPrefix {
    pub(crate) v4: Option<u8>,
    pub(crate) v6: Option<u8>,
}

impl OwnIpPrefix {
    pub(crate) fn says_nothing(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests;
