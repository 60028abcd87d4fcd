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
//! | frames that ask for nothing | [`crate::noise`] | GOAWAY, `ENHANCE_YOUR_CALM` |

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong, Reason, RecvStream, server};
use http::Request;
use smallvec::SmallVec;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    frames::{Counted, PREFACE, Told},
    front::Front,
    outgoing::Outgoing,
};
use crate::{
    ending::Ending,
    tls::{Port, Socket, looks_like_tls, note_tls},
};

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
/// For it when the server stops.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// How often a client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// For its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client that is too noisy, to hear so.
const HEARS_WITHIN: Duration = Duration::from_millis(500);
/// For what is being answered when the server stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

const NOT_HTTP_1: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nThis port speaks gRPC, that is HTTP/2. HTTP is one port below.\n";

/// Serves a connection until either side ends it. While the server closes, a GOAWAY asks the client to open another one, elsewhere;
/// what has come is answered.
pub(super) async fn serve(mut socket: Socket, front: Front, ending: Ending) {
    let Ok(peer) = socket.peer_addr() else { return };
    let front = front.of(peer.ip(), socket.certificate().cloned());
    let silent_at_the_end = async {
        ending.stopped().cancelled().await;
        sleep(BEGINS_WITHIN).await;
    };
    let begun = tokio::select! {
        begun = timeout(PREFACE_TIMEOUT, begins_as_http_2(&mut socket)) => begun,
        () = silent_at_the_end => return,
    };
    match begun {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            // Whoever does not listen has missed it.
            let _ = timeout(PREFACE_TIMEOUT, refuse_http_1(&mut socket)).await;
            return;
        }
        Ok(Err(_)) | Err(_) => return,
    }
    let told = Arc::new(Told::default());
    let handshake = server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_UNSENT_BYTES)
        .handshake(Counted::new(socket, Arc::clone(&told)));
    let Ok(Ok(mut connection)) = timeout(PREFACE_TIMEOUT, handshake).await else { return };
    let Some(pings) = connection.ping_pong() else { return };
    let mut silent = pin!(until_silent(pings));
    let mut closing = pin!(ending.closing());
    // Who has just connected is about to ask: it is told behind that, or it would connect again and again.
    let is_late = ending.is_closing();
    let mut silent_at_the_end = pin!(async {
        ending.stopped().cancelled().await;
        sleep(BEGINS_WITHIN).await;
    });
    let (mut closes, mut is_told, mut has_asked) = (false, false, false);
    // Not `select!` in a loop: this is polled for every request.
    poll_fn(|cx| {
        closes = closes || closing.as_mut().poll(cx).is_ready();
        if closes && !is_told && (!is_late || has_asked || silent_at_the_end.as_mut().poll(cx).is_ready()) {
            is_told = true;
            connection.graceful_shutdown();
        }
        if silent.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let ended = poll_requests(&mut connection, &front, &told, &mut has_asked, cx);
        if told.is_too_noisy() { Poll::Ready(()) } else { ended }
    })
    .await;
    if told.is_too_noisy() {
        front.count_noisy();
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // Whoever does not listen has missed it.
        let _ = timeout(HEARS_WITHIN, poll_fn(|cx| connection.poll_closed(cx))).await;
    }
}

type Connection = server::Connection<Counted, Outgoing>;
type Asked = (Request<RecvStream>, server::SendResponse<Outgoing>);

/// Answers what has come. Ready when the connection has ended; why a client has gone is its own affair.
fn poll_requests(
    connection: &mut Connection,
    front: &Front,
    told: &Told,
    has_asked: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<()> {
    // All are taken before the first is answered: each look for the next one writes what waits to be sent, and the answers to
    // requests that came together are to leave in one write.
    let mut asked: SmallVec<[Asked; 1]> = SmallVec::new();
    loop {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(one))) => asked.push(one),
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
            Poll::Pending => break,
        }
    }
    if !asked.is_empty() {
        *has_asked = true;
        told.note_requests(asked.len());
        for (request, respond) in asked {
            front.answer(request, respond, cx);
        }
        // To write the answers, after the turn of those who wait.
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// Ends when the client does not answer a ping.
async fn until_silent(mut pings: PingPong) {
    loop {
        sleep(PING_EVERY).await;
        let Ok(Ok(_)) = timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await else { return };
    }
}

async fn refuse_http_1(socket: &mut Socket) -> io::Result<()> {
    socket.write_all(NOT_HTTP_1).await?;
    socket.shutdown().await
}

/// h2 has no deadline for this, and pings only after it.
async fn begins_as_http_2(socket: &mut Socket) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() {
        match socket.read(&mut bytes[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
        if bytes[..length] != PREFACE[..length] {
            if looks_like_tls(&bytes[..length]) {
                note_tls(Port::Grpc, socket.peer_addr().ok());
            }
            return Ok(false);
        }
    }
    Ok(true)
}
