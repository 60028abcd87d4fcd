//! The headers that tell of limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), those that
//! clients have known for longer, and `Retry-After`.
//!
//! This is their one source. Answers over HTTP are written in two ways, as bytes and as a map, by a [`HeaderSink`] each; Envoy
//! is told the items of several checks.

use std::{borrow::Cow, cmp::Reverse, time::Duration};

use bytes::BytesMut;
use http::header::HeaderName;

use crate::check::{CheckAnswer, Policy};

/// What an item of a list begins with, but for the first one.
pub(crate) const SEPARATOR: &[u8] = b", ";

/// Items of each of the two lists. Proxies and clients take some kilobytes of headers, and any number of rules may match. Of more,
/// those are told that bind most, in this order.
pub(crate) const MAX_ITEMS: usize = 16;

/// The name of a header.
#[derive(Debug)]
pub(crate) struct Name {
    /// As bytes, up to the value.
    pub(crate) line: &'static [u8],
    pub(crate) name: HeaderName,
}

macro_rules! name {
    ($name:literal) => {
        Name { line: concat!($name, ": ").as_bytes(), name: HeaderName::from_static($name) }
    };
}

static RATELIMIT: Name = name!("ratelimit");
static RATELIMIT_POLICY: Name = name!("ratelimit-policy");
static X_RATELIMIT_LIMIT: Name = name!("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: Name = name!("x-ratelimit-remaining");
static X_RATELIMIT_RESET: Name = name!("x-ratelimit-reset");
static RETRY_AFTER: Name = name!("retry-after");

/// Takes headers, in their order.
pub(crate) trait HeaderSink {
    /// One of them. Its value is printable ASCII.
    fn header(&mut self, name: &'static Name, write: impl FnOnce(&mut BytesMut));
}

/// Gives the headers of an answer to `sink`. `legacy` is what is added to `X-RateLimit-Reset`; none: no headers of
/// that kind.
#[inline]
pub(crate) fn write(answer: &CheckAnswer<'_>, legacy: Option<Duration>, sink: &mut impl HeaderSink) {
    let Some(numbers) = answer.numbers else { return };
    if !answer.policies.is_empty() {
        let told = binding(answer.policies);
        sink.header(&RATELIMIT, |out| list(&told, out, |policy, out| policy.write_state(out)));
        sink.header(&RATELIMIT_POLICY, |out| list(&told, out, |policy, out| policy.write(out)));
    }
    if let Some(offset) = legacy {
        sink.header(&X_RATELIMIT_LIMIT, |out| number(out, numbers.limit));
        sink.header(&X_RATELIMIT_REMAINING, |out| number(out, numbers.remaining));
        if !numbers.denies() {
            // The instant rounded up, not a part of it: who waits until then waits long enough.
            let reset = seconds(numbers.reset_after.saturating_add(offset));
            sink.header(&X_RATELIMIT_RESET, |out| number(out, reset));
        }
    }
    if let (false, Some(wait)) = (answer.allowed, numbers.retry_after) {
        sink.header(&RETRY_AFTER, |out| number(out, seconds(wait).max(1)));
    }
}

/// The limits that are told of.
#[inline]
fn binding<'p, 'a>(policies: &'p [Policy<'a>]) -> Cow<'p, [Policy<'a>]> {
    if policies.len() <= MAX_ITEMS {
        return Cow::Borrowed(policies);
    }
    let mut most = policies.to_vec();
    most.sort_by_key(Policy::place);
    most.truncate(MAX_ITEMS);
    Cow::Owned(most)
}

#[inline]
fn list(policies: &[Policy<'_>], out: &mut BytesMut, write: impl Fn(&Policy<'_>, &mut BytesMut)) {
    for (place, policy) in policies.iter().enumerate() {
        if place > 0 {
            out.extend_from_slice(SEPARATOR);
        }
        write(policy, out);
    }
}

/// The place of a limit among others: the less, the more it binds.
pub(crate) type Place = (Reverse<Option<Duration>>, u64, Reverse<Duration>);

impl Policy<'_> {
    /// As decisions are compared: a denial before all others, the one with the longest wait (for ever, before any time); then the
    /// one with the least remaining, and of those the one that has more last.
    pub(crate) fn place(&self) -> Place {
        let wait = self.denied.then(|| if self.denies() { Duration::MAX } else { self.more_after });
        (Reverse(wait), self.remaining, Reverse(self.more_after))
    }

    /// An item of `RateLimit`: `"login";r=3;t=12`.
    pub(crate) fn write_state(&self, out: &mut BytesMut) {
        self.write_name(out);
        out.extend_from_slice(b";r=");
        sf_integer(out, self.remaining);
        // Of what denies, waiting changes nothing.
        if !self.denies() {
            out.extend_from_slice(b";t=");
            sf_integer(out, seconds(self.more_after));
        }
    }

    /// An item of `RateLimit-Policy`: `"login";q=5;w=60`, of what `r` counts against. A window is told in whole seconds or not
    /// at all.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        self.write_name(out);
        out.extend_from_slice(b";q=");
        sf_integer(out, self.quota);
        if self.quota_window.subsec_nanos() == 0 {
            out.extend_from_slice(b";w=");
            sf_integer(out, self.quota_window.as_secs());
        }
    }

    /// The name as a String of structured fields (RFC 9651), which is printable ASCII.
    fn write_name(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"\"");
        if self.name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            out.extend_from_slice(self.name.as_bytes());
        } else {
            for character in self.name.chars().map(printable) {
                if matches!(character, '"' | '\\') {
                    out.extend_from_slice(b"\\");
                }
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.extend_from_slice(b"\"");
    }
}

/// What a String of structured fields can have.
pub(crate) fn printable(character: char) -> char {
    if matches!(character, ' '..='~') { character } else { '_' }
}

/// An Integer of structured fields, which has at most 15 digits.
fn sf_integer(out: &mut BytesMut, value: u64) {
    number(out, value.min(999_999_999_999_999));
}

pub(crate) fn number(out: &mut BytesMut, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Rounded up: who waits so long waits long enough.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Decider, Numbers};

    /// The value of `X-RateLimit-Reset`.
    struct Reset(String);

    impl HeaderSink for Reset {
        fn header(&mut self, name: &'static Name, write: impl FnOnce(&mut BytesMut)) {
            if std::ptr::eq(name, &raw const X_RATELIMIT_RESET) {
                let mut value = BytesMut::new();
                write(&mut value);
                self.0 = String::from_utf8_lossy(&value).into_owned();
            }
        }
    }

    #[test]
    fn of_many_limits_those_are_told_that_bind_most() {
        let policy = |name: &'static str, remaining, denied| Policy {
            banned: false,
            name,
            count: 5,
            window: Duration::from_secs(60),
            quota: 5,
            quota_window: Duration::from_secs(60),
            remaining,
            more_after: Duration::from_secs(7),
            denied,
        };
        let mut policies = vec![policy("loose", 5, false); MAX_ITEMS - 1];
        policies.push(policy("last", 0, true));
        let names = |policies: &[Policy<'static>]| {
            binding(policies).iter().map(|policy| policy.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&policies).last(), Some(&"last"), "they stand as the rules do");
        policies.extend([
            Policy { more_after: Duration::from_secs(9), ..policy("waits", 0, true) },
            Policy { count: 0, ..policy("never", 0, true) },
            policy("tight", 1, false),
        ]);
        let names = names(&policies);
        assert_eq!(names.len(), MAX_ITEMS);
        assert_eq!(names[..5], ["never", "waits", "last", "tight", "loose"]);
    }

    #[test]
    fn who_waits_until_the_instant_of_the_reset_waits_long_enough() {
        let reset = |now: Duration, millis: u64| {
            let numbers = Numbers {
                limit: 1,
                remaining: 0,
                reset_after: Duration::from_millis(millis),
                retry_after: None,
                delay: Duration::ZERO,
                banned: false,
            };
            let (rule, numbers) = (None, Some(numbers));
            let answer = CheckAnswer {
                shadow: None,
                allowed: true,
                rule,
                numbers,
                decided_by: Decider::Owner,
                node: "n1",
                policies: &[],
            };
            let mut found = Reset(String::new());
            write(&answer, Some(now), &mut found);
            found.0
        };
        // Asked at 100.7 s, more is there at 102.2 s.
        assert_eq!(reset(Duration::from_millis(100_700), 1_500), "103");
        assert_eq!(reset(Duration::from_millis(100_700), 1_300), "102");
        assert_eq!(reset(Duration::from_millis(100_000), 2_000), "102");
        assert_eq!(reset(Duration::ZERO, 1_500), "2");
    }
}
