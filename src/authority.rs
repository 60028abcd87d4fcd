//! A small certificate authority, for those who have none: two files, `ca.crt` and `ca.key`, that vouch for nodes and clients.
//!
//! Everything is ECDSA P-256. The authority signs nothing but what holds at an end (path length 0). A node has a certificate for
//! servers and clients in one, as it is both to its peers; a client one that makes it neither a server nor a node.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use tidegate_tls::{
    Certificate,
    files::{FileError, certificates},
    rustls::pki_types::ServerName,
};
use time::{Duration, OffsetDateTime};

/// Clocks of other machines may be so much behind.
const BEFORE_NOW: Duration = Duration::HOUR;
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("{} is there already, and is not written over: name another directory (--dir), or move it away", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {reason}", path.display())]
    Unwritable { path: PathBuf, reason: io::Error },
    #[error("cannot read {}: {reason}; `tidegate cert ca` makes an authority", path.display())]
    NoAuthority { path: PathBuf, reason: io::Error },
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{} is no authority's certificate", .0.display())]
    NotAnAuthority(PathBuf),
    #[error("{} is not the private key of {}", key.display(), certificate.display())]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error("{0:?} is no name of a host and no address (--host)")]
    Host(String),
    #[error("the authority itself holds for {0} more days: give fewer (--days), or make a new authority")]
    TooLong(i64),
    #[error("the certificate cannot be made: {0}")]
    Rcgen(#[from] rcgen::Error),
}

/// Two files that were written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes an authority in a directory, which is made if it is not there.
pub(crate) fn found(directory: &Path, name: &str, days: u32) -> Result<Written, AuthorityError> {
    let mut params = params(name, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(directory, "ca", &certificate.pem(), &key)
}

/// An authority, as its files say.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// A node, found at these hosts beside its own name and this machine.
    Node {
        hosts: &'a [String],
    },
    Client,
}

impl Authority {
    /// Reads the one in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let (path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let read = |path: &PathBuf| {
            fs::read_to_string(path)
                .map_err(|reason| AuthorityError::NoAuthority { path: path.clone(), reason })
        };
        let (pem, key) = (read(&path)?, KeyPair::from_pem(&read(&key_path)?)?);
        let der = certificates(&path)?.remove(0);
        let certificate = Certificate::of(&der).map_err(|_| AuthorityError::NotAnAuthority(path.clone()))?;
        if !certificate.is_authority() {
            return Err(AuthorityError::NotAnAuthority(path));
        }
        if certificate.public_key() != key.subject_public_key_info() {
            return Err(AuthorityError::OtherKey { key: key_path, certificate: path });
        }
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, not_after: certificate.not_after() })
    }

    /// Makes a certificate and its key, in a directory.
    pub(crate) fn issue(
        &self,
        directory: &Path,
        name: &str,
        holder: Holder<'_>,
        days: u32,
    ) -> Result<Written, AuthorityError> {
        let mut params = params(name, days);
        if params.not_after.unix_timestamp() > self.not_after {
            let left = self.not_after - OffsetDateTime::now_utc().unix_timestamp();
            return Err(AuthorityError::TooLong(left / Duration::DAY.whole_seconds()));
        }
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match holder {
            Holder::Node { hosts } => {
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = names(name, hosts)?;
            }
            Holder::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(directory, name, &certificate.pem(), &key)
    }
}

fn params(name: &str, days: u32) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - BEFORE_NOW;
    params.not_after = now + Duration::days(i64::from(days));
    params
}

/// The names of a node: its own, its hosts, and this machine.
fn names(name: &str, hosts: &[String]) -> Result<Vec<SanType>, AuthorityError> {
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(SanType::IpAddress);
    let mut names = vec![SanType::DnsName(name.try_into()?)];
    for host in hosts {
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                let bare = host.strip_prefix("*.").unwrap_or(host);
                if !matches!(ServerName::try_from(bare), Ok(ServerName::DnsName(_))) {
                    return Err(AuthorityError::Host(host.clone()));
                }
                SanType::DnsName(host.as_str().try_into()?)
            }
        });
    }
    names.push(SanType::DnsName("localhost".try_into()?));
    names.extend(here);
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    Ok(names)
}

/// Writes both files, or none; what is there stays.
fn write(directory: &Path, name: &str, pem: &str, key: &KeyPair) -> Result<Written, AuthorityError> {
    let path = |kind: &str| directory.join(format!("{name}.{kind}"));
    let written = Written { certificate: path("crt"), key: path("key") };
    if let Some(there) = [&written.certificate, &written.key].into_iter().find(|path| path.exists()) {
        return Err(AuthorityError::Exists(there.clone()));
    }
    let unwritable = |path: &Path, reason| AuthorityError::Unwritable { path: path.to_owned(), reason };
    fs::create_dir_all(directory).map_err(|reason| unwritable(directory, reason))?;
    create(&written.key, &key.serialize_pem(), SECRET).map_err(|reason| unwritable(&written.key, reason))?;
    create(&written.certificate, pem, PUBLIC).map_err(|reason| {
        // Without its certificate it is of no use, and would be in the way.
        let _ = fs::remove_file(&written.key);
        unwritable(&written.certificate, reason)
    })?;
    Ok(written)
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tidegate_tls::{
        files::{Proof, authorities},
        peers::PeerConfigs,
    };

    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("ca");
        found(&inner, "Tidegate CA", 3650).unwrap();
        (directory, inner)
    }

    #[test]
    fn a_node_is_believed_as_a_node_and_a_client_is_not() {
        let (_directory, dir) = made();
        let authority = Authority::open(&dir).unwrap();
        let hosts = ["n1.example.com", "*.nodes.example.com", "10.0.0.7", "localhost"].map(str::to_owned);
        let node = authority.issue(&dir, "n_1", Holder::Node { hosts: &hosts }, 365).unwrap();
        let client = authority.issue(&dir, "deploy", Holder::Client, 365).unwrap();
        let read = |written: &Written| Proof::read(&written.certificate, &written.key).unwrap();
        let roots = || authorities(&dir.join("ca.crt")).unwrap();
        let proof = read(&node);
        assert_eq!(
            proof.certificate().names(),
            ["n_1", "n1.example.com", "*.nodes.example.com", "10.0.0.7", "localhost", "127.0.0.1", "::1"]
        );
        let days = (proof.certificate().not_after() - proof.certificate().not_before()) / 86_400;
        assert_eq!(days, 365);
        assert!(PeerConfigs::new(&proof, roots()).is_ok());
        assert_eq!(read(&client).certificate().name(), Some("deploy"));
        assert!(PeerConfigs::new(&read(&client), roots()).is_err());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for key in [&node.key, &client.key, &dir.join("ca.key")] {
            assert_eq!(mode(key) & !0o600, 0);
        }
    }

    #[test]
    fn nothing_is_written_over_and_nothing_outlives_the_authority() {
        let (_directory, dir) = made();
        assert!(matches!(found(&dir, "again", 1), Err(AuthorityError::Exists(_))));
        let authority = Authority::open(&dir).unwrap();
        let issue = |name, hosts: &[String], days| authority.issue(&dir, name, Holder::Node { hosts }, days);
        issue("n1", &[], 30).unwrap();
        assert!(matches!(issue("n1", &[], 30), Err(AuthorityError::Exists(_))));
        assert!(matches!(issue("n2", &[], 3651), Err(AuthorityError::TooLong(3649 | 3650))));
        for host in ["", "a b", "https://a", "a:80", "*"] {
            assert!(matches!(issue("n2", &[host.to_owned()], 30), Err(AuthorityError::Host(_))), "{host:?}");
        }
        assert!(!dir.join("n2.key").exists(), "nothing was left behind");
    }

    #[test]
    fn an_authority_is_one_and_has_its_own_key() {
        let ((_one, dir), (_other, other)) = (made(), made());
        fs::copy(other.join("ca.key"), dir.join("ca.key")).unwrap();
        assert!(matches!(Authority::open(&dir), Err(AuthorityError::OtherKey { .. })));
        let node = Authority::open(&other).unwrap().issue(&other, "n1", Holder::Client, 1).unwrap();
        fs::copy(node.certificate, other.join("ca.crt")).unwrap();
        assert!(matches!(Authority::open(&other), Err(AuthorityError::NotAnAuthority(_))));
        let empty = tempfile::tempdir().unwrap();
        let fault = Authority::open(empty.path()).err().unwrap().to_string();
        assert!(fault.contains("tidegate cert ca"), "{fault}");
    }
}
