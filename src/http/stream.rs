//! A client's connection as hyper sees it: bytes in, bytes out, and three things that hyper leaves open.
//!
//! - It notes in [`Activity`] what the client does, so that somebody can end a connection on which a request trickles in
//!   byte by byte, or none comes, or answers are not read.
//! - hyper refuses a request that it can not parse with an empty body; here that answer gets a body that says why.
//! - The end of a connection *lingers*: closing a socket with unread bytes makes the kernel reset the connection, and
//!   the client might lose the answer that told it what was wrong.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{connection::Activity, problem::early_refusal};

/// Bytes that are read and thrown away after the last answer; beyond that the client is cut off.
const LINGER_BYTES: usize = 4 << 20;

/// A connection of a client.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    activity: Arc<Activity>,
    /// What replaces an empty refusal of hyper, and how many of hyper's bytes it stands for.
    replacement: Option<(Bytes, usize)>,
    end: End,
}

#[derive(Debug)]
enum End {
    Open,
    /// Nothing is written any more; so many bytes were thrown away.
    Lingering(usize),
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, activity: Arc<Activity>) -> Self {
        Self { tcp, activity, replacement: None, end: End::Open }
    }

    /// Writes the replacement out, if there is one; then hyper's own bytes count as written.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        let Some((bytes, stands_for)) = &mut self.replacement else { return Poll::Ready(Ok(None)) };
        while bytes.has_remaining() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        let stands_for = *stands_for;
        self.replacement = None;
        Poll::Ready(Ok(Some(stands_for)))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.replacement.is_none()
            && let Some(refusal) = early_refusal(head)
        {
            self.replacement = Some((refusal, head.len()));
        }
        let written = match self.poll_replacement(cx) {
            Poll::Ready(Ok(Some(stands_for))) => Poll::Ready(Ok(stands_for)),
            Poll::Ready(Ok(None)) => write(Pin::new(&mut self.tcp), cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.activity.note_write(written.is_pending());
        written
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.note_read();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, buf, |tcp, cx| tcp.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let head: &[u8] = if let [head] = bufs { head } else { &[] };
        self.poll_write_with(cx, head, |tcp, cx| tcp.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let End::Open = this.end {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
            this.end = End::Lingering(0);
            this.activity.note_end();
        }
        let mut waste = [0; 8 << 10];
        while let End::Lingering(read) = &mut this.end
            && *read < LINGER_BYTES
        {
            let mut buf = ReadBuf::new(&mut waste);
            let more = ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut buf));
            if more.is_err() || buf.filled().is_empty() {
                break;
            }
            *read += buf.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
