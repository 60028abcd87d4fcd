//! The first bytes of a connection of a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{First, MAX_HEADER_BYTES, VERSION_1, VERSION_2, first};

/// The bytes as those that a connection begins with.
pub(crate) fn headers(data: &[u8]) {
    let data = &data[..data.len().min(MAX_HEADER_BYTES)];
    let whole = first(data);
    for end in 1..data.len().min(256) {
        match (first(&data[..end]), &whole) {
            (Ok(First::Part), Ok(First::Header { length, .. })) => assert!(end < *length),
            (Ok(First::Part), Ok(First::None)) => assert!(!starts(data) && starts(&data[..end])),
            (Ok(First::Part), _) => {}
            (Ok(decided), Ok(whole)) => assert_eq!(decided, *whole, "with {end} bytes"),
            (Ok(decided), Err(error)) => panic!("{decided:?} with {end} bytes, and then {error}"),
            (Err(_), whole) => assert!(whole.is_err(), "refused with {end} bytes, and then {whole:?}"),
        }
    }
    match whole {
        Ok(First::Header { address, length }) => {
            assert!(length <= data.len());
            let header = &data[..length];
            match header.strip_prefix(VERSION_2) {
                Some(rest) => assert_eq!(version_2(rest), Some(address), "{}", header.escape_ascii()),
                None => assert_eq!(version_1(header), Some(address), "{}", header.escape_ascii()),
            }
        }
        Ok(First::None) => assert!(!starts(data)),
        Ok(First::Part) | Err(_) => assert!(starts(data)),
    }
}

/// Whether a header may begin so.
fn starts(data: &[u8]) -> bool {
    !data.is_empty()
        && [VERSION_1, VERSION_2].iter().any(|magic| magic.starts_with(data) || data.starts_with(magic))
}

/// The address that a header of version 1 says, read from its specification; `None`: it is none.
fn version_1(header: &[u8]) -> Option<Option<IpAddr>> {
    let line = std::str::from_utf8(header.strip_suffix(b"\r\n")?).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", "TCP4", source, _, _, _] => Some(Some(IpAddr::V4(source.parse().ok()?))),
        ["PROXY", "TCP6", source, _, _, _] => {
            Some(Some(IpAddr::V6(source.parse::<Ipv6Addr>().ok()?).to_canonical()))
        }
        _ => None,
    }
}

/// The same of version 2, behind what it begins with.
fn version_2(rest: &[u8]) -> Option<Option<IpAddr>> {
    let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || rest.len() != length {
        return None;
    }
    Some(match (command & 15, family >> 4) {
        // The proxy asks for itself.
        (0, _) => None,
        (_, 1) => Some(IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?))),
        (_, 2) => Some(IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?)).to_canonical()),
        _ => None,
    })
}
