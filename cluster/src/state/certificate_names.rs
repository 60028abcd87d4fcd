//! Certificates that stand for tokens: whoever shows one in the TLS handshake has proved what a holder of the token has.
//!
//! The token has its name, roles, domains and end, and is listed and revoked as any other; only nobody knows its text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::token::{ActError, TokenId};

/// Bytes of a name in a certificate.
pub const MAX_CERTIFICATE_NAME_BYTES: usize = 255;

/// The tokens that are shown by a certificate, by the name in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateNames {
    by_name: BTreeMap<String, TokenId>,
}

impl CertificateNames {
    /// Some whose bytes are known.
    #[cfg(test)]
    pub(crate) fn golden() -> Self {
        let id = TokenId::parse("00000000000000f1");
        Self { by_name: id.into_iter().map(|id| ("deploy.example.com".to_owned(), id)).collect() }
    }

    /// The token that a certificate with this name stands for.
    pub fn find(&self, name: &str) -> Option<TokenId> {
        self.by_name.get(name).copied()
    }

    /// The name in the certificate that stands for a token; `None`: none does.
    pub fn of(&self, id: TokenId) -> Option<&str> {
        self.by_name.iter().find(|(_, known)| **known == id).map(|(name, _)| name.as_str())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether one more may have this name.
    pub(super) fn may_add(&self, name: &str) -> Result<(), ActError> {
        if self.by_name.contains_key(name) {
            return Err(ActError::CertificateTaken(name.to_owned()));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: &str, id: TokenId) {
        self.by_name.insert(name.to_owned(), id);
    }

    pub(super) fn remove(&mut self, id: TokenId) {
        self.by_name.retain(|_, known| *known != id);
    }
}
