//! What nodes demand of each other: a certificate of the nodes' authority at both ends.
//!
//! A node is called by its name, not by the host at which it is found, so that neither end looks for a host in the certificate:
//! [`Certificate::is_for_node`] is asked for the member's name once the handshake is done. **Both ends must have a certificate that says
//! that it is for servers** (`serverAuth`): a client's certificate of the same authority makes nobody a node, whatever name it has, and
//! neither does one that says nothing of its use.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{
    Certificate, VERSIONS,
    files::{FileError, Proof},
    provider,
};

/// Both directions between this node and the others.
#[derive(Debug)]
pub struct PeerConfigs {
    /// For streams that others open.
    pub server: Arc<ServerConfig>,
    /// For streams that this node opens.
    pub client: Arc<ClientConfig>,
    /// What this node shows.
    pub certificate: Certificate,
}

impl PeerConfigs {
    /// Of a node that shows `proof` and believes who is signed by one of `authorities`. Streams last, so that nothing is resumed: each
    /// shows its certificate each time.
    ///
    /// # Errors
    /// When rustls does not take the certificate, or when the node itself would not be believed by others with the same files.
    pub fn new(proof: &Proof, authorities: RootCertStore) -> Result<Self, FileError> {
        let fault = |error: Error| FileError::Config(error.to_string());
        let verifier = Arc::new(Verifier { authorities, provider: provider() });
        if !proof.certificate().is_for_servers() {
            return Err(FileError::Config(
                "the certificate of this node has no extended key usage serverAuth, without which its peers refuse it".to_owned(),
            ));
        }
        let (leaf, rest) = proof.chain.split_first().expect("a proof has a certificate");
        match verifier.verify(leaf, rest, UnixTime::now()) {
            // An operator who is late should not lose the cluster with the next restart: clocks and others decide.
            Ok(()) | Err(Error::InvalidCertificate(CertificateError::Expired)) => {}
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => {}
            Err(error) => {
                return Err(FileError::Config(format!(
                    "the certificate of this node is none that the authorities of its peers vouch for as a node's: {error}"
                )));
            }
        }
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(fault)?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(proof.chain.clone(), proof.key.clone_key())
            .map_err(fault)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(fault)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(proof.chain.clone(), proof.key.clone_key())
            .map_err(fault)?;
        client.resumption = Resumption::disabled();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            certificate: proof.certificate().clone(),
        })
    }
}

/// Looks whether a certificate is one of a node, whichever.
struct Verifier {
    authorities: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.authorities, rest, now, algorithms)?;
        // That takes a certificate without any usage for one of all usages.
        match Certificate::of(certificate) {
            Ok(shown) if shown.is_for_servers() => Ok(()),
            Ok(_) => Err(CertificateError::InvalidPurpose.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("authorities", &self.authorities.len()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// Nodes have one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate, rest, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
mod tests;
