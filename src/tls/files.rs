//! Which files a node has for TLS, and what is made of them.

use std::{path::PathBuf, sync::Arc};

use tidegate_tls::{
    Certificate,
    files::{FileError, Proof, authorities},
    peers::PeerConfigs,
    rustls::ServerConfig,
    server::{self, ClientAuth},
};

use super::Port;

const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// The files for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whom clients must be signed by, if they show a certificate.
    pub(crate) client_authorities: Option<PathBuf>,
    /// Whether they must show one.
    pub(crate) is_required: bool,
    /// Which front ends have it.
    pub(crate) ports: Vec<Port>,
}

impl TlsFiles {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_authorities).cloned().collect()
    }

    pub(super) fn read(&self) -> Result<FrontConfigs, FileError> {
        let proof = Proof::read(&self.certificate, &self.key)?;
        let clients = match &self.client_authorities {
            None => ClientAuth::Off,
            Some(path) if self.is_required => ClientAuth::Required(Arc::new(authorities(path)?)),
            Some(path) => ClientAuth::Optional(Arc::new(authorities(path)?)),
        };
        Ok(FrontConfigs {
            // Each front end speaks one protocol. Who has no word for it (ALPN) is taken to speak that one.
            http: server::config(&proof, &clients, &[HTTP_1])?,
            grpc: server::config(&proof, &clients, &[HTTP_2])?,
            // The Redis protocol has no word of its own.
            redis: server::config(&proof, &clients, &[])?,
            certificate: proof.certificate().clone(),
        })
    }
}

/// What listeners for clients need.
#[derive(Debug)]
pub(crate) struct FrontConfigs {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    redis: Arc<ServerConfig>,
    pub(super) certificate: Certificate,
}

impl FrontConfigs {
    pub(super) fn of(&self, port: Port) -> Arc<ServerConfig> {
        Arc::clone(match port {
            Port::Http => &self.http,
            Port::Grpc => &self.grpc,
            Port::Redis => &self.redis,
        })
    }
}

/// The files for peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerTlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authorities: PathBuf,
}

impl PeerTlsFiles {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone(), self.authorities.clone()]
    }

    /// For the node of this name.
    pub(super) fn read(&self, name: &str) -> Result<PeerConfigs, FileError> {
        let proof = Proof::read(&self.certificate, &self.key)?;
        if !proof.certificate().is_for_node(name) {
            let found = match proof.certificate().node_names() {
                [] => "no node".to_owned(),
                names => names.join(" or "),
            };
            let path = self.certificate.display();
            return Err(FileError::Config(format!(
                "the certificate in {path} is for {found}, and not for this node, whose peers would refuse it: `tidegate cert node --name {name}` makes one"
            )));
        }
        PeerConfigs::new(&proof, authorities(&self.authorities)?)
    }
}
