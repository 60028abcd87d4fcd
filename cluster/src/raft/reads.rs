//! Linearizable reads of many clients at once: one question to the leader at a time, and whoever waits meanwhile shares the next.
//!
//! Each question takes a stream to the leader and a message from it to each voter, the same that sessions need: clients must not
//! be able to ask as often as they like.

use tokio::{sync::Mutex, time::Instant};

/// Up to where the log was written, as the leader has said last.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    latest: Mutex<Option<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the leader was asked.
    asked: Instant,
    index: Option<u64>,
}

impl Reads {
    /// An index that includes all that was acknowledged before this call: `ask` finds it out, unless that was asked after this
    /// call began, and answered, for somebody else. `None`: it could not be found out. Whoever has
    /// waited meanwhile shares that failure, tries again, and finds another leader if there is one. Unless the asker `is_hasty`: it
    /// has waited for too short a time for its failure to say anything to others.
    pub(crate) async fn index(&self, is_hasty: bool, ask: impl AsyncFnOnce() -> Option<u64>) -> Option<u64> {
        let begun = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some(Known { asked, index }) = *latest
            && asked > begun
        {
            return index;
        }
        let asked = Instant::now();
        // Whoever gives up leaves what was known before.
        let index = ask().await;
        if index.is_some() || !is_hasty {
            *latest = Some(Known { asked, index });
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_shares_a_question_that_begins_after_it_and_never_an_earlier_one() {
        let reads = Reads::default();
        let (written, questions) = (Cell::new(10_u64), Cell::new(0_u32));
        // The answer is what was written when the question was asked.
        let ask = async || {
            questions.set(questions.get() + 1);
            let index = written.get();
            sleep(Duration::from_millis(100)).await;
            Some(index)
        };
        let reader = |after: u64| {
            let (reads, written) = (&reads, &written);
            async move {
                sleep(Duration::from_millis(after)).await;
                // Something is acknowledged just before the read begins.
                written.set(written.get() + 1);
                let acknowledged = written.get();
                let index = reads.index(false, ask).await.unwrap();
                assert!(index >= acknowledged, "read {index}, and {acknowledged} was acknowledged before");
            }
        };
        join_all((0..90).map(reader)).await;
        assert_eq!(questions.get(), 2, "one for the first, one for all that came while it was answered");
        reader(0).await;
        assert_eq!(questions.get(), 3, "what is known may be old");
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_one_that_waits_for_a_moment_only_is_its_own() {
        let reads = Reads::default();
        let hasty = async || {
            sleep(Duration::from_millis(1)).await;
            None
        };
        let (hasty, patient) = tokio::join!(reads.index(true, hasty), async {
            // It began before the hasty one had failed.
            reads.index(false, async || Some(7)).await
        });
        assert_eq!((hasty, patient), (None, Some(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_is_asked_again_by_the_next() {
        let reads = Reads::default();
        let fails = async || {
            sleep(Duration::from_secs(3)).await;
            None
        };
        let before = async { reads.index(false, fails).await };
        // The first waits for the leader; the second begins after that was asked, so it asks itself.
        let (first, second) = tokio::join!(before, async {
            sleep(Duration::from_secs(1)).await;
            tokio::join!(
                reads.index(false, fails),
                reads.index(false, async || panic!("it shares the failure of the second"))
            )
        });
        assert_eq!((first, second), (None, (None, None)));
        assert_eq!(reads.index(false, async || Some(7)).await, Some(7));
    }
}
