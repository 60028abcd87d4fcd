//! Tokens made and revoked from any node, and notes for the audit trail.

use tokio::time::{Instant, timeout_at};

use super::ledger::{Ledger, WriteError};
use crate::{
    ids::{NodeId, NodeStart},
    state::{
        access::AccessState,
        audit::Actor,
        command::{Act, Outcome},
        token::{MintedToken, Roles, Token, TokenId},
    },
};

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
    /// The domains that it may ask about; none: all of them.
    pub domains: Vec<String>,
    /// From when on it is none, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// The name in the certificate by which it is shown; `None`: by its text.
    pub certificate: Option<String>,
}

impl Ledger {
    /// Makes a token, and returns its number and its text, which only the caller knows; of one that is shown by a certificate nobody
    /// knows it. It counts at this node when this returns, unless the deadline has come.
    ///
    /// # Errors
    /// When it was not made, or may not have been.
    pub async fn make_token(
        &self,
        new: NewToken,
        actor: Actor,
        deadline: Instant,
    ) -> Result<(TokenId, Option<String>), WriteError> {
        let NewToken { name, roles, domains, expires_ms, certificate } = new;
        let MintedToken { id, text, hash } = MintedToken::new();
        let created_by = actor.name(self.node_name()).unwrap_or_default();
        let created_ms = self.now_ms();
        let token = Token { name, hash, roles, domains, created_ms, expires_ms, created_by };
        let (act, text) = match certificate {
            None => (Act::MakeToken { id, token }, Some(text)),
            Some(certificate) => (Act::MakeCertificateToken { id, token, certificate }, None),
        };
        self.change(act, actor, deadline).await?;
        self.applies(|access| access.tokens.get(id).is_some(), deadline).await;
        Ok((id, text))
    }

    /// Revokes a token. It is none at this node any more when this returns, unless the deadline has come.
    ///
    /// # Errors
    /// When it was not revoked, or may not have been.
    pub async fn revoke_token(&self, id: TokenId, actor: Actor, deadline: Instant) -> Result<(), WriteError> {
        self.change(Act::RevokeToken { id }, actor, deadline).await?;
        self.applies(|access| access.tokens.get(id).is_none(), deadline).await;
        Ok(())
    }

    /// Notes that buckets were reset.
    ///
    /// # Errors
    /// When it was not noted, or may not have been.
    pub async fn note_reset(
        &self,
        domain: String,
        detail: String,
        actor: Actor,
        deadline: Instant,
    ) -> Result<(), WriteError> {
        self.change(Act::NoteReset { domain, detail }, actor, deadline).await
    }

    /// Has the leader give all slots of a node to others (`on`), or let it have some again, as somebody asks for.
    pub(crate) async fn drain_by(
        &self,
        start: NodeStart,
        on: bool,
        name: &str,
        actor: Actor,
        deadline: Instant,
    ) -> Result<(), WriteError> {
        self.change(Act::Drain { start, on, name: name.to_owned() }, actor, deadline).await
    }

    /// Has the leader take a node out that is gone, as somebody asks for.
    pub(crate) async fn evict_by(
        &self,
        node: NodeId,
        name: &str,
        actor: Actor,
        deadline: Instant,
    ) -> Result<(), WriteError> {
        self.change(Act::Evict { node, name: name.to_owned() }, actor, deadline).await
    }

    async fn change(&self, act: Act, actor: Actor, deadline: Instant) -> Result<(), WriteError> {
        match self.act(act, actor, deadline).await? {
            Outcome::NotDone(error) => Err(WriteError::NotDone(error)),
            _ => Ok(()),
        }
    }

    async fn applies(&self, is_there: impl Fn(&AccessState) -> bool, deadline: Instant) {
        let mut applied = self.watch();
        let _ = timeout_at(deadline, applied.wait_for(|applied| is_there(&applied.state.access))).await;
    }
}
