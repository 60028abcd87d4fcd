//! Sockets that are the system's or the simulation's. Which they are is decided when they are opened.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::simulation::network::{self, Fate};

/// The machine that has taken a simulated stream; `None`: this end has opened it.
type TakenBy = Option<IpAddr>;

/// The other end of a stream that was taken, or the network between, may have ended it.
fn not_reset(taken_by: TakenBy) -> io::Result<()> {
    match taken_by {
        Some(machine) if network::resets(machine) => Err(io::ErrorKind::ConnectionReset.into()),
        _ => Ok(()),
    }
}

/// What accepts streams.
pub(crate) enum Listener {
    Real(tokio::net::TcpListener),
    Simulated(turmoil::net::TcpListener),
}

/// A stream to or from a peer.
#[derive(Debug)]
pub(crate) enum Stream {
    Real(tokio::net::TcpStream),
    Simulated(turmoil::net::TcpStream, TakenBy),
}

/// A stream that belongs to no runtime.
pub(crate) enum Detached {
    Real(std::net::TcpStream),
    Simulated(turmoil::net::TcpStream, TakenBy),
}

/// The reading half of a stream.
pub(crate) enum ReadHalf {
    Real(tokio::net::tcp::OwnedReadHalf),
    Simulated(turmoil::net::tcp::OwnedReadHalf, TakenBy),
}

/// The writing half of a stream.
pub(crate) enum WriteHalf {
    Real(tokio::net::tcp::OwnedWriteHalf),
    Simulated(turmoil::net::tcp::OwnedWriteHalf, TakenBy),
}

/// What sends and receives gossip.
pub(crate) enum Datagrams {
    Real(tokio::net::UdpSocket),
    Simulated(Arc<turmoil::net::UdpSocket>),
}

impl From<tokio::net::TcpListener> for Listener {
    fn from(real: tokio::net::TcpListener) -> Self {
        Self::Real(real)
    }
}

impl From<tokio::net::TcpStream> for Stream {
    fn from(real: tokio::net::TcpStream) -> Self {
        Self::Real(real)
    }
}

impl From<tokio::net::UdpSocket> for Datagrams {
    fn from(real: tokio::net::UdpSocket) -> Self {
        Self::Real(real)
    }
}

impl Listener {
    pub(super) async fn simulated(address: SocketAddr) -> io::Result<Self> {
        turmoil::net::TcpListener::bind(address).await.map(Self::Simulated)
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        Ok(match self {
            Self::Real(listener) => {
                let (stream, from) = listener.accept().await?;
                (Stream::Real(stream), from)
            }
            Self::Simulated(listener) => {
                let (stream, from) = listener.accept().await?;
                let here = stream.local_addr()?.ip();
                (Stream::Simulated(stream, Some(here)), from)
            }
        })
    }
}

impl Stream {
    pub(super) async fn simulated(address: SocketAddr) -> io::Result<Self> {
        turmoil::net::TcpStream::connect(address).await.map(|stream| Self::Simulated(stream, None))
    }

    pub(super) fn real(&self) -> Option<&tokio::net::TcpStream> {
        match self {
            Self::Real(stream) => Some(stream),
            Self::Simulated(..) => None,
        }
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Real(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Real(read), WriteHalf::Real(write))
            }
            Self::Simulated(stream, taken_by) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Simulated(read, taken_by), WriteHalf::Simulated(write, taken_by))
            }
        }
    }

    pub(super) fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Real(stream) => Detached::Real(stream.into_std()?),
            Self::Simulated(stream, taken_by) => Detached::Simulated(stream, taken_by),
        })
    }
}

impl Detached {
    pub(super) fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Real(stream) => Stream::Real(tokio::net::TcpStream::from_std(stream)?),
            Self::Simulated(stream, taken_by) => Stream::Simulated(stream, taken_by),
        })
    }
}

impl Datagrams {
    pub(super) async fn simulated(address: SocketAddr) -> io::Result<Self> {
        turmoil::net::UdpSocket::bind(address).await.map(|socket| Self::Simulated(Arc::new(socket)))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(socket) => socket.local_addr(),
            Self::Simulated(socket) => socket.local_addr(),
        }
    }

    pub(crate) async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        match self {
            Self::Real(socket) => socket.send_to(datagram, to).await,
            Self::Simulated(socket) => send_simulated(socket, datagram, to).await,
        }
    }

    pub(crate) async fn recv_from(&self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Real(socket) => socket.recv_from(datagram).await,
            Self::Simulated(socket) => socket.recv_from(datagram).await,
        }
    }
}

/// A datagram may be lost, come twice, or come when nobody waits for it any more.
async fn send_simulated(
    socket: &Arc<turmoil::net::UdpSocket>,
    datagram: &[u8],
    to: SocketAddr,
) -> io::Result<usize> {
    match network::fate() {
        Fate::Arrives => {}
        Fate::Lost => return Ok(datagram.len()),
        Fate::Twice => drop(socket.send_to(datagram, to).await?),
        Fate::Late(after) => {
            let (socket, late) = (Arc::clone(socket), datagram.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                // As with any datagram, nobody is told what became of it.
                let _ = socket.send_to(&late, to).await;
            });
            return Ok(datagram.len());
        }
    }
    socket.send_to(datagram, to).await
}

macro_rules! reads {
    ($either:ty) => {
        impl AsyncRead for $either {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_read(context, into),
                    Self::Simulated(simulated, taken_by) => {
                        not_reset(*taken_by)?;
                        Pin::new(simulated).poll_read(context, into)
                    }
                }
            }
        }
    };
}

macro_rules! writes {
    ($either:ty) => {
        impl AsyncWrite for $either {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_write(context, bytes),
                    Self::Simulated(simulated, taken_by) => {
                        not_reset(*taken_by)?;
                        Pin::new(simulated).poll_write(context, bytes)
                    }
                }
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_flush(context),
                    Self::Simulated(simulated, _) => Pin::new(simulated).poll_flush(context),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_shutdown(context),
                    Self::Simulated(simulated, _) => Pin::new(simulated).poll_shutdown(context),
                }
            }
        }
    };
}

reads!(Stream);
reads!(ReadHalf);
writes!(Stream);
writes!(WriteHalf);
