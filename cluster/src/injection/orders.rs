//! What is to be done, as it is written down.

use std::str::FromStr;

/// A file of orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// How far the wall clock is ahead, in milliseconds.
    pub(super) wall_ahead_ms: i64,
    /// How many millionths the boot clock runs too fast.
    pub(super) rate_ppm: i64,
    /// A number of the order, and how many syncs fail.
    pub(super) fail_syncs: Option<(u64, u32)>,
    /// While it is there, syncs hang.
    pub(super) hang_syncs: bool,
    /// A number of the order, and what the dice begin with.
    pub(super) power_cut: Option<(u64, u64)>,
    /// The boot clock stands still while the process is stopped.
    pub(super) hold_clock: bool,
}

impl FromStr for Orders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut orders = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let fault = |_| format!("{line:?} is no number where one should be");
            match words[..] {
                ["wall-ahead-ms", ahead] => orders.wall_ahead_ms = ahead.parse().map_err(fault)?,
                ["rate-ppm", rate] => orders.rate_ppm = rate.parse().map_err(fault)?,
                ["fail-syncs", number, count] => {
                    orders.fail_syncs = Some((number.parse().map_err(fault)?, count.parse().map_err(fault)?));
                }
                ["hang-syncs"] => orders.hang_syncs = true,
                ["power-cut", number, seed] => {
                    orders.power_cut = Some((number.parse().map_err(fault)?, seed.parse().map_err(fault)?));
                }
                ["hold-clock"] => orders.hold_clock = true,
                _ => {
                    return Err(format!(
                        "{line:?} is none of wall-ahead-ms, rate-ppm, fail-syncs, hang-syncs, power-cut, hold-clock"
                    ));
                }
            }
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_what_is_written_and_anything_else_is_refused() {
        let text = "wall-ahead-ms -1800000\nrate-ppm 500\n\nfail-syncs 7 3\nhang-syncs\npower-cut 8 4711\nhold-clock\n";
        let orders = Orders {
            wall_ahead_ms: -1_800_000,
            rate_ppm: 500,
            fail_syncs: Some((7, 3)),
            hang_syncs: true,
            power_cut: Some((8, 4711)),
            hold_clock: true,
        };
        assert_eq!(text.parse(), Ok(orders));
        assert_eq!("".parse(), Ok(Orders::default()));
        for wrong in ["rate-ppm", "rate-ppm fast", "fail-syncs 1", "hang-syncs 1", "tea 1"] {
            assert!(wrong.parse::<Orders>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
