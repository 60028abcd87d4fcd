//! The bodies of one request and of its answer, as the services of tonic know them.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::Response;
use hyper::body::{Body as HttpBody, Frame};
use tokio::{task::yield_now, time::timeout};
use tonic::body::Body;

use super::outgoing::{Backlog, Outgoing};
use crate::parts::Part;

/// What a request takes that has not come as a whole, besides its message: its headers, and what h2 keeps of it.
const LEAST_BYTES: usize = 4 << 10;
/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// What an answer takes that waits for its client, besides its message.
const LEAST_UNSENT_BYTES: usize = 4 << 10;
/// For a client to take some of its answer.
const TAKES_WITHIN: Duration = Duration::from_secs(10);

/// What a client sends.
pub(super) struct Incoming {
    /// What was read of it already.
    begun: Option<Bytes>,
    stream: RecvStream,
    /// Bytes that are still read of it.
    left: usize,
}

impl Incoming {
    pub(super) fn new(begun: Option<Bytes>, stream: RecvStream) -> Self {
        Self { begun, stream, left: usize::MAX }
    }

    /// The same, of which a service reads no more than so many bytes, beside what was gathered.
    pub(super) fn bounded(self, left: usize) -> Self {
        Self { left, ..self }
    }

    /// Reads all of it, a message of at most `max` bytes. What has to be kept until more comes takes room.
    pub(super) async fn gather(&mut self, max: usize, part: &mut Part) -> Result<(), NotWhole> {
        self.gather_until(|_| false, max, part).await
    }

    /// The same of the first message. Others may be behind it.
    pub(super) async fn gather_first(&mut self, max: usize, part: &mut Part) -> Result<(), NotWhole> {
        self.gather_until(has_message, max, part).await
    }

    async fn gather_until(
        &mut self,
        suffices: impl Fn(&[u8]) -> bool,
        max: usize,
        part: &mut Part,
    ) -> Result<(), NotWhole> {
        let mut several = BytesMut::new();
        loop {
            let come = if several.is_empty() { self.begun.as_deref().unwrap_or_default() } else { &several };
            if suffices(come) {
                break;
            }
            let held = come.len();
            if held > max + PREFIX {
                return Err(NotWhole::TooLong);
            }
            if self.stream.is_end_stream() {
                break;
            }
            let stream = &mut self.stream;
            let next = poll_fn(|cx| match stream.poll_data(cx) {
                Poll::Ready(next) => Poll::Ready(Ok(next)),
                Poll::Pending if part.grow_to(LEAST_BYTES + held) => Poll::Pending,
                Poll::Pending => Poll::Ready(Err(NotWhole::NoRoom)),
            });
            let Some(data) = next.await? else { break };
            let data = data.map_err(|_| NotWhole::BrokenOff)?;
            // The client may send as much again. An error: of a stream that was reset.
            let _ = self.stream.flow_control().release_capacity(data.len());
            match &self.begun {
                None => self.begun = Some(data),
                Some(first) => {
                    if several.is_empty() {
                        several.extend_from_slice(first);
                    }
                    several.extend_from_slice(&data);
                }
            }
        }
        if !several.is_empty() {
            self.begun = Some(several.freeze());
        }
        Ok(())
    }

    /// Takes room for all that has come, until its turn.
    pub(super) fn keep(&self, part: &mut Part) -> bool {
        part.grow_to(LEAST_BYTES + self.begun.as_ref().map_or(0, Bytes::len))
    }
}

/// Whether a whole message is there.
fn has_message(bytes: &[u8]) -> bool {
    match *bytes {
        [_, a, b, c, d, ref message @ ..] => message.len() >= u32::from_be_bytes([a, b, c, d]) as usize,
        _ => false,
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            return Poll::Ready(Some(data.and_then(|bytes| {
                self.left = self.left.checked_sub(bytes.len()).ok_or(Reason::ENHANCE_YOUR_CALM)?;
                // The client may send as much again. An error: of a stream that was reset.
                let _ = self.stream.flow_control().release_capacity(bytes.len());
                Ok(Frame::data(bytes))
            })));
        }
        self.stream.poll_trailers(cx).map(|trailers| trailers.map(|all| all.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.stream.is_end_stream()
    }
}

/// Why a request did not come as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotWhole {
    /// There is no room for what has come of it.
    NoRoom,
    /// The client has given it up.
    BrokenOff,
    /// It has more bytes than allowed.
    TooLong,
}

/// Sends an answer, as fast as the client takes it. Ends early when the client does not want it any more, or takes nothing for
/// [`TAKES_WITHIN`]. What waits takes room.
pub(super) async fn send(
    answer: Response<Body>,
    mut respond: SendResponse<Outgoing>,
    backlog: &Arc<Backlog>,
    mut part: Part,
) {
    let (head, body) = answer.into_parts();
    let ended = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), ended) else { return };
    if ended {
        return;
    }
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let sent = match frame {
            None => stream.send_data(Outgoing::new(Bytes::new(), backlog), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if send_data(&mut stream, data, backlog, &mut part).await {
                        continue;
                    }
                    return;
                }
                Err(frame) => stream.send_trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        // An error: the client has gone.
        return drop(sent);
    }
}

/// Whether the client has taken it, or will. If not, the request is reset.
pub(super) async fn send_data(
    stream: &mut SendStream<Outgoing>,
    mut data: Bytes,
    backlog: &Arc<Backlog>,
    part: &mut Part,
) -> bool {
    if backlog.is_full() {
        // The connection may only not have had its turn to write yet.
        yield_now().await;
    }
    let mut waits = false;
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = if backlog.is_full() { 0 } else { stream.capacity() };
        let room = match room {
            0 => {
                if !part.grow_to(LEAST_UNSENT_BYTES + data.len()) {
                    stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                    return false;
                }
                if !mem::replace(&mut waits, true) {
                    // Without what its buffer has beyond it.
                    data = Bytes::copy_from_slice(&data);
                }
                match timeout(TAKES_WITHIN, until_taken(stream, backlog)).await {
                    Ok(true) => continue,
                    Ok(false) => return false,
                    Err(_elapsed) => {
                        stream.send_reset(Reason::CANCEL);
                        return false;
                    }
                }
            }
            room => room,
        };
        let piece = Outgoing::new(data.split_to(room.min(data.len())), backlog);
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// Until the client takes more, and h2 has less. Whether the request is still there.
async fn until_taken(stream: &mut SendStream<Outgoing>, backlog: &Backlog) -> bool {
    if backlog.is_full() {
        return tokio::select! {
            () = backlog.until_shrunk() => true,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => false,
        };
    }
    matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_)))
}
