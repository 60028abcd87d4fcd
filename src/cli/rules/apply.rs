//! `tidegate rules apply`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::change::Change;
use crate::{
    cli::{
        node::{NodeArgs, NodeError},
        outcome::{DONE, Failure, Output},
    },
    client::Ask,
    rules_file::{self, DomainText},
    terminal::print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
The rules of each domain in the file replace those that the cluster has for it; other domains stay as they are.
A write that was not answered is repeated, and happens once.

Examples:
  tidegate rules apply -f rules.yaml
  tidegate rules apply -f rules.yaml --dry-run
  tidegate rules apply -f rules.yaml --if-revision 812 --message 'login: 10 a minute' --wait

Exit codes: 0 done, 1 refused or failed, 2 bad usage.")]
pub(super) struct ApplyArgs {
    /// The file with the rules; `-` is the standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Only if the rules are at this revision
    #[arg(long, value_name = "REV")]
    if_revision: Option<u64>,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// What each change of rules takes.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,

    /// Who, for the history
    #[arg(long, env = "USER", value_name = "NAME", default_value = "", hide_env_values = true)]
    author: String,

    /// Only show what would change
    #[arg(long)]
    dry_run: bool,

    /// Wait until the rules are in force at each node
    #[arg(long)]
    wait: bool,
}

impl WriteArgs {
    /// The query of the call.
    pub(super) fn query(&self, node: &NodeArgs) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("author", self.author.clone()),
            ("message", self.message.clone()),
            ("timeout_ms", node.timeout().as_millis().to_string()),
        ];
        if self.dry_run {
            query.push(("dry_run", "true".to_owned()));
        }
        if self.wait {
            query.push(("wait", "all".to_owned()));
        }
        query
    }
}

impl ApplyArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        let domains = rules_file::read(&self.file).map_err(Failure::failed)?;
        let mut changes = Vec::new();
        for domain in &domains {
            let query = self.write.query(&self.node);
            let (value, change) = put(&self.node, domain, query, self.if_revision).await?;
            if self.output == Output::Text {
                print(&change.to_text());
            }
            changes.push(value);
        }
        if self.output == Output::Json {
            print(&Value::from(changes).to_string());
        }
        Ok(DONE)
    }
}

/// Writes the rules of one domain, or looks what that would change.
pub(super) async fn put(
    node: &NodeArgs,
    domain: &DomainText,
    query: Vec<(&'static str, String)>,
    if_revision: Option<u64>,
) -> Result<(Value, Change), NodeError> {
    let mut ask =
        Ask::put(&["v1", "rules", &domain.name], domain.text.clone()).with_query(query).with_random_key();
    if let Some(revision) = if_revision {
        ask = ask.with_header("if-match", format!("\"{revision}\""));
    }
    let value = node.ask(ask).await?;
    let change = Change::read(node, &value)?;
    Ok((value, change))
}
