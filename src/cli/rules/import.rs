//! `tidegate rules import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    cli::{
        node::plural,
        outcome::{BAD_USAGE, DONE, FAILED, Failure, Output},
    },
    import::{self, Imported, NotRead, Sources},
    terminal::{note, print},
};

use super::import_files::{self, Naming};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rules import --from envoy config.yaml > rules.yaml
  tidegate rules import --from envoy config/ > rules.yaml
  tidegate rules import --from nginx /etc/nginx/nginx.conf --strict > rules.yaml
  ssh proxy nginx -T | tidegate rules import --from nginx - > rules.yaml
  tidegate rules validate -f rules.yaml

What could not be carried over is said on standard error, with its file and line.
Exit codes: 0 done, 1 something was not carried over and --strict was given, or the file cannot be read, 2 bad usage.")]
pub(super) struct ImportArgs {
    /// What the file is for
    #[arg(long, value_enum, value_name = "KIND")]
    from: Kind,

    /// Files and directories; - is the standard input. Of a directory, *.yaml and *.yml are read (envoy), or nginx.conf, or
    /// without one *.conf (nginx)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

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
    #[error("{place}: {message}")]
    NotRead { place: String, message: String },
    #[error("the rules that were made of {place} cannot be used: {fault}; please report this with the file")]
    Unusable { place: String, fault: String },
    #[error("not everything in {place} could be carried over (--strict)")]
    Strict { place: String },
    #[error(
        "Gubernator has no rules: each request of its clients brings its limit with it, and its file only says how its nodes find each other. So there is nothing to import: give the clients the address of a node, or ask POST /v1/check with key and limit"
    )]
    Gubernator,
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        type Reader = fn(&mut Sources) -> Result<Imported, NotRead>;
        let (read, naming): (Reader, Naming) = match self.from {
            Kind::Envoy => (import::envoy, Naming { main: None, endings: &[".yaml", ".yml"], or_all: false }),
            Kind::Nginx => {
                (import::nginx, Naming { main: Some("nginx.conf"), endings: &[".conf"], or_all: true })
            }
            Kind::Gubernator => return Err(Failure::of(BAD_USAGE, ImportError::Gubernator)),
        };
        let mut sources =
            import_files::read(&self.files, naming).map_err(|fault| Failure::of(FAILED, fault))?;
        let named = match &self.files[..] {
            [one] if one.as_os_str() != "-" => one.display().to_string(),
            [_] => "the standard input".to_owned(),
            several => plural(several.len(), "file"),
        };
        let imported = read(&mut sources).map_err(|NotRead { line, message }| {
            let place = sources.place(line);
            let place = match place.line {
                0 => place.name.to_owned(),
                line => format!("{}: line {line}", place.name),
            };
            Failure::of(FAILED, ImportError::NotRead { place, message })
        })?;
        if let Err(faults) = imported.check(&sources) {
            let fault = faults.first().map(ToString::to_string).unwrap_or_default();
            return Err(Failure::of(FAILED, ImportError::Unusable { place: named, fault }));
        }
        self.tell(&imported, &sources, &named);
        if self.strict && imported.has_lost() {
            return Err(Failure::of(FAILED, ImportError::Strict { place: named }));
        }
        Ok(DONE)
    }

    fn tell(&self, imported: &Imported, sources: &Sources, named: &str) {
        if self.output == Output::Json {
            let domains: Vec<_> = imported
                .domains
                .iter()
                .map(|domain| json!({ "domain": domain.name, "rules": domain.rules.len() }))
                .collect();
            let remarks: Vec<_> = imported
                .remarks
                .iter()
                .map(|remark| {
                    let place = sources.place(remark.line);
                    json!({ "file": place.name, "line": place.line, "lost": remark.lost, "message": remark.message })
                })
                .collect();
            let told = json!({ "yaml": imported.to_yaml(sources), "domains": domains, "remarks": remarks });
            print(&told.to_string());
            return;
        }
        print(imported.to_yaml(sources).trim_end());
        for remark in &imported.remarks {
            let kind = if remark.lost { "not carried over" } else { "note" };
            let place = sources.place(remark.line);
            let line = if place.line == 0 { String::new() } else { format!(":{}", place.line) };
            note(&format!("{}{line}: {kind}: {}", place.name, remark.message));
        }
        let rules = imported.domains.iter().map(|domain| domain.rules.len()).sum();
        let lost = imported.remarks.iter().filter(|remark| remark.lost).count();
        note(&format!("{} from {named}; {lost} not carried over", plural(rules, "rule")));
    }
}
