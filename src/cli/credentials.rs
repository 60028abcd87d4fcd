//! The token that a command presents: from a file or the environment, never from the command line, which other users of the machine
//! can see.

use std::path::PathBuf;

use clap::Args;

use super::outcome::Failure;
use crate::{
    client::Ask,
    secret_file::{self, SecretFileError},
};

const VARIABLE: &str = "TIDEGATE_TOKEN";

/// Which token is presented.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// File that holds the token for the node, which nobody but its owner may be able to read [default: the token in TIDEGATE_TOKEN]
    #[arg(long, env = "TIDEGATE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Refused: it would be seen
    #[arg(long, hide = true, value_name = "TOKEN")]
    token: Option<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum TokenError {
    #[error(
        "a token on the command line can be seen by other users of this machine, in ps and in the shell's history"
    )]
    #[diagnostic(help(
        "write it into a file and name that (--token-file FILE), or put it into TIDEGATE_TOKEN; and revoke the one that was shown"
    ))]
    OnCommandLine,
    #[error("the token (--token-file): {0}")]
    File(#[from] SecretFileError),
    #[error("{0} holds no token: 1 to 512 visible characters of ASCII are expected")]
    NoToken(String),
}

impl From<TokenError> for Failure {
    fn from(fault: TokenError) -> Self {
        match fault {
            TokenError::OnCommandLine => Self::bad_usage(fault),
            fault => Self::failed(fault),
        }
    }
}

impl TokenArgs {
    /// The same call, with the token, if there is one.
    pub(super) fn present(&self, ask: Ask) -> Result<Ask, TokenError> {
        if self.token.is_some() {
            return Err(TokenError::OnCommandLine);
        }
        let (text, source) = match &self.token_file {
            Some(path) => (secret_file::read(path)?, path.display().to_string()),
            None => match std::env::var(VARIABLE) {
                Ok(text) if !text.is_empty() => (text, VARIABLE.to_owned()),
                _ => return Ok(ask),
            },
        };
        let token = text.trim();
        if token.is_empty() || token.len() > 512 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NoToken(source));
        }
        Ok(ask.with_header("authorization", format!("Bearer {token}")))
    }
}
