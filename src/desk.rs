//! What clients can ask for beside checks and that takes long or much memory: bounded for the whole node, whoever asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::parts::Room;

/// Bytes of bodies that are being read, of all connections, where a body does not come at once.
const BODY_BYTES: usize = 48 << 20;
/// Of those, the bodies of one client.
const CLIENT_BODY_BYTES: usize = BODY_BYTES / 8;
/// The same for calls that change rules, tokens or buckets, which have room of their own.
const ADMINISTRATIVE_BYTES: usize = 16 << 20;
/// Of those, the bodies of one client: a file of rules has 4 MiB at most.
const CLIENT_ADMINISTRATIVE_BYTES: usize = ADMINISTRATIVE_BYTES / 2;
/// Bytes of large answers that clients have not taken, of all connections.
const UNTAKEN_BYTES: usize = 64 << 20;
/// Of those, the answers of one client.
const CLIENT_UNTAKEN_BYTES: usize = UNTAKEN_BYTES / 4;
/// Who waits for the desk. Each may hold a file of rules, of 4 MiB at most.
const MAX_WAITING: usize = 16;
/// Those among them that change nothing: the rest of the places is kept for writes.
const MAX_WAITING_READS: usize = MAX_WAITING - MAX_WAITING / 4;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a write waits: what it finds begun may be a large file, and the next one, too.
const PATIENCE_OF_WRITES: Duration = Duration::from_secs(10);

/// What work at the desk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Rules are shown, or tried.
    Read,
    /// Rules are changed. It overtakes all reads but the next one.
    Write,
}

/// Room for the bodies of requests while they are read, and of answers until they are taken.
#[derive(Debug)]
pub(crate) struct BodyRooms {
    pub(crate) ordinary: Arc<Room>,
    /// What clients send who may not make these calls takes nothing of it.
    pub(crate) administrative: Arc<Room>,
    pub(crate) untaken: Arc<Room>,
}

impl Default for BodyRooms {
    fn default() -> Self {
        Self {
            ordinary: Room::new(BODY_BYTES, CLIENT_BODY_BYTES),
            administrative: Room::new(ADMINISTRATIVE_BYTES, CLIENT_ADMINISTRATIVE_BYTES),
            untaken: Room::new(UNTAKEN_BYTES, CLIENT_UNTAKEN_BYTES),
        }
    }
}

/// Where rules are compiled, compared and described: by one thread at a time, away from those that answer checks. Ten
/// thousand rules take a fraction of a second, the largest file some seconds and hundreds of MiB.
#[derive(Debug)]
pub(crate) struct Desk {
    turn: Arc<Semaphore>,
    /// The place of the next read: others wait for it in a queue of their own, where no write waits behind them.
    next_read: Semaphore,
    waiting: AtomicUsize,
}

/// Others wait already, or took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeskIsBusy;

impl Default for Desk {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), next_read: Semaphore::new(1), waiting: AtomicUsize::new(0) }
    }
}

impl Desk {
    /// Does the work when it is its turn. What has begun is finished, also when nobody waits for it any more, and keeps others
    /// waiting for as long.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        kind: Work,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DeskIsBusy> {
        let (places, patience) = match kind {
            Work::Read => (MAX_WAITING_READS, PATIENCE),
            Work::Write => (MAX_WAITING, PATIENCE_OF_WRITES),
        };
        let waits = Waits::begin(&self.waiting, places).ok_or(DeskIsBusy)?;
        let its_turn = async {
            let _next = match kind {
                Work::Read => Some(self.next_read.acquire().await.expect("it is never closed")),
                Work::Write => None,
            };
            Arc::clone(&self.turn).acquire_owned().await.expect("it is never closed")
        };
        let turn = timeout(patience, its_turn).await.map_err(|_| DeskIsBusy)?;
        drop(waits);
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        Ok(done.await.expect("the work does not panic"))
    }
}

/// One of those who wait, also one who gives up.
struct Waits<'d>(&'d AtomicUsize);

impl<'d> Waits<'d> {
    fn begin(waiting: &'d AtomicUsize, places: usize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < places).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn one_works_some_wait_and_the_rest_is_refused() {
        let desk = Arc::new(Desk::default());
        let (go, held) = channel::<()>();
        let mut first = {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.work(Work::Read, move || held.recv().is_ok()).await })
        };
        while desk.turn.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut others = JoinSet::new();
        for number in 0..MAX_WAITING_READS + 5 {
            let desk = Arc::clone(&desk);
            others.spawn(async move { desk.work(Work::Read, move || number).await });
        }
        for _ in 0..5 {
            assert_eq!(others.join_next().await.unwrap().unwrap(), Err(DeskIsBusy));
        }
        go.send(()).unwrap();
        assert_eq!((&mut first).await.unwrap(), Ok(true));
        let done = others.join_all().await;
        assert!(done.len() == MAX_WAITING_READS && done.iter().all(Result::is_ok));
        assert_eq!(desk.waiting.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so_and_who_gives_up_makes_room() {
        let desk = Desk::default();
        let _turn = Arc::clone(&desk.turn).acquire_owned().await.unwrap();
        assert_eq!(desk.work(Work::Read, || ()).await, Err(DeskIsBusy));
        assert!(timeout(Duration::from_secs(1), desk.work(Work::Read, || ())).await.is_err());
        assert_eq!(desk.waiting.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_write_has_a_place_and_overtakes_the_reads_that_wait() {
        let desk = Arc::new(Desk::default());
        let turn = Arc::clone(&desk.turn).acquire_owned().await.unwrap();
        let (order, done) = channel();
        let mut all = JoinSet::new();
        let mut begin = |kind: Work, number: usize| {
            let (desk, order) = (Arc::clone(&desk), order.clone());
            all.spawn(async move { desk.work(kind, move || order.send(number).is_ok()).await });
        };
        for number in 0..MAX_WAITING_READS {
            begin(Work::Read, number);
        }
        while desk.waiting.load(Relaxed) < MAX_WAITING_READS {
            tokio::task::yield_now().await;
        }
        assert_eq!(desk.work(Work::Read, || ()).await, Err(DeskIsBusy));
        begin(Work::Write, 100);
        while desk.waiting.load(Relaxed) <= MAX_WAITING_READS {
            tokio::task::yield_now().await;
        }
        drop(turn);
        assert!(all.join_all().await.iter().all(|done| *done == Ok(true)));
        drop(order);
        let done: Vec<usize> = done.iter().collect();
        assert_eq!(done.len(), MAX_WAITING_READS + 1);
        assert_eq!(done[1], 100, "only the next read is before it: {done:?}");
    }
}
