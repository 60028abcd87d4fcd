//! The options by which a command asks a node over TLS.

use std::path::PathBuf;

use clap::Args;

use crate::client::{ClientError, NodeAddress, TlsClient};

/// Whom a command believes, and what it shows, where the node is asked by https://.
#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// Authorities that vouch for the node (PEM), where --node is https:// [default: those that this machine trusts]
    #[arg(long, env = "TIDEGATE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Certificate to show the node (PEM), where it asks for one (`tidegate cert client`)
    #[arg(long, env = "TIDEGATE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// Private key of --client-cert (PEM)
    #[arg(long, env = "TIDEGATE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl TrustArgs {
    /// The node as these options say that it is asked.
    pub(super) fn of(&self, node: &NodeAddress) -> Result<NodeAddress, ClientError> {
        let node = node.clone();
        // What was set for nodes with TLS says nothing of this one.
        if !node.is_https() {
            return Ok(node);
        }
        let proof = self.client_cert.as_deref().zip(self.client_key.as_deref());
        Ok(node.with_tls(TlsClient::new(self.ca_file.as_deref(), proof)?))
    }
}
