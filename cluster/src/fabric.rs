//! Network, threads and randomness enter here.
//!
//! With the feature `simulation` a stream may also be one of the simulated network (`either`), and what would wait on
//! another thread is done at once; but only on a thread that simulates. Elsewhere, and without the feature, this is the
//! system.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinError,
};

#[cfg(feature = "simulation")]
#[path = "fabric/either.rs"]
mod either;

#[cfg(feature = "simulation")]
pub(crate) use crate::fabric::either::{Datagrams, Detached, Listener, ReadHalf, Stream, WriteHalf};

/// What accepts streams.
#[cfg(not(feature = "simulation"))]
pub(crate) type Listener = tokio::net::TcpListener;
/// A stream to or from a peer.
#[cfg(not(feature = "simulation"))]
pub(crate) type Stream = TcpStream;
/// A stream that belongs to no runtime.
#[cfg(not(feature = "simulation"))]
pub(crate) type Detached = std::net::TcpStream;
/// The reading half of a stream.
#[cfg(not(feature = "simulation"))]
pub(crate) type ReadHalf = tokio::net::tcp::OwnedReadHalf;
/// The writing half of a stream.
#[cfg(not(feature = "simulation"))]
pub(crate) type WriteHalf = tokio::net::tcp::OwnedWriteHalf;
/// What sends and receives gossip.
#[cfg(not(feature = "simulation"))]
pub(crate) type Datagrams = UdpSocket;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// After so much silence the kernel asks whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Binds the peer port for streams.
#[cfg_attr(
    not(feature = "simulation"),
    expect(clippy::useless_conversion, reason = "not so in a simulation")
)]
pub(crate) async fn listen(address: SocketAddr) -> io::Result<Listener> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Listener::simulated(address).await;
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node gets its port back while connections of the one before are still closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(BACKLOG)?.into())
}

/// Binds the peer port for gossip.
#[cfg_attr(
    not(feature = "simulation"),
    expect(clippy::useless_conversion, reason = "not so in a simulation")
)]
pub(crate) async fn bind_datagrams(address: SocketAddr) -> io::Result<Datagrams> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Datagrams::simulated(address).await;
    }
    Ok(UdpSocket::bind(address).await?.into())
}

/// How long a peer may take to take a stream. Where the network drops what is sent, the system would try again after
/// one second, then two, and so on: long after it works again.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// Opens a stream to a peer.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let connecting = tokio::time::timeout(CONNECT_WITHIN, open(address));
    let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    prepare(&stream)?;
    Ok(stream)
}

#[cfg_attr(
    not(feature = "simulation"),
    expect(clippy::useless_conversion, reason = "not so in a simulation")
)]
async fn open(address: SocketAddr) -> io::Result<Stream> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        crate::simulation::network::reach(address.ip()).await;
        return Stream::simulated(address).await;
    }
    Ok(TcpStream::connect(address).await?.into())
}

/// Sets what each stream between nodes wants: no waiting for more bytes, and an end when the other side has vanished.
pub(crate) fn prepare(stream: &Stream) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    let Some(stream) = stream.real() else { return Ok(()) };
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The byte that a stream begins with, which stays there; none where it has ended. A simulated stream does not show it.
pub(crate) async fn first_byte(stream: &Stream) -> io::Result<Option<u8>> {
    #[cfg(feature = "simulation")]
    let Some(stream) = stream.real() else { return Ok(None) };
    let mut first = [0];
    Ok((stream.peek(&mut first).await? > 0).then_some(first[0]))
}

/// Takes a stream from the runtime that it was opened on.
#[cfg(not(feature = "simulation"))]
pub(crate) fn detach(stream: Stream) -> io::Result<Detached> {
    stream.into_std()
}

/// Takes a stream from the runtime that it was opened on.
#[cfg(feature = "simulation")]
pub(crate) fn detach(stream: Stream) -> io::Result<Detached> {
    stream.detach()
}

/// Gives a stream to the runtime that this is called on.
#[cfg(not(feature = "simulation"))]
pub(crate) fn attach(stream: Detached) -> io::Result<Stream> {
    TcpStream::from_std(stream)
}

/// Gives a stream to the runtime that this is called on.
#[cfg(feature = "simulation")]
pub(crate) fn attach(stream: Detached) -> io::Result<Stream> {
    stream.attach()
}

/// Does on another thread what takes long or waits for the disk.
///
/// # Errors
/// When it has panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Which of this machine's addresses a packet to `target` would leave from. Nothing is sent.
pub(crate) async fn source_address_towards(target: SocketAddr) -> io::Result<std::net::IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

/// Fresh random bytes from the operating system. (A simulation takes its place below this, where everything that wants
/// such bytes gets them: in `getrandom`.)
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
