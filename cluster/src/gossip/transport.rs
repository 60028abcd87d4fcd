//! The gossip library's datagrams over UDP, sealed on the way out and opened on the way in.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatMessage, Deserializable as _, Serializable as _,
    transport::{Socket, Transport},
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    intake::{Intake, Sifted},
    seal::{MAX_DATAGRAM_BYTES, Seal},
    starts::Starts,
};
use crate::{
    fabric::{self, Datagrams},
    stats::{GossipRejection, GossipStats},
};

/// A rejected datagram is logged at most this often for each reason: whoever sends them does not write our log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Opens the UDP socket that was bound beforehand, once.
pub(crate) struct SealedUdp {
    socket: Mutex<Option<(Datagrams, Intake)>>,
    seal: Arc<Seal>,
    stats: Arc<GossipStats>,
}

impl SealedUdp {
    pub(super) fn new(socket: Datagrams, seal: Seal, intake: Intake, stats: Arc<GossipStats>) -> Self {
        Self { socket: Mutex::new(Some((socket, intake))), seal: Arc::new(seal), stats }
    }
}

#[async_trait]
impl Transport for SealedUdp {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.socket.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let (socket, intake) =
            socket.ok_or_else(|| anyhow::anyhow!("the gossip socket was opened already"))?;
        Ok(Box::new(SealedSocket {
            socket,
            seal: Arc::clone(&self.seal),
            stats: Arc::clone(&self.stats),
            incoming: vec![0; MAX_DATAGRAM_BYTES + 1].into_boxed_slice(),
            intake,
            starts: Starts::default(),
            logged: [None; GossipRejection::ALL.len()],
        }))
    }
}

struct SealedSocket {
    socket: Datagrams,
    seal: Arc<Seal>,
    stats: Arc<GossipStats>,
    incoming: Box<[u8]>,
    intake: Intake,
    starts: Starts,
    /// When a rejection of each kind was last logged.
    logged: [Option<Instant>; GossipRejection::ALL.len()],
}

#[async_trait]
impl Socket for SealedSocket {
    /// Gossip repeats itself, so a datagram that cannot be sent is dropped and counted; nothing ends the socket.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let message = self.starts.leave_out(message.serialize_to_vec(), Instant::now());
        let Some(datagram) = self.seal.wrap(&message, fabric::random_bytes()) else {
            self.stats.count_oversize();
            warn!(%to, "a gossip message is longer than a datagram: too many nodes are listed");
            return Ok(());
        };
        if let Err(error) = self.socket.send_to(&datagram, to).await {
            debug!(%to, %error, "gossip was not sent");
        }
        Ok(())
    }

    /// Cancel-safe: the only await is the socket's own.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = match self.socket.recv_from(&mut self.incoming).await {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let opened = self.seal.unwrap(&self.incoming[..length]).and_then(|message| {
                let sifted = self.intake.sift(message, Instant::now()).ok_or(GossipRejection::Malformed)?;
                let Sifted { message, is_whole } = sifted;
                let message = ChitchatMessage::deserialize(&mut &message[..]);
                Ok((message.map_err(|_| GossipRejection::Malformed)?, is_whole))
            });
            match opened {
                Ok((message, is_whole)) => {
                    if !is_whole {
                        self.reject(GossipRejection::InPart, from);
                    }
                    return Ok((from, message));
                }
                Err(rejection) => self.reject(rejection, from),
            }
        }
    }
}

impl SealedSocket {
    fn reject(&mut self, rejection: GossipRejection, from: SocketAddr) {
        self.stats.count_rejection(rejection);
        let now = Instant::now();
        let logged = &mut self.logged[rejection as usize];
        if logged.is_none_or(|last| now.duration_since(last) >= LOG_EVERY) {
            *logged = Some(now);
            warn!(%from, reason = rejection.as_str(), detail = rejection.explain(), "a gossip datagram is refused");
        }
    }
}

/// A datagram sent earlier to a port where nobody listens comes back as an error of the next read.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
