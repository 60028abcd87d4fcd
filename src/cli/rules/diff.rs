//! `tidegate rules diff`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::apply::put;
use crate::{
    cli::{
        node::NodeArgs,
        outcome::{DONE, FAILED, Failure, Output},
    },
    rules_file,
    terminal::print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rules diff -f rules.yaml
  tidegate rules diff -f rules.yaml --node http://10.0.0.2:7800 --output json

Exit codes: 0 no difference, 1 a difference (or failed), 2 bad usage.")]
pub(super) struct DiffArgs {
    /// The file with the rules; `-` is the standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

impl DiffArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        let domains = rules_file::read(&self.file).map_err(Failure::failed)?;
        let (mut differs, mut values) = (false, Vec::new());
        for domain in &domains {
            let (value, change) = put(&self.node, domain, vec![("dry_run", "true".to_owned())], None).await?;
            differs |= !change.diff.is_empty();
            if self.output == Output::Text {
                print(&change.to_text());
            }
            values.push(value);
        }
        if self.output == Output::Json {
            print(&Value::from(values).to_string());
        }
        Ok(if differs { FAILED } else { DONE })
    }
}
