//! `tidegate rules validate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        node::plural,
        outcome::{DONE, FAILED, Failure, Output},
    },
    rules_file::{self, RulesFileError},
    terminal::print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rules validate -f rules.yaml
  tidegate rules validate -f rules.yaml --output json

Exit codes: 0 no fault, 1 faults, 2 bad usage.")]
pub(super) struct ValidateArgs {
    /// The file with the rules; `-` is the standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

impl ValidateArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let read = rules_file::read(&self.file);
        match (self.output, read) {
            (Output::Text, Ok(domains)) => {
                let rules = domains.iter().map(|domain| domain.rules.len()).sum();
                let (rules, of) = (plural(rules, "rule"), plural(domains.len(), "domain"));
                for warning in domains.iter().flat_map(|domain| &domain.warnings) {
                    print(&format!("warning: {warning}"));
                }
                print(&format!("{}: {rules} in {of}, no fault", self.file.display()));
                Ok(DONE)
            }
            (Output::Text, Err(fault)) => Err(Failure::failed(fault)),
            (Output::Json, Ok(domains)) => {
                let warnings: Vec<_> = domains.iter().flat_map(|domain| domain.warnings.clone()).collect();
                let domains: Vec<_> = domains
                    .iter()
                    .map(|domain| json!({ "domain": domain.name, "rules": domain.rules }))
                    .collect();
                print(
                    &json!({ "valid": true, "domains": domains, "warnings": warnings, "faults": [] })
                        .to_string(),
                );
                Ok(DONE)
            }
            (Output::Json, Err(RulesFileError::Invalid { faults, .. })) => {
                let faults: Vec<_> = faults.iter().map(rules_file::RuleInFileError::to_json).collect();
                print(&json!({ "valid": false, "domains": [], "faults": faults }).to_string());
                Ok(FAILED)
            }
            (Output::Json, Err(fault)) => Err(Failure::failed(fault)),
        }
    }
}
