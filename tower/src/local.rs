//! Deciding in this process, without a node.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use sfv::{ListSerializer, StringRef, key_ref};
use tidegate_limiter::{
    Cost, Limiter, SystemClock,
    rules::{Mode, Ruled},
};

use crate::{
    answer::{Answer, PASSED_ON, retry_after, seconds},
    facts::Facts,
};

/// After so many checks some idle buckets are removed, in a small step.
const SWEEP_AFTER: u32 = 256;

#[derive(Debug)]
pub(crate) struct Local {
    limiter: Limiter,
    clock: SystemClock,
    checks: AtomicU32,
}

impl Local {
    pub(crate) fn new(limiter: Limiter) -> Self {
        Self { limiter, clock: SystemClock::new(), checks: AtomicU32::new(0) }
    }

    pub(crate) fn decide(&self, facts: &Facts) -> Answer {
        let now = self.clock.now();
        if self.checks.fetch_add(1, Relaxed).is_multiple_of(SWEEP_AFTER) {
            self.limiter.sweep(now);
        }
        // A cost above what a limit can hold is never allowed; the largest one says the same.
        let cost = Cost::new(facts.cost).unwrap_or(Cost::MAX);
        let verdict = self.limiter.check(&facts.attributes[..], cost, now);
        let binding = verdict.binding();
        let numbers = binding.map(|ruled| ruled.decision);
        let retry = numbers.filter(|_| !verdict.allowed).and_then(|decision| decision.retry_after);
        Answer {
            allowed: verdict.allowed,
            rule: binding.map(|ruled| ruled.rule.name().to_owned()),
            limit: numbers.map(|decision| decision.limit),
            remaining: numbers.map(|decision| decision.remaining),
            retry_after: retry,
            delay: numbers.map_or(Duration::ZERO, |decision| decision.delay),
            decided_by: if binding.is_some() { "local" } else { "unmatched" }.to_owned(),
            headers: headers(verdict.rules(), binding, retry),
        }
    }
}

/// As a node writes them (draft-ietf-httpapi-ratelimit-headers).
fn headers(rules: &[Ruled<'_>], binding: Option<&Ruled<'_>>, retry: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(binding) = binding else { return headers };
    let [ratelimit, policy, limit, remaining, reset, _] = PASSED_ON;
    let (mut state, mut policies) = (ListSerializer::new(), ListSerializer::new());
    for ruled in rules.iter().filter(|ruled| ruled.rule.mode() == Mode::Enforce) {
        let (decision, name) = (ruled.decision, printable(ruled.rule.name()));
        let (Ok(name), Some(limit)) = (StringRef::from_str(&name), ruled.rule.limit()) else { continue };
        let item = state.bare_item(name).parameter(key_ref("r"), integer(decision.remaining));
        if decision.limit > 0 {
            let _ = item.parameter(key_ref("t"), integer(seconds(decision.reset_after)));
        }
        let item = policies.bare_item(name).parameter(key_ref("q"), integer(limit.count()));
        let window = limit.window();
        if window.subsec_nanos() == 0 {
            let _ = item.parameter(key_ref("w"), integer(window.as_secs()));
        }
    }
    for (name, list) in [(ratelimit, state.finish()), (policy, policies.finish())] {
        if let Some(value) = list.and_then(|list| HeaderValue::try_from(list).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(limit, binding.decision.limit.into());
    headers.insert(remaining, binding.decision.remaining.into());
    if binding.decision.limit > 0 {
        headers.insert(reset, seconds(binding.decision.reset_after).into());
    }
    if let Some(wait) = retry {
        headers.insert(header::RETRY_AFTER, retry_after(wait));
    }
    headers
}

/// A String of structured fields is printable ASCII (RFC 9651, 3.3.3).
fn printable(name: &str) -> String {
    name.chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '_' }).collect()
}

/// An Integer of structured fields has 15 digits (RFC 9651, 3.3.1).
fn integer(number: u64) -> sfv::Integer {
    i64::try_from(number)
        .ok()
        .and_then(|number| sfv::Integer::try_from(number).ok())
        .unwrap_or(sfv::Integer::MAX)
}
