//! TLS of Tidegate: which certificates are in force, and who is at the other end of a connection.
//!
//! In the order in which a node meets them:
//!
//! - [`files`]: certificates, keys and authorities as PEM files; what is wrong with one is said so that it can be mended.
//! - [`private`]: who may read a file with a secret.
//! - [`Certificate`]: whom a certificate names, and until when it holds.
//! - [`server`], [`client`], [`peers`]: what a listener, a caller and the nodes among themselves demand of each other.
//! - [`Watched`]: files that are read again when they change, and what was read last and is good.
//! - [`Room`]: callers that have proved nothing yet have a room of their own.
//! - [`TlsStream`]: the connection itself.
//!
//! It opens no socket and reads no clock but that of rustls: sockets and time are its callers' affair.

mod certificate;
pub mod client;
pub mod files;
pub mod peers;
pub mod private;
mod room;
pub mod server;
mod stream;
mod watched;

use std::sync::{Arc, LazyLock};

use rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub use self::{
    certificate::{Certificate, NotACertificate},
    room::Room,
    stream::{TlsStream, tls_error},
    watched::{Polled, Watched},
};
pub use rustls;

/// The first byte of a connection that begins with TLS; no other protocol that is spoken here begins so.
pub const TLS_BEGINS: u8 = 0x16;

/// Older ones are broken.
static VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Named wherever it is needed: a default of the whole process would be whoever sets it first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}
