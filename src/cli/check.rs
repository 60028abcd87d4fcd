//! `tidegate check`.

use clap::Args;
use serde::Deserialize;

use super::{
    outcome::{DENIED, DONE, Failure},
    question::{Output, QuestionArgs},
};
use crate::terminal::print;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check ip=203.0.113.7
  tidegate check path=/login method=POST ip=203.0.113.7 --node http://127.0.0.1:7810
  tidegate check ip=203.0.113.7 --cost 0                look only, nothing is counted
  tidegate check ip=203.0.113.7 --output json

Exit codes: 0 allowed, 3 denied, 1 no answer, 2 bad usage.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    question: QuestionArgs,

    /// How the answer is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// The answer of a node.
#[derive(Debug, Deserialize)]
struct Answer {
    allowed: bool,
    rule: Option<String>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_after_ms: Option<u64>,
    retry_after_ms: Option<u64>,
    delay_ms: u64,
    #[serde(default)]
    banned: bool,
    decided_by: String,
    node: String,
}

impl CheckArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (body, answer) = self.question.ask::<Answer>("check")?;
        match self.output {
            Output::Json => print(&body),
            Output::Text => print(&answer.to_string()),
        }
        Ok(if answer.allowed { DONE } else { DENIED })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", if self.allowed { "allowed" } else { "denied" })?;
        match (&self.rule, self.limit, self.remaining) {
            (rule, Some(0), _) => {
                return write!(f, " by {}, which denies everything", rule.as_deref().unwrap_or("its limit"));
            }
            (rule, Some(limit), Some(remaining)) => {
                write!(f, " by {}: {remaining} of {limit} left", rule.as_deref().unwrap_or("its limit"))?;
            }
            (Some(rule), ..) => write!(f, " by {rule}: unlimited")?,
            (None, ..) => write!(f, ": nothing limits it")?,
        }
        if self.banned {
            write!(f, ", banned")?;
        }
        if let Some(wait) = self.retry_after_ms {
            write!(f, ", try again in {}", span(wait))?;
        } else if !self.allowed && self.limit.is_some() {
            write!(f, ", which never suffice for this cost")?;
        } else if let Some(reset) = self.reset_after_ms {
            write!(f, ", back to full in {}", span(reset))?;
        }
        if self.delay_ms > 0 {
            write!(f, ", run it in {}", span(self.delay_ms))?;
        }
        write!(f, " ({} decided: {})", self.node, self.decided_by)
    }
}

/// Of a minute or two the seconds; of more two units, rounded up: who waits so long waits long enough.
pub(super) fn span(millis: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    for two in UNITS.windows(2) {
        let [(large, name), (small, part)] = [two[0], two[1]];
        // Rounding up may make a whole of the larger one.
        let parts = millis.div_ceil(small);
        if parts >= 2 * (large / small) {
            return match (parts / (large / small), parts % (large / small)) {
                (whole, 0) => format!("{whole} {name}"),
                (whole, rest) => format!("{whole} {name} {rest} {part}"),
            };
        }
    }
    format!("{} s", millis as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line() {
        let answer: Answer = serde_json::from_str(
            r#"{"allowed":false,"rule":"login","limit":10,"remaining":0,"reset_after_ms":60000,
                "retry_after_ms":1500,"delay_ms":0,"decided_by":"forwarded","node":"n2"}"#,
        )
        .unwrap();
        assert_eq!(
            answer.to_string(),
            "denied by login: 0 of 10 left, try again in 1.5 s (n2 decided: forwarded)"
        );
        let banned = Answer { banned: true, ..answer };
        assert_eq!(
            banned.to_string(),
            "denied by login: 0 of 10 left, banned, try again in 1.5 s (n2 decided: forwarded)"
        );
    }

    #[test]
    fn long_waits_are_told_in_units_that_people_count_in() {
        for (millis, text) in [
            (0, "0 s"),
            (1_500, "1.5 s"),
            (119_000, "119 s"),
            (119_500, "2 min"),
            (125_000, "2 min 5 s"),
            (7_200_000, "2 h"),
            (7_200_001, "2 h 1 min"),
            (90_000_000, "25 h"),
            (172_800_000, "2 d"),
            (31_536_000_000, "365 d"),
            (1_209_600_001, "14 d 1 h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
