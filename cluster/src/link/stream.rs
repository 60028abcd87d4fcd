//! A stream between nodes: plain, or over TLS with certificates at both ends.
//!
//! With TLS nothing of what is said on it changes: the greeting, the proof of the cluster key and the seals stay, so that a
//! certificate alone makes nobody a node, and neither does the key alone (decision 21).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use tidegate_tls::{Certificate, TLS_BEGINS, TlsStream, rustls::pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::handshake::{HandshakeError, Identity, must_be_for, turn_away, within_deadline};
use crate::{
    config::{PeerEncryption, PeerTls},
    fabric,
};

/// A stream to or from a peer.
#[derive(Debug)]
pub(crate) enum PeerStream {
    Plain(fabric::Stream),
    /// With what the peer has shown.
    Tls(Box<TlsStream<Slot>>, Certificate),
}

/// A stream that belongs to no runtime.
pub(crate) enum Detached {
    Plain(fabric::Detached),
    Tls(Box<TlsStream<Slot>>, Certificate, fabric::Detached),
}

/// The reading half of a stream.
pub(crate) enum ReadHalf {
    Plain(fabric::ReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<Slot>>),
}

/// The writing half of a stream.
pub(crate) enum WriteHalf {
    Plain(fabric::WriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<Slot>>),
}

/// Opens a stream to the node that is `expected` at an address, or to whichever is there.
pub(crate) async fn dial(
    address: SocketAddr,
    identity: &Identity,
    expected: Option<&str>,
) -> Result<PeerStream, HandshakeError> {
    let stream = fabric::connect(address).await?;
    let Some(tls) = &identity.tls else { return Ok(PeerStream::Plain(stream)) };
    match within_deadline(PeerStream::connect(stream, tls)).await {
        Ok(stream) => {
            if let Some(expected) = expected {
                must_be_for(stream.certificate(), expected)?;
            }
            Ok(stream)
        }
        // It has no TLS yet, or none any more.
        Err(error) if tls.encryption == PeerEncryption::Optional => {
            debug!(%address, %error, "no TLS with this peer: the stream is plain (--peer-tls optional)");
            Ok(PeerStream::Plain(fabric::connect(address).await?))
        }
        Err(error) => Err(error),
    }
}

/// The other end of [`dial`].
pub(crate) async fn accept(
    mut stream: fabric::Stream,
    identity: &Identity,
) -> Result<PeerStream, HandshakeError> {
    let Some(tls) = &identity.tls else { return Ok(PeerStream::Plain(stream)) };
    let first = within_deadline(async { Ok(fabric::first_byte(&stream).await?) }).await?;
    if first == Some(TLS_BEGINS) {
        return within_deadline(PeerStream::accept(stream, tls)).await;
    }
    if tls.encryption == PeerEncryption::Optional {
        return Ok(PeerStream::Plain(stream));
    }
    let error = HandshakeError::PlainText;
    if let Some(refusal) = error.refusal() {
        turn_away(&mut stream, refusal).await;
    }
    Err(error)
}

impl PeerStream {
    async fn connect(stream: fabric::Stream, tls: &PeerTls) -> Result<Self, HandshakeError> {
        // It is in no certificate: nodes are known by name.
        let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let client = tls.configs.get().client.clone();
        Self::of(TlsStream::connect(Slot(Some(stream)), client, nobody).await)
    }

    async fn accept(stream: fabric::Stream, tls: &PeerTls) -> Result<Self, HandshakeError> {
        let server = tls.configs.get().server.clone();
        Self::of(TlsStream::accept(Slot(Some(stream)), server).await.map_err(|(error, _)| error))
    }

    fn of(stream: io::Result<TlsStream<Slot>>) -> Result<Self, HandshakeError> {
        let stream = stream.map_err(HandshakeError::Tls)?;
        // Nothing that is shown is nothing that is proved: its name could not be looked for.
        let certificate = stream.peer_certificate().ok_or(HandshakeError::NoCertificate)?;
        Ok(Self::Tls(Box::new(stream), certificate))
    }

    /// What the peer has shown; none: the stream is plain.
    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, certificate) => Some(certificate),
        }
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(stream, _) => {
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }

    /// Takes it from the runtime that it was opened on.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Plain(stream) => Detached::Plain(fabric::detach(stream)?),
            Self::Tls(mut stream, certificate) => {
                let below = stream.io_mut().0.take().ok_or(io::ErrorKind::NotConnected)?;
                Detached::Tls(stream, certificate, fabric::detach(below)?)
            }
        })
    }
}

impl Detached {
    /// Gives it to the runtime that this is called on.
    pub(crate) fn attach(self) -> io::Result<PeerStream> {
        Ok(match self {
            Self::Plain(stream) => PeerStream::Plain(fabric::attach(stream)?),
            Self::Tls(mut stream, certificate, below) => {
                stream.io_mut().0 = Some(fabric::attach(below)?);
                PeerStream::Tls(stream, certificate)
            }
        })
    }
}

/// What lies below TLS; `None` only while it moves from one runtime to another.
#[derive(Debug)]
pub(crate) struct Slot(Option<fabric::Stream>);

impl Slot {
    fn stream(&mut self) -> io::Result<Pin<&mut fabric::Stream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Slot {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Slot {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl AsyncRead for PeerStream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PeerStream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for ReadHalf {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write(cx, buf),
            Self::Tls(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_flush(cx),
            Self::Tls(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidegate_tls::{
        client,
        files::{Proof, authorities},
        server::{self, ClientAuth},
    };

    use super::*;

    #[tokio::test]
    async fn a_peer_over_tls_that_has_shown_nothing_is_none() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("n1.crt"), directory.path().join("n1.key"));
        let made = rcgen::generate_simple_self_signed(vec!["n1".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        // As if a peer had got through the handshake with what cannot be read.
        let listener =
            server::config(&Proof::read(&certificate, &key).unwrap(), &ClientAuth::Off, &[]).unwrap();
        let caller = client::config(authorities(&certificate).unwrap(), None, &[]).unwrap();
        let port = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let here = fabric::connect(port.local_addr().unwrap()).await.unwrap();
        let (there, _) = port.accept().await.unwrap();
        let name = ServerName::try_from("n1").unwrap();
        let (called, accepted) = tokio::join!(
            TlsStream::connect(there, caller, name),
            TlsStream::accept(Slot(Some(here)), listener),
        );
        assert!(called.is_ok());
        let stream = PeerStream::of(accepted.map_err(|(error, _)| error));
        assert!(matches!(stream, Err(HandshakeError::NoCertificate)), "{stream:?}");
    }
}
