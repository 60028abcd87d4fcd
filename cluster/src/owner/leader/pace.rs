//! How many slots move together, and the rests in between.

use std::time::Duration;

use tidegate_limiter::Nanos;

/// Slots that move together: while their last buckets are on the way, nobody decides about them.
pub(crate) const BATCH: usize = 64;
/// After a batch that goes to a node which joins: so long for each bucket. Moving one takes both nodes about a microsecond,
/// and checks should have the processors for most of the time.
const REST_EACH: Duration = Duration::from_micros(10);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// The rests between the batches of slots that nobody waits for. Meanwhile no slot is on its way.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// For how long to rest when the batch has arrived.
    due: Option<Duration>,
    pub(super) until: Option<Nanos>,
}

impl Pace {
    pub(super) fn begin(&mut self, buckets: usize) {
        let buckets = u32::try_from(buckets).unwrap_or(u32::MAX);
        self.due = Some(REST_EACH.saturating_mul(buckets).min(LONGEST_REST));
    }

    pub(super) fn arrived(&mut self, now: Nanos) {
        if let Some(rest) = self.due.take() {
            self.until = Some(now.saturating_add(rest));
        }
    }

    pub(super) fn rests(&self, now: Nanos) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}
