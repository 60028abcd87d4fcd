//! What a client is told when it is denied by a proxy that has asked: a problem (RFC 9457).

use bytes::BytesMut;
use hyper::StatusCode;

use super::json::{field, string};
use crate::{
    check::{CheckAnswer, Decider},
    rate_limit_headers::{printable, seconds},
};

impl CheckAnswer<'_> {
    /// Appends the problem of a denial, of the types that the draft of the `RateLimit` headers has.
    pub(super) fn write_problem(&self, out: &mut BytesMut, status: StatusCode) {
        let (kind, title) = match self.decided_by {
            Decider::Share | Decider::Fallback => (
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "The service can admit less than usual at the moment",
            ),
            Decider::Unmatched => ("urn:tidegate:problem:no-rule-allows-it", "No rule allows this request"),
            Decider::Owner | Decider::Forwarded | Decider::Memory if self.is_denied_for_ever() => {
                ("urn:tidegate:problem:denied-by-rule", "A rule denies this request")
            }
            Decider::Owner | Decider::Forwarded | Decider::Memory => {
                ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Too many requests")
            }
        };
        let denied = || self.policies.iter().filter(|policy| policy.denied);
        let mut detail = String::new();
        for policy in denied() {
            let (name, count, seconds) = (policy.name, policy.count, policy.window.as_secs_f64());
            detail += &match (policy.denies(), policy.banned) {
                (true, _) => format!("{name} denies. "),
                (false, true) => {
                    format!("{name} allows {count} in {seconds} s, and bans for a time beyond that. ")
                }
                (false, false) => format!("{name} allows {count} in {seconds} s. "),
            };
        }
        if let Some(wait) = self.numbers.and_then(|numbers| numbers.retry_after) {
            detail += &format!("Try again in {} s.", seconds(wait).max(1));
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(title.as_bytes());
        out.extend_from_slice(b"\"");
        field(out, "status", Some(status.as_u16().into()));
        if !detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            string(out, detail.trim_end());
        }
        out.extend_from_slice(b",\"violated-policies\":[");
        for (place, policy) in denied().enumerate() {
            if place > 0 {
                out.extend_from_slice(b",");
            }
            // As the headers have them.
            string(out, &policy.name.chars().map(printable).collect::<String>());
        }
        out.extend_from_slice(b"]}");
    }
}
