//! Requests of Envoy.

use prost::Message as _;
use tidegate_proto::grpc::envoy::service::ratelimit::v3::RateLimitRequest;

use super::descriptor::{Asked, read};
use crate::check::{CheckRequest, Problem, Subject};

/// The bytes as the message of a call.
pub(crate) fn descriptors(data: &[u8]) {
    let Ok(mut request) = RateLimitRequest::decode(data) else { return };
    let again = request.encode_to_vec();
    assert_eq!(RateLimitRequest::decode(&*again).as_ref(), Ok(&request));
    let before = told(&request);
    // Where no key comes twice, the order of the entries says nothing.
    let mut are_distinct = true;
    for descriptor in &mut request.descriptors {
        let mut keys: Vec<_> = descriptor.entries.iter().map(|entry| &entry.key).collect();
        keys.sort_unstable();
        are_distinct &= keys.windows(2).all(|two| two[0] != two[1]);
        descriptor.entries.reverse();
    }
    if let (true, Ok(before)) = (are_distinct, before) {
        assert_eq!(told(&request).expect("its entries are the same"), before);
    }
}

/// What is asked, with attributes in the order of their names.
fn told(request: &RateLimitRequest) -> Result<Vec<String>, Problem> {
    let asked = read(request, tidegate_limiter::cluster::IpPrefix::default())?;
    assert_eq!(asked.len(), request.descriptors.len());
    let told = asked.iter().map(|asked| match asked {
        Asked::Check(check) => format!("check {}", told_of(check)),
        Asked::Refund(check) => format!("refund {}", told_of(check)),
        Asked::Never(limit) => format!("never {limit:?}"),
    });
    Ok(told.collect())
}

fn told_of(check: &CheckRequest<'_>) -> String {
    let CheckRequest { domain, subject, cost, .. } = check;
    match subject {
        Subject::Attributes(attributes) => {
            let mut all: Vec<_> = attributes.iter().collect();
            all.sort_unstable();
            assert!(all.windows(2).all(|two| two[0].0 != two[1].0), "a name is there twice");
            format!("{domain:?} {cost:?} {all:?}")
        }
        Subject::Inline { key, limit } => format!("{domain:?} {cost:?} {key:?} {limit:?}"),
        Subject::Named { .. } => panic!("a descriptor brings one limit at most"),
    }
}
