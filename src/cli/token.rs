//! `tidegate token`: who may do what.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_cluster::state::Role;

use super::{
    node::NodeArgs,
    outcome::{self, DONE, FAILED, Failure, Output},
};
use crate::{
    client::Ask,
    config::Span,
    terminal::{note, print},
};

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Roles: check (ask checks), read (look at rules, cluster, metrics, audit), operate (drain, remove, reset; and read),
admin (all of it, and rules and tokens).

Examples:
  tidegate token create ops --role admin --save ops.token
  tidegate token create shop --role check --domain shop --expires 90d
  tidegate token create deploy --role operate --for-certificate deploy
  tidegate token list --token-file ops.token
  tidegate token revoke shop --token-file ops.token

As soon as there is a token, administration needs one. The first one of a node that needs one already is made with the
node's admin token: TIDEGATE_TOKEN=$(cat admin.token) tidegate token create ..."
)]
pub(super) struct TokenCommandArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is shown once
    Create(CreateArgs),
    /// Show which tokens there are, without their secrets
    List(ListArgs),
    /// Make a token worthless, at once and at all nodes
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What the token is called, in lists, in the history of rules and in the audit trail
    #[arg(value_name = "NAME")]
    name: String,

    /// What it may do; several times for several roles
    #[arg(long = "role", value_name = "ROLE", required = true, value_parser = ["check", "read", "operate", "admin"], value_delimiter = ',')]
    roles: Vec<String>,

    /// The domains that it may check, if not all; several times for several
    #[arg(long = "domain", value_name = "NAME", value_delimiter = ',')]
    domains: Vec<String>,

    /// After this time it is worthless [default: never]
    #[arg(long, value_name = "DURATION")]
    expires: Option<Span>,

    /// Make a token that nobody knows: who shows a client certificate with this name has it. A DNS name, URI or mail address of the
    /// subject alternative names, or the common name, exactly as it stands there. Nodes need --tls-client-ca for it
    #[arg(long, value_name = "NAME", conflicts_with = "save")]
    for_certificate: Option<String>,

    /// Write the token into this new file, which only its owner can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The token's name, or its id
    #[arg(value_name = "TOKEN")]
    named: String,

    #[command(flatten)]
    node: NodeArgs,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

/// Why a token is not in its file.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("cannot write {path} (--save): {reason}; no token was made")]
    NotMade { path: PathBuf, reason: std::io::Error },
    #[error("cannot write {path} (--save): {reason}; the token {name:?} was made and is lost: revoke it")]
    Lost { path: PathBuf, reason: std::io::Error, name: String },
}

#[derive(Debug, Deserialize)]
struct Revoked {
    applied_by: Vec<String>,
    behind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    tokens: Vec<Token>,
}

#[derive(Debug, Deserialize)]
struct Token {
    id: String,
    name: String,
    roles: Vec<String>,
    domains: Vec<String>,
    /// None: it is shown by its text, or the node knows of no other way.
    certificate: Option<String>,
    created_at: String,
    created_by: Option<String>,
    expires_at: Option<String>,
    expired: bool,
}

impl TokenCommandArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        outcome::run(async {
            match self.command {
                TokenCommand::Create(args) => args.run().await,
                TokenCommand::List(args) => args.run().await,
                TokenCommand::Revoke(args) => args.run().await,
            }
        })
    }
}

impl CreateArgs {
    async fn run(self) -> Result<u8, Failure> {
        let file = self.save.as_ref().map(|path| {
            // First of all: a token that cannot be kept is not made.
            let made = File::options().write(true).create_new(true).mode(0o600).open(path);
            made.map_err(|reason| SaveError::NotMade { path: path.clone(), reason })
        });
        let file = file.transpose().map_err(|fault| Failure::of(FAILED, fault))?;
        let value = match self.make().await {
            Ok(value) => value,
            Err(failure) => {
                if let Some(path) = &self.save {
                    // It is empty.
                    let _ = fs::remove_file(path);
                }
                return Err(failure);
            }
        };
        let token = value["token"].as_str().unwrap_or_default();
        if let (Some(mut file), Some(path)) = (file, &self.save) {
            let written = file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all());
            written.map_err(|reason| {
                let (path, name) = (path.clone(), self.name.clone());
                Failure::of(FAILED, SaveError::Lost { path, reason, name })
            })?;
        }
        let mut told = value.clone();
        if self.save.is_some() {
            told["token"] = Value::Null;
        }
        match (self.output, &self.save) {
            (Output::Json, _) => print(&told.to_string()),
            (Output::Text, None) if self.for_certificate.is_some() => {
                let certificate = self.for_certificate.as_deref().unwrap_or_default();
                print(&format!(
                    "the certificate {certificate:?} stands for the token {} ({})",
                    self.name,
                    self.roles.join(", ")
                ));
            }
            (Output::Text, Some(path)) => {
                print(&format!(
                    "the token {} ({}) is in {}",
                    self.name,
                    self.roles.join(", "),
                    path.display()
                ));
            }
            (Output::Text, None) => {
                print(token);
                note("this is the only time that the token is shown: it is kept nowhere");
            }
        }
        if value["created_by"].is_null() {
            match self.for_certificate {
                None => note("from now on administration of the cluster needs a token: keep this one"),
                Some(_) => {
                    note("from now on administration of the cluster needs a token, or such a certificate")
                }
            }
        }
        Ok(DONE)
    }

    async fn make(&self) -> Result<Value, Failure> {
        let mut body = json!({ "name": self.name, "roles": self.roles, "domains": self.domains });
        if let Some(certificate) = &self.for_certificate {
            body["certificate"] = certificate.as_str().into();
        }
        if let Some(Span(life)) = self.expires {
            body["expires_in_s"] = life.as_secs().max(1).into();
        }
        Ok(self.node.ask_once(Ask::post(&["v1", "tokens"], body.to_string())).await?)
    }
}

impl ListArgs {
    async fn run(self) -> Result<u8, Failure> {
        let value = self.node.ask(Ask::get(&["v1", "tokens"])).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => print(&table(&self.node.read::<Listed>(&value)?.tokens)),
        }
        Ok(DONE)
    }
}

impl RevokeArgs {
    async fn run(self) -> Result<u8, Failure> {
        let value = self.node.ask(Ask::delete(&["v1", "tokens", &self.named])).await?;
        match self.output {
            Output::Json => print(&value.to_string()),
            Output::Text => {
                let Revoked { applied_by, behind } = self.node.read(&value)?;
                print(&format!("the token {} is worthless now at {}", self.named, applied_by.join(", ")));
                if !behind.is_empty() {
                    note(&format!("these have not heard of it yet: {}", behind.join(", ")));
                }
            }
        }
        Ok(DONE)
    }
}

fn table(tokens: &[Token]) -> String {
    if tokens.is_empty() {
        return "there are no tokens".to_owned();
    }
    let width = tokens.iter().map(|token| token.name.len()).max().unwrap_or(0).max("name".len());
    let roles = Role::ALL.map(Role::as_str).join(", ").len();
    let mut text = format!(
        "{:16}  {:width$}  {:roles$}  {:24}  {:24}  {}",
        "id", "name", "roles", "created", "expires", "by; domains; certificate"
    );
    for token in tokens {
        let expires = match (&token.expires_at, token.expired) {
            (None, _) => "never".to_owned(),
            (Some(_), true) => "expired".to_owned(),
            (Some(at), false) => at.clone(),
        };
        let by = token.created_by.as_deref().unwrap_or("-");
        let domains = match token.domains.as_slice() {
            [] => String::new(),
            domains => format!("; only {}", domains.join(", ")),
        };
        let certificate = match &token.certificate {
            None => String::new(),
            Some(name) => format!("; certificate {name}"),
        };
        let Token { id, name, created_at, .. } = token;
        text += &format!(
            "\n{id:16}  {name:width$}  {:roles$}  {created_at:24}  {expires:24}  {by}{domains}{certificate}",
            token.roles.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_without_its_secret() {
        let token = |json: Value| serde_json::from_value::<Token>(json).unwrap();
        let text = table(&[
            token(
                json!({"id": "00000000000000f1", "name": "shop", "roles": ["check"], "domains": ["a", "b"],
                "created_at": "2026-11-24T02:26:48.325Z", "created_by": "token ops", "expires_at": null, "expired": false}),
            ),
            token(
                json!({"id": "00000000000000f2", "name": "ops", "roles": ["read", "operate"], "domains": [], "certificate": "ops.example.com",
                "created_at": "2026-11-24T02:26:48.325Z", "created_by": null, "expires_at": "2026-11-25T02:26:48.325Z", "expired": true}),
            ),
        ]);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines[1],
            "00000000000000f1 shop check 2026-11-24T02:26:48.325Z never token ops; only a, b"
        );
        assert_eq!(
            lines[2],
            "00000000000000f2 ops read, operate 2026-11-24T02:26:48.325Z expired -; certificate ops.example.com"
        );
    }
}
