//! The path of a request as the server behind the proxy may understand it, so that another spelling of it does not get past a
//! rule. Servers differ in what they take for the same path; what any of the usual ones does is done here, and a path that
//! leads to different places by that is refused.

use std::borrow::Cow;

/// A path that servers read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "servers read this path differently: it goes up (..) across an encoded slash, a backslash, a parameter or a second encoding, \
     has slashes behind a # or %00, or has a control character"
)]
pub(super) struct AmbiguousPath;

/// The path of a request target: of `/a/../%62;v=1?c`, `/b`. What is not UTF-8 stays encoded.
pub(super) fn of_target(target: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    let target = without_origin(target);
    let path = &target[..target.find('?').unwrap_or(target.len())];
    let path = match path.split_once('#') {
        Some((_, after)) if after.contains(['/', '\\', '%']) => return Err(AmbiguousPath),
        Some((path, _)) => path,
        None => path,
    };
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if path.chars().any(char::is_control) {
        return Err(AmbiguousPath);
    }
    if !path.contains(['%', ';', '\\']) && !path.contains("//") && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let mut whole = to_text(path, decode_all);
    if let Some((before, after)) = whole.split_once('\0') {
        if after.contains(['/', '\\']) {
            return Err(AmbiguousPath);
        }
        whole = before.to_owned();
    }
    if has_control(&whole) {
        return Err(AmbiguousPath);
    }
    let whole = whole.replace('\\', "/");
    let segments: Vec<&str> =
        whole.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    if segments.contains(&"..") {
        let once = to_text(path, decode_once);
        if !once.split('/').map(Segment::of).eq(segments.iter().copied().map(Segment::of)) {
            return Err(AmbiguousPath);
        }
    }
    Ok(Cow::Owned(resolve(&segments)))
}

/// A control character, or one that is left encoded: servers end a line there, take it away, or keep it.
fn has_control(path: &str) -> bool {
    let encoded = |place: usize| path.as_bytes().get(place..place + 3).and_then(encoded_at_end);
    let mut places = path.match_indices('%').map(|(place, _)| place);
    path.chars().any(char::is_control)
        || places.any(|place| encoded(place).is_some_and(|byte| byte.is_ascii_control()))
}

/// Some proxies send the whole URL.
fn without_origin(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return target;
    }
    &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..]
}

/// Decoded, or where that is no UTF-8, only what is ASCII of it.
fn to_text(path: &str, decode: fn(&str, u8) -> Vec<u8>) -> String {
    String::from_utf8(decode(path, u8::MAX)).unwrap_or_else(|_| {
        // Without bytes beyond ASCII nothing breaks.
        String::from_utf8_lossy(&decode(path, 0x7f)).into_owned()
    })
}

/// Takes percent-encoding away, whatever it was put around, of bytes up to `max`. What stays encoded has digits in upper case.
fn decode_all(path: &str, max: u8) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        while let Some(meant) = encoded_at_end(&decoded) {
            let start = decoded.len() - 3;
            if meant > max || meant != 0 && !is_text(meant) {
                decoded[start..].make_ascii_uppercase();
                break;
            }
            decoded.truncate(start);
            decoded.push(meant);
        }
    }
    decoded
}

/// Takes one layer of percent-encoding away, but from slashes.
fn decode_once(path: &str, max: u8) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    // Where the last layer ended: what was decoded is not decoded again.
    let mut done = 0;
    for byte in path.bytes() {
        decoded.push(byte);
        if let Some(meant) = encoded_at_end(&decoded[done..])
            && meant <= max
            && meant != b'/'
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(meant);
            done = decoded.len();
        }
    }
    decoded
}

/// What `%2e` at the end of some bytes means.
fn encoded_at_end(bytes: &[u8]) -> Option<u8> {
    let [.., b'%', high, low] = *bytes else { return None };
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}

/// What a segment does to the way.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Stays,
    Up,
    Down,
}

impl Segment {
    fn of(segment: &str) -> Self {
        match segment {
            "" | "." => Self::Stays,
            ".." => Self::Up,
            _ => Self::Down,
        }
    }
}

fn resolve(segments: &[&str]) -> String {
    let mut way: Vec<&str> = Vec::new();
    for segment in segments {
        match Segment::of(segment) {
            Segment::Stays => {}
            Segment::Up => _ = way.pop(),
            Segment::Down => way.push(segment),
        }
    }
    let is_folder = segments.last().is_some_and(|last| Segment::of(last) != Segment::Down);
    let end = if is_folder && !way.is_empty() { "/" } else { "" };
    format!("/{}{end}", way.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn no_spelling_of_a_path_is_another_path() {
        for target in [
            "/login",
            "/login?a=/b",
            "/login#x",
            "/login#x?/y",
            "//login",
            "/./login",
            "/a/../login",
            "/%6cogin",
            "/%6Cog%69n?x",
            "/%2e/login",
            "/a/%2E%2e/login",
            "https://shop.example/login",
            "https://shop.example:8443//login?x",
            "/../../login",
            "/login;jsessionid=1",
            "/login;a;b=c?d",
            "/;a/login",
            "/a;b/../login",
            "/login%3bjsessionid=1",
            "/%25%36%63ogin",
            "/%256cogin",
            "/%25256cogin",
            "/%2%35%36cogin",
            "/login%00",
            "/login%00.png",
            "\\\\login",
            "/.\\login",
            "%2flogin",
            "/%5clogin",
        ] {
            assert_eq!(of_target(target).as_deref(), Ok("/login"), "{target}");
        }
        for (target, path) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/..", "/"),
            ("?a=1", "/"),
            ("https://shop.example", "/"),
            ("/login/", "/login/"),
            ("/login%2f", "/login/"),
            ("/login%252F", "/login/"),
            ("/login\\", "/login/"),
            ("/login/;a=b", "/login/"),
            ("/login/.;a", "/login/"),
            ("/a/b/..", "/a/"),
            ("/a%2Fb", "/a/b"),
            ("/a%5cb", "/a/b"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/caf%E9/%61", "/caf%E9/a"),
            ("/100%", "/100%"),
            ("/100%25", "/100%"),
            ("/%zz/%6", "/%zz/%6"),
            ("/what%3f", "/what?"),
            ("/a:b@c;d=1/$", "/a:b@c/$"),
            ("/Login", "/Login"),
            ("*", "*"),
        ] {
            assert_eq!(of_target(target).as_deref(), Ok(path), "{target}");
        }
    }

    #[test]
    fn a_path_that_leads_to_different_places_is_refused() {
        for target in [
            "/free/..%2flogin",
            "/free%2f..%2flogin",
            "/free/..;/login",
            "/free/..;a=b/login",
            "/free/%252e%252e/login",
            "/free/..\\login",
            "/free\\..\\login",
            "/login%2fx/../free",
            "/login/;x/../free",
            "/free#/../login",
            "/free#%2f..",
            "/free%00/../login",
            "/login%0a",
            "/login%2509",
            "/a%0db",
            "/login%7f",
            "/login%c2%85",
            "/login\u{1}",
            "/free%2500%5c..%5clogin",
        ] {
            assert_eq!(of_target(target), Err(AmbiguousPath), "{target}");
        }
    }

    /// A part of a path as somebody may write it, of which the usual servers make the same.
    fn respelled(part: &'static str) -> impl Strategy<Value = String> {
        let letter = |byte: u8| {
            select(vec![
                char::from(byte).to_string(),
                format!("%{byte:02x}"),
                format!("%{byte:02X}"),
                format!("%25{byte:02x}"),
                format!("%2525{byte:02x}"),
            ])
        };
        part.bytes().map(letter).collect::<Vec<_>>().prop_map(|letters| letters.concat())
    }

    fn separator() -> impl Strategy<Value = &'static str> {
        select(vec!["/", "//", "/./", "/%2e/", "\\", "%2f", "%2F", "%5C", "%252f", "/;a=1/", ";v=2/"])
    }

    proptest! {
        #[test]
        fn any_target_has_a_path_or_none_and_a_path_is_its_own(target in "\\PC{0,40}") {
            if let Ok(path) = of_target(&target) {
                prop_assert!(!path.is_empty());
            }
        }

        #[test]
        fn what_has_no_percent_sign_is_its_own_path(target in "[/.;a?#\\\\]{0,12}") {
            if let Ok(path) = of_target(&target) {
                let again = of_target(&path);
                prop_assert_eq!(again.as_deref(), Ok(&*path), "{}", target);
            }
        }

        #[test]
        fn each_spelling_of_a_path_is_that_path(
            origin in select(vec!["", "http://shop.example", "https://shop.example:8443"]),
            away in proptest::option::of(select(vec!["/free/..", "/a/b/../%2e%2e", "/x;y/.."])),
            first in (select(vec!["/", "//", "/./"]), respelled("api")),
            second in (separator(), respelled("login")),
            end in vec(select(vec![";jsessionid=1", "%3Ba", "%00", "%00x"]), 0..2),
            rest in select(vec!["", "?x=/../y", "#x", "?#/"]),
        ) {
            // To go up and to hide slashes is refused, in whatever order.
            let target = format!("{origin}{}{}{}{}{}{}{rest}", away.unwrap_or_default(), first.0, first.1, second.0, second.1, end.concat());
            match of_target(&target) {
                Ok(path) => prop_assert_eq!(path, "/api/login", "{}", target),
                Err(AmbiguousPath) => prop_assert!(away.is_some(), "{}", target),
            }
        }
    }
}
