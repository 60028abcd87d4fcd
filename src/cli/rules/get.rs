//! `tidegate rules get`.

use clap::Args;
use serde::Deserialize;
use tidegate_limiter::cluster::{RuleDescription, WorstCase};

use super::named::named;
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
What is printed can be given to `tidegate rules apply`.

Examples:
  tidegate rules get > rules.yaml
  tidegate rules get --domain api --revision 812
  tidegate rules get --consistent --output json")]
pub(super) struct GetArgs {
    /// Only this domain
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,

    /// The rules as they were at this revision (of the domain `default` unless another is named)
    #[arg(long, value_name = "REV")]
    revision: Option<u64>,

    /// All that was written before, whichever node took it
    #[arg(long)]
    consistent: bool,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Deserialize)]
struct Domain {
    domain: String,
    revision: u64,
    changed_at: String,
    author: String,
    message: String,
    source: String,
    #[serde(default)]
    rules: Vec<RuleDescription>,
}

#[derive(Debug, Deserialize)]
struct Domains {
    domains: Vec<Domain>,
}

impl GetArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        let mut query = Vec::new();
        if self.consistent {
            query.push(("consistent", "true".to_owned()));
            query.push(("timeout_ms", self.node.timeout().as_millis().to_string()));
        }
        query.extend(self.revision.map(|revision| ("revision", revision.to_string())));
        let one = self.domain.as_deref().or(self.revision.map(|_| tidegate_limiter::cluster::DEFAULT_DOMAIN));
        let ask = match one {
            Some(domain) => Ask::get(&["v1", "rules", domain]),
            None => Ask::get(&["v1", "rules"]),
        };
        let value = self.node.ask(ask.with_query(query)).await?;
        if self.output == Output::Json {
            print(&value.to_string());
            return Ok(DONE);
        }
        let domains: Vec<Domain> = match one {
            Some(_) => vec![self.node.read(&value)?],
            None => self.node.read::<Domains>(&value)?.domains,
        };
        let texts: Vec<String> = domains.iter().map(Domain::to_text).collect();
        print(texts.join("\n---\n").trim_end());
        Ok(DONE)
    }
}

impl Domain {
    /// The rules as they were written, below a line that says which these are. A text that names no domain gets its
    /// name, where it needs one.
    fn to_text(&self) -> String {
        let Self { domain, revision, changed_at, author, message, source, rules } = self;
        let by = if author.is_empty() { String::new() } else { format!(" by {author}") };
        let why = if message.is_empty() { String::new() } else { format!(": {message}") };
        let text = named(domain, source);
        let worst = worst_cases(rules);
        format!("# {domain}, revision {revision}, {changed_at}{by}{why}\n{text}{worst}")
    }
}

/// What the rules may admit at most, as comments.
fn worst_cases(rules: &[RuleDescription]) -> String {
    let mut text = String::new();
    // The others admit all or nothing.
    let mut counting = rules.iter().filter(|rule| rule.algorithm.is_some()).peekable();
    if counting.peek().is_some() {
        text.push_str("\n# The most that each rule admits in any interval, of what its limit allows in it:");
    }
    for rule in counting {
        let told = |times: Option<u32>| match times {
            Some(1) => "no more".to_owned(),
            Some(times) => format!("at most {times} times"),
            None => "without a bound".to_owned(),
        };
        let WorstCase { planned, crash, partition, further_side, memory_full, lost } = rule.worst_case();
        let further = match further_side {
            Some(times @ 1..) => format!(" of two sides, and {times} more for each further side"),
            _ => String::new(),
        };
        let lost = lost.map_or(String::new(), |lost| format!("; a crash costs a bucket up to {lost}"));
        let forgotten = match memory_full {
            Some(_) => "",
            None => {
                "; where its memory is full, once more each time that a key is forgotten (on_memory_full: forget)"
            }
        };
        text.push_str(&format!(
            "\n#   {}: {} by plan, {} when a node crashes, {} in a partition{further}{lost}{forgotten}",
            rule.name,
            told(planned),
            told(crash),
            told(partition)
        ));
    }
    text
}
