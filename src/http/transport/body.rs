//! Reads a request's body, no larger and no slower than allowed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Request, body::Body};
use tokio::time::timeout;

use super::head::{is_plain, waits};
use crate::parts::Part;

/// For the whole body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a body above its limit that are read and thrown away, because a client that is still sending may not read
/// the answer.
const MAX_WASTE_BYTES: usize = 4 << 20;

/// What a body takes at least: a piece of it keeps the buffer in which it came.
const LEAST_BYTES: usize = 1 << 10;

/// Why a body was not read. What was not read of it is still on its way, if it comes at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum BodyError {
    #[error("the body has more than the {max} bytes that this call takes")]
    TooLarge { max: usize },
    #[error("the body was not complete after {} s", after.as_secs())]
    Timeout { after: Duration },
    #[error("the body is compressed (Content-Encoding), and is taken only as it is")]
    Encoded,
    #[error("the body broke off after {received} bytes")]
    Incomplete { received: usize },
    #[error(
        "this node is reading as many bodies as it has room for, or as one client can send at a time; ask again in a moment"
    )]
    NoRoom,
}

/// Reads a body of at most `max` bytes. What has to be kept until the rest comes takes room, as long as there is some.
pub(in crate::http) async fn read<B>(request: Request<B>, max: usize, part: Part) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    if !is_plain(&head.headers) {
        return Err(BodyError::Encoded);
    }
    // hyper tells the client to go on as soon as its body is asked for.
    if waits(&head.headers) && body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge { max });
    }
    let collecting = timeout(READ_TIMEOUT, collect(body, max, part));
    collecting.await.unwrap_or_else(|_elapsed| Err(BodyError::Timeout { after: READ_TIMEOUT }))
}

async fn collect<B>(mut body: B, max: usize, mut part: Part) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = body.size_hint().lower();
    if declared > MAX_WASTE_BYTES as u64 {
        return Err(BodyError::TooLarge { max });
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Incomplete { received })?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > MAX_WASTE_BYTES {
            return Err(BodyError::TooLarge { max });
        }
        if received > max {
            continue;
        }
        if !body.is_end_stream() && !part.grow_to(received.max(LEAST_BYTES)) {
            return Err(BodyError::NoRoom);
        }
        // Nearly always all of it comes at once, and is not copied.
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    match received {
        received if received > max => Err(BodyError::TooLarge { max }),
        _ if rest.is_empty() => Ok(first),
        _ => Ok(rest.freeze()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        net::IpAddr,
        pin::Pin,
        task::{Context, Poll},
    };

    use hyper::body::Frame;

    use super::*;
    use crate::parts::Room;

    /// A body that comes in pieces, and then breaks off, stalls or ends.
    struct Pieces(VecDeque<&'static [u8]>, Then);

    #[derive(Clone, Copy)]
    enum Then {
        End,
        Stall,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match (self.0.pop_front(), self.1) {
                (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
                (None, Then::End) => Poll::Ready(None),
                (None, Then::Stall) => Poll::Pending,
            }
        }
    }

    fn pieces(pieces: &[&'static [u8]], then: Then) -> Request<Pieces> {
        Request::new(Pieces(pieces.iter().copied().collect(), then))
    }

    fn part() -> Part {
        Room::new(64 << 10, 8 << 10).part(None)
    }

    #[tokio::test]
    async fn what_has_to_be_kept_takes_room_until_all_is_there() {
        let room = Room::new(64 << 10, 8 << 10);
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let mut others = room.part(client);
        assert!(others.grow_to(7 << 10));
        let fits = read(pieces(&[b"one", b"two"], Then::End), 64, room.part(client)).await;
        assert_eq!((fits.unwrap(), room.taken()), (Bytes::from_static(b"onetwo"), 7 << 10));
        assert!(others.grow_to(8 << 10));
        let refused = read(pieces(&[b"one", b"two"], Then::End), 64, room.part(client)).await;
        assert_eq!(refused, Err(BodyError::NoRoom));
        let whole = Request::new(http_body_util::Full::new(Bytes::from_static(b"one")));
        assert_eq!(read(whole, 64, room.part(client)).await.unwrap(), "one", "nothing of it waits");
    }

    #[tokio::test]
    async fn pieces_are_put_together() {
        assert_eq!(read(pieces(&[b"one"], Then::End), 64, part()).await.unwrap(), "one");
        assert_eq!(read(pieces(&[b"one", b"two", b"3"], Then::End), 64, part()).await.unwrap(), "onetwo3");
        assert_eq!(read(pieces(&[], Then::End), 64, part()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn one_byte_more_than_allowed_is_too_large() {
        assert_eq!(read(pieces(&[b"12345678"], Then::End), 8, part()).await.unwrap().len(), 8);
        let error = read(pieces(&[b"1234", b"56789"], Then::End), 8, part()).await.unwrap_err();
        assert_eq!(error, BodyError::TooLarge { max: 8 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let error = read(pieces(&[b"1"], Then::Stall), 8, part()).await.unwrap_err();
        assert_eq!(error, BodyError::Timeout { after: READ_TIMEOUT });
    }

    #[tokio::test]
    async fn what_is_compressed_is_not_read() {
        for (coding, is_read) in
            [("gzip", false), ("identity", true), ("Identity, ", true), ("identity, br", false)]
        {
            let mut request = pieces(&[b"{}"], Then::End);
            request.headers_mut().insert("content-encoding", coding.parse().unwrap());
            let read = read(request, 8, part()).await;
            assert_eq!(read.is_ok(), is_read, "{coding}");
            assert!(is_read || read == Err(BodyError::Encoded));
        }
    }

    #[tokio::test]
    async fn who_waits_is_told_at_once_that_it_is_too_much() {
        let mut request = Request::new(http_body_util::Full::new(Bytes::from_static(&[b'x'; 9])));
        request.headers_mut().insert("expect", "100-Continue".parse().unwrap());
        assert_eq!(read(request, 8, part()).await, Err(BodyError::TooLarge { max: 8 }));
    }
}
