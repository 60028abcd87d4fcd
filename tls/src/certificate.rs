//! What a certificate says of its holder.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate};

/// Names of one certificate that are kept: a holder with more is known by the first ones.
const MAX_NAMES: usize = 64;
/// Before the name of a node, in the URIs of a certificate that is for several.
const NODE_URI: &str = "tidegate://node/";

/// Whom a certificate names, and until when. That it is genuine is for the handshake to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    common_name: Option<String>,
    names: Vec<String>,
    client_names: Vec<String>,
    node_names: Vec<String>,
    is_for_servers: bool,
    not_before: i64,
    not_after: i64,
    is_authority: bool,
    public_key: Vec<u8>,
}

/// Bytes that are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct NotACertificate(String);

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, NotACertificate> {
        let (_, found) = parse_x509_certificate(der).map_err(|error| NotACertificate(error.to_string()))?;
        let validity = found.validity();
        let common_name =
            found.subject().iter_common_name().find_map(|name| name.as_str().ok()).map(str::to_owned);
        Ok(Self {
            client_names: client_names(&found, common_name.as_deref()),
            node_names: node_names(&found, common_name.as_deref()),
            common_name,
            names: alternative_names(&found),
            is_for_servers: matches!(found.extended_key_usage(), Ok(Some(usage)) if usage.value.server_auth),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_authority: found.is_ca(),
            public_key: found.public_key().raw.to_vec(),
        })
    }

    /// The common name of its subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Its subject alternative names: hosts, addresses, URIs and mail addresses, in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// By what its holder is called in logs and rules: the first alternative name, else the common name.
    pub fn name(&self) -> Option<&str> {
        self.names.first().map(String::as_str).or(self.common_name())
    }

    /// The names by which its holder is known as a client: DNS names, URIs and mail addresses of its subject alternative names, in their
    /// order, and then the common name. **An address is where somebody is, and names nobody.**
    pub fn client_names(&self) -> &[String] {
        &self.client_names
    }

    /// The nodes that its holder may be: those of its URIs `tidegate://node/NAME`. Without such a URI it is the first DNS name, and
    /// the common name. **Other names are where a node is found**: `localhost`, the name of a machine or a service.
    pub fn node_names(&self) -> &[String] {
        &self.node_names
    }

    /// Whether its holder may be the node of exactly this name.
    pub fn is_for_node(&self, name: &str) -> bool {
        self.node_names.iter().any(|one| one == name)
    }

    /// Whether it says that it is for servers (`serverAuth`). One that says nothing of its use is not.
    pub fn is_for_servers(&self) -> bool {
        self.is_for_servers
    }

    /// The second, of Unix time, at which it begins to hold.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// The last second, of Unix time, at which it holds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether it may sign others.
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// Its public key, as SubjectPublicKeyInfo.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    // Two such extensions are an error of the certificate, which webpki refuses.
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).take(MAX_NAMES).collect()
}

fn client_names(certificate: &X509Certificate<'_>, common_name: Option<&str>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map_or(&[][..], |names| names.value.general_names.as_slice());
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    };
    // The common name is never the one that is left out.
    let mut known: Vec<String> = names.iter().filter_map(text).take(MAX_NAMES - 1).collect();
    known.extend(common_name.map(str::to_owned).filter(|common| !known.contains(common)));
    known
}

fn node_names(certificate: &X509Certificate<'_>, common_name: Option<&str>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map_or(&[][..], |names| names.value.general_names.as_slice());
    let of_uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI).map(str::to_owned),
        _ => None,
    };
    let of_uris: Vec<String> = names.iter().filter_map(of_uri).take(MAX_NAMES).collect();
    if !of_uris.is_empty() {
        return of_uris;
    }
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let common_name = common_name.filter(|common| dns != Some(*common));
    dns.into_iter().chain(common_name).map(str::to_owned).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(names: &[&str], common: Option<&str>) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        Certificate::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    #[test]
    fn names_are_those_of_the_certificate_and_none_that_is_only_alike() {
        let both = made(&["n1.example.com", "10.0.0.7", "::1"], Some("n1"));
        assert_eq!(both.names(), ["n1.example.com", "10.0.0.7", "::1"]);
        assert_eq!((both.common_name(), both.name()), (Some("n1"), Some("n1.example.com")));
        for name in ["n1", "n1.example.com"] {
            assert!(both.is_for_node(name), "{name}");
        }
        for name in ["", "N1", "n", "n11", "example.com", "*.example.com", "10.0.0.7", "::1"] {
            assert!(!both.is_for_node(name), "{name}");
        }
        assert_eq!(both.not_after(), 1_893_456_000);
        assert_eq!(made(&[], Some("deploy")).name(), Some("deploy"));
        assert_eq!(made(&[], None).name(), None);
        assert!(!made(&[], None).is_for_node(""));
    }

    #[test]
    fn where_a_node_is_found_is_not_its_name() {
        // As `tidegate cert node --name n1 --host n2` makes them.
        let node = made(&["n1", "n2", "localhost", "127.0.0.1"], Some("n1"));
        assert_eq!(node.node_names(), ["n1"]);
        assert!(!node.is_for_node("n2") && !node.is_for_node("localhost"));
        assert_eq!(made(&["127.0.0.1"], None).node_names(), [""; 0]);
        let of = |names: &[SanType]| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.subject_alt_names = names.to_vec();
            params.distinguished_name.push(DnType::CommonName, "tidegate");
            Certificate::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
        };
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = || SanType::DnsName("n9".try_into().unwrap());
        let several = of(&[dns(), uri("tidegate://node/n1"), uri("tidegate://node/n2"), uri("spiffe://n3")]);
        assert_eq!(several.node_names(), ["n1", "n2"], "and neither its host nor its common name");
        let mail = SanType::Rfc822Name("n1".try_into().unwrap());
        assert_eq!(of(&[uri("n1"), mail, dns()]).node_names(), ["n9", "tidegate"]);
    }

    #[test]
    fn a_client_is_known_by_its_names_and_not_by_where_it_is() {
        let client = made(&["deploy.example.com", "10.0.0.7", "ci.example.com"], Some("deploy"));
        assert_eq!(client.client_names(), ["deploy.example.com", "ci.example.com", "deploy"]);
        assert_eq!(made(&["deploy"], Some("deploy")).client_names(), ["deploy"]);
        assert_eq!(made(&["10.0.0.7", "::1"], None).client_names(), [""; 0]);
        let many: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let known = made(&many, Some("deploy"));
        assert_eq!((known.client_names().len(), known.client_names()[63].as_str()), (64, "deploy"));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![
            SanType::URI("spiffe://example.com/ns/a/sa/b".try_into().unwrap()),
            SanType::Rfc822Name("ada@example.com".try_into().unwrap()),
        ];
        params.distinguished_name = rcgen::DistinguishedName::new();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = ["spiffe://example.com/ns/a/sa/b", "ada@example.com"];
        assert_eq!(Certificate::of(made.der()).unwrap().client_names(), names);
    }

    #[test]
    fn what_is_no_certificate_is_said_so() {
        assert!(Certificate::of(&vec![0x30, 3, 2, 1, 1].into()).is_err());
    }
}
