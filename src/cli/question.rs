//! What a command asks about a request: its attributes, and of which node.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    credentials::TokenArgs,
    outcome::{BAD_USAGE, FAILED, Failure},
    trust::TrustArgs,
};
use crate::client::{Ask, NodeAddress};

/// How long a node is waited for: longer than it may take for a check.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request, and the node that is asked about it.
#[derive(Debug, Args)]
pub(super) struct QuestionArgs {
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// The node's answer as it is
    Json,
}

#[derive(Debug, thiserror::Error)]
enum QuestionError {
    #[error("the attribute {0} is given twice")]
    Twice(String),
    #[error("{node} refused the {what}: {detail}")]
    Refused { node: NodeAddress, what: &'static str, detail: String },
    #[error("{node} answered {status}, and not as a node does; is it one?")]
    NoNode { node: NodeAddress, status: u16 },
}

impl QuestionArgs {
    /// Asks by a call of /v1; the answer, as it is and read.
    pub(super) fn ask<T: DeserializeOwned>(self, call: &'static str) -> Result<(String, T), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of(FAILED, error))?;
        runtime.block_on(self.ask_node(call))
    }

    async fn ask_node<T: DeserializeOwned>(self, call: &'static str) -> Result<(String, T), Failure> {
        let mut attributes = Map::new();
        for (name, value) in &self.attributes {
            if attributes.insert(name.clone(), value.as_str().into()).is_some() {
                return Err(Failure::of(BAD_USAGE, QuestionError::Twice(name.clone())));
            }
        }
        let costs: Map<String, Value> =
            self.costs.iter().map(|(name, units)| (name.clone(), Value::from(*units))).collect();
        let mut question = json!({ "domain": self.domain, "attributes": attributes, "cost": self.cost });
        if !costs.is_empty() {
            question["costs"] = costs.into();
        }
        let ask = self.token.present(Ask::post(&["v1", call], question.to_string()))?;
        let node = self.trust.of(&self.node).map_err(|fault| Failure::of(FAILED, fault))?;
        let reply = node.ask(&ask, PATIENCE).await.map_err(|fault| Failure::of(FAILED, fault))?;
        if let Ok(answer) = serde_json::from_slice::<T>(&reply.body) {
            return Ok((String::from_utf8_lossy(&reply.body).into_owned(), answer));
        }
        let problem: Option<Value> = serde_json::from_slice(&reply.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let fault = match detail {
            Some(detail) => QuestionError::Refused { node: self.node, what: call, detail: detail.to_owned() },
            None => QuestionError::NoNode { node: self.node, status: reply.status.as_u16() },
        };
        Err(Failure::of(FAILED, fault))
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        // As an attribute it would match nothing, and nothing would be said.
        Some((name @ ("domain" | "cost" | "costs"), value)) => {
            Err(format!("{name} is an option: write --{name} {value}"))
        }
        Some(("limit", value)) if value.parse::<tidegate_limiter::Limit>().is_ok() => Err(
            "a check of this command has no limit of its own: rules limit it; a check with one is asked by POST /v1/check"
                .to_owned(),
        ),
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
        for text in ["cost=2", "domain=shop", "costs=a", "limit=5/1m"] {
            assert!(attribute(text).is_err(), "{text}");
        }
        assert_eq!(attribute("limit=50"), Ok(("limit".to_owned(), "50".to_owned())));
        assert!(attribute("ip").is_err());
        assert!(attribute("=1").is_err());
    }
}
