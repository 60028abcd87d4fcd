//! `tidegate rules rollback`.

use clap::Args;
use serde_json::json;

use super::{apply::WriteArgs, change::Change};
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
  tidegate rules rollback 812 --message 'too strict' --wait
  tidegate rules rollback 812 --dry-run")]
pub(super) struct RollbackArgs {
    /// The revision whose rules shall count again
    #[arg(value_name = "REV")]
    revision: u64,

    /// The domain
    #[arg(long, value_name = "NAME", default_value = tidegate_limiter::cluster::DEFAULT_DOMAIN)]
    domain: String,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

impl RollbackArgs {
    pub(super) async fn run(self) -> Result<u8, Failure> {
        let body = json!({ "revision": self.revision }).to_string();
        let ask = Ask::post(&["v1", "rules", &self.domain, "rollback"], body)
            .with_query(self.write.query(&self.node))
            .with_random_key();
        let value = self.node.ask(ask).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(&Change::read(&self.node, &value)?.to_text()),
        }
        Ok(DONE)
    }
}
