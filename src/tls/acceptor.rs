//! The handshake with a client.
//!
//! | what | limit | beyond it |
//! | --- | --- | --- |
//! | the whole handshake | [`DEADLINE`] | closed |
//! | handshakes of one front end under way | [`MAX_HANDSHAKES`] | the oldest is closed |
//!
//! So a flood of connections that say nothing, or half a handshake, holds some memory and no honest client: that one is through
//! in two round trips.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tidegate_tls::{Room, TlsStream, Watched, files::FileError, rustls::ServerConfig, tls_error};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Socket,
    files::FrontConfigs,
    handshakes::{Handshakes, Port, Result as Outcome},
    looks_like_tls,
    paced::Paced,
};
use crate::{accept::refuse, ending::Ending};

/// For the whole handshake.
const DEADLINE: Duration = Duration::from_secs(5);
/// For it when the server stops.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Handshakes of one front end under way at one time.
const MAX_HANDSHAKES: usize = 1024;
/// A failed handshake is logged at most this often for each reason: whoever dials does not write our log.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Bytes by which a client that speaks no TLS is known.
const FIRST_BYTES: usize = 4;

/// Makes connections of one front end secure. The certificate is the one in force when a connection begins.
pub struct Acceptor {
    port: Port,
    configs: Arc<Watched<FrontConfigs, FileError>>,
    handshakes: Arc<Handshakes>,
    room: Mutex<Room>,
    logged: Mutex<[Option<Instant>; Outcome::ALL.len()]>,
}

impl Acceptor {
    pub(super) fn new(
        port: Port,
        configs: Arc<Watched<FrontConfigs, FileError>>,
        handshakes: Arc<Handshakes>,
    ) -> Self {
        let room = Mutex::new(Room::new(MAX_HANDSHAKES));
        Self { port, configs, handshakes, room, logged: Mutex::default() }
    }

    /// The handshake; `None`: the connection has been closed. `not_tls` is what somebody is told who begins with these bytes of
    /// something else.
    pub(crate) async fn handshake(
        &self,
        tcp: TcpStream,
        ending: &Ending,
        not_tls: impl FnOnce(&[u8]) -> Bytes,
    ) -> Option<Socket> {
        // Nothing in here is left half done by a panic.
        let place = self.room.lock().unwrap_or_else(PoisonError::into_inner).enter();
        let from = tcp.peer_addr().ok();
        let stops = async {
            ending.stopped().cancelled().await;
            sleep(ENDS_WITHIN).await;
        };
        let config = self.config();
        let secured = tokio::select! {
            biased;
            secured = timeout(DEADLINE, secure(tcp, config, not_tls)) => secured.unwrap_or(Err(Outcome::Timeout)),
            () = place.cancelled() => Err(Outcome::TooMany),
            () = stops => Err(Outcome::Closed),
        };
        match secured {
            Ok(stream) => {
                let result = if stream.is_resumed() { Outcome::Resumed } else { Outcome::Full };
                self.handshakes.count(result);
                let certificate = stream.peer_certificate().map(Arc::new);
                if let Some(certificate) = &certificate {
                    let name = certificate.name().unwrap_or_default();
                    debug!(protocol = self.port.as_str(), name, "a client has shown a certificate");
                }
                Some(Socket::Tls(Box::new(stream), certificate))
            }
            Err(result) => {
                self.handshakes.count(result);
                self.log(result, from);
                None
            }
        }
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.configs.get().of(self.port)
    }

    fn log(&self, result: Outcome, from: Option<SocketAddr>) {
        let Some(advice) = result.advice() else { return };
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut logged[result as usize];
        if last.is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            return;
        }
        *last = Some(now);
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        let (protocol, reason) = (self.port.as_str(), result.as_str());
        warn!(protocol, from, reason, advice, "a handshake with a client has failed");
    }
}

async fn secure(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    not_tls: impl FnOnce(&[u8]) -> Bytes,
) -> Result<TlsStream<Paced>, Outcome> {
    let mut first = [0; FIRST_BYTES];
    let seen = tcp.peek(&mut first).await.map_err(|_| Outcome::Closed)?;
    match &first[..seen] {
        [] => return Err(Outcome::Closed),
        bytes if looks_like_tls(bytes) => {}
        bytes => {
            refuse(tcp, not_tls(bytes)).await;
            return Err(Outcome::PlainText);
        }
    }
    match TlsStream::accept(Paced::new(tcp), config).await {
        Ok(stream) => Ok(stream),
        Err((error, tcp)) => {
            // What was said against it would be lost if the connection were closed under what it still sends.
            refuse(tcp.into_tcp(), Bytes::new()).await;
            Err(Outcome::of(tls_error(&error)))
        }
    }
}
