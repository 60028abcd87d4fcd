//! What is done to what goes from each node to each other one, and how often that was.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// What waits for a slow link waits for so long at most.
const LONGEST_QUEUE: Duration = Duration::from_millis(400);
/// A packet that was lost is sent again after so long, and after twice as long each time that it is lost again.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How often it is lost in a row, at most.
const LOST_AT_MOST: u32 = 4;
/// How late what is out of order comes, in milliseconds.
const OVERTAKEN_BY: std::ops::Range<u64> = 20..200;

/// What is done to what goes from one node to another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// Nothing arrives.
    pub(crate) cut: bool,
    /// So many of a hundred are lost.
    pub(crate) loss: u8,
    /// So many of a hundred are kept so long that others overtake them.
    pub(crate) disorder: u8,
    /// All arrive twice.
    pub(crate) doubled: bool,
    /// All arrive later by this.
    pub(crate) delay: Duration,
    /// And by chance by up to this more.
    pub(crate) jitter: Duration,
    /// The sender's link takes so many kilobits a second.
    pub(crate) kilobits: Option<u32>,
    /// Streams that the sender opens are refused.
    pub(crate) refuses: bool,
    /// So many of a hundred parts of answers are lost, each with its stream.
    pub(crate) lost_answers: u8,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is never seen again.
    Lost,
    /// It arrives then, and so often.
    Arrives { at: Instant, times: u8 },
}

#[derive(Debug)]
pub(super) struct Faults {
    nodes: usize,
    /// From each node to each one, those of the first sender first.
    links: watch::Sender<Vec<Link>>,
    /// Until when the slow link of each sender is busy.
    busy: Mutex<Vec<Instant>>,
    hits: AtomicU64,
}

impl Faults {
    pub(super) fn new(nodes: u8) -> Self {
        let nodes = usize::from(nodes);
        Self {
            nodes,
            links: watch::Sender::new(vec![Link::default(); nodes * nodes]),
            busy: Mutex::new(vec![Instant::now(); nodes]),
            hits: AtomicU64::new(0),
        }
    }

    fn place(&self, from: u8, to: u8) -> usize {
        usize::from(from - 1) * self.nodes + usize::from(to - 1)
    }

    pub(super) fn set(&self, pairs: &[(u8, u8)], change: impl Fn(&mut Link)) {
        self.links.send_modify(|links| {
            for (from, to) in pairs {
                change(&mut links[self.place(*from, *to)]);
            }
        });
    }

    pub(super) fn heal(&self) {
        self.links.send_modify(|links| links.fill(Link::default()));
        self.hits.store(0, Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    fn count(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn link(&self, from: u8, to: u8) -> Link {
        self.links.borrow()[self.place(from, to)]
    }

    /// Whether a datagram that is to arrive now does not.
    pub(super) fn stops(&self, from: u8, to: u8) -> bool {
        let cut = self.link(from, to).cut;
        if cut {
            self.count();
        }
        cut
    }

    /// What becomes of a datagram of so many bytes that is sent now.
    pub(super) fn fate(&self, from: u8, to: u8, bytes: usize) -> Fate {
        let link = self.link(from, to);
        let mut at = Instant::now();
        if link.cut || happens(link.loss) {
            self.count();
            return Fate::Lost;
        }
        if let Some(kilobits) = link.kilobits {
            self.count();
            match self.book(from, kilobits, bytes) {
                Some(through) => at = through,
                None => return Fate::Lost,
            }
        }
        at += self.lateness(&link);
        if link.doubled {
            self.count();
        }
        Fate::Arrives { at, times: 1 + u8::from(link.doubled) }
    }

    /// When a part of a stream that is read now may arrive. Waits while the sender's slow link has no room: meanwhile nothing
    /// more is read of the stream.
    pub(super) async fn due(&self, from: u8, to: u8, bytes: usize) -> Instant {
        let link = self.link(from, to);
        let mut at = Instant::now();
        if let Some(mut kilobits) = link.kilobits {
            self.count();
            loop {
                match self.book(from, kilobits, bytes) {
                    Some(through) => break at = through,
                    None => tokio::time::sleep(LONGEST_QUEUE / 8).await,
                }
                match self.link(from, to).kilobits {
                    Some(still) => kilobits = still,
                    None => break at = Instant::now(),
                }
            }
        }
        for lost in 0..LOST_AT_MOST {
            if !happens(link.loss) {
                break;
            }
            self.count();
            at += SENT_AGAIN_AFTER * (1 << lost);
        }
        at + self.lateness(&link)
    }

    /// Whether a stream from one node to the other does not come to be.
    pub(super) fn refuses(&self, from: u8, to: u8) -> bool {
        let refuses = self.link(from, to).refuses;
        if refuses {
            self.count();
        }
        refuses
    }

    /// Whether a part of an answer is lost that goes from one node to the other.
    pub(super) fn loses_answer(&self, from: u8, to: u8) -> bool {
        let lost = happens(self.link(from, to).lost_answers);
        if lost {
            self.count();
        }
        lost
    }

    /// Returns when what goes from one node to the other arrives: at once, unless it is cut.
    pub(super) async fn until_open(&self, from: u8, to: u8) {
        let place = self.place(from, to);
        if self.stops(from, to) {
            // It cannot fail while there is something that can change it.
            let _ = self.links.subscribe().wait_for(|links| !links[place].cut).await;
        }
    }

    /// Returns when it is cut.
    pub(super) async fn until_cut(&self, from: u8, to: u8) {
        let place = self.place(from, to);
        let _ = self.links.subscribe().wait_for(|links| links[place].cut).await;
    }

    fn lateness(&self, link: &Link) -> Duration {
        let mut late = link.delay + link.jitter.mul_f64(fastrand::f64());
        if happens(link.disorder) {
            late += Duration::from_millis(fastrand::u64(OVERTAKEN_BY));
        }
        if !late.is_zero() {
            self.count();
        }
        late
    }

    /// When so many bytes are through the sender's slow link; `None`: too much waits there already.
    fn book(&self, from: u8, kilobits: u32, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = &mut busy[usize::from(from - 1)];
        if *busy > now + LONGEST_QUEUE {
            return None;
        }
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / (f64::from(kilobits) * 1000.0));
        *busy = (*busy).max(now) + takes;
        Some(*busy)
    }
}

fn happens(percent: u8) -> bool {
    percent > 0 && fastrand::u8(..100) < percent
}
