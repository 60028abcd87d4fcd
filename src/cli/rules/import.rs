//! `tidegate rules import`.

use std::{fs, io, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    cli::{
        node::plural,
        outcome::{BAD_USAGE, DONE, FAILED, Failure, Output},
    },
    import::{self, Imported, NotRead},
    terminal::{note, print},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rules import --from envoy config.yaml > rules.yaml
  tidegate rules import --from nginx /etc/nginx/nginx.conf --strict > rules.yaml
  tidegate rules validate -f rules.yaml

What could not be carried over is said on standard error, with its line.
Exit codes: 0 done, 1 something was not carried over and --strict was given, or the file cannot be read, 2 bad usage.")]
pub(super) struct ImportArgs {
    /// What the file is for
    #[arg(long, value_enum, value_name = "KIND")]
    from: Kind,

    /// The file
    file: PathBuf,

    /// Fail if anything could not be carried over
    #[arg(long)]
    strict: bool,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The YAML of envoyproxy/ratelimit
    Envoy,
    /// A configuration with limit_req_zone and limit_req
    Nginx,
    /// Has no rules to import: its clients bring their limits with them
    Gubernator,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("{path}: {fault}")]
    NotRead { path: PathBuf, fault: NotRead },
    #[error("the rules that were made of {path} cannot be used: {fault}; please report this with the file")]
    Unusable { path: PathBuf, fault: String },
    #[error("not everything in {path} could be carried over (--strict)")]
    Strict { path: PathBuf },
    #[error(
        "Gubernator has no rules: each request of its clients brings its limit with it, and its file only says how its nodes find each other. So there is nothing to import: give the clients the address of a node, or ask POST /v1/check with key and limit"
    )]
    Gubernator,
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let path = self.file.clone();
        let read = match self.from {
            Kind::Envoy => import::envoy,
            Kind::Nginx => import::nginx,
            Kind::Gubernator => return Err(Failure::of(BAD_USAGE, ImportError::Gubernator)),
        };
        let text = fs::read_to_string(&self.file)
            .map_err(|reason| Failure::of(FAILED, ImportError::Unreadable { path: path.clone(), reason }))?;
        let imported = read(&text)
            .map_err(|fault| Failure::of(FAILED, ImportError::NotRead { path: path.clone(), fault }))?;
        if let Err(faults) = imported.check() {
            let fault = faults.first().map(ToString::to_string).unwrap_or_default();
            return Err(Failure::of(FAILED, ImportError::Unusable { path, fault }));
        }
        self.tell(&imported);
        if self.strict && imported.has_lost() {
            return Err(Failure::of(FAILED, ImportError::Strict { path }));
        }
        Ok(DONE)
    }

    fn tell(&self, imported: &Imported) {
        if self.output == Output::Json {
            let domains: Vec<_> = imported
                .domains
                .iter()
                .map(|domain| json!({ "domain": domain.name, "rules": domain.rules.len() }))
                .collect();
            let told = json!({ "yaml": imported.to_yaml(), "domains": domains, "remarks": imported.remarks });
            print(&told.to_string());
            return;
        }
        print(imported.to_yaml().trim_end());
        for remark in &imported.remarks {
            let kind = if remark.lost { "not carried over" } else { "note" };
            let place = if remark.line == 0 { String::new() } else { format!(":{}", remark.line) };
            note(&format!("{}{place}: {kind}: {}", self.file.display(), remark.message));
        }
        let rules = imported.domains.iter().map(|domain| domain.rules.len()).sum();
        let lost = imported.remarks.iter().filter(|remark| remark.lost).count();
        note(&format!("{} from {}; {} not carried over", plural(rules, "rule"), self.file.display(), lost));
    }
}
