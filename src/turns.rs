//! On each worker thread the clients take turns, so that one that asks for more than the others makes nobody wait.
//!
//! The runtime of a thread polls what is ready in the order in which it became ready, and looks only now and then at what else has
//! come. A client with 500 busy connections so has 500 turns before somebody else has one. Here the time that polls take is counted
//! for each client. One that takes more than its part is *heavy*: in each round of the runtime its connections run for [`TURN`] together,
//! and the rest of them waits behind everything that has come for others meanwhile. It loses no throughput, because rounds follow each
//! other without a pause.
//!
//! - A thread that only one client uses counts nothing. Other nodes are one more client, and what they ask never waits for a turn:
//!   [`Turns::count_peers`].
//! - How long one poll can be is bounded where bytes are read and written: [`crate::tls::Socket`].
//! - A client is an address ([`crate::connections::client_of`]); one that has many addresses has as many turns. Where administration has
//!   an address of its own, what an operator asks there has a turn of its own, too.

use std::{
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, Entry};
use pin_project_lite::pin_project;
use tidegate_cluster::rules::Ledger;
use tokio::{task::yield_now, time::Instant};

/// Nanoseconds over which the time of a client is counted.
const WINDOW: u64 = 8_000_000;
/// Of that, what a client may take and run whenever it is ready: a quarter. It counts in the window and the one before, so that
/// who goes on at that rate is not let run freely at the beginning of each.
const LIGHT: u64 = WINDOW / 4;
/// Nanoseconds that the connections of one heavy client run in one round. The last poll of a round may be longer.
const TURN: u64 = 200_000;
/// The same where only other nodes are beside it: a forwarded check has 100 ms by default. Each round asks all connections that are ready whether it is
/// their turn, which costs a client with hundreds of them something.
const TURN_BESIDE_PEERS: u64 = 5 * TURN;

/// The turns of one worker thread.
#[derive(Debug)]
pub(crate) struct Turns {
    start: Instant,
    /// Those that have connections, and how many.
    clients: DashMap<(Whose, IpAddr), (usize, Arc<Usage>)>,
    /// As many as `clients` has, and one for the other nodes.
    count: AtomicUsize,
    counts_peers: AtomicBool,
    /// How often heavy clients have waited for the runtime to look around.
    round: AtomicU64,
}

/// What a client has used of a thread. Only that thread writes.
#[derive(Debug, Default)]
struct Usage {
    window: AtomicU64,
    /// In this window, and in the one before.
    spent: AtomicU64,
    before: AtomicU64,
    round: AtomicU64,
    spent_in_round: AtomicU64,
}

/// The turn of one client on one thread, which its connections there share.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    client: (Whose, IpAddr),
    usage: Arc<Usage>,
    /// That of the client for which the connection is, once that is known.
    announced: OnceLock<Arc<Turn>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// Whoever reaches the ports of services.
    Clients,
    /// Whoever reaches the address of administration.
    Operators,
}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            clients: DashMap::new(),
            count: AtomicUsize::new(0),
            counts_peers: AtomicBool::new(false),
            round: AtomicU64::new(1),
        })
    }

    /// Other nodes may ask on this thread from now on: then a client that is alone there takes turns with them.
    pub(crate) fn count_peers(&self) {
        if !self.counts_peers.swap(true, Relaxed) {
            self.count.fetch_add(1, Relaxed);
        }
    }

    /// The turn of a connection of this client.
    pub(crate) fn of(self: &Arc<Self>, whose: Whose, address: IpAddr) -> Arc<Turn> {
        let client = (whose, address);
        let usage = match self.clients.entry(client) {
            Entry::Occupied(mut known) => {
                let (connections, usage) = known.get_mut();
                *connections += 1;
                Arc::clone(usage)
            }
            Entry::Vacant(vacant) => {
                self.count.fetch_add(1, Relaxed);
                let usage = Arc::new(Usage::default());
                vacant.insert((1, Arc::clone(&usage)));
                usage
            }
        };
        Arc::new(Turn { turns: Arc::clone(self), client, usage, announced: OnceLock::new() })
    }

    /// Nanoseconds that a heavy client runs in one round.
    fn turn(&self) -> u64 {
        let is_beside_peers = self.counts_peers.load(Relaxed) && self.count.load(Relaxed) == 2;
        if is_beside_peers { TURN_BESIDE_PEERS } else { TURN }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Counts the other nodes from when the cluster has some.
pub(crate) fn follow(turns: &[Arc<Turns>], ledger: &Ledger) {
    let (turns, mut applied) = (turns.to_vec(), ledger.watch());
    tokio::spawn(async move {
        if applied.wait_for(|applied| applied.state.members.len() > 1).await.is_ok() {
            turns.iter().for_each(|turns| turns.count_peers());
        }
    });
}

impl Turn {
    /// The work of a connection, which then waits for its turn.
    pub(crate) fn take<F: Future>(self: &Arc<Self>, work: F) -> InTurn<F> {
        InTurn { turn: Arc::clone(self), waits: true, refused_in: None, work }
    }

    /// The work of a request that a connection has read in its turn. It is counted, and waits for no turn by itself: what waits keeps its memory,
    /// and there are as many requests as a client likes to send. While it is worked off, the client's connections read no more.
    pub(crate) fn count<F: Future>(self: &Arc<Self>, work: F) -> InTurn<F> {
        InTurn { turn: Arc::clone(self), waits: false, refused_in: None, work }
    }

    /// The connection is for a client elsewhere, as the proxy at its other end has announced: from now on it has that one's turn.
    pub(crate) fn announce(&self, client: IpAddr) {
        // It is announced once.
        let _ = self.announced.set(self.turns.of(self.client.0, client));
    }

    /// Whether work of this client waits for its turn by now: others are there, and it takes more than its part.
    pub(crate) fn has_to_wait(&self) -> bool {
        self.turns.count.load(Relaxed) >= 2 && self.usage.is_heavy(self.turns.now())
    }

    /// Whether it is its turn now. `refused_in` is the round in which it was not, if it has asked before.
    fn has_come(&self, now: u64, refused_in: &mut Option<u64>) -> bool {
        if !self.usage.is_heavy(now) {
            *refused_in = None;
            return true;
        }
        let mut round = self.turns.round.load(Relaxed);
        if refused_in.take() == Some(round) {
            // It comes back after the runtime has looked around, and is the first one to: a round begins.
            round += 1;
            self.turns.round.store(round, Relaxed);
        }
        if self.usage.spent_in(round) < self.turns.turn() {
            return true;
        }
        *refused_in = Some(round);
        false
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Entry::Occupied(mut known) = self.turns.clients.entry(self.client) {
            known.get_mut().0 -= 1;
            if known.get().0 == 0 {
                known.remove();
                self.turns.count.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Usage {
    fn is_heavy(&self, now: u64) -> bool {
        self.enter(now);
        self.spent.load(Relaxed).max(self.before.load(Relaxed)) > LIGHT
    }

    /// The window of this instant.
    fn enter(&self, now: u64) {
        let (window, last) = (now / WINDOW, self.window.load(Relaxed));
        if window != last {
            let before = if window == last + 1 { self.spent.load(Relaxed) } else { 0 };
            self.before.store(before, Relaxed);
            self.spent.store(0, Relaxed);
            self.window.store(window, Relaxed);
        }
    }

    fn spent_in(&self, round: u64) -> u64 {
        if self.round.swap(round, Relaxed) != round {
            self.spent_in_round.store(0, Relaxed);
        }
        self.spent_in_round.load(Relaxed)
    }

    fn spend(&self, begun: u64, nanos: u64) {
        self.enter(begun);
        for spent in [&self.spent, &self.spent_in_round] {
            spent.store(spent.load(Relaxed) + nanos, Relaxed);
        }
    }
}

pin_project! {
    /// Work of a client that runs when it is its turn.
    pub(crate) struct InTurn<F> {
        turn: Arc<Turn>,
        waits: bool,
        refused_in: Option<u64>,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(announced) = this.turn.announced.get() {
            let announced = Arc::clone(announced);
            *this.turn = announced;
        }
        let turns = &this.turn.turns;
        if turns.count.load(Relaxed) < 2 {
            return this.work.poll(cx);
        }
        let begun = turns.now();
        if *this.waits && !this.turn.has_come(begun, this.refused_in) {
            // It wakes this task behind those for whom something has come.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let polled = this.work.poll(cx);
        this.turn.usage.spend(begun, turns.now() - begun);
        polled
    }
}

#[cfg(test)]
mod tests;
