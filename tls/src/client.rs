//! What a caller demands of the node that it asks.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::{
    VERSIONS,
    files::{FileError, Proof},
    provider,
};

/// What a client needs that believes these authorities, and shows this certificate if it is asked for one.
///
/// # Errors
/// When rustls does not take the certificate.
pub fn config(
    authorities: RootCertStore,
    proof: Option<&Proof>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, FileError> {
    let fault = |error: rustls::Error| FileError::Config(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(fault)?
        .with_root_certificates(authorities);
    let mut config = match proof {
        Some(proof) => {
            builder.with_client_auth_cert(proof.chain.clone(), proof.key.clone_key()).map_err(fault)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
