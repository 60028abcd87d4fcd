//! `tidegate serve`.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    thread,
};

use clap::{Args, CommandFactory as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    CommandLine, environment,
    outcome::{BAD_USAGE, DONE, Failure},
};
use crate::{
    config::{self, LogFormat, Options, Settings},
    logging, serve,
};

const DEFAULT_LEVEL: &str = "info";

#[derive(Debug, Args)]
#[command(after_help = "\
Each option is also a key of the configuration file (base-port = 7800) and an environment variable
(TIDEGATE_BASE_PORT=7800). A flag goes before the environment, the environment before the file.

Examples:
  tidegate serve --rules rules.yaml
      one node on 127.0.0.1:7800
  tidegate serve --listen 10.0.0.1 --bootstrap-expect 3 --join 10.0.0.2,10.0.0.3 --cluster-key-file key --admin-token-file admin.token
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
        if let Some(fault) = secret_on(std::env::args_os()) {
            return Err(Failure::bad_usage(fault));
        }
        let file = match &self.config {
            Some(path) => config::read_file(path).map_err(Failure::bad_usage)?,
            None => Options::default(),
        };
        let options = self.options.clone().or(file);
        let format = options.log_format.unwrap_or(LogFormat::Text);
        let (log, _flush) = logging::start(format, options.log_level.as_deref().unwrap_or(DEFAULT_LEVEL))
            .map_err(|fault| Failure::of(BAD_USAGE, fault))?;
        for variable in environment::unknown(&CommandLine::command()) {
            let meant = variable.meant.as_deref().unwrap_or("-");
            warn!(
                name = variable.name,
                meant, "a variable of the environment is none of an option: it has no effect"
            );
        }
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
        let (config, options) = (self.config, self.options);
        let reload = move || reload(config.as_deref(), &options, &log);
        serve::run(settings, stop, reload).map_err(Failure::failed)?;
        Ok(DONE)
    }
}

/// A secret where other users of the machine can see it.
#[derive(Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{0} on the command line can be seen by other users of this machine, in ps")]
#[diagnostic(help(
    "put the secret into a file that only its owner can read ({0}-file FILE), or into the environment (TIDEGATE_CLUSTER_KEY, TIDEGATE_ADMIN_TOKEN)"
))]
struct SecretShown(&'static str);

fn secret_on(arguments: impl Iterator<Item = OsString>) -> Option<SecretShown> {
    let mut arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    arguments.find_map(|argument| {
        let name = argument.split('=').next().unwrap_or_default();
        ["--cluster-key", "--admin-token"].into_iter().find(|flag| *flag == name).map(SecretShown)
    })
}

/// Takes from the configuration file what can change while the node runs: the level of the log.
fn reload(config: Option<&Path>, options: &Options, log: &logging::Log) {
    let Some(path) = config else {
        info!("SIGHUP: there is no configuration file (--config) that could be read again");
        return;
    };
    let level = match config::read_file(path) {
        Ok(file) => options.clone().or(file).log_level,
        Err(fault) => {
            warn!(file = %path.display(), %fault, "SIGHUP: the configuration file cannot be used, so nothing changes");
            return;
        }
    };
    let level = level.as_deref().unwrap_or(DEFAULT_LEVEL);
    match log.set_level(level) {
        Ok(()) => info!(
            level,
            "SIGHUP: the level of the log is read again; what else the file says holds after a restart"
        ),
        Err(fault) => warn!(%fault, "SIGHUP: nothing changes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_on_the_command_line_is_seen() {
        let shown = |arguments: &[&str]| secret_on(arguments.iter().map(OsString::from)).map(|shown| shown.0);
        assert_eq!(shown(&["serve", "--cluster-key", "x"]), Some("--cluster-key"));
        assert_eq!(shown(&["serve", "--admin-token=x"]), Some("--admin-token"));
        assert_eq!(shown(&["serve", "--cluster-key-file", "x", "--admin-token-file=y"]), None);
    }
}
