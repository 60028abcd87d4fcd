//! The entries of `X-Forwarded-For` and of `Forwarded`, the nearest first; `None` is one that cannot be read.

use std::net::IpAddr;

use tidegate_limiter::rules::Address;

/// Of a line of `X-Forwarded-For`: addresses, separated by commas.
pub(super) fn of_list(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    // RFC 9110, section 5.6.1: an empty element says nothing.
    let entries = line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty());
    entries.map(|entry| address(std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t'])))
}

/// Of a line of `Forwarded` (RFC 7239). A line in which a quoted string does not end, or that says anything else that the
/// grammar does not have, is one entry that cannot be read: where its entries begin is not known.
pub(super) fn of_forwarded(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    let entries = std::str::from_utf8(line).ok().and_then(parse).unwrap_or_else(|| vec![None]);
    entries.into_iter().rev()
}

/// `for=192.0.2.43;proto=http, for="[2001:db8::1]:47011"`: the `for` of each element.
fn parse(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut entries = Vec::new();
    let mut rest = line.trim_matches(BLANK);
    loop {
        // Empty elements and pairs say nothing (RFC 9110, section 5.6.1; RFC 7239, section 4).
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return Some(entries);
        }
        let mut found: Option<Option<IpAddr>> = None;
        loop {
            rest = rest.trim_start_matches([';', ' ', '\t']);
            if rest.is_empty() || rest.starts_with(',') {
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            if name.trim_start_matches(BLANK).eq_ignore_ascii_case("for") {
                // Twice in one element: nobody knows which one is meant.
                found = Some(if found.is_some() { None } else { address(&value) });
            } else if !name.trim_start_matches(BLANK).bytes().all(is_token) {
                return None;
            }
            rest = after.trim_start_matches(BLANK);
            if !rest.starts_with(';') {
                break;
            }
        }
        entries.push(found.flatten());
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// A token or a quoted string at the front, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Addresses of version 6 and ports belong in quotes, but are seen without.
        let end = text.find([',', ';', ' ', '\t', '"']).unwrap_or(text.len());
        return (!text[end..].starts_with('"')).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// As it was written: a proxy behind a NAT64 is trusted by the address that its connections have.
fn address(text: &str) -> Option<IpAddr> {
    Address::parse(text).map(Address::written)
}
