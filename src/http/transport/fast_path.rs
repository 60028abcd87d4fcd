//! Requests for one path that come as nearly all of them do, answered without a detour.
//!
//! hyper takes a request apart into a map of headers and a channel for its body, and puts an answer together in the same
//! way: for a check that is more work than to decide it. So a connection begins here. As long as whole requests for the path
//! come, in HTTP/1.1 and with nothing in their heads that asks for anything special, each is read where it lies and its answer
//! is written at once. With the first other request hyper keeps the connection, together with what was read: what is
//! not understood here is not refused here (decision 11).

use std::{
    io,
    mem::{self, MaybeUninit},
};

use bytes::{Buf as _, BytesMut};
use httparse::Status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    activity::Activity,
    head::is_host,
    reply::Replies,
    service::{ConnectionService, Credentials, FastPath, Limits, MAX_HEADERS, Question},
    stream::ClientStream,
};
use crate::ending::Ending;

/// Bytes that are read at once, at least.
const READ_BYTES: usize = 8 << 10;
/// Bytes of each buffer that a connection keeps while it is idle.
const KEPT_BYTES: usize = 16 << 10;
/// Answers are written when so many bytes are there, though questions are left: who does not read does not fill the memory.
const WRITE_BYTES: usize = 64 << 10;

/// Answers whole requests for `path` until something else comes, which is returned, or the connection ends. While the server
/// closes, hyper is to have the last one that has come: it tells the client.
pub(super) async fn answer_whole<S: ConnectionService>(
    stream: &mut ClientStream,
    service: &S,
    path: FastPath,
    activity: &Activity,
    limits: &Limits,
    ending: &Ending,
) -> io::Result<Option<BytesMut>> {
    let (mut input, mut replies) = (BytesMut::new(), Replies::default());
    let mut is_large = false;
    loop {
        input.reserve(READ_BYTES);
        // Seen here, because a buffer does not count what it has advanced over.
        is_large |= input.capacity() > KEPT_BYTES;
        if stream.read_buf(&mut input).await? == 0 {
            // What is left is no whole request: hyper knows what to say, if anything.
            return Ok((!input.is_empty()).then_some(input));
        }
        let is_closing = ending.is_closing();
        let mut used = 0;
        let mut rest = parse_first(&input, path, limits.max_head_bytes);
        while let First::Whole { question, credentials, length } = rest {
            // The last one of those that have come is hyper's.
            let next = || parse_first(&input[used + length..], path, limits.max_head_bytes);
            if is_closing && !matches!(next(), First::Whole { .. }) {
                break;
            }
            activity.note_request();
            service.answer(question, credentials, &mut replies).await;
            activity.note_answer();
            used += length;
            rest = parse_first(&input[used..], path, limits.max_head_bytes);
            if replies.out.len() >= WRITE_BYTES {
                write(stream, &mut replies.out).await?;
            }
        }
        write(stream, &mut replies.out).await?;
        if is_closing {
            input.advance(used);
            return Ok(Some(input));
        }
        if used == input.len() {
            // Without a trace, so that its memory is used from the start again.
            if mem::take(&mut is_large) {
                input = BytesMut::new();
            } else {
                input.clear();
            }
            continue;
        }
        if used == 0 || rest != First::Part {
            input.advance(used);
            return Ok(Some(input));
        }
        input.advance(used);
        // A part of the next request, as pipelines have it: the patience with its head begins.
        activity.note_read();
    }
}

/// Writes all of it. Only as much memory as that of most connections is kept.
async fn write(stream: &mut ClientStream, out: &mut BytesMut) -> io::Result<()> {
    let is_large = out.len() > KEPT_BYTES;
    stream.write_all_buf(out).await?;
    if is_large {
        *out = BytesMut::new();
    }
    Ok(())
}

/// What some bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First<'a> {
    /// A whole request for the path, of so many bytes.
    Whole { question: Question<'a>, credentials: Credentials<'a>, length: usize },
    /// What may become one.
    Part,
    /// Something that hyper is to look at.
    Other,
}

fn parse_first(input: &[u8], path: FastPath, max_head: usize) -> First<'_> {
    // Most of what is something else is seen at once.
    let begins = |method: &[u8]| {
        let (head, rest) = input.split_at(input.len().min(method.len()));
        let target = rest.len().min(path.path.len());
        method.starts_with(head) && rest[..target] == path.path.as_bytes()[..target]
    };
    if !begins(b"GET ") && !begins(b"POST ") {
        return First::Other;
    }
    parse(input, path, max_head).unwrap_or(First::Other)
}

/// The request that `input` begins with, or what it has of it; `None` if something about it is for hyper to look at.
fn parse(input: &[u8], path: FastPath, max_head: usize) -> Option<First<'_>> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let Status::Complete(head) = request.parse_with_uninit_headers(input, &mut headers).ok()? else {
        return Some(First::Part);
    };
    if head > max_head || request.version != Some(1) {
        return None;
    }
    let target = request.path?.strip_prefix(path.path)?;
    let query = match target.strip_prefix('?') {
        Some(query) if query.bytes().all(is_of_query) => Some(query),
        None if target.is_empty() => None,
        _ => return None,
    };
    let (mut length, mut hosts, mut encoded) = (None, 0, false);
    let mut credentials = Credentials::default();
    for header in &*request.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Nearly all other headers differ in their length already.
        match header.name.len() {
            14 if is("content-length") => {
                if length.is_some() {
                    return None;
                }
                length = Some(decimal(header.value)?);
            }
            4 if is("host") => {
                if !is_host(header.value) {
                    return None;
                }
                hosts += 1;
            }
            16 if is("content-encoding") => encoded = true,
            13 if is("authorization") && credentials.authorization.replace(header.value).is_some() => {
                return None;
            }
            16 if is("x-tidegate-token") && credentials.token.replace(header.value).is_some() => return None,
            10 if is("connection") && !header.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            17 if is("transfer-encoding") => return None,
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            _ => {}
        }
    }
    if hosts != 1 {
        return None;
    }
    match (request.method?, length) {
        ("GET", None | Some(0)) => {
            Some(First::Whole { question: Question::Query(query), credentials, length: head })
        }
        // What a query means beside a body is no question of the fast path.
        ("POST", Some(body)) if !encoded && query.is_none() && (1..=path.max_body_bytes).contains(&body) => {
            Some(match input.get(head..head + body) {
                Some(text) => {
                    First::Whole { question: Question::Body(text), credentials, length: head + body }
                }
                None => First::Part,
            })
        }
        _ => None,
    }
}

/// What a query is made of (RFC 3986, section 3.4). Clients send other bytes too: what becomes of those hyper decides.
fn is_of_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

fn decimal(text: &[u8]) -> Option<usize> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::http) mod fuzzing;

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: FastPath = FastPath { path: "/v1/check", max_body_bytes: 64 << 10 };

    fn first(input: &[u8], max_head: usize) -> First<'_> {
        parse_first(input, PATH, max_head)
    }

    fn found(input: &str) -> Option<(Question<'_>, usize)> {
        match first(input.as_bytes(), 16 << 10) {
            First::Whole { question, length, .. } => Some((question, length)),
            First::Part | First::Other => None,
        }
    }

    #[test]
    fn a_part_of_a_request_is_told_from_something_else() {
        let post = "POST /v1/check HTTP/1.1\r\nContent-Length: 2\r\nhost: a\r\n\r\n{}";
        for end in 0..post.len() {
            assert_eq!(first(&post.as_bytes()[..end], 16 << 10), First::Part, "{end}");
        }
        for other in [
            "X",
            "GETS",
            "GET /v1/cl",
            "POST/v1/check",
            "nonsense\r\n\r\n",
            "GET /v1/check HTTP/1.1\r\nbroken\r\n\r\n",
        ] {
            assert_eq!(first(other.as_bytes(), 16 << 10), First::Other, "{other:?}");
        }
    }

    #[test]
    fn whole_requests_are_found_with_their_length() {
        let get = "GET /v1/check?user=ada&cost=2 HTTP/1.1\r\nhost: a\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(found(get), Some((Question::Query(Some("user=ada&cost=2")), get.len())));
        assert_eq!(found(&format!("{get}GET /v1")).unwrap().1, get.len(), "what follows is another one");
        let plain = "GET /v1/check HTTP/1.1\r\nhost:\r\n\r\n";
        assert_eq!(found(plain), Some((Question::Query(None), plain.len())));
        let post = "POST /v1/check HTTP/1.1\r\nContent-Length: 2\r\nhost: a\r\n\r\n{}";
        assert_eq!(found(post), Some((Question::Body(b"{}"), post.len())));
        assert_eq!(found(&format!("{post}xx")).unwrap().1, post.len());
    }

    #[test]
    fn what_says_who_asks_is_found() {
        let get = "GET /v1/check?a=b HTTP/1.1\r\nhost: a\r\nAuthorization: Bearer tg_a\r\nx-tidegate-token: tg_b\r\n\r\n";
        let First::Whole { credentials, .. } = first(get.as_bytes(), 16 << 10) else { panic!("{get}") };
        assert_eq!(credentials.authorization, Some(&b"Bearer tg_a"[..]));
        assert_eq!(credentials.token, Some(&b"tg_b"[..]));
        let twice = get.replace("x-tidegate-token", "authorization");
        assert_eq!(found(&twice), None, "which one counts hyper decides");
    }

    #[test]
    fn everything_else_is_left_alone() {
        for other in [
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\n",
            "GET /v1/check?user=ada HTTP/1.0\r\nhost: a\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a b\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a, b\r\n\r\n",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-encoding: gzip\r\n\r\n{}",
            "POST /v1/check?cost=5 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
            "GET /v1/check/batch HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /v1/checks HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /v1/check?user=\"ada\" HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /v1/check?user=ada#top HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET http://a/v1/check?user=ada HTTP/1.1\r\nhost: a\r\n\r\n",
            "HEAD /v1/check?user=ada HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n\r\n",
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\nbroken\r\n\r\n",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2, 2\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
            "POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n{}",
        ] {
            assert_eq!(found(other), None, "{other:?}");
        }
        let long =
            format!("GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n", "x".repeat(16 << 10));
        assert_eq!(found(&long), None);
        let many = format!(
            "GET /v1/check?user=ada HTTP/1.1\r\nhost: a\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(found(&many), None);
    }
}
