//! Many keys of one rule, more than a node has memory for. What becomes of them is no matter here; the buckets of all other
//! rules must stay what they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::families::FLOODED;
use crate::{
    client::{Client, Place},
    history::monotonic,
};

/// Checks in a question.
const BATCH: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions: others want to be answered meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// A flood that goes on until it is stopped, or its time is over. It stops when this value is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Asks these nodes about keys that begin with `name`, each another one.
    pub fn begin(nodes: Vec<Place>, name: String, until: u64) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            let mut clients: Vec<Client> =
                nodes.into_iter().map(|node| Client::following(node, PATIENCE)).collect();
            for number in 0_u64.. {
                if stopped.load(Relaxed) || monotonic() > until || clients.is_empty() {
                    break;
                }
                let place = number as usize % clients.len();
                // A node that does not answer is asked about others the next time.
                if clients[place].post("/v1/check/batch", &batch(&name, number)).is_ok() {
                    count.fetch_add(BATCH, Relaxed);
                }
                thread::sleep(PAUSE);
            }
        });
        Self { stop, asked, thread: Some(thread) }
    }

    /// It ends as soon as the question that is on its way is answered. Nobody waits for that.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// How many keys were asked about so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn batch(name: &str, number: u64) -> String {
    let rule = FLOODED[(number % 2) as usize];
    let check = |key: u64| format!("{{\"attributes\":{{\"{rule}\":\"{name}-{key}\"}}}}");
    let checks: Vec<String> = (number * BATCH..(number + 1) * BATCH).map(check).collect();
    format!("{{\"checks\":[{}]}}", checks.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_comes_twice_and_a_batch_is_json() {
        let keys = |number| -> Vec<String> {
            let json: serde_json::Value = serde_json::from_str(&batch("f", number)).unwrap();
            let checks = json["checks"].as_array().unwrap().clone();
            checks
                .iter()
                .map(|one| one["attributes"][FLOODED[(number % 2) as usize]].as_str().unwrap().to_owned())
                .collect()
        };
        let mut all = [keys(0), keys(1), keys(7)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u64, 3 * BATCH);
    }
}
