//! What the fast path takes from a connection, beside what hyper makes of the same bytes.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::AUTHORIZATION,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

use super::{FastPath, First, Question, parse_first};
use crate::http::transport::{
    examine,
    service::{MAX_HEAD_BYTES, MAX_HEADERS},
};

const PATH: FastPath = FastPath { path: "/v1/check", max_body_bytes: 4 << 10 };

/// What a request says that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    is_post: bool,
    path: String,
    query: Option<String>,
    body: Vec<u8>,
    authorization: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
}

/// The bytes as those that a connection begins with.
pub(crate) fn requests(data: &[u8]) {
    let mut rest = data;
    // A pipeline: what is behind a request is the next one.
    for _ in 0..4 {
        let whole = parse_first(rest, PATH, MAX_HEAD_BYTES);
        is_seen_in_time(rest, whole);
        let First::Whole { question, credentials, length } = whole else { return };
        let of_fast_path = Said {
            is_post: matches!(question, Question::Body(_)),
            path: PATH.path.to_owned(),
            query: if let Question::Query(query) = question { query.map(str::to_owned) } else { None },
            body: if let Question::Body(body) = question { body.to_vec() } else { Vec::new() },
            authorization: credentials.authorization.map(<[u8]>::to_vec),
            token: credentials.token.map(<[u8]>::to_vec),
        };
        let mut of_hyper = by_hyper(&rest[..length]);
        if of_fast_path.is_post {
            // The fast path does not look at the query of a `POST`, and neither does the call.
            of_hyper.iter_mut().for_each(|said| said.query = None);
        }
        assert_eq!(of_hyper, [of_fast_path], "{}", rest[..length].escape_ascii());
        rest = &rest[length..];
    }
}

/// As long as not all of a request is there it may become one; what is no request stays none.
fn is_seen_in_time(bytes: &[u8], whole: First<'_>) {
    let step = 1 + bytes.len() / 16;
    for end in (0..bytes.len()).step_by(step) {
        let part = parse_first(&bytes[..end], PATH, MAX_HEAD_BYTES);
        match (part, whole) {
            (First::Part, First::Whole { length, .. }) => assert!(end < length),
            (First::Part, _) => {}
            (decided, whole) => assert_eq!(decided, whole, "with {end} bytes"),
        }
    }
}

/// What hyper reads from a connection with just these bytes.
fn by_hyper(bytes: &[u8]) -> Vec<Said> {
    let heard: Arc<Mutex<Vec<Said>>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let heard = Arc::clone(&heard);
        async move {
            examine(&request).expect("what the fast path takes has a good head");
            let (head, body) = request.into_parts();
            let value = |name: &str| head.headers.get(name).map(|value| value.as_bytes().to_vec());
            let mut said = Said {
                is_post: head.method == "POST",
                path: head.uri.path().to_owned(),
                query: head.uri.query().map(str::to_owned),
                body: Vec::new(),
                authorization: value(AUTHORIZATION.as_str()),
                token: value("x-tidegate-token"),
            };
            said.body = body.collect().await.expect("the body is whole").to_bytes().to_vec();
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        .serve_connection(Memory(bytes.to_vec(), 0), service);
    let mut connection = pin!(connection);
    // Nothing else in it waits: what it does not do when it is polled so often it does not do.
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..64 {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut context) {
            ended.expect("what the fast path takes hyper takes too");
            break;
        }
    }
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *heard)
}

/// A client that has sent this, and waits.
struct Memory(Vec<u8>, usize);

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.0[self.1..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.1 += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
