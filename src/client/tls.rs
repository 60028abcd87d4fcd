//! What a command believes of a node that it asks by `https://`, and what it shows.

use std::{error::Error, io, path::Path, sync::Arc};

use tidegate_tls::{
    TlsStream, client,
    files::{self, FileError, Proof},
    rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore, pki_types::ServerName},
    tls_error,
};
use tokio::net::TcpStream;

use super::ClientError;

/// HTTP/1.1 is what is spoken then.
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Whom a command believes, and what it shows.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Believes the authorities of a file, or else those of this machine, and shows a certificate if there is one.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(crate) fn new(
        authorities: Option<&Path>,
        proof: Option<(&Path, &Path)>,
    ) -> Result<Self, ClientError> {
        let authorities = match authorities {
            Some(path) => files::authorities(path).map_err(|error| ClientError::File("--ca-file", error))?,
            None => of_this_machine(),
        };
        let shown = |error: FileError| ClientError::File("--client-cert, --client-key", error);
        let proof =
            proof.map(|(certificate, key)| Proof::read(certificate, key)).transpose().map_err(shown)?;
        client::config(authorities, proof.as_ref(), ALPN).map(Self).map_err(shown)
    }

    /// The handshake with the node that is asked for under this name.
    pub(super) async fn connect(
        &self,
        node: &str,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| ClientError::Url(node.to_owned()))?;
        TlsStream::connect(tcp, Arc::clone(&self.0), name).await.map_err(|error| fault(node, host, error))
    }
}

/// The authorities that this machine trusts. One that cannot be read is left out: who is signed by it is refused later.
fn of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// What a handshake that failed means for whoever typed the command.
fn fault(node: &str, host: &str, error: io::Error) -> ClientError {
    let node = node.to_owned();
    match tls_error(&error) {
        None => ClientError::Connect(node, error),
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            // Of two authorities of one name only the signature tells which it was.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ClientError::UnknownAuthority(node)
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                ClientError::OtherHost { node, host: host.to_owned(), names: presented.join(", ") }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ClientError::ExpiredCertificate(node)
            }
            other => ClientError::Certificate(node, format!("{other}")),
        },
        Some(rustls::Error::InvalidMessage(_)) => ClientError::NotTls(node),
        Some(found) => {
            of_alert(&node, found).unwrap_or_else(|| ClientError::Certificate(node, found.to_string()))
        }
    }
}

/// What a node has said against what this client has shown, if that is why an exchange has failed. In TLS 1.3 it comes when the
/// client believes the handshake done.
pub(super) fn refusal_in(node: &str, error: &(dyn Error + 'static)) -> Option<ClientError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error.downcast_ref::<rustls::Error>();
        if let Some(found) = found.or_else(|| error.downcast_ref().and_then(tls_error)) {
            return of_alert(node, found);
        }
        next = error.source();
    }
    None
}

fn of_alert(node: &str, error: &rustls::Error) -> Option<ClientError> {
    let node = node.to_owned();
    match error {
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Some(ClientError::NeedsCertificate(node))
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnsupportedCertificate,
        ) => Some(ClientError::RefusesCertificate(node)),
        _ => None,
    }
}
