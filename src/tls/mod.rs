//! TLS of the front ends, and the certificates of a node.
//!
//! In the order in which a connection meets them:
//!
//! - [`Acceptor`]: the handshake, with its deadline, and what is counted of it. `misdirected`: who speaks TLS where none is, or none
//!   where it is.
//! - [`Socket`]: a client's connection, plain or not, and the [`Certificate`] that the client has shown. `paced`: how much of it is read and
//!   written before others have their turn.
//! - [`Certificates`]: the files of the node, read again when they change: those for clients, those for peers, the cluster keys.

mod acceptor;
mod certificates;
mod files;
mod handshakes;
mod misdirected;
mod paced;
mod socket;

pub(crate) use tidegate_tls::Certificate;

pub use self::acceptor::Acceptor;
pub(crate) use self::{
    certificates::{Certificates, CertificatesError},
    files::{PeerTlsFiles, TlsFiles},
    handshakes::Port,
    misdirected::{looks_like_tls, note_tls},
    socket::Socket,
};
