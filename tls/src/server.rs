//! What a listener demands of its clients.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::Ticketer,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use crate::{
    VERSIONS,
    files::{FileError, Proof},
    provider,
};

/// Tickets that a client gets at once: a second one for a connection that it opens at the same time.
const TICKETS: usize = 2;

/// Whether clients show a certificate.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// They are not asked for one.
    Off,
    /// Who shows one must show a good one; who shows none is let in.
    Optional(Arc<RootCertStore>),
    /// Who shows none is not let in.
    Required(Arc<RootCertStore>),
}

/// What a listener needs to speak TLS 1.2 and 1.3, with these protocols by ALPN (none: whatever the client says).
///
/// A client that comes back goes on with its session by a ticket, which the listener need not remember; the key of the tickets is
/// made anew every few hours. A new configuration has keys of its own, so that after a change of files each client proves itself
/// once more.
///
/// # Errors
/// When rustls does not take the certificate, or the authorities.
pub fn config(proof: &Proof, clients: &ClientAuth, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, FileError> {
    let fault = |error: rustls::Error| FileError::Config(error.to_string());
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).map_err(fault)?;
    let verifier = match clients {
        ClientAuth::Off => None,
        ClientAuth::Optional(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
            Some(verifier.allow_unauthenticated().build())
        }
        ClientAuth::Required(roots) => {
            Some(WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider()).build())
        }
    };
    let builder = match verifier.transpose().map_err(|error| FileError::Config(error.to_string()))? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(proof.chain.clone(), proof.key.clone_key()).map_err(fault)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().map_err(fault)?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}
