//! A descriptor as a check: its entries are attributes, meant as a whole, and a limit that it brings with it is decided
//! without rules.

use std::{borrow::Cow, time::Duration};

use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Limit,
    cluster::{DEFAULT_DOMAIN, IpPrefix},
    rules::{Attributes as _, LimitError, Period, Unit, Zone},
};
use tidegate_proto::grpc::envoy::{
    extensions::common::ratelimit::v3::{
        RateLimitDescriptor,
        rate_limit_descriptor::{Entry, RateLimitOverride},
    },
    service::ratelimit::v3::RateLimitRequest,
    r#type::v3::RateLimitUnit,
};

use crate::check::{
    AttributeList, CheckRequest, Costs, MAX_ATTRIBUTES, MAX_NAME_BYTES, Meant, Problem, ProblemKind, Subject,
};

/// Descriptors of a request.
const MAX_DESCRIPTORS: usize = 128;

/// What a descriptor asks.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    Check(CheckRequest<'a>),
    /// It gives the cost back.
    Refund(CheckRequest<'a>),
    /// It brings a limit of nothing with it.
    Never(&'a RateLimitOverride),
}

/// Reads all descriptors of a request. `ip_prefix`: how much of an address stands for a client, where no rule says it.
pub(super) fn read(
    request: &RateLimitRequest,
    ip_prefix: IpPrefix,
) -> Result<SmallVec<[Asked<'_>; 2]>, Problem> {
    let descriptors = &request.descriptors;
    // The first words of these two are those of envoyproxy/ratelimit.
    if descriptors.is_empty() {
        let detail = "rate limit descriptor list must not be empty: there is nothing to decide; let an action of the route make one";
        return Err(Problem::of_field(ProblemKind::InvalidValue, "descriptors", detail));
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        let detail = format!(
            "the request has {} descriptors, at most {MAX_DESCRIPTORS} are allowed",
            descriptors.len()
        );
        return Err(Problem::of_field(ProblemKind::InvalidValue, "descriptors", detail));
    }
    let domain = match &*request.domain {
        "" => {
            let detail = format!(
                "rate limit domain must not be empty: set `domain` in Envoy's filter to that of the rules, e.g. {DEFAULT_DOMAIN}"
            );
            return Err(Problem::of_field(ProblemKind::InvalidValue, "domain", detail));
        }
        domain if domain.len() > MAX_NAME_BYTES => {
            let detail =
                format!("the domain has {} bytes, at most {MAX_NAME_BYTES} are allowed", domain.len());
            return Err(Problem::of_field(ProblemKind::ValueTooLarge, "domain", detail));
        }
        domain => domain,
    };
    let read = |(place, descriptor)| {
        one(domain, descriptor, request.hits_addend, ip_prefix).map_err(|problem: Problem| {
            let detail = format!("descriptor {}: {}", place + 1, problem.detail);
            Problem { detail: detail.into(), ..problem }
        })
    };
    descriptors.iter().enumerate().map(read).collect()
}

fn one<'a>(
    domain: &'a str,
    descriptor: &'a RateLimitDescriptor,
    hits_of_request: u32,
    ip_prefix: IpPrefix,
) -> Result<Asked<'a>, Problem> {
    let hits = descriptor.hits_addend.unwrap_or(u64::from(hits_of_request.max(1)));
    let cost = Cost::new(hits)
        .map_err(|error| Problem::of_field(ProblemKind::ValueTooLarge, "hits_addend", error.to_string()))?;
    let attributes = attributes(&descriptor.entries)?;
    let subject = match &descriptor.limit {
        None => Subject::Attributes(attributes),
        Some(none) if none.requests_per_unit == 0 => return Ok(Asked::Never(none)),
        Some(brought) => {
            Subject::Inline { key: key_of(&attributes, ip_prefix).into(), limit: limit_of(brought)? }
        }
    };
    let request =
        CheckRequest { domain: Cow::Borrowed(domain), subject, cost, costs: Costs::default(), id: None };
    // To give nothing back is to look.
    let gives = descriptor.is_negative_hits && cost != Cost::PEEK;
    Ok(if gives { Asked::Refund(request) } else { Asked::Check(request) })
}

/// Envoy can say a key twice, as in two entries `generic_key`: the second one is named `generic_key.2`, and so on.
fn attributes(entries: &[Entry]) -> Result<AttributeList<'_>, Problem> {
    if entries.len() > MAX_ATTRIBUTES {
        let detail = format!("it has {} entries, at most {MAX_ATTRIBUTES} are allowed", entries.len());
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "entries", detail));
    }
    let mut attributes = AttributeList::meant(Meant::AsWhole);
    for Entry { key, value } in entries {
        let name = if attributes.get(key).is_none() {
            Cow::Borrowed(&**key)
        } else {
            let more = (2..).map(|number| format!("{key}.{number}"));
            more.into_iter().find(|name| attributes.get(name).is_none()).unwrap_or_default().into()
        };
        attributes.insert(name, Cow::Borrowed(value))?;
    }
    Ok(attributes)
}

/// The key of a descriptor with a limit of its own: its entries in the order of their keys, as a query has them. An address counts as
/// in a rule's key.
fn key_of(attributes: &AttributeList<'_>, ip_prefix: IpPrefix) -> String {
    let mut sorted: SmallVec<[_; 8]> = attributes.iter().collect();
    sorted.sort_unstable();
    let mut key = String::new();
    for (name, value) in sorted {
        if !key.is_empty() {
            key.push('&');
        }
        escape(name, &mut key);
        key.push('=');
        match attributes.address(name).filter(|_| name == "ip") {
            Some(address) => {
                let network = ip_prefix.network_of(address);
                let is_host = network.prefix_len() == network.max_prefix_len();
                escape(&if is_host { address.to_string() } else { network.to_string() }, &mut key);
            }
            None => escape(value, &mut key),
        }
    }
    key
}

fn escape(text: &str, to: &mut String) {
    for character in text.chars() {
        match character {
            '%' => to.push_str("%25"),
            '&' => to.push_str("%26"),
            '=' => to.push_str("%3D"),
            _ => to.push(character),
        }
    }
}

/// Envoy's limits are windows of the calendar.
fn limit_of(brought: &RateLimitOverride) -> Result<Limit, Problem> {
    let times = u64::from(brought.unit_multiplier.unwrap_or(1).max(1));
    let seconds = match brought.unit() {
        RateLimitUnit::Second => 1,
        RateLimitUnit::Minute => 60,
        RateLimitUnit::Hour => 3_600,
        RateLimitUnit::Day => 86_400,
        RateLimitUnit::Month | RateLimitUnit::Year if times == 1 => 0,
        unit => {
            let detail = format!(
                "a limit per {times} {} cannot be kept: SECOND, MINUTE, HOUR and DAY up to 3650 days, and one MONTH or YEAR can",
                unit.as_str_name()
            );
            return Err(Problem::of_field(ProblemKind::InvalidValue, "limit.unit", detail));
        }
    };
    let invalid =
        |error: LimitError| Problem::of_field(ProblemKind::InvalidValue, "limit", error.to_string());
    let period = match (seconds, brought.unit()) {
        (0, RateLimitUnit::Year) => {
            Period::calendar(Unit::Year, Zone::UTC, None).ok_or_else(|| invalid(LimitError::TooManyPlaces))?
        }
        (0, _) => Period::Month,
        (seconds, _) => Period::Fixed(Duration::from_secs(times.saturating_mul(seconds))),
    };
    Limit::new(Algorithm::FixedWindow, u64::from(brought.requests_per_unit), period, None).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
        let entries = entries.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() });
        RateLimitDescriptor { entries: entries.collect(), ..Default::default() }
    }

    fn request(descriptor: RateLimitDescriptor) -> RateLimitRequest {
        RateLimitRequest { domain: "d".into(), descriptors: vec![descriptor], hits_addend: 0 }
    }

    fn cost(request: &RateLimitRequest) -> u64 {
        match &read(request, IpPrefix::default()).unwrap()[0] {
            Asked::Check(check) => check.cost.get(),
            Asked::Refund(_) | Asked::Never(_) => panic!(),
        }
    }

    #[test]
    fn the_cost_is_the_descriptors_then_the_requests_then_one() {
        let mut request = request(descriptor(&[("a", "1")]));
        assert_eq!(cost(&request), 1);
        request.hits_addend = 3;
        assert_eq!(cost(&request), 3);
        request.descriptors[0].hits_addend = Some(0);
        assert_eq!(cost(&request), 0, "a look");
        request.descriptors[0].hits_addend = Some(7);
        assert_eq!(cost(&request), 7);
        request.descriptors[0].hits_addend = Some(u64::MAX);
        assert!(read(&request, IpPrefix::default()).unwrap_err().detail.starts_with("descriptor 1: "));
    }

    #[test]
    fn hits_that_are_negative_are_a_refund() {
        let mut request = request(descriptor(&[("a", "1")]));
        request.descriptors[0].is_negative_hits = true;
        request.hits_addend = 3;
        assert!(
            matches!(&read(&request, IpPrefix::default()).unwrap()[0], Asked::Refund(asked) if asked.cost.get() == 3)
        );
        request.descriptors[0].hits_addend = Some(0);
        assert_eq!(cost(&request), 0, "a look");
    }

    #[test]
    fn a_key_that_comes_again_has_a_number() {
        let descriptor = descriptor(&[("generic_key", "a"), ("generic_key", "b"), ("generic_key", "a")]);
        let attributes = attributes(&descriptor.entries).unwrap();
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all, [("generic_key", "a"), ("generic_key.2", "b"), ("generic_key.3", "a")]);
    }

    #[test]
    fn an_address_is_one_in_each_spelling_and_other_text_is_refused() {
        let found = |ip: &str| {
            let descriptor = descriptor(&[("ip", ip), ("remote_address", "unknown")]);
            attributes(&descriptor.entries).map(|attributes| attributes.get("ip").map(str::to_owned))
        };
        for spelling in ["198.51.100.7", "198.51.100.7:80", "[::ffff:c633:6407]:80", "64:ff9b::c633:6407"] {
            assert_eq!(found(spelling).unwrap().as_deref(), Some("198.51.100.7"), "{spelling}");
        }
        assert_eq!(found("unknown").unwrap_err().field.as_deref(), Some("attributes.ip"));
    }

    #[test]
    fn the_key_of_a_limit_that_is_brought_does_not_depend_on_the_order_and_tells_entries_apart() {
        let key = |entries: &[(&str, &str)]| {
            key_of(&attributes(&descriptor(entries).entries).unwrap(), IpPrefix::default())
        };
        assert_eq!(key(&[("b", "2"), ("a", "1")]), "a=1&b=2");
        assert_eq!(key(&[("a", "1&b=2")]), "a=1%26b%3D2");
        let hosts = ["2001:db8::1", "2001:DB8:0::2", "[2001:db8:0:0:1::]:80"].map(|ip| key(&[("ip", ip)]));
        assert_eq!(hosts, ["ip=2001:db8::/64"; 3]);
        assert_eq!(
            key(&[("ip", "203.0.113.5:80"), ("address", "2001:DB8::1")]),
            "address=2001:DB8::1&ip=203.0.113.5"
        );
    }

    #[test]
    fn limits_that_are_brought_are_windows() {
        let limit = |requests_per_unit, unit: RateLimitUnit, unit_multiplier| {
            limit_of(&RateLimitOverride { requests_per_unit, unit: unit.into(), unit_multiplier })
        };
        let minutes = limit(5, RateLimitUnit::Minute, Some(10)).unwrap();
        assert_eq!((minutes.to_string(), minutes.algorithm()), ("5/10m".to_owned(), Algorithm::FixedWindow));
        assert_eq!(limit(5, RateLimitUnit::Month, None).unwrap().to_string(), "5/month");
        assert_eq!(limit(5, RateLimitUnit::Year, None).unwrap().to_string(), "5/year");
        assert_eq!(limit(5, RateLimitUnit::Day, Some(40)).unwrap().to_string(), "5/40d");
        for (unit, times) in [
            (RateLimitUnit::Year, Some(2)),
            (RateLimitUnit::Month, Some(2)),
            (RateLimitUnit::Unknown, None),
            (RateLimitUnit::Day, Some(3_651)),
        ] {
            limit(5, unit, times).unwrap_err();
        }
        let never = RateLimitOverride { unit: RateLimitUnit::Second.into(), ..Default::default() };
        let request = request(RateLimitDescriptor { limit: Some(never), ..descriptor(&[("a", "1")]) });
        assert!(matches!(read(&request, IpPrefix::default()).unwrap()[0], Asked::Never(_)));
    }

    #[test]
    fn a_domain_is_named_and_a_descriptor_may_be_empty() {
        let named = request(descriptor(&[("a", "1")]));
        let why =
            read(&RateLimitRequest { domain: String::new(), ..named }, IpPrefix::default()).unwrap_err();
        assert_eq!((why.kind, why.field.as_deref()), (ProblemKind::InvalidValue, Some("domain")));
        assert!(why.detail.starts_with("rate limit domain must not be empty"), "{}", why.detail);
        assert_eq!(cost(&request(descriptor(&[]))), 1, "as in envoyproxy/ratelimit");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        for bad in [
            RateLimitRequest { descriptors: vec![], ..request(descriptor(&[])) },
            RateLimitRequest {
                descriptors: vec![descriptor(&[]); MAX_DESCRIPTORS + 1],
                ..request(descriptor(&[]))
            },
            request(descriptor(&[("a", "1"); MAX_ATTRIBUTES + 1])),
            request(descriptor(&[("", "1")])),
            request(descriptor(&[("a", &"x".repeat(5_000))])),
            RateLimitRequest { domain: "d".repeat(300), ..request(descriptor(&[("a", "1")])) },
        ] {
            read(&bad, IpPrefix::default()).unwrap_err();
        }
    }
}
