//! A call with one message each way that needs nothing of tonic: the message has come as a whole, and the answer leaves as
//! headers, message and trailers in one write.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use prost::Message;
use tonic::Status;

use super::{
    outgoing::{Backlog, Outgoing},
    stream::send_data,
};
use crate::parts::Part;

/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: &str = "grpc-status";
const OK: HeaderValue = HeaderValue::from_static("0");

/// The only message of a request.
///
/// # Errors
/// What was read of it, if it is not just one message, not compressed and not longer than `max`, that is here already.
/// `cx` is told of the rest only until somebody else waits for it.
pub(super) fn whole(
    request: &mut Request<RecvStream>,
    max: usize,
    cx: &mut Context<'_>,
) -> Result<Bytes, Option<Bytes>> {
    if request.method() != Method::POST || request.headers().contains_key("grpc-encoding") {
        return Err(None);
    }
    let body = request.body_mut();
    let Poll::Ready(Some(Ok(read))) = body.poll_data(cx) else { return Err(None) };
    // Of a stream that was reset.
    let _ = body.flow_control().release_capacity(read.len());
    if !body.is_end_stream() {
        return Err(Some(read));
    }
    match *read {
        [0, a, b, c, d, ..]
            if u32::from_be_bytes([a, b, c, d]) as usize == read.len() - PREFIX
                && read.len() - PREFIX <= max =>
        {
            Ok(read.slice(PREFIX..))
        }
        _ => Err(Some(read)),
    }
}

/// Sends the answer, if the client takes it now. A client that has gone does not hear it.
pub(super) fn send<M: Message>(
    respond: &mut SendResponse<Outgoing>,
    answer: &Result<M, Status>,
    backlog: &Arc<Backlog>,
) -> Option<Unsent> {
    match answer {
        // What fails here fails because the request was reset.
        Ok(message) => send_message(respond, message, backlog).unwrap_or_default(),
        Err(status) => {
            refuse(respond, status.clone());
            None
        }
    }
}

/// Sends an answer that is none. It is headers alone, which no window keeps back.
pub(super) fn refuse(respond: &mut SendResponse<Outgoing>, status: Status) {
    let (head, ()) = status.into_http().into_parts();
    // What fails here fails because the request was reset.
    let _ = respond.send_response(Response::from_parts(head, ()), true);
}

/// An answer for which the client has no window, or behind too much that it has not taken.
#[must_use = "it is not sent"]
pub(super) struct Unsent {
    stream: SendStream<Outgoing>,
    bytes: Bytes,
    backlog: Arc<Backlog>,
}

impl Unsent {
    /// Sends it as soon as the client takes it.
    pub(super) async fn send(mut self, mut part: Part) {
        if send_data(&mut self.stream, self.bytes, &self.backlog, &mut part).await {
            // The client has gone.
            let _ = self.stream.send_trailers(trailers());
        }
    }
}

fn send_message(
    respond: &mut SendResponse<Outgoing>,
    message: &impl Message,
    backlog: &Arc<Backlog>,
) -> Result<Option<Unsent>, h2::Error> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    let mut stream = respond.send_response(head, false)?;
    stream.reserve_capacity(bytes.len());
    if stream.capacity() < bytes.len() || backlog.is_full() {
        return Ok(Some(Unsent { stream, bytes: bytes.freeze(), backlog: Arc::clone(backlog) }));
    }
    stream.send_data(Outgoing::new(bytes.freeze(), backlog), false)?;
    stream.send_trailers(trailers())?;
    Ok(None)
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}
