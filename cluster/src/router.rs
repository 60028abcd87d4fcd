//! Who decides a check: this node, the owner of its slot, or, when no owner answers, what its rule says.
//!
//! The router reads the slot table that somebody publishes ([`Router::publish`]) and never asks gossip. A check is
//! decided by the node that owns its slot, where it arrives: either by this one or by the one it is forwarded to,
//! which decides it or refuses it, but never forwards it on.
//!
//! Several rules can match one request, and their buckets can have several owners. All must allow. Each owner charges
//! its part all or nothing; when one denies, what the others took is given back ([`Store::undo`]), and the others say what they
//! would have decided.

mod amend;
mod asking;
mod attempt;
mod charging;
mod core;
mod denials;
mod explain;
mod look;
mod pace;
mod parts;
mod peers;

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_limiter::{
    Decision, Nanos,
    cluster::{Charge, RuleId},
    rules::Mode,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::{amend::Amended, core::Router, look::Look};
use self::{
    attempt::{Attempt, AttemptOutcome, Previews},
    core::{MAX_ATTEMPTS, MAX_SENT, RETRY_PAUSE},
    parts::{denial, is_held, tell_held},
};
use crate::{
    owner::slot_ownership::Claim,
    requests::RequestKey,
    slots::SlotId,
    verdict::{CheckOptions, Decisions, Local, LossPolicy, NotReady, Undecided, Verdict},
};

/// The least time from one attempt at a check that is held to the next.
const HELD_PAUSE: Duration = Duration::from_millis(2);

impl Router {
    /// Decides a check if this node owns all of its slots: the fast path, without a wait. Fills in the floors of
    /// `charges` and appends to `out` when it decides.
    pub fn decide_local(
        &self,
        charges: &mut [Charge],
        policies: &[LossPolicy],
        now: Nanos,
        out: &mut Decisions,
    ) -> Local {
        if !self.has_routes() {
            return Local::NotReady;
        }
        let mut claims: SmallVec<[Claim; 4]> = SmallVec::new();
        for (charge, policy) in charges.iter_mut().zip(policies) {
            if charge.limit.denies() && charge.mode == Mode::Enforce {
                out.extend(charges.iter().map(denial));
                return Local::Denied { at: now };
            }
            let Ok(mut claim) = self.ownership.claim(SlotId::of(charge.key), policy.consistency, now) else {
                return Local::Elsewhere;
            };
            charge.floor = self.ownership.bounds(&mut claim, charge, policy.reserve, now);
            claims.push(claim);
        }
        let before = out.len();
        let allowed = self.store.check_all(charges, now, out);
        let at = self.clock.now();
        if !allowed {
            claims
                .iter()
                .zip(charges.iter())
                .for_each(|(claim, charge)| self.ownership.note_denied(claim, charge.key));
            self.note_bans(&claims, charges, &out[before..], now);
        }
        if allowed && !self.counts(&claims, charges, &out[before..], now, at)
            || !allowed && is_held(charges, &out[before..])
        {
            // Forfeited, or to be tried again; the slow path finds who decides.
            out.truncate(before);
            return Local::Elsewhere;
        }
        Local::Decided { allowed, at }
    }

    /// Whether charges that were just made at `decided` count: the second look of `SlotOwnership`. `now` is read after they were made.
    fn counts(
        &self,
        claims: &[Claim],
        charges: &[Charge],
        decisions: &[Decision],
        decided: Nanos,
        now: Nanos,
    ) -> bool {
        let counts =
            claims.iter().zip(charges).all(|(claim, charge)| self.ownership.confirm(claim, charge.key, now));
        if counts {
            for ((claim, charge), decision) in claims.iter().zip(charges).zip(decisions) {
                let state = || self.store.mark(charge.key, decided);
                self.ownership.spent(claim, charge, decision, decided, state);
            }
        }
        counts
    }

    /// Decides a check wherever its slots are owned, within the node's check timeout. `policies` says for each charge
    /// what its rule wants. `worker` is that of the calling thread. The charges are by the rules that are in force here now.
    ///
    /// # Errors
    /// As of [`Router::decide_once`].
    pub async fn decide(
        &self,
        worker: usize,
        charges: &mut [Charge],
        policies: &[LossPolicy],
        now: Nanos,
    ) -> Result<Verdict, Undecided> {
        let options =
            CheckOptions { revision: self.in_force.revision(), request: None, deadline: self.deadline() };
        self.decide_once(worker, charges, policies, options, now).await
    }

    /// As [`Router::decide`], with what belongs to the whole check.
    ///
    /// # Errors
    /// When this node has no slot table yet, or has newer rules meanwhile that the check has to be made by.
    pub async fn decide_once(
        &self,
        worker: usize,
        charges: &mut [Charge],
        policies: &[LossPolicy],
        options: CheckOptions,
        mut now: Nanos,
    ) -> Result<Verdict, Undecided> {
        assert_eq!(charges.len(), policies.len(), "each charge has its rule's wish");
        let CheckOptions { revision, request, deadline } = options;
        let request = request.map(|id| RequestKey::number_of_check(id, charges));
        let (mut attempt, mut sent, mut was_held) = (1, 1, false);
        loop {
            // Before the table is loaded, so that no change after that is missed.
            let changed = self.changed.notified();
            let routes = self.routes().ok_or(NotReady)?;
            let acknowledged = self.ownership.acknowledgements().notified();
            let parts = self.split(&routes, charges, policies, now);
            let begun = Instant::now();
            let check = Attempt {
                worker,
                routes: &routes,
                parts: &parts,
                charges,
                policies,
                revision,
                request,
                now,
                begun,
                deadline,
                may_retry: attempt < MAX_ATTEMPTS && sent < MAX_SENT && begun < deadline,
                was_held,
            };
            let tried = self.attempt(&check).await;
            let pause = RETRY_PAUSE.min(deadline.saturating_duration_since(Instant::now()));
            match tried {
                AttemptOutcome::Decided(verdict) => return Ok(verdict),
                AttemptOutcome::Misrouted => {
                    sent += 1;
                    if timeout(pause, changed).await.is_err() {
                        attempt += 1;
                    }
                }
                // The deadline ends this, and not a number of attempts: it is no matter of who decides.
                AttemptOutcome::Held { by_peer, mut denied } => {
                    was_held = true;
                    let in_vain = || charges.iter().any(|charge| self.ownership.waits_in_vain(charge.key));
                    let is_over = Instant::now() >= deadline;
                    if is_over || !by_peer && in_vain() {
                        if !is_over {
                            let (previews, lost) = (Previews::new(), SmallVec::new());
                            self.explain(&check, previews, lost, &mut denied.answers).await;
                        }
                        tell_held(false, false, charges, &mut denied.answers);
                        return Ok(denied);
                    }
                    if by_peer {
                        sleep(pause).await;
                    } else {
                        // Any bucket's acknowledgement ends the wait, however many there are.
                        let _ = timeout(pause, acknowledged).await;
                        sleep_until((begun + HELD_PAUSE).min(deadline)).await;
                    }
                }
                AttemptOutcome::Behind { revision: newer, denied } => {
                    if newer > revision && self.in_force.reach(newer, deadline).await {
                        return Err(Undecided::RulesChanged);
                    }
                    return Ok(denied);
                }
            }
            // The next attempt would charge this node's own part by them, too.
            if self.in_force.revision() > revision
                && charges.iter().any(|charge| charge.rule != RuleId::INLINE)
                && Instant::now() < deadline
            {
                return Err(Undecided::RulesChanged);
            }
            now = self.clock.now();
        }
    }
}
