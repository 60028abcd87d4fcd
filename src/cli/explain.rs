//! `tidegate explain`.

use std::{collections::BTreeMap, fmt};

use clap::Args;
use serde::Deserialize;

use super::{
    check::span,
    outcome::{DENIED, DONE, Failure},
    question::{Output, QuestionArgs},
};
use crate::terminal::print;

/// Rules that are not about the request are named without being asked for, if there are no more.
const FEW: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate explain ip=203.0.113.7 path=/login
  tidegate explain user=ada --cost 500                 would so many units be allowed?
  tidegate explain user=ada --all                      also the rules that are not about it, and why not
  tidegate explain user=ada --output json

Nothing is counted. Exit codes: 0 would be allowed, 3 would be denied, 1 no answer, 2 bad usage.")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    question: QuestionArgs,

    /// Name all rules that are not about the request, too
    #[arg(long)]
    all: bool,

    /// How the answer is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// The answer of a node.
#[derive(Debug, Deserialize)]
struct Answer {
    node: String,
    allowed: Option<bool>,
    because: String,
    limits: Vec<Limit>,
    other_rules: Vec<Other>,
    other_rules_count: usize,
}

#[derive(Debug, Deserialize)]
struct Limit {
    rule: Option<String>,
    limit: String,
    algorithm: Option<String>,
    #[serde(rename = "override")]
    special: Option<String>,
    mode: String,
    key: BTreeMap<String, String>,
    slot: Option<u16>,
    owner: Option<String>,
    #[serde(default)]
    allowed: Option<bool>,
    quota: Option<u64>,
    remaining: Option<u64>,
    retry_after_ms: Option<u64>,
    reset_after_ms: Option<u64>,
    #[serde(default)]
    banned: bool,
    decided_by: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Other {
    rule: String,
    because: String,
}

impl ExplainArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (body, answer) = self.question.ask::<Answer>("explain")?;
        match self.output {
            Output::Json => print(&body),
            Output::Text => print(&Told { answer: &answer, all: self.all }.to_string()),
        }
        Ok(if answer.allowed == Some(false) { DENIED } else { DONE })
    }
}

/// An answer for people.
struct Told<'a> {
    answer: &'a Answer,
    all: bool,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { node, allowed, because, limits, other_rules, other_rules_count } = self.answer;
        let verdict = match allowed {
            Some(true) => "would be allowed",
            Some(false) => "would be denied",
            None => "cannot be said",
        };
        write!(f, "{verdict}: {because} ({node})")?;
        for limit in limits {
            write!(f, "\n\n{limit}")?;
        }
        if *other_rules_count == 0 {
            return Ok(());
        }
        write!(f, "\n\nnot about it:")?;
        let few = if self.all || *other_rules_count <= FEW { usize::MAX } else { FEW };
        let shown = few.min(other_rules.len());
        for Other { rule, because } in &other_rules[..shown] {
            write!(f, "\n  {rule}: {because}")?;
        }
        match other_rules_count - shown {
            0 => Ok(()),
            more if self.all => write!(f, "\n  and {more} more"),
            more => write!(f, "\n  and {more} more (--all)"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.rule.as_deref().unwrap_or("limit of the check");
        let says = match (self.limit.as_str(), self.allowed) {
            ("unlimited", _) => "does not limit it",
            (_, Some(true)) => "allows",
            (_, Some(false)) => "denies",
            (_, None) => "cannot be asked",
        };
        write!(f, "{name}: {says}")?;
        if self.mode == "shadow" {
            write!(f, ", in shadow mode, which keeps nobody out")?;
        }
        if let (Some(remaining), Some(quota @ 1..)) = (self.remaining, self.quota) {
            write!(f, ", {remaining} of {quota} left")?;
        }
        if self.banned {
            write!(f, ", banned")?;
        }
        if let Some(wait) = self.retry_after_ms {
            write!(f, ", again in {}", span(wait))?;
        }
        if let Some(reset) = self.reset_after_ms.filter(|reset| *reset > 0) {
            write!(f, ", back to full in {}", span(reset))?;
        }
        write!(f, "\n  {}", self.limit)?;
        if let Some(algorithm) = &self.algorithm {
            write!(f, ", {algorithm}")?;
        }
        if let Some(special) = &self.special {
            write!(f, ", by the override for {special}")?;
        }
        if !self.key.is_empty() {
            let key: Vec<String> = self.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(f, "\n  counted by {}", key.join(" "))?;
        }
        match (self.slot, &self.owner) {
            (Some(slot), Some(owner)) => write!(f, "\n  slot {slot}, owned by {owner}")?,
            (Some(slot), None) => write!(f, "\n  slot {slot}, which nobody owns at the moment")?,
            (None, _) => {}
        }
        match self.decided_by.as_deref() {
            Some("share") => write!(f, "; it is not heard, and this node decides by its share"),
            Some("fallback") => write!(f, "; it is not heard, and the rule's on_owner_loss decides"),
            Some("memory") => {
                write!(f, "; the bucket was not in memory any more, and what it had consumed is assumed")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_well() {
        let answer: Answer = serde_json::from_str(
            r#"{"node":"n1","allowed":false,"because":"login has 0 of 5 left; 1 are there in 12s","limits":[
                {"rule":"login","limit":"5/1m","algorithm":"token-bucket","override":"tier=gold","mode":"enforce",
                 "key":{"ip":"203.0.113.7"},"cost":1,"slot":7,"owner":"n2","allowed":false,"quota":5,"remaining":0,
                 "retry_after_ms":12000,"reset_after_ms":60000,"banned":false,"decided_by":"forwarded","decides":"n2"},
                {"rule":"free","limit":"unlimited","algorithm":null,"override":null,"mode":"enforce","key":{},"cost":1}],
                "other_rules":[{"rule":"api","because":"path is \"/x\"; it wants /api/*"}],"other_rules_count":9}"#,
        )
        .unwrap();
        assert_eq!(
            Told { answer: &answer, all: false }.to_string(),
            "would be denied: login has 0 of 5 left; 1 are there in 12s (n1)

login: denies, 0 of 5 left, again in 12 s, back to full in 60 s
  5/1m, token-bucket, by the override for tier=gold
  counted by ip=203.0.113.7
  slot 7, owned by n2

free: does not limit it
  unlimited

not about it:
  api: path is \"/x\"; it wants /api/*
  and 8 more (--all)"
        );
    }
}
