//! Gubernator's batch, read so that it cannot take more memory than it may have requests: two bytes on the wire make an empty
//! request, which has a hundred times as many in memory.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType, message, skip_field},
};

use crate::grpc::pb::gubernator::RateLimitReq;

/// Requests in a batch.
pub const MAX_REQUESTS: usize = 1_000;
/// The number of the field.
const REQUESTS: u32 = 1;

/// `pb.gubernator.GetRateLimitsReq`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The first of them, at most [`MAX_REQUESTS`].
    pub requests: Vec<RateLimitReq>,
    /// There were more.
    pub has_too_many: bool,
}

impl Message for Batch {
    fn encode_raw(&self, to: &mut impl BufMut) {
        message::encode_repeated(REQUESTS, &self.requests, to);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != REQUESTS || self.requests.len() == MAX_REQUESTS {
            self.has_too_many |= tag == REQUESTS;
            return skip_field(wire_type, tag, from, context);
        }
        message::merge_repeated(wire_type, &mut self.requests, from, context)
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(REQUESTS, &self.requests)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent_and_no_longer_than_it_may_be() {
        let request = |number: usize| RateLimitReq { name: number.to_string(), ..Default::default() };
        let sent = Batch { requests: (0..MAX_REQUESTS).map(request).collect(), has_too_many: false };
        let mut bytes = sent.encode_to_vec();
        assert_eq!(Batch::decode(&*bytes).unwrap(), sent);
        // Empty ones, and a field that nobody knows.
        bytes.extend([0x0a, 0].repeat(100_000));
        bytes.extend([0x12, 1, 7]);
        let read = Batch::decode(&*bytes).unwrap();
        assert_eq!((read.requests.len(), read.has_too_many), (MAX_REQUESTS, true));
        Batch::decode(&[0x0a, 5, 1][..]).unwrap_err();
    }
}
