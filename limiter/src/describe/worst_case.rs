//! How much a rule may admit when something fails.

use std::{iter, time::Duration};

use serde::{Deserialize, Serialize};

use super::RuleDescription;
use crate::{
    Algorithm, Limit, OnMemoryFull, OnTotalLoss, Takeover, algorithm::gcra, mark::QUANTUM_PART,
    time::TICKS_PER_NANO,
};

/// From when the successor has last heard of an owner that crashed until it has taken over, at most, in a cluster whose leader is
/// elected again meanwhile.
const UNOWNED: Duration = Duration::from_secs(5);

/// How much a rule may admit in any interval, as a multiple of what its limit allows in an interval of that length, by what
/// happens to the cluster. `None`: there is no limit to it.
///
/// - `deny` with `strict`: whoever decides is the only one.
/// - `share` with `strict` and `carved`: what all shares give together, the owner never does.
/// - `share`: nodes that cannot reach the owner admit m/N of the limit together, m of N nodes being cut off.
/// - `available`: an owner that is cut off goes on; the one that takes its slots over starts with exhausted buckets, or with what
///   the other had left at most, and admits no more than the limit either. So each side admits no more than the limit, and
///   there may be more than two of them: where the network falls apart into more, or is cut again before it is healed.
/// - `allow`: whoever cannot reach the owner admits everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstCase {
    /// Without a fault, and while nodes come and go by plan.
    pub planned: Option<u32>,
    /// When the owner of its bucket crashes, or hangs until it is replaced, or all nodes crash. Once more with `on_total_loss: full`. One that goes on before that gives once more what has
    /// refilled meanwhile, where others give shares that are not carved.
    pub crash: Option<u32>,
    /// When the nodes fall apart into two sides that do not reach each other, or a quorum is gone.
    pub partition: Option<u32>,
    /// How much more that is for each further side.
    #[serde(default)]
    pub further_side: Option<u32>,
    /// When more of its buckets are in use at the same time than its part of the memory holds. `None` of `forget`: a key gets its
    /// burst (or count) once more each time that it is let go of, which takes as many other keys of the rule, as that part
    /// holds, that have used as much of theirs.
    #[serde(default)]
    pub memory_full: Option<u32>,
    /// Not a multiple: how many units of a bucket its callers lose at most when its owner dies; none of what is unlimited.
    #[serde(default)]
    pub lost: Option<u64>,
}

impl Default for WorstCase {
    fn default() -> Self {
        Self {
            planned: Some(1),
            crash: Some(1),
            partition: Some(1),
            further_side: Some(0),
            memory_full: None,
            lost: None,
        }
    }
}

impl RuleDescription {
    /// What it may admit at most.
    pub fn worst_case(&self) -> WorstCase {
        let starts_full = self.on_total_loss == OnTotalLoss::Full.as_str();
        let exact = WorstCase {
            crash: Some(if starts_full { 2 } else { 1 }),
            lost: self.lost(),
            memory_full: (self.on_memory_full == OnMemoryFull::Strict.as_str()).then_some(1),
            ..WorstCase::default()
        };
        match (&*self.consistency, &*self.on_owner_loss) {
            // Whoever is asked denies.
            _ if self.only_denies() => WorstCase { crash: Some(1), memory_full: Some(1), ..exact },
            (_, "allow") => WorstCase { crash: None, partition: None, further_side: None, ..exact },
            ("strict", "deny") => exact,
            ("strict", "share") if self.carved => exact,
            ("strict", _) => WorstCase { partition: Some(2), ..exact },
            _ => WorstCase { partition: Some(2), further_side: Some(1), ..exact },
        }
    }

    /// Whether no limit of it lets anything pass.
    fn only_denies(&self) -> bool {
        let denies = |text: &str| Limit::parse_stored(text, None, None).is_ok_and(|limit| limit.denies());
        denies(&self.limit) && self.overrides.iter().all(|special| denies(&special.limit))
    }

    /// How many units of a bucket are lost at most when its owner dies: of the limit that can lose most.
    fn lost(&self) -> Option<u64> {
        let special = self.overrides.iter().map(|special| (&special.limit, special.burst));
        let limits = iter::once((&self.limit, self.burst)).chain(special);
        limits.filter_map(|(limit, burst)| self.lost_of(limit, burst)).max()
    }

    /// The same of one of its limits.
    fn lost_of(&self, limit: &str, burst: Option<u64>) -> Option<u64> {
        let count = limit.split('/').next().and_then(|count| count.parse().ok());
        let all = burst.or(count).filter(|all| *all > 0)?;
        if self.takeover != Takeover::Reserve.as_str() {
            return Some(all);
        }
        let gives_shares = self.on_owner_loss != "deny" && !self.carved;
        let of_window = matches!(self.algorithm.as_deref(), Some("fixed_window" | "sliding_window"));
        // A window that ended while nobody owned its bucket: shares may have given any part of the next one.
        if of_window && gives_shares {
            return Some(all);
        }
        let refilled = match Limit::parse_stored(limit, None, Some(Algorithm::TokenBucket)) {
            // Shares may have admitted it, and that is not known.
            Ok(limit) if gives_shares => {
                UNOWNED.as_nanos() as u64 * TICKS_PER_NANO / gcra::ticks_for(&limit, 1).max(1)
            }
            _ => 0,
        };
        // Of a sliding window one unit in each of the two that count.
        let least = if self.algorithm.as_deref() == Some("sliding_window") { 2 } else { 1 };
        Some((all / QUANTUM_PART).max(least).max(refilled).min(all))
    }
}
