//! Linearizable reads of many clients at once: one question to the leader at a time, and whoever waits meanwhile shares the next.
//!
//! Each question takes a stream to the leader and a message from it to each voter, the same that sessions need: clients must not
//! be able to ask as often as they like.

use tokio::{sync::Mutex, time::Instant};

/// Up to where the log was written, as the leader has said last.
#[derive(Debug, Default)]
pub(super) struct Reads {
    latest: Mutex<Option<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the leader was asked.
    asked: Instant,
    index: u64,
}

impl Reads {
    /// An index that includes all that was acknowledged before this call: `ask` finds it out, unless that was asked after this
    /// call began, and answered, for somebody else.
    pub(super) async fn index<E>(&self, ask: impl Future<Output = Result<u64, E>>) -> Result<u64, E> {
        let begun = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some(Known { asked, index }) = *latest
            && asked > begun
        {
            return Ok(index);
        }
        let asked = Instant::now();
        let index = ask.await?;
        *latest = Some(Known { asked, index });
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, time::Duration};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_shares_a_question_that_begins_after_it_and_never_an_earlier_one() {
        let reads = Reads::default();
        let (written, questions) = (Cell::new(10_u64), Cell::new(0_u32));
        // The answer is what was written when the question was asked.
        let ask = || async {
            questions.set(questions.get() + 1);
            let index = written.get();
            sleep(Duration::from_millis(100)).await;
            Ok::<u64, Infallible>(index)
        };
        let reader = |after: u64| {
            let (reads, written) = (&reads, &written);
            async move {
                sleep(Duration::from_millis(after)).await;
                // Something is acknowledged just before the read begins.
                written.set(written.get() + 1);
                let acknowledged = written.get();
                let Ok(index) = reads.index(ask()).await;
                assert!(index >= acknowledged, "read {index}, and {acknowledged} was acknowledged before");
            }
        };
        join_all((0..90).map(reader)).await;
        assert_eq!(questions.get(), 2, "one for the first, one for all that came while it was answered");
        reader(0).await;
        assert_eq!(questions.get(), 3, "what is known may be old");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_is_asked_again_by_the_next() {
        let reads = Reads::default();
        let failed = reads.index(async { Err(()) });
        assert_eq!(failed.await, Err(()));
        assert_eq!(reads.index(async { Ok::<u64, ()>(7) }).await, Ok(7));
    }
}
