//! The bodies of one request and of its answer, as the services of tonic know them.

use std::{
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::Response;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::timeout;
use tonic::body::Body;

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
}

impl Incoming {
    pub(super) fn new(begun: Option<Bytes>, stream: RecvStream) -> Self {
        Self { begun, stream }
    }

    /// Reads all of it, a message of at most `max` bytes. What has to be kept until more comes takes room.
    pub(super) async fn gather(&mut self, max: usize, part: &mut Part) -> Result<(), NotWhole> {
        let mut several = BytesMut::new();
        loop {
            let held = several.len().max(self.begun.as_ref().map_or(0, Bytes::len));
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
            return Poll::Ready(Some(data.map(|bytes| {
                // The client may send as much again. An error: of a stream that was reset.
                let _ = self.stream.flow_control().release_capacity(bytes.len());
                Frame::data(bytes)
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
pub(super) async fn send(answer: Response<Body>, mut respond: SendResponse<Bytes>, mut part: Part) {
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
            None => stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if send_data(&mut stream, data, &mut part).await {
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
pub(super) async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, part: &mut Part) -> bool {
    let mut waits = false;
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => {
                if !part.grow_to(LEAST_UNSENT_BYTES + data.len()) {
                    stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                    return false;
                }
                if !mem::replace(&mut waits, true) {
                    // Without what its buffer has beyond it.
                    data = Bytes::copy_from_slice(&data);
                }
                match timeout(TAKES_WITHIN, poll_fn(|cx| stream.poll_capacity(cx))).await {
                    Ok(Some(Ok(room))) => room,
                    Ok(Some(Err(_)) | None) => return false,
                    Err(_elapsed) => {
                        stream.send_reset(Reason::CANCEL);
                        return false;
                    }
                }
            }
            room => room,
        };
        if stream.send_data(data.split_to(room.min(data.len())), false).is_err() {
            return false;
        }
    }
    true
}
