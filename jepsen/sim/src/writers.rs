//! Clients that change the rules: those that checks are limited by, and those that are only written and read.

use std::{rc::Rc, time::Duration};

use fastrand::Rng;
use tidegate_cluster::{
    rules::{Ledger, NewRules, WriteError},
    simulation::clock::elapsed,
    state::Expected,
};
use tidegate_jepsen::check::ledger::WriteOutcome;
use tokio::time::{Instant, sleep};

use super::{
    shared::{DOMAINS, Did, RuleOperation, Shared},
    workload::{self, Mode},
};

/// How long a write or read of rules may take.
const RULES_WITHIN: Duration = Duration::from_secs(4);

/// Writes the rules that are limited by, on top of those that are there: a write that comes late changes nothing.
pub(super) async fn change_rules(shared: Rc<Shared>, ledger: Ledger, mode: Mode) {
    let deadline = Instant::now() + RULES_WITHIN;
    let Ok(applied) = ledger.latest(deadline).await else { return };
    let Some(history) = applied.state.domains.get("default") else { return };
    let text = workload::rules(mode);
    let is_there = **history.text() == *text;
    let mut new = NewRules::new("default", &text);
    new.expected = Expected::At(history.current().revision);
    if (is_there || ledger.write(new, deadline).await.is_ok())
        && let Some(last) = shared.changes.borrow_mut().last_mut().filter(|last| last.to == mode)
    {
        last.answered.get_or_insert(elapsed());
        tracing::info!(?mode, "the rules are changed");
    }
}

/// Writes and reads rules, one after the other.
pub(super) async fn write_rules(shared: Rc<Shared>, node: usize, ledger: Ledger, mut dice: Rng) {
    loop {
        sleep(Duration::from_millis(dice.u64(20..600))).await;
        if shared.nodes[node].borrow().paused {
            continue;
        }
        let domain = dice.usize(..DOMAINS);
        let name = format!("d{domain}");
        let deadline = Instant::now() + RULES_WITHIN;
        let called = elapsed();
        if dice.bool() {
            let value = shared.next_value.get();
            shared.next_value.set(value + 1);
            let place = {
                let mut all = shared.rule_operations.borrow_mut();
                // If the node ends before it is answered, this is what is known.
                let did = Did::Write(value, WriteOutcome::Nothing);
                all.push(RuleOperation { domain, called, answered: None, did });
                all.len() - 1
            };
            let mut new = NewRules::new(&name, &format!("# {value}\nrules: []\n"));
            new.message = format!("v{value}");
            let outcome = match ledger.write(new, deadline).await {
                Ok(written) => WriteOutcome::Written(written.revision.get()),
                Err(WriteError::NoQuorum(no_quorum)) if no_quorum.in_doubt => WriteOutcome::Nothing,
                Err(_) => WriteOutcome::NotWritten,
            };
            tracing::debug!(%name, value, ?outcome, "wrote rules");
            let one = &mut shared.rule_operations.borrow_mut()[place];
            one.answered = (outcome != WriteOutcome::Nothing).then(elapsed);
            one.did = Did::Write(value, outcome);
        } else if let Ok(applied) = ledger.latest(deadline).await {
            let value = applied
                .state
                .domains
                .get(name.as_str())
                .and_then(|history| history.current().message.strip_prefix('v')?.parse().ok());
            tracing::debug!(%name, ?value, "read rules");
            let answered = Some(elapsed());
            let did = Did::Read(value);
            shared.rule_operations.borrow_mut().push(RuleOperation { domain, called, answered, did });
        }
    }
}
