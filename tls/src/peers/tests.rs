use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{TlsStream, files, tls_error};

/// An authority with files of its own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    fn authorities(&self) -> RootCertStore {
        files::authorities(&self.directory.path().join("ca.crt")).unwrap()
    }

    fn paths(&self, name: &str, usage: impl Into<Option<ExtendedKeyUsagePurpose>>) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = usage.into().into_iter().collect();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.directory.path().join(format!("{name}.{kind}"));
        let (certificate_path, key_path) = (path("crt"), path("key"));
        std::fs::write(&certificate_path, certificate.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        set_mode(&key_path, 0o600);
        (certificate_path, key_path)
    }

    fn proof(&self, name: &str, usage: impl Into<Option<ExtendedKeyUsagePurpose>>) -> Proof {
        let (certificate, key) = self.paths(name, usage);
        Proof::read(&certificate, &key).unwrap()
    }

    /// Who calls nodes as a node does, with a certificate that a node would not start with.
    fn caller(&self, proof: &Proof) -> Arc<ClientConfig> {
        let verifier = Arc::new(Verifier { authorities: self.authorities(), provider: provider() });
        let builder =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        Arc::new(builder.with_client_auth_cert(proof.chain.clone(), proof.key.clone_key()).unwrap())
    }

    fn node(&self, name: &str) -> PeerConfigs {
        let proof = self.proof(name, ExtendedKeyUsagePurpose::ServerAuth);
        PeerConfigs::new(&proof, self.authorities()).unwrap()
    }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What each end learns of the other, once something has been said both ways.
async fn meet(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (Result<Option<Certificate>, std::io::Error>, Result<Option<Certificate>, std::io::Error>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let host = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let call = async {
        let mut stream = TlsStream::connect(near, client, host).await?;
        // A client of TLS 1.3 hears only now whether it was let in.
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut [0; 4]).await?;
        Ok(stream.peer_certificate())
    };
    let answer = async {
        let mut stream = TlsStream::accept(far, server).await.map_err(|(error, _)| error)?;
        stream.read_exact(&mut [0; 4]).await?;
        stream.write_all(b"pong").await?;
        stream.flush().await?;
        Ok(stream.peer_certificate())
    };
    tokio::join!(call, answer)
}

#[tokio::test]
async fn nodes_of_one_authority_know_each_other_by_name() {
    let authority = Authority::new();
    let (one, two) = (authority.node("n1"), authority.node("n2"));
    let (called, answered) = meet(one.client, two.server).await;
    let (called, answered) = (called.unwrap().unwrap(), answered.unwrap().unwrap());
    assert!(called.is_for_node("n2") && !called.is_for_node("n1"));
    assert!(answered.is_for_node("n1") && !answered.is_for_node("n2"));
}

#[tokio::test]
async fn who_is_of_another_authority_or_shows_nothing_is_let_in_by_neither_end() {
    let (ours, others) = (Authority::new(), Authority::new());
    let (node, stranger) = (ours.node("n1"), others.node("n1"));
    let (called, answered) = meet(Arc::clone(&stranger.client), Arc::clone(&node.server)).await;
    assert!(called.is_err() && answered.is_err());
    let (called, answered) = meet(Arc::clone(&node.client), Arc::clone(&stranger.server)).await;
    assert!(called.is_err() && answered.is_err());
    let bare = crate::client::config(ours.authorities(), None, &[]).unwrap();
    let (_, answered) = meet(bare, node.server).await;
    let error = answered.unwrap_err();
    assert!(
        matches!(tls_error(&error), Some(Error::NoCertificatesPresented | Error::AlertReceived(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_clients_certificate_makes_nobody_a_node() {
    let authority = Authority::new();
    let client = authority.proof("n2", ExtendedKeyUsagePurpose::ClientAuth);
    let error = PeerConfigs::new(&client, authority.authorities()).unwrap_err();
    assert!(error.to_string().contains("serverAuth"), "{error}");
    let config = authority.caller(&client);
    let (_, answered) = meet(config, authority.node("n1").server).await;
    let error = answered.unwrap_err();
    assert!(matches!(tls_error(&error), Some(Error::InvalidCertificate(_))), "{error}");
}

#[tokio::test]
async fn a_certificate_that_says_nothing_of_its_use_makes_nobody_a_node() {
    let authority = Authority::new();
    for usage in [None, Some(ExtendedKeyUsagePurpose::Any)] {
        let bare = authority.proof("n2", usage);
        let error = PeerConfigs::new(&bare, authority.authorities()).unwrap_err();
        assert!(error.to_string().contains("serverAuth"), "{error}");
        let config = authority.caller(&bare);
        let (_, answered) = meet(config, authority.node("n1").server).await;
        let error = answered.unwrap_err();
        assert!(matches!(tls_error(&error), Some(Error::InvalidCertificate(_))), "{error}");
        // Nor is it one that is called.
        let listener = crate::server::config(&bare, &crate::server::ClientAuth::Off, &[]).unwrap();
        let (called, _) = meet(authority.node("n1").client, listener).await;
        let error = called.unwrap_err();
        assert!(matches!(tls_error(&error), Some(Error::InvalidCertificate(_))), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_goes_on_with_its_session_until_the_files_change() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let proof = authority.proof("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let listener = || crate::server::config(&proof, &crate::server::ClientAuth::Off, &[b"http/1.1"]).unwrap();
    let (first, second) = (listener(), listener());
    let client = crate::client::config(authority.authorities(), None, &[b"h2", b"http/1.1"]).unwrap();
    let visit = async |server: &Arc<ServerConfig>| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let call = async {
            let host = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsStream::connect(near, Arc::clone(&client), host).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            stream.is_resumed()
        };
        let answer = async {
            let mut stream = TlsStream::accept(far, Arc::clone(server)).await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            stream.flush().await.unwrap();
        };
        tokio::join!(call, answer).0
    };
    assert!(!visit(&first).await);
    assert!(visit(&first).await, "a ticket was given");
    assert!(!visit(&second).await, "its keys are new");
}

#[test]
fn a_file_that_cannot_be_used_is_said_with_what_mends_it() {
    let authority = Authority::new();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (certificate, key) = authority.paths("n1", usage.clone());
    let (_, other_key) = authority.paths("n2", usage);
    let fault = |certificate: &std::path::Path, key: &std::path::Path| {
        Proof::read(certificate, key).unwrap_err().to_string()
    };
    set_mode(&key, 0o644);
    let open = fault(&certificate, &key);
    assert!(open.contains("mode 0644") && open.contains(&format!("chmod 600 {}", key.display())), "{open}");
    set_mode(&key, 0o400);
    assert!(Proof::read(&certificate, &key).is_ok());
    assert!(fault(&certificate, &other_key).contains("is not the one of the certificate"));
    assert!(fault(&certificate, &certificate).contains("chmod 600"), "what may be a key is not open either");
    set_mode(&certificate, 0o600);
    assert!(fault(&certificate, &certificate).contains("holds no private key"));
    assert!(fault(&key, &key).contains("holds no certificate"));
    assert!(fault(&authority.directory.path().join("none"), &key).contains("cannot read"));
    std::fs::write(
        &other_key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(fault(&certificate, &other_key).contains("openssl pkey"));
    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(fault(&certificate, &key).contains("cannot be read"));
}
