//! Sockets that are the system's or the simulation's. Which they are is decided when they are opened.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What accepts streams.
pub(crate) enum Listener {
    Real(tokio::net::TcpListener),
    Simulated(turmoil::net::TcpListener),
}

/// A stream to or from a peer.
#[derive(Debug)]
pub(crate) enum Stream {
    Real(tokio::net::TcpStream),
    Simulated(turmoil::net::TcpStream),
}

/// A stream that belongs to no runtime.
pub(crate) enum Detached {
    Real(std::net::TcpStream),
    Simulated(turmoil::net::TcpStream),
}

/// The reading half of a stream.
pub(crate) enum ReadHalf {
    Real(tokio::net::tcp::OwnedReadHalf),
    Simulated(turmoil::net::tcp::OwnedReadHalf),
}

/// The writing half of a stream.
pub(crate) enum WriteHalf {
    Real(tokio::net::tcp::OwnedWriteHalf),
    Simulated(turmoil::net::tcp::OwnedWriteHalf),
}

/// What sends and receives gossip.
pub(crate) enum Datagrams {
    Real(tokio::net::UdpSocket),
    Simulated(turmoil::net::UdpSocket),
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
                (Stream::Simulated(stream), from)
            }
        })
    }
}

impl Stream {
    pub(super) async fn simulated(address: SocketAddr) -> io::Result<Self> {
        turmoil::net::TcpStream::connect(address).await.map(Self::Simulated)
    }

    pub(super) fn real(&self) -> Option<&tokio::net::TcpStream> {
        match self {
            Self::Real(stream) => Some(stream),
            Self::Simulated(_) => None,
        }
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Real(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Real(read), WriteHalf::Real(write))
            }
            Self::Simulated(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Simulated(read), WriteHalf::Simulated(write))
            }
        }
    }

    pub(super) fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Real(stream) => Detached::Real(stream.into_std()?),
            Self::Simulated(stream) => Detached::Simulated(stream),
        })
    }
}

impl Detached {
    pub(super) fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Real(stream) => Stream::Real(tokio::net::TcpStream::from_std(stream)?),
            Self::Simulated(stream) => Stream::Simulated(stream),
        })
    }
}

impl Datagrams {
    pub(super) async fn simulated(address: SocketAddr) -> io::Result<Self> {
        turmoil::net::UdpSocket::bind(address).await.map(Self::Simulated)
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
            Self::Simulated(socket) => socket.send_to(datagram, to).await,
        }
    }

    pub(crate) async fn recv_from(&self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Real(socket) => socket.recv_from(datagram).await,
            Self::Simulated(socket) => socket.recv_from(datagram).await,
        }
    }
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
                    Self::Simulated(simulated) => Pin::new(simulated).poll_read(context, into),
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
                    Self::Simulated(simulated) => Pin::new(simulated).poll_write(context, bytes),
                }
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_flush(context),
                    Self::Simulated(simulated) => Pin::new(simulated).poll_flush(context),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(real) => Pin::new(real).poll_shutdown(context),
                    Self::Simulated(simulated) => Pin::new(simulated).poll_shutdown(context),
                }
            }
        }
    };
}

reads!(Stream);
reads!(ReadHalf);
writes!(Stream);
writes!(WriteHalf);
