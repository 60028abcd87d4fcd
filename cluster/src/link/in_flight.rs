//! The checks that wait for an answer on one stream, by id.
//!
//! Ids are given out in order and never again during the life of a link, so the checks in flight are a window of
//! consecutive numbers: finding one is an index, the oldest is the front.

use std::collections::VecDeque;

use tokio::{sync::oneshot, time::Instant};

use super::Reply;

/// A check that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) reply: oneshot::Sender<Reply>,
    pub(super) sent_at: Instant,
    /// Whether it is to be undone when nobody waits for its answer any more.
    pub(super) undoable: bool,
}

/// The window of checks in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    first_id: u64,
    window: VecDeque<Option<Sent>>,
}

impl InFlight {
    /// How many ids lie between the oldest check in flight and the newest.
    pub(super) fn span(&self) -> usize {
        self.window.len()
    }

    /// Notes a check and gives it an id.
    pub(super) fn add(&mut self, sent: Sent) -> u64 {
        let id = self.first_id + self.window.len() as u64;
        self.window.push_back(Some(sent));
        id
    }

    /// The check with that id, once.
    pub(super) fn take(&mut self, id: u64) -> Option<Sent> {
        let place = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        let sent = self.window.get_mut(place)?.take();
        self.shrink();
        sent
    }

    /// When the oldest check still in flight was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        // The front is never empty: `shrink` sees to it.
        self.window.front().and_then(|front| front.as_ref()).map(|sent| sent.sent_at)
    }

    /// Gives up those that were sent before `cutoff`; whoever waits for one learns that it is lost.
    pub(super) fn forget_before(&mut self, cutoff: Instant) -> usize {
        let mut lost = 0;
        while self.oldest().is_some_and(|sent_at| sent_at < cutoff) {
            self.window.pop_front();
            self.first_id += 1;
            lost += 1;
            self.shrink();
        }
        lost
    }

    /// Gives up all; ids go on behind them.
    pub(super) fn forget_all(&mut self) -> usize {
        let lost = self.window.iter().flatten().count();
        self.first_id += self.window.len() as u64;
        self.window.clear();
        lost
    }

    fn shrink(&mut self) {
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first_id += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sent(sent_at: Instant) -> Sent {
        Sent { reply: oneshot::channel().0, sent_at, undoable: false }
    }

    #[tokio::test(start_paused = true)]
    async fn each_id_is_found_once_in_any_order() {
        let now = Instant::now();
        let mut flight = InFlight::default();
        let ids: Vec<u64> = (0..4).map(|n| flight.add(sent(now + Duration::from_secs(n)))).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert!(flight.take(2).is_some() && flight.take(2).is_none());
        assert_eq!(flight.span(), 4);
        assert!(flight.take(0).is_some());
        assert_eq!(flight.oldest(), Some(now + Duration::from_secs(1)));
        assert!(flight.take(1).is_some());
        assert_eq!((flight.span(), flight.oldest()), (1, Some(now + Duration::from_secs(3))));
        assert!(flight.take(9).is_none() && flight.take(0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_checks_are_given_up_and_ids_are_not_used_again() {
        let now = Instant::now();
        let mut flight = InFlight::default();
        (0..4).for_each(|n| _ = flight.add(sent(now + Duration::from_secs(n))));
        assert!(flight.take(1).is_some());
        assert_eq!(flight.forget_before(now + Duration::from_secs(3)), 2);
        assert!(flight.take(2).is_none() && flight.take(3).is_some());
        assert_eq!(flight.add(sent(now)), 4);
        assert_eq!(flight.forget_all(), 1);
        assert_eq!(flight.add(sent(now)), 5);
    }
}
