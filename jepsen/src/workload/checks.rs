//! Checks of every kind of rule at all nodes, by many clients at once.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

pub(crate) use super::families::STRANGER;
pub use super::families::{limits, peek_at_hottest, questions, rules_text};
use super::{
    families::{Dice, GIVEN_BACK},
    limits::Question,
};
use crate::{
    client::{Client, Place},
    history::{Operation, Outcome, Refund, monotonic},
    load::{MAX_OPERATIONS, decider},
};

const PATH_OF_GIVEN_BACK: &str = "/v1/check?given-back=";

/// Many clients at all nodes until they are told to stop.
#[derive(Debug)]
pub struct Crowd<'a> {
    /// The nodes.
    pub nodes: &'a [Place],
    /// Clients of each node.
    pub clients: usize,
    /// A client pauses about so many nanoseconds after each answer; may change meanwhile.
    pub pause: &'a AtomicU64,
    /// How long a client waits for an answer: longer than a node is ever stopped, so that what it decides late is heard.
    pub deadline: Duration,
    /// What chance begins with.
    pub seed: u64,
    /// Ends it.
    pub stop: &'a AtomicBool,
    /// How many operations there are so far.
    pub done: &'a AtomicUsize,
    /// How many keys were new so far.
    pub fresh: &'a AtomicU64,
}

impl Crowd<'_> {
    /// Asks, and returns what happened: checks, and what was given back.
    ///
    /// # Panics
    /// When a client does.
    pub fn run(&self) -> (Vec<Operation>, Vec<Refund>) {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.nodes.len() * self.clients)
                .map(|number| scope.spawn(move || self.ask(number)))
                .collect();
            let joined = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
            joined.fold((Vec::new(), Vec::new()), |mut all, one| {
                all.0.extend(one.0);
                all.1.extend(one.1);
                all
            })
        })
    }

    fn ask(&self, number: usize) -> (Vec<Operation>, Vec<Refund>) {
        let node = number % self.nodes.len();
        let mut random =
            fastrand::Rng::with_seed(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
        let (questions, mut client) =
            (questions(), Client::following(self.nodes[node].clone(), self.deadline));
        let dice = Dice::new();
        let (mut operations, mut refunds) = (Vec::new(), Vec::new());
        while !self.stop.load(Relaxed) && self.done.fetch_add(1, Relaxed) < MAX_OPERATIONS {
            let key = dice.throw(&mut random, monotonic(), || self.fresh.fetch_add(1, Relaxed));
            let Question { path, body, .. } = &questions[key];
            let invoked = monotonic();
            let answer = match body {
                Some(body) => client.post(path, body),
                None => client.get(path),
            };
            let completed = monotonic();
            let outcome = match &answer {
                Ok(response) if response.status == 200 => Outcome::Admitted,
                Ok(response) if response.status == 429 => Outcome::Denied,
                Ok(_) => Outcome::Refused,
                Err(_) => Outcome::Unknown,
            };
            let decided_by = answer.ok().filter(|answer| !answer.body.is_empty()).and_then(decider);
            operations.push(Operation {
                invoked,
                completed,
                key: key as u32,
                node: node as u16,
                outcome,
                decided_by,
            });
            let given_back = path.strip_prefix(PATH_OF_GIVEN_BACK);
            if let Some(value) = given_back.filter(|_| outcome == Outcome::Admitted && random.u8(..4) == 0) {
                refunds.extend(give_back(&mut client, value, key as u32, node as u16));
            }
            let pause = Duration::from_nanos(self.pause.load(Relaxed));
            let pause = match outcome {
                Outcome::Unknown => pause.max(Duration::from_millis(20)),
                _ => pause.mul_f64(0.5 + random.f64()),
            };
            thread::sleep(pause);
        }
        (operations, refunds)
    }
}

/// Gives a unit back. `None`: the node says that this was not done.
fn give_back(client: &mut Client, value: &str, key: u32, node: u16) -> Option<Refund> {
    let invoked = monotonic();
    let body = format!("{{\"attributes\":{{\"{GIVEN_BACK}\":\"{value}\"}},\"cost\":1}}");
    let answer = client.post("/v1/refund", &body);
    let applied = answer.ok().and_then(|answer| {
        let amended: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        amended["buckets"][0]["applied"].as_bool()
    });
    let completed = match applied {
        Some(true) => Some(monotonic()),
        Some(false) => return None,
        None => None,
    };
    Some(Refund { invoked, completed, key, node })
}
