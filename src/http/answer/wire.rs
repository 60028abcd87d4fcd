//! The answer as the bytes of an HTTP/1.1 message: the same that `response` gives to hyper.

use std::time::Duration;

use bytes::BytesMut;

use crate::{
    check::{CheckAnswer, Problem},
    http::transport::Replies,
    rate_limit_headers::{self, HeaderSink, Name},
};

impl CheckAnswer<'_> {
    /// Appends the whole response. `legacy` is as the headers take it.
    pub(in crate::http) fn write_to(
        &self,
        replies: &mut Replies,
        legacy: Option<Duration>,
        unix_millis: u64,
    ) {
        let head = |out: &mut BytesMut| {
            out.extend_from_slice(if self.allowed {
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
            } else {
                b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
            });
            rate_limit_headers::write(self, legacy, &mut Lines(out));
        };
        replies.write(unix_millis, head, |out| self.write_json(out));
    }
}

impl Problem {
    /// Appends what was wrong. The connection can be used again.
    pub(in crate::http) fn write_to(&self, replies: &mut Replies, unix_millis: u64) {
        replies.write_whole(unix_millis, &self.first_lines(), &self.to_json());
    }
}

/// Headers, each as its line.
struct Lines<'o>(&'o mut BytesMut);

impl HeaderSink for Lines<'_> {
    #[inline]
    fn header(&mut self, name: &'static Name, write: impl FnOnce(&mut BytesMut)) {
        self.0.extend_from_slice(name.line);
        write(self.0);
        self.0.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::check::{Decider, Numbers, Policy, ProblemKind};

    /// As hyper would send it, but for the order of the headers.
    async fn assert_same(answer: CheckAnswer<'_>, legacy: Option<Duration>) {
        let mut replies = Replies::default();
        answer.write_to(&mut replies, legacy, 1_795_705_398_999);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(replies.as_bytes()).unwrap().unwrap();
        let (parts, body) = answer.to_response(legacy).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(&replies.as_bytes()[head..], &body);
        assert_eq!(response.code, Some(parts.status.as_u16()));
        assert_eq!(response.reason, parts.status.canonical_reason());
        let mut told: Vec<(String, Vec<u8>)> =
            response.headers.iter().map(|header| (header.name.to_owned(), header.value.to_owned())).collect();
        let mut expected: Vec<(String, Vec<u8>)> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_owned()))
            .chain([
                ("content-length".to_owned(), body.len().to_string().into_bytes()),
                ("date".to_owned(), b"Thu, 26 Nov 2026 15:03:18 GMT".to_vec()),
            ])
            .collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn an_answer_is_the_one_that_hyper_gives() {
        let policy = |name| Policy {
            name,
            count: 5,
            window: Duration::from_secs(60),
            quota: 5,
            quota_window: Duration::from_secs(60),
            remaining: 0,
            more_after: Duration::from_millis(59_001),
            denied: true,
            banned: false,
        };
        let policies = [policy("login"), policy("a \"b\"\n")];
        let numbers = Numbers {
            limit: 10,
            remaining: 0,
            reset_after: Duration::from_millis(59_001),
            retry_after: Some(Duration::from_micros(1_500)),
            delay: Duration::ZERO,
            banned: false,
        };
        let denied = CheckAnswer {
            allowed: false,
            rule: Some("login"),
            numbers: Some(numbers),
            decided_by: Decider::Owner,
            node: "n1",
            policies: &policies,
            shadow: None,
        };
        assert_same(denied, Some(Duration::from_secs(7))).await;
        assert_same(CheckAnswer { policies: &policies[..1], ..denied }, None).await;
        assert_same(CheckAnswer { allowed: true, policies: &[], ..denied }, Some(Duration::from_secs(7)))
            .await;
        let unlimited = CheckAnswer { allowed: true, rule: None, numbers: None, policies: &[], ..denied };
        assert_same(unlimited, Some(Duration::from_secs(7))).await;
        let never = Numbers { retry_after: None, ..numbers };
        assert_same(CheckAnswer { numbers: Some(never), ..denied }, Some(Duration::from_secs(7))).await;
    }

    #[tokio::test]
    async fn a_problem_is_the_one_that_hyper_gives() {
        let problem = Problem::new(ProblemKind::NotReady, "not yet");
        let mut replies = Replies::default();
        problem.write_to(&mut replies, 1_795_705_398_999);
        let text = String::from_utf8(replies.as_bytes().to_vec()).unwrap();
        let body = problem.clone().into_http().into_body().collect().await.unwrap().to_bytes();
        assert!(
            text.starts_with(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n"
            )
        );
        for header in ["cache-control: no-store", "retry-after: 1", "date: Thu, 26 Nov 2026 15:03:18 GMT"] {
            assert!(text.contains(&format!("\r\n{header}\r\n")), "{header} is not in {text}");
        }
        assert!(text.ends_with(&format!(
            "content-length: {}\r\ndate: Thu, 26 Nov 2026 15:03:18 GMT\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(&body)
        )));
    }
}
