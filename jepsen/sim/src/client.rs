//! Clients of a simulated node: they ask it directly, as its front ends do.

use std::{cell::Cell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use fastrand::Rng;
use smallvec::SmallVec;
use tidegate_cluster::{
    Amendment, Answer, CheckOptions, Clock, DecidedBy, Decisions, Local, LossPolicy, Router, Undecided,
    simulation::clock::elapsed,
};
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit,
    cluster::{Charge, Consistency, LimitRef, Match, OnOwnerLoss, Reserve, RuleId, Rules},
    rules::Mode,
};
use tokio::time::sleep;

use super::{
    shared::{Shared, name},
    workload::{
        ALL, FAMILIES, GIVEN_BACK, INLINE, INLINE_BURST, INLINE_LIMIT, KEYS, LONG, LONG_TURNS_EVERY_MS,
        family_of, hot_key, team_of,
    },
};
use tidegate_jepsen::history::{Operation, Outcome, Refund};

/// Keys of the flooded rule that are asked about at once.
const FLOOD: u32 = 96;
/// A bucket of the rule `fresh` is full again within this time, whatever was taken of it.
const FRESH_REFILLS: Duration = Duration::from_secs(1);

/// Asks one check after the other.
pub(super) struct Client {
    pub(super) shared: Rc<Shared>,
    pub(super) node: usize,
    pub(super) router: Arc<Router>,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) clock: Clock,
    pub(super) dice: Rng,
    pub(super) next_fresh: Cell<u64>,
}

/// A check before it is decided.
#[derive(Default)]
struct Question {
    charges: SmallVec<[Charge; 4]>,
    policies: SmallVec<[LossPolicy; 4]>,
    /// The keys that are judged, in the order of the charges.
    keys: Vec<Option<u32>>,
    /// Of the rules that it was made by.
    revision: u64,
}

/// A check that was decided: whether it is allowed, and who decided what.
struct Decided {
    question: Question,
    allowed: bool,
    answers: Vec<Option<(Decision, (String, String))>>,
}

/// Why one was not.
#[expect(clippy::large_enum_variant, reason = "it is given on at once, and the large one is the usual one")]
enum NotDecided {
    /// There are no rules yet.
    NoRules,
    /// This node is not ready.
    NotReady(Question),
}

impl Client {
    pub(super) async fn run(mut self) {
        loop {
            let pause = self.shared.plan.pause_ms * 1_000;
            sleep(Duration::from_micros(self.dice.u64(1_000..2 * pause))).await;
            if self.shared.nodes[self.node].borrow().paused {
                continue;
            }
            // A few at once, as callers come.
            for _ in 0..self.dice.u32(1..4) {
                self.ask().await;
            }
            if self.shared.floods.get() {
                self.flood();
                self.ask_for_something_new().await;
            }
        }
    }

    /// The key that is asked about next: mostly the one of its family that is under pressure.
    fn any_key(&mut self) -> u32 {
        let families = &self.shared.plan.families;
        let family = families[self.dice.usize(..families.len())];
        let now_ms = elapsed() / 1_000_000;
        match self.dice.u8(..4) {
            // One that was under pressure a while ago: whoever owns it now must know what it has consumed. The others keep what
            // they have until their turn comes.
            0 if family == LONG => hot_key(family, now_ms.saturating_sub(LONG_TURNS_EVERY_MS)),
            0 => family as u32 * KEYS + self.dice.u32(..KEYS),
            _ => hot_key(family, now_ms),
        }
    }

    async fn ask(&mut self) {
        let key = self.any_key();
        let is_inline = family_of(key) == Some(INLINE);
        let mut attributes: HashMap<&str, String> = HashMap::new();
        attributes.insert("k", key.to_string());
        if let Some(family) = family_of(key).filter(|_| !is_inline) {
            attributes.insert("kind", FAMILIES[family].name.to_owned());
        }
        if !is_inline && self.dice.u8(..4) == 0 {
            attributes.insert("all", "1".to_owned());
        }
        if !is_inline && self.dice.u8(..8) == 0 {
            attributes.insert("team", team_of(key).to_string());
        }
        let invoked = elapsed();
        let make = || if is_inline { self.inline(key) } else { self.matching(&attributes, key) };
        let Decided { question, allowed, answers } = match self.decide(make).await {
            Ok(decided) => decided,
            Err(NotDecided::NoRules) => return self.note(&[Some(key)], invoked, Outcome::Refused, &[]),
            Err(NotDecided::NotReady(question)) => {
                return self.note(&question.keys, invoked, Outcome::Refused, &[]);
            }
        };
        // Not before: a node without the cluster's rules makes other fingerprints.
        for (charge, key) in question.charges.iter().zip(&question.keys) {
            if let Some(key) = key {
                self.shared.hashes.borrow_mut().insert(*key, charge.key);
            }
        }
        let by: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|(_, by)| by.clone())).collect();
        let outcome = if allowed { Outcome::Admitted } else { Outcome::Denied };
        // What an owner denies of a check that is allowed, its newer rules only count (`mode: shadow`): it is not judged.
        let counts = |answer: &Option<(Decision, _)>| {
            !allowed || answer.as_ref().is_none_or(|(decision, _)| decision.allowed)
        };
        let judged: Vec<Option<u32>> =
            question.keys.iter().zip(&answers).map(|(key, answer)| key.filter(|_| counts(answer))).collect();
        self.note(&judged, invoked, outcome, &by);
        if key == GIVEN_BACK
            && allowed
            && self.dice.u8(..4) == 0
            && let Some(place) = question.keys.iter().position(|number| *number == Some(key))
        {
            let (charges, policies) = (&question.charges[place..=place], &question.policies[place..=place]);
            self.give_back(charges, policies, question.revision).await;
        }
    }

    /// A limit that comes with the check.
    fn inline(&self, key: u32) -> Option<Question> {
        let limit = Limit::parse(INLINE_LIMIT, Some(INLINE_BURST), Algorithm::TokenBucket).ok()?;
        let mut question = Question { revision: self.rules.load().revision(), ..Question::default() };
        question.charges.push(Charge {
            key: self.rules.load().inline_key("default", &key.to_string(), &limit),
            rule: RuleId::INLINE,
            limit,
            cost: Cost::ONE,
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        });
        question.policies.push(LossPolicy {
            on_owner_loss: OnOwnerLoss::Share,
            consistency: Consistency::Available,
            carved: false,
            reserve: Reserve::of_inline(&limit),
            limit_ref: LimitRef::INLINE,
        });
        question.keys.push(Some(key));
        Some(question)
    }

    /// What the rules say. A rule in shadow mode is asked and not judged. `None`: there are no rules yet.
    fn matching(&self, attributes: &HashMap<&str, String>, key: u32) -> Option<Question> {
        let rules = self.rules.load_full();
        let mut matched = SmallVec::new();
        if let Match::Unmatched { .. } = rules.matching("default", attributes, &mut matched) {
            return None;
        }
        let mut question = Question { revision: rules.revision(), ..Question::default() };
        for one in matched {
            let Some(limit) = one.limit else { continue };
            question.charges.push(Charge {
                key: one.key,
                rule: one.rule.id(),
                limit: *limit,
                cost: Cost::ONE,
                mode: one.rule.mode(),
                floor: None,
                ban: None,
            });
            question.policies.push(LossPolicy {
                on_owner_loss: one.rule.on_owner_loss(),
                consistency: one.rule.consistency(),
                carved: one.rule.is_carved(),
                reserve: one.rule.reserve(),
                limit_ref: one.limit_ref,
            });
            let number = match one.rule.name() {
                "all" => ALL,
                "team" => team_of(key),
                _ => key,
            };
            question.keys.push((one.rule.mode() == Mode::Enforce).then_some(number));
        }
        Some(question)
    }

    /// As a front end does: where the rules have changed meanwhile, the check is made again.
    async fn decide(&self, make: impl Fn() -> Option<Question>) -> Result<Decided, NotDecided> {
        let deadline = self.router.deadline();
        loop {
            let mut question = make().ok_or(NotDecided::NoRules)?;
            let now = self.clock.now();
            let Question { charges, policies, revision, .. } = &mut question;
            let mut decisions = Decisions::new();
            match self.router.decide_local(charges, policies, now, &mut decisions) {
                Local::Decided { allowed, .. } => {
                    let by = ("owner".to_owned(), name(self.node));
                    let answers = decisions.iter().map(|one| Some((*one, by.clone()))).collect();
                    return Ok(Decided { question, allowed, answers });
                }
                // No rule of the simulation denies everything.
                Local::Denied { .. } => unreachable!("each limit lets something pass"),
                Local::NotReady => return Err(NotDecided::NotReady(question)),
                Local::Elsewhere => {}
            }
            let options = CheckOptions { revision: *revision, request: None, deadline };
            match self.router.decide_once(0, charges, policies, options, now).await {
                Ok(verdict) => {
                    let by = |answer: &Option<Answer>| {
                        let Answer { decision, by } = answer.as_ref()?;
                        let who = match by {
                            DecidedBy::Forwarded(owner) => owner.to_string(),
                            _ => name(self.node),
                        };
                        Some((*decision, (by.as_str().to_owned(), who)))
                    };
                    let answers = verdict.answers.iter().map(by).collect();
                    return Ok(Decided { question, allowed: verdict.allowed, answers });
                }
                Err(Undecided::NotReady(_)) => return Err(NotDecided::NotReady(question)),
                Err(Undecided::RulesChanged) => {}
            }
        }
    }

    /// Fills the memory of this node with keys that nobody asks about again.
    fn flood(&mut self) {
        for _ in 0..FLOOD {
            let attributes =
                HashMap::from([("kind", "names".to_owned()), ("k", self.dice.u64(..).to_string())]);
            let Some(mut question) = self.matching(&attributes, 0) else { return };
            let now = self.clock.now();
            let mut decisions = Decisions::new();
            // Those that others own are theirs to be flooded with.
            let _ = self.router.decide_local(&mut question.charges, &question.policies, now, &mut decisions);
        }
    }

    /// Asks about a key that nobody has asked about before.
    async fn ask_for_something_new(&self) {
        let number = self.next_fresh.replace(self.next_fresh.get() + 1);
        let key = format!("{}-{number}", self.node);
        let attributes = HashMap::from([("kind", "fresh".to_owned()), ("k", key.clone())]);
        let decided = self.decide(|| self.matching(&attributes, 0)).await;
        let Ok(Decided { answers, .. }) = decided else { return };
        for (decision, (by, who)) in answers.into_iter().flatten() {
            let waits = decision.retry_after.filter(|wait| *wait > FRESH_REFILLS);
            if let Some(wait) = waits.filter(|_| by == "owner" || by == "forwarded") {
                let at = elapsed() as f64 / 1e9;
                self.shared.locked_out.borrow_mut().push(format!(
                    "a key that was never asked about is denied by {who} for {wait:?}, at {at:.3} s, though its limit refills in {FRESH_REFILLS:?}"
                ));
            }
        }
    }

    /// Gives a unit of the key back that is there for that.
    async fn give_back(&self, charges: &[Charge], policies: &[LossPolicy], revision: u64) {
        let place = {
            let mut all = self.shared.refunds.borrow_mut();
            // If the node ends before it is answered, this is what is known.
            let (invoked, node) = (elapsed(), self.node as u16);
            all.push(Refund { invoked, completed: None, key: GIVEN_BACK, node });
            all.len() - 1
        };
        let amended = self.router.amend(0, Amendment::Refund, charges, policies, revision).await;
        let mut all = self.shared.refunds.borrow_mut();
        match amended {
            Ok(amended) if amended.is_complete() => all[place].completed = Some(elapsed()),
            Ok(amended) if amended.unsure => {}
            // It was not made: as if it was over before all checks.
            Ok(_) | Err(_) => (all[place].invoked, all[place].completed) = (0, Some(0)),
        }
    }

    fn note(&self, keys: &[Option<u32>], invoked: u64, outcome: Outcome, by: &[Option<(String, String)>]) {
        let completed = elapsed();
        let mut operations = self.shared.operations.borrow_mut();
        for (place, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            let decided_by = by.get(place).cloned().flatten();
            tracing::debug!(key, since_ms = invoked / 1_000_000, ?outcome, ?decided_by, "asked");
            operations.push(Operation {
                invoked,
                completed,
                key: *key,
                node: self.node as u16,
                outcome,
                decided_by,
            });
        }
    }
}
