//! The answer to a check as the status of a descriptor, and as the headers that Envoy is to add.

use std::time::Duration;

use bytes::BytesMut;
use tidegate_proto::grpc::envoy::{
    config::core::v3::HeaderValue,
    extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride,
    service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
};

use crate::{
    check::{CheckAnswer, Policy},
    rate_limit_headers::{MAX_ITEMS, Place, SEPARATOR, seconds},
};

/// What is told of one descriptor.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: DescriptorStatus,
    items: Vec<Item>,
    retry_after: Option<Duration>,
}

/// An item of `RateLimit` and the one of `RateLimit-Policy`.
#[derive(Debug, Clone)]
struct Item {
    place: Place,
    state: BytesMut,
    policy: BytesMut,
}

impl Told {
    pub(super) fn of(answer: &CheckAnswer<'_>, with_headers: bool) -> Self {
        let code = if answer.allowed { Code::Ok } else { Code::OverLimit };
        let mut status = DescriptorStatus { code: code.into(), ..Default::default() };
        // The one that binds most. One that only watches has its numbers here too, beside a code that says OK: the status goes
        // to the proxy, as that of the reference does. The headers go to the client, and say nothing of it.
        let name = answer.rule;
        let most = answer.policies.iter().find(|policy| name.is_none_or(|name| policy.name == name));
        if let Some(policy) = most.or(answer.shadow.as_ref()) {
            let is_inline = name.is_none() && answer.shadow.is_none();
            status.current_limit = Some(RateLimit {
                name: if is_inline { String::new() } else { policy.name.to_owned() },
                requests_per_unit: saturating(policy.count),
                unit: unit_of(policy.window).into(),
            });
            status.limit_remaining = saturating(policy.remaining);
            // Envoy makes `x-ratelimit-reset` of it, which clients sleep on: until there is more, not until all is there. Nothing
            // ever comes where a rule denies everything.
            status.duration_until_reset = (!policy.denies()).then(|| whole_seconds(policy.more_after));
        }
        let item = |policy: &Policy<'_>| {
            let mut item = Item { place: policy.place(), state: BytesMut::new(), policy: BytesMut::new() };
            policy.write_state(&mut item.state);
            policy.write(&mut item.policy);
            item
        };
        let items = if with_headers { answer.policies.iter().map(item).collect() } else { Vec::new() };
        let retry_after = answer.numbers.and_then(|numbers| numbers.retry_after).filter(|_| !answer.allowed);
        Self { status, items, retry_after }
    }

    /// Of a descriptor that brings a limit of nothing with it.
    pub(super) fn never(limit: &RateLimitOverride) -> Self {
        let unit = match limit.unit_multiplier {
            None | Some(0 | 1) => Unit::try_from(limit.unit).unwrap_or(Unit::Unknown),
            Some(_) => Unit::Unknown,
        };
        let status = DescriptorStatus {
            code: Code::OverLimit.into(),
            current_limit: Some(RateLimit { unit: unit.into(), ..Default::default() }),
            ..Default::default()
        };
        Self { status, items: Vec::new(), retry_after: None }
    }
}

/// The headers of all descriptors.
#[derive(Debug, Default)]
pub(super) struct Headers {
    items: Vec<Item>,
    retry_after: Option<Duration>,
}

impl Headers {
    pub(super) fn add(&mut self, told: &Told) {
        self.items.extend_from_slice(&told.items);
        self.retry_after = self.retry_after.max(told.retry_after);
    }

    pub(super) fn finish(mut self) -> Vec<HeaderValue> {
        let header =
            |key: &str, value: String| HeaderValue { key: key.to_owned(), value, ..Default::default() };
        if self.items.len() > MAX_ITEMS {
            self.items.sort_by_key(|item| item.place);
            self.items.truncate(MAX_ITEMS);
        }
        let list = |of: fn(&Item) -> &[u8]| {
            let items: Vec<&[u8]> = self.items.iter().map(of).collect();
            String::from_utf8_lossy(&items.join(SEPARATOR)).into_owned()
        };
        let mut headers = Vec::new();
        if !self.items.is_empty() {
            headers.push(header("ratelimit", list(|item| &item.state)));
            headers.push(header("ratelimit-policy", list(|item| &item.policy)));
        }
        if let Some(wait) = self.retry_after {
            headers.push(header("retry-after", whole_seconds(wait).seconds.max(1).to_string()));
        }
        headers
    }
}

/// The unit that is exactly so long. `UNKNOWN` if there is none, and Envoy says nothing of the window then.
fn unit_of(window: Duration) -> Unit {
    const MEAN_MONTH: u64 = 2_629_746;
    const MEAN_YEAR: u64 = 31_556_952;
    match (window.as_secs(), window.subsec_nanos()) {
        (1, 0) => Unit::Second,
        (60, 0) => Unit::Minute,
        (3_600, 0) => Unit::Hour,
        (86_400, 0) => Unit::Day,
        (604_800, 0) => Unit::Week,
        (MEAN_MONTH, 0) => Unit::Month,
        (MEAN_YEAR, 0) => Unit::Year,
        _ => Unit::Unknown,
    }
}

/// Rounded up: Envoy shows whole seconds, and who comes back after these is not too early.
fn whole_seconds(span: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(seconds(span)).unwrap_or(i64::MAX), nanos: 0 }
}

fn saturating(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Decider, Numbers, Policy};

    fn answer<'a>(allowed: bool, policies: &'a [Policy<'a>]) -> CheckAnswer<'a> {
        CheckAnswer {
            allowed,
            rule: Some("login"),
            numbers: Some(Numbers {
                limit: 20,
                remaining: 3,
                reset_after: Duration::from_secs(40),
                retry_after: Some(Duration::from_millis(200)),
                delay: Duration::ZERO,
                banned: false,
            }),
            decided_by: Decider::Owner,
            node: "n1",
            policies,
            shadow: None,
        }
    }

    fn policy(name: &str, window: u64) -> Policy<'_> {
        let (window, more_after) = (Duration::from_secs(window), Duration::from_secs(2));
        Policy {
            name,
            count: 10,
            window,
            quota: 10,
            quota_window: window,
            remaining: 3,
            more_after,
            denied: false,
            banned: false,
        }
    }

    #[test]
    fn the_status_is_that_of_the_rule_that_binds() {
        let policies = [policy("other", 1), policy("login", 60)];
        let told = Told::of(&answer(false, &policies), true);
        let limit = told.status.current_limit.as_ref().unwrap();
        assert_eq!((&*limit.name, limit.requests_per_unit, limit.unit()), ("login", 10, Unit::Minute));
        assert_eq!(told.status.code(), Code::OverLimit);
        assert_eq!(told.status.limit_remaining, 3);
        assert_eq!(
            told.status.duration_until_reset.unwrap().seconds,
            2,
            "until there is more, not until all is"
        );
        let mut headers = Headers::default();
        headers.add(&told);
        let headers = headers.finish();
        let headers: Vec<_> = headers.iter().map(|header| (&*header.key, &*header.value)).collect();
        assert_eq!(
            headers,
            [
                ("ratelimit", "\"other\";r=3;t=2, \"login\";r=3;t=2"),
                ("ratelimit-policy", "\"other\";q=10;w=1, \"login\";q=10;w=60"),
                ("retry-after", "1"),
            ]
        );
    }

    #[test]
    fn of_many_descriptors_the_limits_are_told_that_bind_most() {
        let mut headers = Headers::default();
        for remaining in (0..100).rev() {
            let policies = [Policy { remaining, ..policy("login", 60) }];
            headers.add(&Told::of(&answer(true, &policies), true));
        }
        let headers = headers.finish();
        for header in &headers[..2] {
            assert_eq!(header.value.split(", ").count(), MAX_ITEMS, "{header:?}");
        }
        assert!(headers[0].value.starts_with("\"login\";r=0;t=2, \"login\";r=1;t=2, "), "{headers:?}");
    }

    #[test]
    fn a_rule_that_denies_has_a_limit_of_0_and_no_time_to_wait_for() {
        let policies = [Policy { count: 0, quota: 0, remaining: 0, denied: true, ..policy("login", 60) }];
        let nothing = Numbers {
            limit: 0,
            remaining: 0,
            reset_after: Duration::ZERO,
            retry_after: None,
            delay: Duration::ZERO,
            banned: false,
        };
        let told = Told::of(&CheckAnswer { numbers: Some(nothing), ..answer(false, &policies) }, true);
        assert_eq!(told.status.code(), Code::OverLimit);
        let limit = told.status.current_limit.as_ref().unwrap();
        assert_eq!((&*limit.name, limit.requests_per_unit, limit.unit()), ("login", 0, Unit::Minute));
        assert_eq!((told.status.limit_remaining, told.status.duration_until_reset), (0, None));
        let mut headers = Headers::default();
        headers.add(&told);
        let headers = headers.finish();
        let headers: Vec<_> = headers.iter().map(|header| (&*header.key, &*header.value)).collect();
        assert_eq!(headers, [("ratelimit", "\"login\";r=0"), ("ratelimit-policy", "\"login\";q=0;w=60")]);
    }

    #[test]
    fn the_proxy_is_told_of_a_rule_that_only_watches_and_its_client_is_not() {
        let watched = Policy { remaining: 0, denied: true, ..policy("login", 60) };
        let told = Told::of(&CheckAnswer { shadow: Some(watched), ..answer(true, &[]) }, true);
        let limit = told.status.current_limit.as_ref().unwrap();
        assert_eq!((&*limit.name, limit.requests_per_unit, limit.unit()), ("login", 10, Unit::Minute));
        assert_eq!((told.status.code(), told.status.limit_remaining), (Code::Ok, 0));
        let mut headers = Headers::default();
        headers.add(&told);
        assert!(headers.finish().is_empty());
    }

    #[test]
    fn a_window_that_has_no_unit_is_not_given_one() {
        assert_eq!(unit_of(Duration::from_secs(600)), Unit::Unknown);
        assert_eq!(unit_of(Duration::from_millis(1_500)), Unit::Unknown);
        let length = |unit: tidegate_limiter::rules::Unit| unit.length();
        assert_eq!(unit_of(length(tidegate_limiter::rules::Unit::Week)), Unit::Week);
        assert_eq!(unit_of(length(tidegate_limiter::rules::Unit::Month)), Unit::Month);
        assert_eq!(unit_of(length(tidegate_limiter::rules::Unit::Year)), Unit::Year);
    }
}
