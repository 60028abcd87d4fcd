//! Puts the replicated rules in force: compiles those that have changed and swaps the whole in. The way of a check only
//! ever sees the last snapshot, and never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidegate_limiter::{
    Nanos,
    cluster::{Reserves, Rules, Store},
    rules::{HashSecret, RuleError},
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::ledger::{Ledger, NewRules, WriteError};
use crate::{
    clock::Clock,
    ids::Revision,
    owner::{floor_replication::Since, slot_ownership::SlotOwnership},
    planted::PlantedBug,
    raft::handle::Shared,
    rules_in_force::{InForce, RulesInForce},
    state::{applied::Applied, command::Expected, machine::DomainHistory},
};

/// How long a node that starts again waits for a leader to say which entries of its log count. Then it decides by those of
/// which it knows that they do: without a quorum there will be no leader.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(4);
/// How long the rules to begin with are tried to be written before it is tried again.
const SEED_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a domain's texts that were in force before, the newest ones: of these the limits are known for buckets that come from other
/// nodes or from the disk. The history bounds how many there are. A node that starts compiles all of them before it decides: two seconds
/// for as many bytes.
const MAX_BYTES_BEFORE: usize = 4 << 20;
/// How much later than its change says a text may still have been in force: clocks of nodes differ, and a node can be cut off from the
/// log for a while.
const IN_FORCE_AFTER: Duration = Duration::from_secs(3600);
/// Of how many texts of a domain the rules are known that slots were begun under, and how many rules all states of these may have.
const MAX_STATES_BEFORE: usize = 8;
const MAX_RULES_BEFORE: usize = 1 << 16;

/// Follows the log. `seed` are the rules to begin with: for domains that the cluster has none for.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    ledger: Ledger,
    mut compiler: Compiler,
    mut seed: Vec<(String, String)>,
) {
    let in_force = Arc::clone(&compiler.rules);
    let mut applied = shared.applied.subscribe();
    // Who had the rules on its disk decides by them; who had not waits until it has all of them.
    let mut now = Arc::clone(&applied.borrow_and_update());
    let had_some = now.state.founding.is_some();
    let last_at_start = shared.raft.running().map_or(0, |running| running.last_log());
    let catch_up_until = Instant::now() + CATCH_UP_WITHIN;
    let mut has_all = false;
    loop {
        let broken = compiler.compile(&now).await;
        has_all |= had_some && (now.index >= last_at_start || Instant::now() >= catch_up_until);
        has_all |= now
            .state
            .members
            .get(&shared.me)
            .is_some_and(|row| row.incarnation == shared.identity.me.incarnation);
        seed.retain(|(domain, text)| match now.state.domains.get(domain.as_str()) {
            Some(history) if **history.text() != *text => {
                warn!(
                    domain,
                    revision = history.current().revision.get(),
                    "the rules at the start are not those of the cluster, which count (`tidegate rules diff` and `apply`)"
                );
                false
            }
            Some(_) => false,
            None => true,
        });
        // With rules that cannot be used a node does not begin to decide. One that has begun goes on with those before, and
        // others whose rules are newer say so when they ask it: only who follows the log learns what it has lost.
        let has_begun = in_force.progress.borrow().complete;
        let can_begin = has_all && broken.is_empty() && seed.is_empty() && now.state.founding.is_some();
        let complete = has_begun || can_begin;
        // A rule that is not in force must not count as such.
        let index = if broken.is_empty() { now.index } else { in_force.progress.borrow().index };
        in_force.progress.send_replace(InForce { index, complete, broken });
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = plant(&shared, &ledger, &seed), if has_all && !seed.is_empty() => {}
            () = sleep_until(catch_up_until), if had_some && !has_all => {}
        }
        now = Arc::clone(&applied.borrow_and_update());
    }
}

/// Puts rules in force, wherever this node decides by them.
pub(crate) struct Compiler {
    rules: Arc<RulesInForce>,
    ownership: Arc<SlotOwnership>,
    /// All in which there are buckets of the rules.
    stores: [Arc<Store>; 3],
    clock: Clock,
    compiled: BTreeMap<Arc<str>, Revision>,
    secret: Option<HashSecret>,
}

impl Compiler {
    /// `stores`: all in which there are buckets of the rules; the first has those of the slots that the node owns.
    pub(crate) fn new(
        rules: Arc<RulesInForce>,
        ownership: Arc<SlotOwnership>,
        stores: [Arc<Store>; 3],
        clock: Clock,
    ) -> Self {
        Self { rules, ownership, stores, clock, compiled: BTreeMap::new(), secret: None }
    }

    /// Puts in force what has changed, all at once, and says what could not be. **The revision of the rules in force is one
    /// up to which nothing is missing**: other nodes decide by their own rules what has changed after it.
    async fn compile(&mut self, applied: &Applied) -> Vec<String> {
        let Some(founding) = &applied.state.founding else { return Vec::new() };
        let secret = HashSecret::new(founding.hash_secret);
        if self.secret.as_ref() != Some(&secret) {
            let ip_prefix = self.rules.load().ip_prefix();
            self.rules.put(Rules::empty(&secret).with_ip_prefix(ip_prefix));
            // Limits that come with checks have floors whatever the rules are.
            let reserves = Arc::clone(self.rules.load().reserves());
            self.ownership.set_reserves(reserves, Since::default());
            self.secret = Some(secret.clone());
            self.compiled.clear();
        }
        let mut broken = Vec::new();
        let mut rules = self.rules.load_full();
        let (mut changed, mut former, mut denies) = (Vec::new(), Vec::new(), false);
        let is_first = self.compiled.is_empty();
        for (domain, history) in &applied.state.domains {
            let revision = history.current().revision;
            if self.compiled.get(domain) == Some(&revision) {
                continue;
            }
            let (before, name, text, secret) =
                (Arc::clone(&rules), Arc::clone(domain), Arc::clone(history.text()), secret.clone());
            let started = Instant::now();
            let texts = texts_before(history, self.compiled.get(domain).copied());
            let (store, now) = (Arc::clone(&self.stores[0]), self.clock.now());
            let compile = move || {
                let compiled = before.with_domain_at(&name, &text, &secret, revision.get())?;
                let mut former = VecDeque::new();
                for TextBefore { revision, text, ended } in texts {
                    // One that this version cannot use was in force nowhere that it knows of.
                    let rules = Rules::empty(&secret).with_domain_at(&name, &text, &secret, revision.get());
                    let Ok(rules) = rules else { continue };
                    store.add_former_limits(&rules, ended, now);
                    // All of them would take much memory.
                    if former.len() == MAX_STATES_BEFORE {
                        former.pop_front();
                    }
                    former.push_back(rules);
                }
                Ok::<_, Vec<RuleError>>((compiled, former))
            };
            let compiled = crate::fabric::blocking(compile).await;
            match compiled {
                Ok(Ok((compiled, before))) => {
                    rules = Arc::new(compiled);
                    former.extend(before);
                    changed.push((domain, revision, started.elapsed()));
                }
                Ok(Err(faults)) => {
                    // Where there are none before, everything would be allowed.
                    if let Some(denying) = rules.with_denied_domain(domain) {
                        (rules, denies) = (Arc::new(denying), true);
                    }
                    let fault = faults.first().map_or_else(String::new, ToString::to_string);
                    error!(%domain, %revision, %fault, "the rules cannot be used by this version of Tidegate: those before stay, without any the domain denies");
                    broken.push(format!(
                        "the rules of {domain} at revision {revision} cannot be used: {fault}"
                    ));
                }
                Err(panicked) => {
                    broken.push(format!("the rules of {domain} could not be compiled: {panicked}"))
                }
            }
        }
        if !changed.is_empty() || denies {
            let domains = applied.state.domains.values();
            let newest = domains.map(|history| history.current().revision.get()).max();
            // Of what is broken an older revision is in force.
            let revision = newest.filter(|_| broken.is_empty()).unwrap_or(rules.revision());
            let compiled = changed.iter().map(|(domain, revision, _)| (Arc::clone(domain), *revision));
            self.compiled.extend(compiled);
            let known = newest.filter(|_| broken.is_empty()).unwrap_or(0);
            let (reserves, since) = (Arc::clone(rules.reserves()), self.since(&rules).at(known));
            // Before anything is decided by them: a strict rule forgets nothing.
            self.stores.iter().for_each(|store| set_policies(store, &rules));
            // The buckets of slots that this node owns. Those of shares are of parts of limits, and last for a cut.
            let now = self.clock.now();
            self.stores[0].set_limits(&rules, now);
            if is_first {
                let before = reserves_before(&rules, &former);
                before.into_iter().for_each(|reserves| self.ownership.add_former_reserves(reserves));
            }
            self.ownership.note_changes(&reserves, now);
            self.rules.put(Arc::unwrap_or_clone(rules).at_revision(revision));
            // After it: what was decided by the rules before is replicated too.
            self.ownership.set_reserves(reserves, since);
        }
        let rules = self.rules.load();
        for (domain, revision, took) in changed {
            let count = rules.rules(domain).len();
            info!(%domain, %revision, rules = count, ?took, "rules are in force");
        }
        broken
    }
}

impl Compiler {
    /// The revisions of the domains whose rules have floors.
    fn since(&self, rules: &Rules) -> Since {
        let has_floors = |domain: &str| rules.rules(domain).iter().any(|rule| rule.reserve().is_some());
        let domains = self.compiled.iter().filter(|(domain, _)| has_floors(domain));
        Since::new(domains.map(|(domain, revision)| (Arc::clone(domain), revision.get())))
    }
}

/// A text of a domain's rules that was in force before.
struct TextBefore {
    revision: Revision,
    text: Arc<str>,
    ended: Nanos,
}

/// The texts that were in force before, the newest last: since the revision that this node had, or, where it had none, all that the
/// history has. Buckets that come from other nodes, or from the disk, may have been charged by them.
fn texts_before(history: &DomainHistory, known: Option<Revision>) -> Vec<TextBefore> {
    let mut latest = 0;
    let texts = history.changes().windows(2).filter_map(|pair| {
        // Of a clock that was set back, the change before says when.
        latest = pair[1].at_ms.max(pair[0].at_ms).max(latest);
        let ended = Nanos::new(latest.saturating_mul(1_000_000)).saturating_add(IN_FORCE_AFTER);
        let is_newer = known.is_none_or(|known| pair[0].revision > known);
        let text = pair[0].text.clone().filter(|_| is_newer)?;
        Some(TextBefore { revision: pair[0].revision, text, ended })
    });
    let mut texts: Vec<TextBefore> = texts.collect();
    let mut bytes = 0;
    let is_within = |before: &&TextBefore| {
        bytes += before.text.len();
        bytes <= MAX_BYTES_BEFORE
    };
    let newest = texts.iter().rev().take_while(is_within).count();
    texts.drain(..texts.len() - newest);
    texts
}

/// All rules together as they were in force before, the newest last: after each change of a domain of which its text is known.
/// `former`: of one domain each. So a domain that is written often leaves what is known of the others.
fn reserves_before(rules: &Rules, former: &[Rules]) -> Vec<Arc<Reserves>> {
    let domains = rules.domains();
    let all = || former.iter().chain([rules]);
    let revisions = all().flat_map(|one| domains.iter().filter_map(|domain| one.revision_of(domain)));
    let times: BTreeSet<u64> = revisions.filter(|at| *at < rules.newest()).collect();
    let at = |time: u64| {
        let known = |domain: &&str| {
            let until = |one: &&Rules| one.revision_of(domain).is_some_and(|revision| revision <= time);
            all().filter(until).max_by_key(|one| one.revision_of(domain))?.reserves_of(domain)
        };
        let parts: Vec<Reserves> = domains.iter().filter_map(known).collect();
        Arc::new(Reserves::of_all(&parts))
    };
    let mut count = 0;
    let newest = times.iter().rev().map(|time| at(*time)).take_while(|reserves| {
        count += reserves.count();
        count <= MAX_RULES_BEFORE
    });
    let mut before: Vec<Arc<Reserves>> = newest.collect();
    before.reverse();
    before
}

/// Says what happens with the buckets of each rule when there is no room for all of them.
fn set_policies(store: &Store, rules: &Rules) {
    if PlantedBug::FloodSpills.is_on() {
        store.share_memory_among_all();
    }
    if PlantedBug::StrictForgets.is_on() {
        store.set_rules(&Rules::empty(&HashSecret::new([0; 16])));
    } else {
        store.set_rules(rules);
    }
}

/// Writes the rules to begin with where there are none. Who comes second finds that out.
async fn plant(shared: &Shared, ledger: &Ledger, seed: &[(String, String)]) {
    for (domain, text) in seed {
        let mut new = NewRules::new(domain, text);
        new.expected = Expected::Absent;
        new.author = format!("node {}", shared.identity.me.name);
        new.message = "the rules at the start".to_owned();
        // They were read at the start, so they are rules.
        let secret = HashSecret::new([0; 16]);
        let rules = Rules::empty(&secret).with_domain(domain, text, &secret);
        new.extent.added = rules.map_or(0, |rules| rules.rules(domain).len() as u32);
        match ledger.write(new, Instant::now() + SEED_PATIENCE).await {
            Ok(_) | Err(WriteError::Mismatch { .. }) => {}
            Err(fault) => {
                warn!(domain, %fault, "the rules at the start are not written yet");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    // They come back by the log.
    sleep(Duration::from_secs(1)).await;
}

#[cfg(test)]
mod tests;
