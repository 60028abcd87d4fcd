//! What clients can ask for beside checks and that takes long or much memory: bounded for the whole node, whoever asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout,
};

/// Bytes of bodies that are being read, of all connections, where a body does not come at once.
const BODY_BYTES: usize = 64 << 20;
/// Bodies are counted in pieces of so many bytes, rounded up.
const PIECE: usize = 1 << 10;
/// Who waits for the desk. Each may hold a file of rules, of 4 MiB at most.
const MAX_WAITING: usize = 16;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room for the bodies of requests while they are read.
#[derive(Debug)]
pub(crate) struct BodyRoom(Semaphore);

/// The part of it that one body takes, until this is dropped.
#[derive(Debug)]
pub(crate) struct BodyPart<'r> {
    room: &'r BodyRoom,
    taken: Option<SemaphorePermit<'r>>,
}

impl Default for BodyRoom {
    fn default() -> Self {
        Self(Semaphore::new(BODY_BYTES / PIECE))
    }
}

impl BodyRoom {
    /// Nothing, to begin with.
    pub(crate) fn part(&self) -> BodyPart<'_> {
        BodyPart { room: self, taken: None }
    }
}

impl BodyPart<'_> {
    /// Takes room for so many bytes more. False: there is none left.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Ok(pieces) = u32::try_from(bytes.div_ceil(PIECE)) else { return false };
        match (self.room.0.try_acquire_many(pieces), &mut self.taken) {
            (Ok(more), Some(taken)) => taken.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return false,
        }
        true
    }
}

/// Where rules are compiled, compared and described: by one thread at a time, away from those that answer checks. Ten
/// thousand rules take a fraction of a second, the largest file some seconds and hundreds of MiB.
#[derive(Debug)]
pub(crate) struct Desk {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Others wait already, or took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeskIsBusy;

impl Default for Desk {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) }
    }
}

impl Desk {
    /// Does the work when it is its turn. What has begun is finished, also when nobody waits for it any more, and keeps others
    /// waiting for as long.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DeskIsBusy> {
        let waits = Waits::begin(&self.waiting).ok_or(DeskIsBusy)?;
        let turn = timeout(PATIENCE, Arc::clone(&self.turn).acquire_owned()).await.map_err(|_| DeskIsBusy)?;
        let turn = turn.expect("it is never closed");
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
    fn begin(waiting: &'d AtomicUsize) -> Option<Self> {
        let waits = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < MAX_WAITING).then_some(waits)
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

    #[test]
    fn bodies_take_room_and_give_it_back() {
        let room = BodyRoom::default();
        let (mut one, mut two) = (room.part(), room.part());
        assert!(one.grow(BODY_BYTES / 2) && one.grow(1) && two.grow(BODY_BYTES / 2 - PIECE));
        assert!(!two.grow(1), "a byte takes a piece");
        drop(one);
        assert!(two.grow(BODY_BYTES / 2 + PIECE) && !room.part().grow(1));
        drop(two);
        assert!(room.part().grow(BODY_BYTES) && !room.part().grow(usize::MAX));
    }

    #[tokio::test]
    async fn one_works_some_wait_and_the_rest_is_refused() {
        let desk = Arc::new(Desk::default());
        let (go, held) = channel::<()>();
        let mut first = {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.work(move || held.recv().is_ok()).await })
        };
        while desk.turn.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut others = JoinSet::new();
        for number in 0..MAX_WAITING + 5 {
            let desk = Arc::clone(&desk);
            others.spawn(async move { desk.work(move || number).await });
        }
        for _ in 0..5 {
            assert_eq!(others.join_next().await.unwrap().unwrap(), Err(DeskIsBusy));
        }
        go.send(()).unwrap();
        assert_eq!((&mut first).await.unwrap(), Ok(true));
        let done = others.join_all().await;
        assert!(done.len() == MAX_WAITING && done.iter().all(Result::is_ok));
        assert_eq!(desk.waiting.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so_and_who_gives_up_makes_room() {
        let desk = Desk::default();
        let _turn = Arc::clone(&desk.turn).acquire_owned().await.unwrap();
        assert_eq!(desk.work(|| ()).await, Err(DeskIsBusy));
        assert!(timeout(Duration::from_secs(1), desk.work(|| ())).await.is_err());
        assert_eq!(desk.waiting.load(Relaxed), 0);
    }
}
