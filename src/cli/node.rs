//! What the commands that ask a node have in common.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    credentials::{TokenArgs, TokenError},
    outcome::Failure,
    trust::TrustArgs,
};
use crate::{
    client::{Ask, ClientError, NodeAddress, Reply},
    config::Span,
    terminal::note,
};

/// The pause before a node is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How much longer than the node may take it is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// Which node is asked.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node to ask; each knows, and each takes changes
    #[arg(long, env = "TIDEGATE_NODE", value_name = "URL", default_value = "http://127.0.0.1:7800")]
    node: NodeAddress,

    #[command(flatten)]
    token: TokenArgs,

    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: Span,

    #[command(flatten)]
    trust: TrustArgs,
}

/// Why a node did not do it.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum NodeError {
    #[error("{node} refused: {detail}")]
    Refused {
        node: NodeAddress,
        detail: String,
        #[help]
        help: Option<String>,
    },
    #[error("{node} answered {status}, and not as a node does; is it one? (--node)")]
    NoNode { node: NodeAddress, status: u16 },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Token(#[from] TokenError),
}

impl From<NodeError> for Failure {
    fn from(fault: NodeError) -> Self {
        match fault {
            NodeError::Token(fault) => fault.into(),
            fault => Self::failed(fault),
        }
    }
}

impl NodeError {
    /// Whether the same question may be answered a moment later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Client(fault) if !fault.is_final())
    }
}

impl NodeArgs {
    /// The node that is asked.
    pub(super) fn address(&self) -> &NodeAddress {
        &self.node
    }

    /// Asks for bytes: this node, or another one of its cluster.
    pub(super) async fn ask_bytes(&self, other: Option<&NodeAddress>, ask: Ask) -> Result<Bytes, NodeError> {
        let node = self.trust.of(other.unwrap_or(&self.node))?;
        let reply = node.ask(&self.token.present(ask)?, self.timeout.0 + GRACE).await?;
        match reply.status.is_success() {
            true => Ok(reply.body),
            // It says why, as with any other call.
            false => Self::value_of(other.unwrap_or(&self.node), &reply).map(|_| reply.body.clone()),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout.0
    }

    /// Asks for something that may be asked twice. A node that does not answer is asked again until the time is over.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Value, NodeError> {
        let ask = self.token.present(ask)?;
        let give_up = tokio::time::Instant::now() + self.timeout.0;
        let node = self.trust.of(&self.node)?;
        loop {
            match node.ask(&ask, self.timeout.0 + GRACE).await {
                Ok(reply) => return Self::value_of(&self.node, &reply),
                Err(fault) if !fault.is_final() && tokio::time::Instant::now() + AGAIN_AFTER < give_up => {
                    note(&format!("{fault}; trying again"));
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Asks for something that may not be asked twice.
    pub(super) async fn ask_once(&self, ask: Ask) -> Result<Value, NodeError> {
        let node = self.trust.of(&self.node)?;
        let reply = node.ask(&self.token.present(ask)?, self.timeout.0 + GRACE).await?;
        Self::value_of(&self.node, &reply)
    }

    fn value_of(node: &NodeAddress, reply: &Reply) -> Result<Value, NodeError> {
        let no_node = || NodeError::NoNode { node: node.clone(), status: reply.status.as_u16() };
        let value: Value = serde_json::from_slice(&reply.body).map_err(|_| no_node())?;
        if reply.status.is_success() {
            return Ok(value);
        }
        let Some(detail) = value["detail"].as_str() else { return Err(no_node()) };
        let help = match value["type"].as_str().and_then(|kind| kind.rsplit(':').next()) {
            Some("revision-mismatch") => Some("`tidegate rules diff` shows what is different now".to_owned()),
            Some("no-quorum") => {
                Some("`GET /v1/cluster` shows who is there; start the missing nodes".to_owned())
            }
            Some("no-such-node") => Some("`tidegate cluster status` lists the nodes".to_owned()),
            Some("node-is-live") => Some(
                "`tidegate cluster drain` first; then stop it, or remove it by asking another node"
                    .to_owned(),
            ),
            Some("token-needed") => Some(
                "--token-file FILE, or TIDEGATE_TOKEN; `tidegate token create` makes one, with the admin token of a node to begin with"
                    .to_owned(),
            ),
            Some("bad-token") => Some("`tidegate token list` shows which there are, with one that counts".to_owned()),
            Some("role-missing" | "domain-not-allowed") => {
                Some("ask with a token that has the role, or have one made: `tidegate token create`".to_owned())
            }
            Some("admin-elsewhere") => Some("--node with the address of --admin-listen".to_owned()),
            Some("no-such-token") => Some("`tidegate token list` lists the tokens".to_owned()),
            Some("no-such-revision") => Some("`tidegate rules history` lists the revisions".to_owned()),
            Some("not-everywhere-yet") => {
                Some("nothing has to be done: the nodes that are behind take it in".to_owned())
            }
            _ => None,
        };
        Err(NodeError::Refused { node: node.clone(), detail: detail.to_owned(), help })
    }

    /// Reads a part of an answer.
    pub(super) fn read<T: DeserializeOwned>(&self, value: &Value) -> Result<T, NodeError> {
        T::deserialize(value).map_err(|_| NodeError::NoNode { node: self.node.clone(), status: 200 })
    }
}

/// `1 rule`, `2 rules`.
pub(super) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
