//! Checks of every kind of rule at all nodes: one hot key, many keys by Zipf, several rules a check, long periods, and each
//! way to go on without an owner.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    check::bound::Bound,
    client::Client,
    history::{Operation, Outcome, Refund, monotonic},
    load::{MAX_OPERATIONS, decider},
};

/// How a question is chosen among those of a family of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Each as often as any other.
    Even,
    /// The first one most, the n-th 1/n as often.
    Zipf,
}

/// A rule, with the keys that are asked about.
struct Family {
    rule: &'static str,
    attribute: &'static str,
    keys: u32,
    count: u64,
    period: &'static str,
    period_ms: u64,
    burst: u64,
    more: &'static str,
    /// Of a hundred questions so many are about it.
    weight: u32,
    choice: Choice,
}

const HOT: &str = "hot";
const STRICT: &str = "consistency: strict, on_owner_loss: deny";

const FAMILIES: [Family; 10] = [
    Family::of(HOT, 1, 200, "1s", 50, STRICT, 22, Choice::Even),
    Family::of("zipf", 300, 25, "1s", 20, "consistency: available, on_owner_loss: share", 20, Choice::Zipf),
    Family::of("api", 40, 30, "1s", 15, STRICT, 10, Choice::Zipf),
    Family::of(
        "carved",
        12,
        40,
        "1s",
        40,
        "consistency: strict, on_owner_loss: share, carved: true",
        10,
        Choice::Zipf,
    ),
    Family::of("shared", 12, 40, "1s", 40, "consistency: strict, on_owner_loss: share", 10, Choice::Zipf),
    Family::of("closed", 12, 40, "1s", 40, "consistency: available, on_owner_loss: deny", 8, Choice::Zipf),
    Family::of("day", 20, 80, "1d", 80, STRICT, 4, Choice::Even),
    Family::of(
        "log",
        8,
        40,
        "1s",
        40,
        "algorithm: sliding_log, consistency: strict, on_owner_loss: deny",
        5,
        Choice::Zipf,
    ),
    Family::of(
        "window",
        8,
        60,
        "2s",
        60,
        "algorithm: fixed_window, consistency: strict, on_owner_loss: deny",
        5,
        Choice::Zipf,
    ),
    Family::of(GIVEN_BACK, 6, 30, "1s", 15, STRICT, 6, Choice::Zipf),
];
/// A quarter of what is admitted of it is given back: it stays under pressure.
const GIVEN_BACK: &str = "given-back";
const PATH_OF_GIVEN_BACK: &str = "/v1/check?given-back=";
/// Asked about together with each `api` key: the two are on different nodes most of the time.
const TENANTS: Family = Family::of("tenant", 3, 60, "1s", 30, STRICT, 0, Choice::Even);

impl Family {
    #[expect(clippy::too_many_arguments, reason = "a line of a table")]
    const fn of(
        rule: &'static str,
        keys: u32,
        count: u64,
        period: &'static str,
        burst: u64,
        more: &'static str,
        weight: u32,
        choice: Choice,
    ) -> Self {
        let period_ms = match period.as_bytes() {
            b"1s" => 1_000,
            b"2s" => 2_000,
            _ => 86_400_000,
        };
        Self { rule, attribute: rule, keys, count, period, period_ms, burst, more, weight, choice }
    }
}

/// A rule as a history is held against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// Its name.
    pub name: String,
    /// As it was written: limit, and what happens in trouble.
    pub text: String,
    /// What it allows in any interval.
    pub bound: Bound,
    /// Whether only one node may decide at a time.
    pub strict: bool,
    /// How many times its bound it may admit, as it says itself, when an owner crashes or hangs; `None`: no limit.
    pub crash: Option<u32>,
    /// And when nodes can not reach each other.
    pub partition: Option<u32>,
}

impl Limited {
    /// Whether when it counts anew is a matter of the wall clock: windows begin at multiples of their period.
    pub fn lies_by_the_wall_clock(&self) -> bool {
        self.text.contains("window")
    }
}

/// A question that is asked many times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub path: String,
    /// The buckets that it takes from: a rule, by its place, and the value of its key.
    pub buckets: Vec<(usize, String)>,
}

/// The rules, as a file.
pub fn rules_text() -> String {
    let mut text = "rules:\n".to_owned();
    for Family { rule, attribute, count, period, burst, more, .. } in FAMILIES.iter().chain([&TENANTS]) {
        let burst = if more.contains("algorithm") { String::new() } else { format!("burst: {burst}, ") };
        let _ = writeln!(
            text,
            "  - {{ name: {rule}, key: [{attribute}], limit: {count}/{period}, {burst}{more} }}"
        );
    }
    text
}

/// The rules, as a history is held against them; `worst` tells what each says of itself by name: crash and partition.
pub fn limits(worst: impl Fn(&str) -> (Option<u32>, Option<u32>)) -> Vec<Limited> {
    let limited = |family: &Family| {
        let (crash, partition) = worst(family.rule);
        // Two fixed windows that touch can each be used up at the touching ends.
        let windows = if family.more.contains("fixed_window") { 2 } else { 1 };
        Limited {
            name: family.rule.to_owned(),
            text: format!("{}/{}, burst {}; {}", family.count, family.period, family.burst, family.more),
            bound: Bound {
                burst: family.burst * windows,
                count: family.count,
                period: Duration::from_millis(family.period_ms),
            },
            strict: family.more.contains("strict"),
            crash,
            partition,
        }
    };
    FAMILIES.iter().chain([&TENANTS]).map(limited).collect()
}

/// All questions, those of a family together, in the order of the families.
pub fn questions() -> Vec<Question> {
    let mut all = Vec::new();
    for (rule, family) in FAMILIES.iter().enumerate() {
        for key in 0..family.keys {
            let mut path = format!("/v1/check?{}=k{key}", family.attribute);
            let mut buckets = vec![(rule, format!("k{key}"))];
            if family.rule == "api" {
                let tenant = key % TENANTS.keys;
                let _ = write!(path, "&tenant=k{tenant}");
                buckets.push((FAMILIES.len(), format!("k{tenant}")));
            }
            all.push(Question { path, buckets });
        }
    }
    all
}

/// The path that looks at the hottest key and takes nothing.
pub fn peek_at_hottest() -> String {
    format!("/v1/check?{HOT}=k0&cost=0")
}

/// Many clients at all nodes until they are told to stop.
#[derive(Debug)]
pub struct Crowd<'a> {
    /// The nodes.
    pub nodes: &'a [SocketAddr],
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
        let (questions, mut client) = (questions(), Client::new(self.nodes[node], self.deadline));
        let dice = Dice::new();
        let (mut operations, mut refunds) = (Vec::new(), Vec::new());
        while !self.stop.load(Relaxed) && self.done.fetch_add(1, Relaxed) < MAX_OPERATIONS {
            let key = dice.throw(&mut random);
            let invoked = monotonic();
            let answer = client.get(&questions[key].path);
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
            let given_back = questions[key].path.strip_prefix(PATH_OF_GIVEN_BACK);
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
        let told: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        told["buckets"][0]["applied"].as_bool()
    });
    let completed = match applied {
        Some(true) => Some(monotonic()),
        Some(false) => return None,
        None => None,
    };
    Some(Refund { invoked, completed, key, node })
}

/// Chooses questions as often as their families say.
struct Dice {
    /// For each question, the chance of it or one before.
    sums: Vec<f64>,
}

impl Dice {
    fn new() -> Self {
        let mut sums = Vec::new();
        let mut sum = 0.0;
        for family in &FAMILIES {
            let part = |key: u32| match family.choice {
                Choice::Even => 1.0,
                Choice::Zipf => 1.0 / f64::from(key + 1),
            };
            let whole: f64 = (0..family.keys).map(part).sum();
            for key in 0..family.keys {
                sum += f64::from(family.weight) * part(key) / whole;
                sums.push(sum);
            }
        }
        Self { sums }
    }

    fn throw(&self, random: &mut fastrand::Rng) -> usize {
        let last = self.sums.len() - 1;
        let at = random.f64() * self.sums[last];
        self.sums.partition_point(|sum| *sum <= at).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_as_often_as_their_weights_say() {
        let (dice, questions) = (Dice::new(), questions());
        assert_eq!(FAMILIES.iter().map(|family| family.weight).sum::<u32>(), 100);
        assert_eq!(dice.sums.len(), questions.len());
        let mut random = fastrand::Rng::with_seed(1);
        let thrown = (0..10_000).map(|_| dice.throw(&mut random));
        let hot = thrown.filter(|question| questions[*question].buckets == [(0, "k0".to_owned())]).count();
        assert!((2_000..2_400).contains(&hot), "{hot}");
    }
}
