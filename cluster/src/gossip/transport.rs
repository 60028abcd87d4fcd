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
    foreign::{ForeignNodes, Invited},
    intake::{Intake, Sifted},
    mark,
    seal::{MAX_DATAGRAM_BYTES, Seal},
    starts::Starts,
};
use crate::{
    fabric::{self, Datagrams},
    ids::ClusterId,
    stats::{GossipRejection, GossipStats},
};

/// A rejected datagram is logged at most this often for each reason: whoever sends them does not write our log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Who is of this node's cluster.
pub(super) struct Kinship {
    /// To which cluster this node belongs.
    pub(super) belongs: Box<dyn Fn() -> Option<ClusterId> + Send + Sync>,
    pub(super) foreign: Arc<ForeignNodes>,
    pub(super) invited: Invited,
}

/// Opens the UDP socket that was bound beforehand, once.
pub(crate) struct SealedUdp {
    socket: Mutex<Option<(Datagrams, Intake, Kinship)>>,
    seal: Arc<Seal>,
    stats: Arc<GossipStats>,
}

impl SealedUdp {
    pub(super) fn new(
        socket: Datagrams,
        seal: Seal,
        intake: Intake,
        kinship: Kinship,
        stats: Arc<GossipStats>,
    ) -> Self {
        Self { socket: Mutex::new(Some((socket, intake, kinship))), seal: Arc::new(seal), stats }
    }
}

#[async_trait]
impl Transport for SealedUdp {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.socket.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let (socket, intake, kinship) =
            socket.ok_or_else(|| anyhow::anyhow!("the gossip socket was opened already"))?;
        Ok(Box::new(SealedSocket {
            socket,
            seal: Arc::clone(&self.seal),
            stats: Arc::clone(&self.stats),
            incoming: vec![0; MAX_DATAGRAM_BYTES + 1].into_boxed_slice(),
            intake,
            kinship,
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
    kinship: Kinship,
    starts: Starts,
    /// When a rejection of each kind was last logged.
    logged: [Option<Instant>; GossipRejection::ALL.len()],
}

#[async_trait]
impl Socket for SealedSocket {
    /// Gossip repeats itself, so a datagram that cannot be sent is dropped and counted; nothing ends the socket.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let message = self.starts.leave_out(message.serialize_to_vec(), Instant::now());
        self.send_marked(to, message).await;
        Ok(())
    }

    /// Cancel-safe: what is awaited is the socket's own, and an answer to another cluster, which may get lost.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = match self.socket.recv_from(&mut self.incoming).await {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let opened = self.seal.unwrap(&self.incoming[..length]);
            let opened = match opened {
                Ok(message) => match self.of_ours(message, from) {
                    Ok(message) => Ok(message),
                    Err(told) => {
                        if let Some(answer) = told {
                            self.send_marked(from, answer).await;
                        }
                        continue;
                    }
                },
                Err(rejection) => Err(rejection),
            };
            let opened = opened.and_then(|message| {
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
    async fn send_marked(&mut self, to: SocketAddr, mut message: Vec<u8>) {
        if let Some(cluster) = (self.kinship.belongs)() {
            mark::put(&mut message, cluster);
        }
        let Some(datagram) = self.seal.wrap(&message, fabric::random_bytes()) else {
            self.stats.count_oversize();
            warn!(%to, "a gossip message is longer than a datagram: too many nodes are listed");
            return;
        };
        if let Err(error) = self.socket.send_to(&datagram, to).await {
            debug!(%to, %error, "gossip was not sent");
        }
    }

    /// The message, if it is not of another cluster; else the answer to its sender, if there is one.
    fn of_ours(&mut self, mut message: Vec<u8>, from: SocketAddr) -> Result<Vec<u8>, Option<Vec<u8>>> {
        let (Some(theirs), now) = (mark::take(&mut message), Instant::now()) else { return Ok(message) };
        let Some(ours) = (self.kinship.belongs)() else {
            if self.kinship.invited.hears(from, theirs, now) {
                return Ok(message);
            }
            self.stats.count_rejection(GossipRejection::ForeignCluster);
            debug!(%from, %theirs, "gossip of a cluster is ignored: no node of it was named to this one (--join)");
            return Err(None);
        };
        if theirs == ours {
            return Ok(message);
        }
        let rejection = GossipRejection::ForeignCluster;
        self.stats.count_rejection(rejection);
        let is_new = self.kinship.foreign.hear(from, theirs, &message, now);
        if is_new && self.may_log(rejection, now) {
            warn!(
                %from, %theirs, %ours,
                "a node of another cluster that has this one's name gossips with this node, and is ignored: if its address was a node's \
                 of this cluster, take it out of --join; names of their own (--cluster-name) keep clusters apart"
            );
        }
        // The sender has to know it too, and hears nothing else. Its own notice of that gets no answer.
        let rejected = ChitchatMessage::BadCluster.serialize_to_vec();
        Err((message != rejected).then_some(rejected))
    }

    /// Whether a rejection of this kind was not logged lately. If so, it is about to be.
    fn may_log(&mut self, rejection: GossipRejection, now: Instant) -> bool {
        let logged = &mut self.logged[rejection as usize];
        let may = logged.is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
        if may {
            *logged = Some(now);
        }
        may
    }

    fn reject(&mut self, rejection: GossipRejection, from: SocketAddr) {
        self.stats.count_rejection(rejection);
        if self.may_log(rejection, Instant::now()) {
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
