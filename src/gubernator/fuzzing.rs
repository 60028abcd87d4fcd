//! Batches of Gubernator's clients.

use prost::Message as _;
use tidegate_proto::{
    batch::{Batch, MAX_REQUESTS},
    grpc::pb::gubernator::RateLimitReq,
};

use super::{json, question::Question};

/// The batch as prost reads it.
#[derive(Clone, PartialEq, prost::Message)]
struct Plain {
    #[prost(message, repeated, tag = "1")]
    requests: Vec<RateLimitReq>,
}

/// The first byte says whether the others are a message or JSON.
pub(crate) fn batches(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let batch = if which % 2 == 0 {
        let (ours, theirs) = (Batch::decode(bytes), Plain::decode(bytes));
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.has_too_many, theirs.requests.len() > MAX_REQUESTS);
                let first = &theirs.requests[..theirs.requests.len().min(MAX_REQUESTS)];
                assert_eq!(ours.requests, first);
                ours
            }
            // Behind the last request that counts nothing is looked at.
            (Ok(ours), Err(_)) => {
                assert!(ours.has_too_many);
                ours
            }
            (Err(error), Ok(_)) => panic!("by hand it cannot be read: {error}"),
            (Err(_), Err(_)) => return,
        }
    } else {
        let Ok(Ok(batch)) = std::str::from_utf8(bytes).map(json::read) else { return };
        batch
    };
    assert!(batch.requests.len() <= MAX_REQUESTS);
    let again = Batch { has_too_many: false, ..batch };
    assert_eq!(Batch::decode(&*again.encode_to_vec()).as_ref(), Ok(&again));
    again.requests.iter().for_each(|request| _ = Question::read(request));
}
