//! The path of a request as the server behind the proxy will understand it, so that no other spelling of it gets past a rule:
//! without query, percent-encoding, `.` and `..`, and double slashes.

use std::borrow::Cow;

/// The path of a request target: of `/a/../%62?c`, `/b`. An encoded slash stays encoded, as do control characters and what
/// is not UTF-8.
pub(super) fn of_target(target: &str) -> Cow<'_, str> {
    let path = without_origin(target);
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path, |byte| is_text(byte) && byte != b'/');
    let decoded = String::from_utf8(decoded).unwrap_or_else(|_| {
        let ascii = decode(path, |byte| byte.is_ascii() && is_text(byte) && byte != b'/');
        String::from_utf8_lossy(&ascii).into_owned()
    });
    Cow::Owned(resolve(&decoded))
}

/// Some proxies send the whole URL.
fn without_origin(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return target;
    }
    &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..]
}

fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}

fn decode(path: &str, wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let bytes = path.as_bytes();
    let hex = |place: usize| bytes.get(place).and_then(|digit| char::from(*digit).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let encoded = if byte == b'%' { hex(place + 1).zip(hex(place + 2)) } else { None };
        match encoded.map(|(high, low)| (high << 4 | low) as u8) {
            Some(meant) if wanted(meant) => {
                decoded.push(meant);
                place += 3;
            }
            Some(_) => {
                decoded.extend(path[place..place + 3].to_ascii_uppercase().into_bytes());
                place += 3;
            }
            None => {
                decoded.push(byte);
                place += 1;
            }
        }
    }
    decoded
}

fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    let is_folder = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_is_another_path() {
        for target in [
            "/login",
            "/login?a=/b",
            "/login#x",
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
        ] {
            assert_eq!(of_target(target), "/login", "{target}");
        }
        for (target, path) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/..", "/"),
            ("?a=1", "/"),
            ("https://shop.example", "/"),
            ("/login/", "/login/"),
            ("/a/b/..", "/a/"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%00b", "/a%00b"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/caf%E9/%61", "/caf%E9/a"),
            ("/100%", "/100%"),
            ("/%zz/%6", "/%zz/%6"),
            ("/%2561", "/%61"),
            ("/a:b@c;d=1/$", "/a:b@c;d=1/$"),
            ("*", "*"),
        ] {
            assert_eq!(of_target(target), path, "{target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_target_has_a_path(target in "\\PC{0,40}") {
            let path = of_target(&target).into_owned();
            proptest::prop_assert!(!path.is_empty());
        }
    }
}
