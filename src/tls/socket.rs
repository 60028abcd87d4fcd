//! A client's connection: plain, or over TLS.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustix::net::{RecvFlags, recv};
use tidegate_tls::{Certificate, TlsStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::paced::Paced;

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(Paced),
    /// With the certificate that the client has shown, if it has.
    Tls(Box<TlsStream<Paced>>, Option<Arc<Certificate>>),
}

impl Socket {
    /// Without TLS.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self::Plain(Paced::new(tcp))
    }

    /// What the client has shown, and what the authorities of clients have vouched for.
    pub(crate) fn certificate(&self) -> Option<&Arc<Certificate>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, certificate) => certificate.as_ref(),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp.tcp(),
            Self::Tls(stream, _) => stream.io().tcp(),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// Whether the client has sent something that was not read yet.
    pub(crate) fn has_more(&mut self) -> bool {
        if let Self::Tls(stream, _) = self
            && stream.has_unread()
        {
            return true;
        }
        // Not by what the runtime remembers, which says no after each read that did not fill its buffer.
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(self.tcp(), &mut [0_u8], flags).is_ok_and(|(bytes, _)| bytes > 0)
    }

    /// Writes what can be written without waiting, if that can be told at all.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.tcp().try_write(bytes),
            Self::Tls(..) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
