//! Many clients at once, each asking one question after the other.

use std::{net::SocketAddr, thread, time::Duration};

use crate::{
    client::{Client, Response},
    history::{History, Operation, Outcome, monotonic},
};

/// Operations that a run may record, all clients together: some hundred bytes each. A run that would record more fails,
/// because a history with a gap proves nothing.
pub const MAX_OPERATIONS: usize = 4_000_000;

/// A closed loop of checks of one unit each.
#[derive(Debug, Clone)]
pub struct Load {
    /// The nodes to ask.
    pub nodes: Vec<SocketAddr>,
    /// Clients for each node, each with a connection of its own.
    pub clients: usize,
    /// Keys to ask about: 0 to this, each client in another order.
    pub keys: u32,
    /// For how long.
    pub length: Duration,
    /// A client pauses this long after each answer.
    pub pause: Duration,
    /// How long a client waits for an answer.
    pub deadline: Duration,
}

/// The path that asks about a key.
pub fn path_of(key: u32) -> String {
    format!("/v1/check?user=u{key}")
}

impl Load {
    /// Runs it, and returns what happened. A client whose node has died goes on trying.
    ///
    /// # Panics
    /// When a thread cannot be started, or more is done than a history may hold.
    pub fn run(&self) -> History {
        self.run_while(|| true)
    }

    /// The same, but ends as soon as `wanted` says so.
    ///
    /// # Panics
    /// When a thread cannot be started, or more is done than a history may hold.
    pub fn run_while(&self, wanted: impl Fn() -> bool + Sync) -> History {
        let end = monotonic() + self.length.as_nanos() as u64;
        let (goes_on, clients) = (|| monotonic() < end && wanted(), self.nodes.len() * self.clients);
        let operations = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..clients).map(|number| scope.spawn(move || self.ask_while(&goes_on, number))).collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
        });
        History { operations }
    }

    fn ask_while(&self, goes_on: &(impl Fn() -> bool + Sync), number: usize) -> Vec<Operation> {
        let most = MAX_OPERATIONS / (self.nodes.len() * self.clients);
        let node = number % self.nodes.len();
        let mut client = Client::new(self.nodes[node], self.deadline);
        let mut operations = Vec::new();
        // Steps through all keys, from another start at each client: 1,009 is prime and above the keys in use.
        let mut key = number as u32 * 101 % self.keys;
        while goes_on() {
            assert!(
                operations.len() < most,
                "the history is full: a shorter run or a longer pause is needed"
            );
            key = (key + 1_009) % self.keys;
            let invoked = monotonic();
            let answer = client.get(&path_of(key));
            let completed = monotonic();
            let outcome = match &answer {
                Ok(response) if response.status == 200 => Outcome::Admitted,
                Ok(response) if response.status == 429 => Outcome::Denied,
                Ok(_) => Outcome::Refused,
                Err(_) => Outcome::Unknown,
            };
            let decided_by = answer.ok().filter(|answer| !answer.body.is_empty()).and_then(decider);
            operations.push(Operation { invoked, completed, key, node: node as u16, outcome, decided_by });
            let pause = if outcome == Outcome::Unknown {
                self.pause.max(Duration::from_millis(5))
            } else {
                self.pause
            };
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        operations
    }
}

pub(crate) fn decider(response: Response) -> Option<(String, String)> {
    let body: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
    Some((body["decided_by"].as_str()?.to_owned(), body["node"].as_str()?.to_owned()))
}
