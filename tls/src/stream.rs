//! A connection over TLS, whichever end of it this is.

use std::{
    io::{self, BufRead as _, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, HandshakeKind, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Certificate;

/// A connection whose handshake is done.
///
/// What is written may wait in here for the socket. **Reading sends it on first**: who writes an answer and then waits for the next
/// question, as everybody here does, needs no flush between. Shutting down says so to the other end (`close_notify`) behind all that
/// was written.
#[derive(Debug)]
pub struct TlsStream<IO>(tokio_rustls::TlsStream<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// The handshake as a server.
    ///
    /// # Errors
    /// When the connection breaks, or the two do not agree; [`tls_error`] says on what. What lies below comes back: a client hears why
    /// only if it is not closed at once.
    pub async fn accept(io: IO, config: Arc<ServerConfig>) -> Result<Self, (io::Error, IO)> {
        TlsAcceptor::from(config).accept(io).into_fallible().await.map(|stream| Self(stream.into()))
    }

    /// The handshake as a client of the host of this name.
    ///
    /// # Errors
    /// When the connection breaks, or the two do not agree; [`tls_error`] says on what.
    pub async fn connect(io: IO, config: Arc<ClientConfig>, host: ServerName<'static>) -> io::Result<Self> {
        TlsConnector::from(config).connect(host, io).await.map(|stream| Self(stream.into()))
    }

    /// What lies below.
    pub fn io(&self) -> &IO {
        self.0.get_ref().0
    }

    /// What lies below, to be moved elsewhere and put back; whoever reads or writes it itself breaks the connection.
    pub fn io_mut(&mut self) -> &mut IO {
        self.0.get_mut().0
    }

    /// What the other end has shown; none, or one that cannot be read: `None`, which proves nothing.
    pub fn peer_certificate(&self) -> Option<Certificate> {
        let shown: &CertificateDer<'_> = self.0.get_ref().1.peer_certificates()?.first()?;
        Certificate::of(shown).ok()
    }

    /// Whether the handshake went on with an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether something has been read from below and not been taken yet.
    pub fn has_unread(&mut self) -> bool {
        let unread = match &mut self.0 {
            tokio_rustls::TlsStream::Client(stream) => {
                stream.get_mut().1.reader().fill_buf().map(|bytes| !bytes.is_empty())
            }
            tokio_rustls::TlsStream::Server(stream) => {
                stream.get_mut().1.reader().fill_buf().map(|bytes| !bytes.is_empty())
            }
        };
        unread.unwrap_or(false)
    }
}

/// What was wrong with a handshake, or with what came later; `None`: the connection below broke.
pub fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.get_ref().1.wants_write()
            && let Poll::Ready(Err(error)) = Pin::new(&mut self.0).poll_flush(cx)
        {
            return Poll::Ready(Err(error));
        }
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            // Cut off, or closed by a process that has ended: each protocol here knows by itself whether something is missing.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
