//! The configuration file: TOML, with the flags' names as keys.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::{blanked::Blanked, options::Options};
use crate::secret_file::{self, SecretFileError};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It holds a secret, and others can read it.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// It says something that cannot be.
    #[error("{path}:{line}: {message}")]
    #[diagnostic(help("the keys are the names of the flags, see `tidegate serve --help`"))]
    Invalid {
        /// Which.
        path: String,
        /// Where.
        line: usize,
        /// What is wrong.
        message: String,
        /// The file, without the values that the report must not show.
        #[source_code]
        text: Arc<NamedSource<String>>,
        /// The place.
        #[label("here")]
        place: SourceSpan,
    },
}

/// Reads a configuration file. Relative paths in it are meant from where it is.
pub(crate) fn read(path: &Path) -> Result<Options, ConfigError> {
    let unreadable = |reason| ConfigError::Unreadable { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    let mut options = parse(&path.display().to_string(), &text)?;
    if options.cluster_key.is_some() || options.admin_token.is_some() {
        secret_file::is_private(&file, path)?;
    }
    let base = path.parent().unwrap_or(Path::new(""));
    let paths = [
        &mut options.data_dir,
        &mut options.rules,
        &mut options.cluster_key_file,
        &mut options.admin_token_file,
        &mut options.tls_cert,
        &mut options.tls_key,
        &mut options.tls_client_ca,
        &mut options.peer_tls_cert,
        &mut options.peer_tls_key,
        &mut options.peer_tls_ca,
    ];
    for relative in paths.into_iter().flatten() {
        *relative = base.join(&relative);
    }
    Ok(options)
}

fn parse(path: &str, text: &str) -> Result<Options, ConfigError> {
    let options: Options = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        invalid(path, text, span, error.message().to_owned())
    })?;
    let twice = |text: &str, setting: &str| {
        let key = format!("{setting}-file");
        let place = text.find(&key).unwrap_or(0);
        let message = format!("{setting} and {key} are two forms of one setting; give one");
        invalid(path, text, place..place + key.len(), message)
    };
    if options.cluster_key.is_some() && options.cluster_key_file.is_some() {
        return Err(twice(text, "cluster-key"));
    }
    if options.admin_token.is_some() && options.admin_token_file.is_some() {
        return Err(twice(text, "admin-token"));
    }
    Ok(options)
}

fn invalid(path: &str, text: &str, span: Range<usize>, message: String) -> ConfigError {
    let before = text.get(..span.start).unwrap_or(text);
    let blanked = Blanked::of(text, &span);
    // What the parser says of a value may hold the value.
    let message = if blanked.is_secret_faulty {
        "the value of this key must be a text in quotes (it is not shown, because it may be a secret)"
            .to_owned()
    } else {
        message
    };
    ConfigError::Invalid {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        message,
        text: Arc::new(NamedSource::new(path, blanked.text)),
        place: span.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn fault(text: &str) -> String {
        parse("node.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let fault = fault("name = \"n1\"\nbase-prot = 7800\n");
        assert!(fault.starts_with("node.toml:2: unknown field `base-prot`"), "{fault}");
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_its_place() {
        assert!(
            fault("\n\ncheck-timeout = \"soon\"").starts_with("node.toml:3: \"soon\" is no length of time")
        );
        assert!(fault("base-port = 70000").starts_with("node.toml:1: invalid value"));
        assert!(fault("name = ").starts_with("node.toml:1: "));
        let key = "cluster-key = \"0123456789abcdef\"\ncluster-key-file = \"key\"";
        assert!(fault(key).starts_with("node.toml:2: cluster-key and"));
    }

    #[test]
    fn a_report_shows_where_the_fault_is_and_no_secret_beside_it() {
        const SECRET: &str = "s3cr3t-0123456789abcdef0123456789abcdef";
        let report = |text: &str| {
            let mut report = String::new();
            let fault = parse("node.toml", text).unwrap_err();
            miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
                .render_report(&mut report, &fault)
                .unwrap();
            report
        };
        for secret in ["cluster-key", "admin-token"] {
            for text in [
                format!("{secret} = \"{SECRET}\"\nbase-prot = 7800\n"),
                format!("base-port = 70000\n{secret} = \"{SECRET}\"\n"),
                format!("base-port =\n\"{secret}\"='{SECRET}'\n"),
                format!("{secret} = \"\"\"\n{SECRET}\nkey={SECRET}\n\"\"\"\nbase-prot = 7800\n"),
                format!("{secret} = \"{SECRET}\"\n{secret}-file = \"key\"\n"),
                format!("{secret} = \"{SECRET}\"\n{secret} = \"{SECRET}\"\n"),
                // The fault is the secret, or its key.
                format!("{secret} = \"{SECRET}\n"),
                format!("{secret} = {SECRET}\n"),
                format!("{secret} {SECRET}\n"),
                format!("{secret}: {SECRET}\n"),
                format!("{secret}s = \"{SECRET}\"\n"),
                format!("{} = \"{SECRET}\"\n", secret.replace('-', "_")),
                format!("tls = {{ {secret} = \"{SECRET}\" }}\n"),
            ] {
                let report = report(&text);
                assert!(report.contains("node.toml:"), "{report}");
                assert!(!report.contains("s3cr3t") && !report.contains("0123456789"), "{text}:\n{report}");
            }
        }
        let number = report("admin-token = 1234567890\n");
        assert!(number.contains("text in quotes") && !number.contains("1234567890"), "{number}");
        let kind = report("name = \"n1\"\nbase-port = 70000\ncluster-key = \"a\"\n");
        assert!(kind.contains("70000") && kind.contains("cluster-key = ***"), "{kind}");
    }

    #[test]
    fn a_file_with_a_secret_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        let with = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map(drop).map_err(|fault| fault.to_string())
        };
        assert_eq!(with("name = \"n1\"", 0o644), Ok(()));
        for secret in ["cluster-key", "admin-token"] {
            let text = format!("{secret} = \"0123456789abcdef0123456789abcdef\"");
            assert_eq!(with(&text, 0o600), Ok(()));
            let fault = with(&text, 0o644).unwrap_err();
            assert!(fault.contains("chmod 600") && !fault.contains("012345"), "{fault}");
        }
    }

    #[test]
    fn relative_paths_are_meant_from_where_the_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        fs::write(&path, "tls-cert = \"n1.crt\"\nrules = \"rules.yaml\"\ndata-dir = \"/var/lib/tidegate\"")
            .unwrap();
        let options = read(&path).unwrap();
        assert_eq!(options.tls_cert.unwrap(), dir.path().join("n1.crt"));
        assert_eq!(options.rules.unwrap(), dir.path().join("rules.yaml"));
        assert_eq!(options.data_dir.unwrap(), Path::new("/var/lib/tidegate"));
    }
}
