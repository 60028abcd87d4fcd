//! The answer to a check as the bytes of an HTTP/1.1 message: the same that `answer.rs` gives to hyper.

use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;

use super::{
    answer::{Answer, Policy, number, seconds},
    problem::Problem,
};

/// Room for the digits of a body's length, which is known only when the body has been written.
const LENGTH: &[u8] = b"     ";

/// Answers of one connection that are to be written.
#[derive(Debug, Default)]
pub struct Replies {
    pub(super) out: BytesMut,
    date: Date,
}

/// The time of a response: put into words once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn at(&mut self, unix_millis: u64) -> &str {
        let second = unix_millis / 1000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

impl Replies {
    /// Appends the answer to a check.
    pub(super) fn answer(&mut self, answer: &Answer<'_>, unix_millis: u64) {
        answer.write_response(&mut self.out, self.date.at(unix_millis));
    }

    /// Appends what was wrong. The connection can be used again.
    pub(super) fn problem(&mut self, problem: &Problem, unix_millis: u64) {
        let body = problem.to_json();
        let (head, date) = (problem.first_lines(), self.date.at(unix_millis));
        let head = format!("{head}content-length: {}\r\ndate: {date}\r\n\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(&body);
    }
}

impl Answer<'_> {
    /// Appends the whole response.
    fn write_response(&self, out: &mut BytesMut, date: &str) {
        out.extend_from_slice(if self.allowed {
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
        } else {
            b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
        });
        if let Some(numbers) = self.numbers {
            if !self.policies.is_empty() {
                items(out, b"ratelimit", self.policies, |policy, out| policy.write_state(out));
                items(out, b"ratelimit-policy", self.policies, |policy, out| policy.write(out));
            }
            if let Some(offset) = self.legacy {
                header(out, b"x-ratelimit-limit: ", numbers.limit);
                header(out, b"x-ratelimit-remaining: ", numbers.remaining);
                header(out, b"x-ratelimit-reset: ", seconds(numbers.reset_after).saturating_add(offset));
            }
            if let (false, Some(wait)) = (self.allowed, numbers.retry_after) {
                header(out, b"retry-after: ", seconds(wait).max(1));
            }
        }
        out.extend_from_slice(b"content-length: ");
        let length = out.len();
        out.extend_from_slice(LENGTH);
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        let body = out.len();
        self.write_json(out);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(out.len() - body).as_bytes();
        // White space before a value means nothing (RFC 9110, section 5.5).
        let end = length + LENGTH.len();
        out[end - digits.len()..end].copy_from_slice(digits);
    }
}

/// A header with an item for each limit. The separator that each of them begins with is, for the first one, that of the
/// header's name.
fn items(
    out: &mut BytesMut,
    name: &[u8],
    policies: &[Policy<'_>],
    write: impl Fn(&Policy<'_>, &mut BytesMut),
) {
    out.extend_from_slice(name);
    let colon = out.len();
    policies.iter().for_each(|policy| write(policy, out));
    out[colon..colon + 2].copy_from_slice(b": ");
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut BytesMut, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    number(out, value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::{
        super::{answer::Numbers, problem::Kind},
        *,
    };

    /// As hyper would send it, but for the order of the headers.
    async fn assert_same(answer: Answer<'_>) {
        let mut replies = Replies::default();
        replies.answer(&answer, 1_795_705_398_999);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(&replies.out).unwrap().unwrap();
        let (parts, body) = answer.to_response().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(&replies.out[head..], &body);
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
            remaining: 0,
            more_after: Duration::from_millis(59_001),
            denied: true,
        };
        let policies = [policy("login"), policy("a \"b\"\n")];
        let numbers = Numbers {
            limit: 10,
            remaining: 0,
            reset_after: Duration::from_millis(59_001),
            retry_after: Some(Duration::from_micros(1_500)),
            delay: Duration::ZERO,
        };
        let denied = Answer {
            allowed: false,
            rule: Some("login"),
            numbers: Some(numbers),
            decided_by: "owner",
            node: "n1",
            policies: &policies,
            legacy: Some(7),
        };
        assert_same(denied).await;
        assert_same(Answer { policies: &policies[..1], legacy: None, ..denied }).await;
        assert_same(Answer { allowed: true, policies: &[], ..denied }).await;
        assert_same(Answer { allowed: true, rule: None, numbers: None, policies: &[], ..denied }).await;
        let never = Numbers { retry_after: None, ..numbers };
        assert_same(Answer { numbers: Some(never), ..denied }).await;
    }

    #[tokio::test]
    async fn a_problem_is_the_one_that_hyper_gives() {
        let problem = Problem::new(Kind::NotReady, "not yet");
        let mut replies = Replies::default();
        replies.problem(&problem, 1_795_705_398_999);
        let text = String::from_utf8(replies.out.to_vec()).unwrap();
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
