//! Says in the log what is wrong with a node and lasts: whoever is called looks there first. What passes within seconds, as at each
//! restart, is not worth a line.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tidegate_cluster::Readiness;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::node::Node;

/// How often a node that was never ready looks whether it is.
const FIRST_READY_POLL: Duration = Duration::from_millis(50);
/// How often a node looks what is wrong with it.
const POLL: Duration = Duration::from_secs(1);
/// What lasts for less is not said.
const LASTS_AFTER: Duration = Duration::from_secs(10);
/// How often it is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Something that is wrong, or is not.
#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    said: Option<Instant>,
}

/// What is to be said about it.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// It lasts, for so long by now.
    Lasts(Duration),
    /// It was said to last, and is over after so long.
    IsOver(Duration),
}

impl State {
    fn look(&mut self, is_wrong: bool, now: Instant) -> Said {
        if !is_wrong {
            let (since, said) = (self.since.take(), self.said.take());
            return match since.filter(|_| said.is_some()) {
                Some(since) => Said::IsOver(now - since),
                None => Said::Nothing,
            };
        }
        let lasts = now - *self.since.get_or_insert(now);
        if lasts >= LASTS_AFTER && self.said.is_none_or(|said| now - said >= AGAIN_AFTER) {
            self.said = Some(now);
            return Said::Lasts(lasts);
        }
        Said::Nothing
    }
}

/// Says once that the node is ready, and from then on what lasts. Does not end.
pub(crate) async fn say(node: &Node) {
    let (mut unready, mut alone, mut twins) = (State::default(), State::default(), State::default());
    let mut was_ready = false;
    let mut ticks = ticks_of(FIRST_READY_POLL);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let reason = match node.readiness() {
            Readiness::Ready => None,
            Readiness::NotReady(reason) => Some(reason),
        };
        match unready.look(reason.is_some(), now) {
            Said::Nothing => {}
            Said::Lasts(lasts) => {
                let reason = reason.as_deref().unwrap_or_default();
                warn!(reason, for_seconds = lasts.as_secs(), "this node is not ready");
            }
            Said::IsOver(lasted) if was_ready => {
                info!(after_seconds = lasted.as_secs(), "this node is ready again");
            }
            Said::IsOver(_) => {}
        }
        if reason.is_none() && !was_ready {
            was_ready = true;
            ticks = ticks_of(POLL);
            info!(members = node.cluster.status().live.len(), "ready");
            if node.rules.load().domains().is_empty() {
                warn!("there are no rules (`tidegate rules apply`): every check by attributes is allowed");
            }
        }
        say_without_session(node, &mut alone, now);
        say_twins(node, &mut twins, now);
    }
}

/// Ticks that are not made up for when this process was stopped.
fn ticks_of(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Without a session for so long a node most likely lacks a quorum: who a node last heard as the leader may be gone for long.
fn say_without_session(node: &Node, state: &mut State, now: Instant) {
    let status = node.cluster.status();
    match state.look(status.table.is_some() && !status.has_session, now) {
        Said::Nothing => {}
        Said::Lasts(lasts) => {
            let group = node.cluster.ledger().status();
            let live: BTreeSet<&str> = status.live.iter().map(|member| &*member.id.name).collect();
            let missing: Vec<&str> =
                group.voters.iter().map(String::as_str).filter(|name| !live.contains(name)).collect();
            warn!(
                voters = group.voters.join(", "),
                missing = missing.join(", "),
                for_seconds = lasts.as_secs(),
                "this node has no session with a leader: it decides no `strict` rule, and where a quorum of the voters is missing no rule \
                 can change and slots whose owner is gone have none (if they are lost permanently: tidegate cluster recover --help)"
            );
        }
        Said::IsOver(lasted) => {
            info!(after_seconds = lasted.as_secs(), "this node has a session with a leader again")
        }
    }
}

/// Two nodes of one name are most often a data directory that was copied, or a machine that was: what each of them decides, votes and
/// gets is by chance. After a restart an earlier start seems to be there for some seconds.
fn say_twins(node: &Node, state: &mut State, now: Instant) {
    let twins = node.cluster.status().twins;
    if let Said::Lasts(lasts) = state.look(!twins.is_empty(), now)
        && let Some((name, places)) = twins.first_key_value()
    {
        let places: Vec<String> = places.iter().map(SocketAddr::to_string).collect();
        warn!(
            %name,
            at = places.join(", "),
            for_seconds = lasts.as_secs(),
            "several nodes run under one name: stop all but one; each needs a --name and a --data-dir of its own, and no copy of another's"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_said_after_a_while_again_each_minute_and_when_it_is_over() {
        let begin = Instant::now();
        let at = |secs: u64| begin + Duration::from_secs(secs);
        let mut state = State::default();
        let mut said = Vec::new();
        for second in 0..140 {
            let is_wrong = (5..130).contains(&second) && second != 7;
            match state.look(is_wrong, at(second)) {
                Said::Nothing => {}
                other => said.push((second, other)),
            }
        }
        let lasts = |secs| Said::Lasts(Duration::from_secs(secs));
        assert_eq!(
            said,
            [(18, lasts(10)), (78, lasts(70)), (130, Said::IsOver(Duration::from_secs(122)))],
            "what passed at once is not said"
        );
    }
}
