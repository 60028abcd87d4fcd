//! What the client of a connection does, so that one that does nothing useful can be told.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::service::Limits;

/// Bytes of answers that a client takes at least in the time that it has for them: who takes one now and then takes none.
const LEAST_TAKEN: u64 = 64 << 10;

/// What a client did, noted by its stream and its service, which run on one thread.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Bytes that the client has taken.
    taken: AtomicU64,
    /// Requests that the service was given, wrapping.
    requests: AtomicU32,
    /// A request is with the service.
    in_service: AtomicBool,
    /// Bytes have come since the last request: the head of another one, not complete yet.
    head_begun: AtomicBool,
    /// The client does not take our bytes.
    write_stalled: AtomicBool,
}

impl Activity {
    pub(super) fn note_read(&self) {
        if !self.in_service.load(Relaxed) {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// So many bytes were written; none: the client does not take any now.
    pub(super) fn note_write(&self, written: Option<usize>) {
        self.write_stalled.store(written.is_none(), Relaxed);
        let taken = self.taken.load(Relaxed);
        self.taken.store(taken.wrapping_add(written.unwrap_or(0) as u64), Relaxed);
    }

    pub(super) fn note_request(&self) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.head_begun.store(false, Relaxed);
        self.in_service.store(true, Relaxed);
    }

    pub(super) fn note_answer(&self) {
        self.in_service.store(false, Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        if self.in_service.load(Relaxed) {
            Phase::InService
        } else if self.write_stalled.load(Relaxed) {
            Phase::NotReading(self.taken.load(Relaxed) / LEAST_TAKEN)
        } else if self.head_begun.load(Relaxed) {
            Phase::Head(self.requests.load(Relaxed))
        } else {
            Phase::Idle(self.requests.load(Relaxed))
        }
    }
}

/// What a connection is doing; the same value twice means that nothing has changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The service has a deadline of its own.
    InService,
    /// After so many requests the head of another one is coming.
    Head(u32),
    /// After so many requests there is none.
    Idle(u32),
    /// The client does not take its answer, after it took so many times [`LEAST_TAKEN`].
    NotReading(u64),
}

impl Phase {
    pub(super) fn patience(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::InService => None,
            Self::Head(_) => Some(limits.head_timeout),
            Self::Idle(_) => Some(limits.idle_timeout),
            Self::NotReading(_) => Some(limits.write_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_trickles_in_is_in_one_phase_until_it_is_complete() {
        let activity = Activity::default();
        assert_eq!(activity.phase(), Phase::Idle(0));
        activity.note_read();
        let begun = activity.phase();
        activity.note_read();
        assert_eq!(begun, activity.phase(), "more bytes of the same head do not buy more time");
        activity.note_request();
        assert_eq!(activity.phase(), Phase::InService);
        activity.note_answer();
        assert_eq!(activity.phase(), Phase::Idle(1));
    }

    #[test]
    fn a_client_that_takes_a_good_part_of_its_answer_has_more_time_and_one_that_takes_it_byte_by_byte_has_none()
     {
        let activity = Activity::default();
        activity.note_write(None);
        let stalled = activity.phase();
        assert!(matches!(stalled, Phase::NotReading(_)));
        for _ in 0..1000 {
            activity.note_write(Some(1));
            activity.note_read();
            activity.note_write(None);
        }
        assert_eq!(stalled, activity.phase(), "nor one that asks for more meanwhile");
        activity.note_write(Some(LEAST_TAKEN as usize));
        activity.note_write(None);
        assert_ne!(stalled, activity.phase());
    }
}
