//! `tidegate rules history`.

use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;

use crate::{
    cli::{
        node::NodeArgs,
        outcome::{DONE, Failure, Output},
    },
    client::Ask,
    terminal::print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rules history
  tidegate rules history --domain api --limit 5 --output json")]
pub(super) struct HistoryArgs {
    /// The domain
    #[arg(long, value_name = "NAME", default_value = tidegate_limiter::cluster::DEFAULT_DOMAIN)]
    domain: String,

    /// How many changes, from the last one on
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Deserialize)]
struct History {
    revisions: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    revision: u64,
    at: String,
    author: String,
    message: String,
    to: Option<u64>,
    added: u32,
    removed: u32,
    changed: u32,
    kept: bool,
}

impl HistoryArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        let ask = Ask::get(&["v1", "rules", &self.domain, "history"])
            .with_query(vec![("limit", self.limit.to_string())]);
        let value = self.node.ask(ask).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(&table(&self.node.read::<History>(&value)?.revisions)),
        }
        Ok(DONE)
    }
}

fn table(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.author.chars().count()).max().unwrap_or(0).max("who".len());
    let mut text = format!("{:>9}  {:24}  {:width$}  {:>11}  why", "revision", "when", "who", "rules");
    for line in lines {
        let extent = format!("+{} ~{} -{}", line.added, line.changed, line.removed);
        let why = match line.to {
            Some(to) if line.message.is_empty() => format!("rollback to {to}"),
            Some(to) => format!("rollback to {to}: {}", line.message),
            None => line.message.clone(),
        };
        let gone = if line.kept { "" } else { " (text no longer kept)" };
        let Line { revision, at, .. } = line;
        let author = if line.author.is_empty() { "-" } else { &line.author };
        let _ = write!(text, "\n{revision:>9}  {at:24}  {author:width$}  {extent:>11}  {why}{gone}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_line() {
        let line = Line {
            revision: 812,
            at: "2026-11-24T02:26:48.325Z".to_owned(),
            author: "ada".to_owned(),
            message: "too strict".to_owned(),
            to: Some(7),
            added: 1,
            removed: 0,
            changed: 2,
            kept: true,
        };
        assert_eq!(
            table(&[line]),
            " revision  when                      who        rules  why\n      812  2026-11-24T02:26:48.325Z  ada     +1 ~2 -0  rollback to 7: too strict"
        );
    }
}
