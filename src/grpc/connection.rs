//! One HTTP/2 connection, and how much a client may ask of it.
//!
//! | what | limit | beyond it |
//! | --- | --- | --- |
//! | the first 24 bytes | 5 s | closed |
//! | requests at a time | [`MAX_STREAMS`] | refused by HTTP/2 |
//! | requests that are reset as fast as they come | 32 | closed (rapid reset) |
//! | headers of a request | [`MAX_HEADER_BYTES`] | 431 |
//! | bytes of requests that nobody has read | [`CONNECTION_WINDOW`] | the client waits |
//! | a client that does not answer a ping | [`PING_EVERY`] + [`PING_TIMEOUT`] | closed |

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::front::Front;

/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 256;
/// Requests that were reset before they were looked at.
const MAX_RESETS: usize = 32;
/// Bytes of a request's headers.
const MAX_HEADER_BYTES: u32 = 8 << 10;
/// Bytes of one request that may be on their way.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes of all requests of a connection that may be on their way.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of answers that wait for a slow client, for each request.
const MAX_UNSENT_BYTES: usize = 64 << 10;
/// For what every connection begins with.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// For its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is being answered when the server stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NOT_HTTP_1: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nThis port speaks gRPC, that is HTTP/2 without TLS. HTTP is one port below.\n";

/// Serves a connection until either side ends it. Told to stop, it answers what has come.
pub(super) async fn serve(mut tcp: TcpStream, front: Front, stop: CancellationToken) {
    let begun = tokio::select! {
        begun = timeout(PREFACE_TIMEOUT, begins_as_http_2(&mut tcp)) => begun,
        () = stop.cancelled() => return,
    };
    match begun {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            // Whoever does not listen has missed it.
            let _ = timeout(PREFACE_TIMEOUT, tcp.write_all(NOT_HTTP_1)).await;
            return;
        }
        Ok(Err(_)) | Err(_) => return,
    }
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_UNSENT_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(Begun { tcp, given: 0 }), front);
    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            // Why a client has gone is its own affair.
            _ = &mut connection => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// hyper has no deadline for this, and pings only after it.
async fn begins_as_http_2(tcp: &mut TcpStream) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() {
        match tcp.read(&mut bytes[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
        if bytes[..length] != PREFACE[..length] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A connection of which the first bytes were read already: hyper is given them once more.
struct Begun {
    tcp: TcpStream,
    /// Bytes of the preface.
    given: usize,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < PREFACE.len() {
            let length = buf.remaining().min(PREFACE.len() - self.given);
            buf.put_slice(&PREFACE[self.given..self.given + length]);
            self.given += length;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
