//! `tidegate check`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    credentials::TokenArgs,
    outcome::{DENIED, DONE, FAILED, Failure},
    trust::TrustArgs,
};
use crate::{
    client::{Ask, NodeAddress},
    terminal::print,
};

/// How long a node is waited for: longer than it may take for a check.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate check ip=203.0.113.7
  tidegate check path=/login method=POST ip=203.0.113.7 --node http://127.0.0.1:7810
  tidegate check ip=203.0.113.7 --cost 0                look only, nothing is counted
  tidegate check ip=203.0.113.7 --output json

Exit codes: 0 allowed, 3 denied, 1 no answer, 2 bad usage.")]
pub(super) struct CheckArgs {
    /// What is known of the request, as ip=203.0.113.7
    #[arg(value_name = "ATTR=VALUE", required = true, value_parser = attribute)]
    attributes: Vec<(String, String)>,

    /// The domain whose rules are asked
    #[arg(long, default_value = "default")]
    domain: String,

    /// How many units the request takes; 0 looks without counting
    #[arg(long, value_name = "N", default_value_t = 1)]
    cost: u64,

    /// What single rules take instead, by their names or that of their `cost`, as tokens=500,requests=1
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = named_cost)]
    costs: Vec<(String, u64)>,

    /// The node to ask
    #[arg(long, env = "TIDEGATE_NODE", value_name = "URL", default_value = "http://127.0.0.1:7800")]
    node: NodeAddress,

    #[command(flatten)]
    token: TokenArgs,

    #[command(flatten)]
    trust: TrustArgs,

    /// How the answer is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// A line for people
    Text,
    /// The node's answer as it is
    Json,
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("{node} refused the check: {detail}")]
    Refused { node: NodeAddress, detail: String },
    #[error("{node} answered {status}, and not as a node does; is it one?")]
    NoNode { node: NodeAddress, status: u16 },
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of(FAILED, error))?;
        runtime.block_on(self.ask())
    }

    async fn ask(self) -> Result<u8, Failure> {
        let attributes: Map<String, Value> =
            self.attributes.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        let costs: Map<String, Value> =
            self.costs.iter().map(|(name, units)| (name.clone(), Value::from(*units))).collect();
        let mut question = json!({ "domain": self.domain, "attributes": attributes, "cost": self.cost });
        if !costs.is_empty() {
            question["costs"] = costs.into();
        }
        let ask = self.token.present(Ask::post(&["v1", "check"], question.to_string()))?;
        let node = self.trust.of(&self.node).map_err(|fault| Failure::of(FAILED, fault))?;
        let reply = node.ask(&ask, PATIENCE).await.map_err(|fault| Failure::of(FAILED, fault))?;
        let Ok(answer) = serde_json::from_slice::<Answer>(&reply.body) else {
            let problem: Option<Value> = serde_json::from_slice(&reply.body).ok();
            let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
            let fault = match detail {
                Some(detail) => CheckError::Refused { node: self.node, detail: detail.to_owned() },
                None => CheckError::NoNode { node: self.node, status: reply.status.as_u16() },
            };
            return Err(Failure::of(FAILED, fault));
        };
        match self.output {
            Output::Json => print(&String::from_utf8_lossy(&reply.body)),
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
fn span(millis: u64) -> String {
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

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("an attribute is written NAME=VALUE, as in ip=203.0.113.7".to_owned()),
    }
}

fn named_cost(text: &str) -> Result<(String, u64), String> {
    let (name, units) = text.rsplit_once('=').unwrap_or((text, ""));
    match units.parse() {
        Ok(units) if !name.is_empty() => Ok((name.to_owned(), units)),
        _ => Err("the cost of a rule is written NAME=N, as in tokens=500".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_split_at_the_first_equals_sign() {
        assert_eq!(attribute("q=a=b"), Ok(("q".to_owned(), "a=b".to_owned())));
        assert_eq!(attribute("flag="), Ok(("flag".to_owned(), String::new())));
        assert!(attribute("ip").is_err());
        assert!(attribute("=1").is_err());
    }

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
