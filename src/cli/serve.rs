//! `tidegate serve`.

use std::{io, path::PathBuf, thread};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::outcome::{BAD_USAGE, DONE, Failure};
use crate::{
    config::{self, LogFormat, Options, Settings},
    logging, serve,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Each option is also a key of the configuration file (base-port = 7800) and an environment variable
(TIDEGATE_BASE_PORT=7800). A flag goes before the environment, the environment before the file.

Examples:
  tidegate serve --rules rules.yaml
      one node on 127.0.0.1:7800
  tidegate serve --listen 10.0.0.1 --bootstrap-expect 3 --join 10.0.0.2,10.0.0.3 --cluster-key-file key
      one of three nodes that form a cluster
  tidegate serve --base-port 7830 --join 127.0.0.1:7803 --rules rules.yaml
      one more node on this machine")]
pub(super) struct ServeArgs {
    /// The configuration file (TOML)
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    options: Options,

    /// Stop when standard input ends: how `tidegate dev` makes sure that no node outlives it
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

impl ServeArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let file = match &self.config {
            Some(path) => config::read_file(path).map_err(Failure::bad_usage)?,
            None => Options::default(),
        };
        let options = self.options.or(file);
        let format = options.log_format.unwrap_or(LogFormat::Text);
        logging::start(format, options.log_level.as_deref().unwrap_or("info"))
            .map_err(|fault| Failure::of(BAD_USAGE, fault))?;
        let settings = Settings::resolve(&options).map_err(|fault| Failure::of(BAD_USAGE, fault))?;

        let stop = CancellationToken::new();
        if self.exit_with_stdin {
            let stop = stop.clone();
            // Reading blocks, so it has a thread of its own, which ends with the process.
            thread::spawn(move || {
                let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
                stop.cancel();
            });
        }
        serve::run(settings, stop).map_err(Failure::failed)?;
        Ok(DONE)
    }
}
