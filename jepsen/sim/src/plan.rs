//! A run before it begins: how many nodes, which network, which load, which faults and when.

use super::{fault::Fault, theme::Theme};

/// What is given beside the seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes; by default the seed says.
    pub nodes: Option<usize>,
    /// How long the part with faults is, in milliseconds; by default the seed says.
    pub faults_ms: Option<u64>,
}

/// Which faults of a plan happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// All.
    #[default]
    All,
    /// Those at these places.
    Only(Vec<usize>),
}

/// A run before it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it came from.
    pub seed: u64,
    /// What it is about.
    pub theme: Theme,
    /// How many nodes there are.
    pub nodes: usize,
    /// When each starts, in milliseconds; never earlier than the one before.
    pub starts_ms: Vec<u64>,
    /// So many nodes, the first ones, found a cluster when they see `expect` of them.
    pub expecting: usize,
    /// How many nodes a cluster is founded with.
    pub expect: usize,
    /// Addresses to join at which there is nobody.
    pub ghosts: usize,
    /// How long a message takes at least and at most, in milliseconds.
    pub latency_ms: (u64, u64),
    /// The pause of a client between two checks, in milliseconds, on the average.
    pub pause_ms: u64,
    /// Clients at each node.
    pub clients: usize,
    /// The families of keys that are asked about, one as often as another. One that is there twice is asked twice as often.
    pub families: Vec<usize>,
    /// Clients that write and read rules.
    pub writers: usize,
    /// By how many nanoseconds each machine's clock is ahead, and by how many millionths it is too fast.
    pub clocks: Vec<(i64, i64)>,
    /// How long a session lasts, in milliseconds.
    pub session_ms: u64,
    /// Bytes for the buckets of a node.
    pub store_bytes: usize,
    /// The simulation is looked at and goes on in steps of so many milliseconds.
    pub tick_ms: u64,
    /// What happens.
    pub faults: Vec<Fault>,
    /// When the last fault is over at the latest.
    pub healed_ms: u64,
    /// The end.
    pub end_ms: u64,
}

/// How long a stream may be silent before it is given up, and a little.
const STREAM_IS_SILENT_MS: u64 = 4_000;
impl Plan {
    /// The same plan with some of its faults only.
    #[must_use]
    pub fn with(&self, choice: &Choice) -> Self {
        let mut plan = self.clone();
        if let Choice::Only(places) = choice {
            plan.faults.retain(|fault| places.contains(&fault.place));
        }
        plan
    }

    /// From when on the cluster may be whole again. The simulated network loses what was sent during a cut, where TCP
    /// would send it again: until the nodes give such a stream up, it is silent.
    pub fn settled_ms(&self) -> u64 {
        let started = self.starts_ms.last().map_or(0, |last| last + 1_000);
        self.faults.iter().map(Fault::ends_ms).max().map_or(0, |last| last + STREAM_IS_SILENT_MS).max(started)
    }

    /// The cuts: from when until when nodes may differ about who owns a slot.
    pub fn cuts(&self) -> impl Iterator<Item = (&Fault, u64)> {
        let lingers = STREAM_IS_SILENT_MS + 2 * self.session_ms;
        self.faults
            .iter()
            .filter(|fault| fault.kind.cuts())
            .map(move |fault| (fault, fault.ends_ms() + lingers))
    }

    /// Into how many sides the nodes may fall apart at one time, so that each has its own idea of who owns a slot: what is cut
    /// while something else is, or is not forgotten yet, may split each side once more.
    pub fn sides(&self) -> u64 {
        let cuts: Vec<(&Fault, u64)> = self.cuts().collect();
        let at_once = cuts.iter().map(|(one, _)| {
            cuts.iter().filter(|(other, until)| other.at_ms <= one.at_ms && one.at_ms < *until).count() as u32
        });
        let most = at_once.max().unwrap_or(0);
        2_u64.saturating_pow(most).min(self.nodes as u64)
    }
}
