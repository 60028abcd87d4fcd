//! The hosts that calls of people may be for.
//!
//! A web page that its visitor's browser has from `evil.example` can make this name lead to the address of a node (DNS
//! rebinding), and then asks the node as if it were its own site: only the name in `Host` tells. So this is a list of names
//! that strangers cannot have.

use std::net::Ipv6Addr;

/// Domains that nobody can register: of the machine, of the local network, of containers and Kubernetes.
const NOT_PUBLIC: [&str; 7] = ["localhost", "local", "internal", "home.arpa", "svc", "lan", "test"];

/// Which names a node answers to, beside its addresses.
#[derive(Debug, Default)]
pub(crate) struct AllowedHosts {
    names: Vec<String>,
    any: bool,
}

impl AllowedHosts {
    /// These names, `*.example.com` for all below one, and `*` for whatever is asked.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> =
            names.into_iter().map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase()).collect();
        Self { any: names.iter().any(|name| name == "*"), names }
    }

    /// Whether a text can be one of the names; without a port.
    pub(crate) fn can_have(text: &str) -> bool {
        let text = text.trim();
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        text == "*" || !name.is_empty() && name.bytes().all(is_name)
    }

    /// Whether a request may be for this host, with its port or without.
    pub(crate) fn allows(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(v6, _)| v6.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        // An address leads nowhere else, and a name without a dot is resolved on the spot.
        name.parse::<std::net::Ipv4Addr>().is_ok()
            || !name.contains('.')
            || NOT_PUBLIC.iter().any(|domain| is_below(&name, domain))
            || self.names.iter().any(|known| match known.strip_prefix("*.") {
                Some(domain) => is_below(&name, domain),
                None => name == *known,
            })
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_strangers_can_have_are_only_those_that_were_allowed() {
        let names = ["limits.example.com.", "*.Ops.example.com", "tidegate-0.tidegate"];
        let hosts = AllowedHosts::new(names.map(str::to_owned));
        for good in [
            "127.0.0.1:7800",
            "127.0.0.1",
            "[::1]:7800",
            "[2001:db8::1]",
            "192.0.2.7:80",
            "localhost:7800",
            "LOCALHOST",
            "localhost.:7800",
            "n1.localhost",
            "tidegate",
            "tidegate.default.svc:7800",
            "tidegate-0.tidegate.default.svc.cluster.local:7800",
            "host.docker.internal",
            "",
            "limits.example.com:443",
            "Limits.Example.Com",
            "a.ops.example.com",
            "b.a.ops.example.com.",
            "tidegate-0.tidegate:7800",
        ] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:7800",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io:7800",
            "evil-localhost.com",
            "example.com",
            "ops.example.com",
            "xlimits.example.com",
            "limits.example.com.evil.example",
            "notlocal.svcx.com",
            "[evil.example]",
            "[::1",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
        assert!(AllowedHosts::new(["*".to_owned()]).allows("evil.example"));
        assert!(!AllowedHosts::default().allows("limits.example.com"));
    }
}
