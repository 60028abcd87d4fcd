//! What decides checks, and what it is made of.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tidegate_limiter::{Nanos, cluster::Store};
use tokio::{sync::Notify, time::Instant};

use super::{denials::Denials, pace::Pace};
use crate::{
    clock::Clock, loss::Shares, owner::slot_ownership::SlotOwnership, requests::Requests, routes::Routes,
    rules_in_force::RulesInForce, stats::WorkerStats,
};

/// How often a check is sent again after "I do not own that slot" and a pause.
pub(super) const MAX_ATTEMPTS: u32 = 9;
/// The pause before that, unless the slot table changes earlier: while a node stops or joins it changes every few milliseconds, for
/// other slots most of the time. Such an attempt does not count.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// All attempts at a check, those included that a change of the slot table led to.
pub(super) const MAX_SENT: u32 = 32;

/// Decides checks, or has them decided.
#[derive(Debug)]
pub struct Router {
    pub(super) routes: ArcSwapOption<Routes>,
    /// Whether there are some: each check asks.
    pub(super) has_routes: AtomicBool,
    /// Wakes checks that wait for a table that fits.
    pub(super) changed: Notify,
    pub(super) store: Arc<Store>,
    pub(super) floors: Arc<Store>,
    pub(super) shares: Shares,
    pub(super) ownership: Arc<SlotOwnership>,
    pub(super) requests: Arc<Requests>,
    pub(super) clock: Clock,
    pub(super) workers: Vec<Arc<WorkerStats>>,
    pub(super) in_force: Arc<RulesInForce>,
    pub(super) denials: Denials,
    /// By worker: of asking others what they would say of a check that is denied.
    pub(super) previews: Vec<Pace>,
    /// How long an owner is waited for.
    pub(super) forward_timeout: Duration,
}

impl Router {
    #[expect(clippy::too_many_arguments, reason = "what a node is made of")]
    pub(crate) fn new(
        store: Arc<Store>,
        floors: Arc<Store>,
        shares: Shares,
        ownership: Arc<SlotOwnership>,
        requests: Arc<Requests>,
        in_force: Arc<RulesInForce>,
        clock: Clock,
        workers: Vec<Arc<WorkerStats>>,
        forward_timeout: Duration,
    ) -> Self {
        let previews = workers.iter().map(|_| Pace::default()).collect();
        Self {
            routes: ArcSwapOption::empty(),
            has_routes: AtomicBool::new(false),
            changed: Notify::new(),
            store,
            floors,
            shares,
            ownership,
            requests,
            clock,
            workers,
            in_force,
            denials: Denials::default(),
            previews,
            forward_timeout,
        }
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether this node takes part: it has the cluster's rules and a slot table.
    pub fn has_routes(&self) -> bool {
        self.has_routes.load(Acquire)
    }

    pub(crate) fn publish(&self, routes: Option<Arc<Routes>>) {
        let has_routes = routes.is_some();
        self.routes.store(routes);
        self.has_routes.store(has_routes, Release);
        self.changed.notify_waiters();
    }

    /// Up to where this node must apply the log to have a session, and up to where it has, if that is what it lacks.
    pub(crate) fn lag(&self) -> Option<(u64, u64)> {
        self.ownership.lag(self.clock.now())
    }

    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        self.routes.load_full()
    }

    /// Checks of requests that were charged before, and requests that were forgotten before their time because too many are remembered.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.repeated(), self.requests.unremembered())
    }

    /// Removes buckets that are full again, those of the shares too, in a small step. For a thread that serves nobody.
    pub fn sweep(&self, now: Nanos) {
        self.store.sweep(now);
        self.floors.sweep(now);
        self.shares.sweep(now);
        self.requests.sweep(now);
    }

    /// When a check that begins now is to be answered.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.forward_timeout
    }
}
