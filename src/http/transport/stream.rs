//! A client's connection as hyper sees it, and what hyper leaves open.
//!
//! - It notes in [`Activity`] what the client does, so that somebody can end a connection on which a request trickles in
//!   byte by byte, or none comes, or answers are not read.
//! - hyper answers what it cannot parse with an empty body, and not even that when it flushes whole pipelines (the
//!   rest of the bad request looks like the next one to it). Here such an answer is swallowed, and
//!   [`ClientStream::close`] gives one that says what is wrong.
//! - The end of a connection *lingers*: closing a socket with unread bytes makes the kernel reset the connection, and
//!   the client might lose the answer that told it what was wrong.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use super::activity::Activity;
use crate::tls::{Port, Socket, note_tls};

/// Bytes that are read and thrown away after the last answer; beyond that the client is cut off.
const LINGER_BYTES: usize = 4 << 20;
/// For the last answer and the lingering.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection of a client.
#[derive(Debug)]
pub(super) struct ClientStream {
    socket: Socket,
    /// What was read already, and is to be read again.
    rest: BytesMut,
    activity: Arc<Activity>,
}

impl ClientStream {
    pub(super) fn new(socket: Socket, activity: Arc<Activity>) -> Self {
        Self { socket, rest: BytesMut::new(), activity }
    }

    /// The client speaks TLS to a port that has none.
    pub(super) fn note_tls(&self) {
        note_tls(Port::Http, self.socket.peer_addr().ok());
    }

    /// Gives back what was read, for another reader.
    pub(super) fn put_back(&mut self, rest: BytesMut) {
        self.rest = rest;
    }

    /// Ends the connection so that the client gets everything that was written, and the final response unless it is empty.
    pub(super) async fn close(mut self, final_response: Bytes) {
        let closing = async {
            if !final_response.is_empty() {
                self.socket.write_all(&final_response).await?;
            }
            self.socket.shutdown().await?;
            let mut waste = vec![0; 8 << 10];
            let mut read = 0;
            while read < LINGER_BYTES {
                match self.socket.read(&mut waste).await? {
                    0 => break,
                    more => read += more,
                }
            }
            io::Result::Ok(())
        };
        // A client that is gone, or does not listen, has missed its chance.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        write: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if is_empty_refusal(head) {
            return Poll::Ready(Ok(head.len()));
        }
        let written = write(Pin::new(&mut self.socket), cx);
        match written {
            Poll::Ready(Ok(written)) => self.activity.note_write(Some(written)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.note_write(None),
        }
        written
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let length = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest.split_to(length));
            self.activity.note_read();
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.note_read();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, buf, |socket, cx| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let head: &[u8] = if let [head] = bufs { head } else { &[] };
        self.poll_write_with(cx, head, |socket, cx| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `close` does it.
        Poll::Ready(Ok(()))
    }
}

/// Whether `head` is one of the empty answers that hyper gives to what it cannot parse.
fn is_empty_refusal(head: &[u8]) -> bool {
    const LONGEST: usize = 160;
    const EMPTY: &[u8] = b"content-length: 0\r\n";
    // First what rules out nearly everything.
    head.len() <= LONGEST
        && [&b"HTTP/1.1 400 "[..], b"HTTP/1.1 414 ", b"HTTP/1.1 431 "]
            .iter()
            .any(|line| head.starts_with(line))
        && head.windows(EMPTY.len()).any(|part| part.eq_ignore_ascii_case(EMPTY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_refusals_are_swallowed() {
        let hypers = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Mon, 23 Nov 2026 21:00:00 GMT\r\n\r\n";
        assert!(is_empty_refusal(hypers));
        assert!(!is_empty_refusal(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_empty_refusal(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_empty_refusal(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n"));
        assert!(!is_empty_refusal(b""));
    }
}
