//! The certificates and cluster keys of a node: read at the start, and again when their files change.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_cluster::{Clock, ClusterKey, KeyError, KeyRing, PeerEncryption, PeerTls};
use tidegate_tls::{Certificate, Polled, Watched, files::FileError, peers::PeerConfigs};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Acceptor,
    files::{FrontConfigs, PeerTlsFiles, TlsFiles},
    handshakes::{Handshakes, Port},
};
use crate::secret_file::{self, SecretFileError};

/// How often it is looked whether a file has changed.
const POLL: Duration = Duration::from_secs(2);
/// So long before its end a certificate is warned of; one that holds for less than three times that, in the last third.
const WARN_BEFORE: i64 = 14 * DAY;
/// How often.
const WARN_EVERY: i64 = DAY;
const DAY: i64 = 86_400;

/// Why a node cannot use its files.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CertificatesError {
    #[error("{0} (--tls-cert, --tls-key, --tls-client-ca)")]
    Clients(FileError),
    #[error("{0} (--peer-tls-cert, --peer-tls-key, --peer-tls-ca)")]
    Peers(FileError),
    #[error("{0}")]
    Keys(#[from] KeyFileError),
}

/// Why a file of cluster keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KeyFileError {
    #[error("the cluster key (--cluster-key-file): {0}")]
    File(#[from] SecretFileError),
    #[error("{fault} (--cluster-key-file {})", path.display())]
    Keys { path: PathBuf, fault: KeyError },
}

/// The certificates and cluster keys of a node.
pub(crate) struct Certificates {
    clients: Option<Arc<Watched<FrontConfigs, FileError>>>,
    ports: Vec<Port>,
    peers: Option<Arc<Watched<PeerConfigs, FileError>>>,
    key_file: Option<Watched<Vec<ClusterKey>, KeyFileError>>,
    keys: Arc<KeyRing>,
    /// By front end.
    handshakes: [Arc<Handshakes>; Port::ALL.len()],
    renewed: AtomicU64,
    refused: AtomicU64,
    /// When the end of a certificate was last warned of, of clients and of peers.
    warned: Mutex<[Option<i64>; 2]>,
}

impl Certificates {
    /// Reads the files of the node of this name.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(crate) fn read(
        name: &str,
        clients: Option<&TlsFiles>,
        peers: Option<&PeerTlsFiles>,
        key_file: Option<PathBuf>,
        keys: Vec<ClusterKey>,
    ) -> Result<Self, CertificatesError> {
        let ports = clients.map(|files| files.ports.clone()).unwrap_or_default();
        let clients = match clients.cloned() {
            Some(files) => {
                Some(Watched::new(files.paths(), move || files.read()).map_err(CertificatesError::Clients)?)
            }
            None => None,
        };
        let peers = match peers.cloned() {
            Some(files) => {
                let name = name.to_owned();
                let watched = Watched::new(files.paths(), move || files.read(&name));
                Some(watched.map_err(CertificatesError::Peers)?)
            }
            None => None,
        };
        let key_file = match key_file {
            Some(path) => Some(Watched::new(vec![path.clone()], move || read_keys(&path))?),
            None => None,
        };
        let keys = key_file.as_ref().map_or(keys, |file| file.get().to_vec());
        Ok(Self {
            clients: clients.map(Arc::new),
            ports,
            peers: peers.map(Arc::new),
            key_file,
            keys: Arc::new(KeyRing::new(keys)),
            handshakes: Default::default(),
            renewed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            warned: Mutex::default(),
        })
    }

    /// What a front end does with its connections; none: they are plain.
    pub(crate) fn acceptor(&self, port: Port) -> Option<Arc<Acceptor>> {
        let configs = self.clients.as_ref().filter(|_| self.ports.contains(&port))?;
        Some(Arc::new(Acceptor::new(port, Arc::clone(configs), Arc::clone(&self.handshakes[port as usize]))))
    }

    /// What the node does with streams to and from others.
    pub(crate) fn peer_tls(&self, encryption: PeerEncryption) -> Option<PeerTls> {
        Some(PeerTls { configs: Arc::clone(self.peers.as_ref()?), encryption })
    }

    /// The cluster keys in force.
    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// Handshakes of the front ends that have TLS.
    pub(crate) fn handshakes(&self) -> impl Iterator<Item = (Port, &Handshakes)> {
        self.ports.iter().map(|port| (*port, &*self.handshakes[*port as usize]))
    }

    /// For how many seconds each certificate will hold, by whom it is shown to; less than none: it is over.
    pub(crate) fn expire_in(&self, now: i64) -> impl Iterator<Item = (&'static str, i64)> {
        self.in_force().into_iter().map(move |(to, certificate)| (to, certificate.not_after() - now))
    }

    /// Changed files that were put in force, and such that could not be.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (self.renewed.load(Relaxed), self.refused.load(Relaxed))
    }

    fn in_force(&self) -> Vec<(&'static str, Certificate)> {
        let clients = self.clients.as_ref().map(|clients| ("clients", clients.get().certificate.clone()));
        let peers = self.peers.as_ref().map(|peers| ("peers", peers.get().certificate.clone()));
        clients.into_iter().chain(peers).collect()
    }

    /// Looks after the files. Does not end.
    pub(crate) async fn watch(self: &Arc<Self>, clock: Clock) {
        loop {
            let this = Arc::clone(self);
            // The disk may hang, and holds nothing up then but this.
            let polled = tokio::task::spawn_blocking(move || {
                this.look(false);
                this.warn_of_ends(seconds(clock));
            });
            // A panic has been logged, and the next look is another one.
            let _ = polled.await;
            sleep(POLL).await;
        }
    }

    /// Reads all files again, as whoever sends SIGHUP wants it. It waits for the disk.
    pub(crate) fn renew(&self) {
        self.look(true);
    }

    fn look(&self, anyway: bool) {
        if let Some(clients) = &self.clients {
            self.note("certificate for clients", if anyway { clients.renew() } else { clients.poll() });
        }
        if let Some(peers) = &self.peers {
            self.note("certificate for peers", if anyway { peers.renew() } else { peers.poll() });
        }
        if let Some(file) = &self.key_file {
            let polled = if anyway { file.renew() } else { file.poll() };
            if matches!(polled, Polled::Renewed) {
                self.keys.replace(file.get().to_vec());
                info!(keys = self.keys.len(), "cluster keys in force");
            }
            self.note("cluster key", polled);
        }
    }

    fn note<E: std::fmt::Display>(&self, what: &'static str, polled: Polled<E>) {
        match polled {
            Polled::Unchanged => {}
            Polled::Renewed => {
                self.renewed.fetch_add(1, Relaxed);
                info!(what, "files were read again and are in force");
            }
            Polled::Refused(fault) => {
                self.refused.fetch_add(1, Relaxed);
                warn!(what, %fault, "changed files cannot be used: what was in force before stays so");
            }
        }
    }

    fn warn_of_ends(&self, now: i64) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, (to, certificate)) in self.in_force().into_iter().enumerate() {
            let left = certificate.not_after() - now;
            let is_due = warned[place].is_none_or(|last| now - last >= WARN_EVERY);
            if left >= warn_before(&certificate) {
                warned[place] = None;
            } else if is_due {
                warned[place] = Some(now);
                let names = certificate.names().join(", ");
                if left < 0 {
                    warn!(
                        to,
                        names,
                        days_ago = -left / DAY,
                        "a certificate of this node has expired: others refuse it"
                    );
                } else {
                    warn!(
                        to,
                        names,
                        days = left / DAY,
                        hours = left % DAY / 3600,
                        "a certificate of this node expires soon"
                    );
                }
            }
        }
    }
}

fn warn_before(certificate: &Certificate) -> i64 {
    let lifetime = certificate.not_after().saturating_sub(certificate.not_before());
    WARN_BEFORE.min(lifetime / 3)
}

/// Unix time in seconds.
fn seconds(clock: Clock) -> i64 {
    i64::try_from(clock.unix_millis() / 1000).unwrap_or(i64::MAX)
}

fn read_keys(path: &Path) -> Result<Vec<ClusterKey>, KeyFileError> {
    let text = secret_file::read(path)?;
    ClusterKey::parse_all(&text).map_err(|fault| KeyFileError::Keys { path: path.to_owned(), fault })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_changed_key_file_must_be_private_and_short_as_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.key");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("0123456789abcdef\n", 0o600);
        let certificates = Certificates::read("n1", None, None, Some(path.clone()), Vec::new()).unwrap();
        write("0123456789abcdef\nfedcba9876543210\n", 0o644);
        certificates.renew();
        assert_eq!((certificates.reloads(), certificates.keys().len()), ((0, 1), 1));
        write(&"# remark\n".repeat(10_000), 0o600);
        certificates.renew();
        assert_eq!((certificates.reloads(), certificates.keys().len()), ((0, 2), 1));
        write("0123456789abcdef\nfedcba9876543210\n", 0o600);
        certificates.renew();
        assert_eq!((certificates.reloads(), certificates.keys().len()), ((1, 2), 2));
        let fault = read_keys(&directory.path().join("none")).unwrap_err().to_string();
        assert!(fault.contains("--cluster-key-file") && fault.contains("none"), "{fault}");
    }
}
