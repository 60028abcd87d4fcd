//! A change that somebody asked for, with who that is. What they may do is judged when it is applied, from what is written before
//! it: a token that was revoked changes nothing any more, whichever node has taken the request.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    audit::{Audit, AuditEntry, Identity, RESET},
    certificate_names::CertificateNames,
    command::{Act, Action, Origin, Outcome},
    token::{ActError, Role, Token, TokenId, Tokens},
};

impl Act {
    /// What it needs.
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Write(_)
            | Self::MakeToken { .. }
            | Self::RevokeToken { .. }
            | Self::MakeCertificateToken { .. } => Role::Admin,
            Self::Drain { .. } | Self::Evict { .. } | Self::NoteReset { .. } => Role::Operate,
        }
    }

    /// The word for it, what it is about, and what else there is to say.
    fn told(&self, tokens: &Tokens) -> (&'static str, String, String) {
        match self {
            Self::Write(write) => {
                let extent = write.extent;
                let mut detail = format!("+{} ~{} -{}", extent.added, extent.changed, extent.removed);
                if !write.message.is_empty() {
                    detail += &format!("; message: {}", write.message);
                }
                if !write.author.is_empty() {
                    detail += &format!("; says to be {}", write.author);
                }
                match write.origin {
                    Origin::Apply => ("rules.apply", write.domain.to_string(), detail),
                    Origin::Rollback { to } => {
                        ("rules.rollback", write.domain.to_string(), format!("to {to}; {detail}"))
                    }
                }
            }
            Self::Drain { on: true, name, .. } => ("node.drain", name.clone(), String::new()),
            Self::Drain { on: false, name, .. } => ("node.undrain", name.clone(), String::new()),
            Self::Evict { name, .. } => ("node.remove", name.clone(), String::new()),
            Self::MakeToken { id, token } => ("token.create", token.name.clone(), made(*id, token)),
            Self::MakeCertificateToken { id, token, certificate } => {
                let detail = format!("{}; certificate: {certificate}", made(*id, token));
                ("token.create", token.name.clone(), detail)
            }
            Self::RevokeToken { id } => {
                let name = tokens.get(*id).map_or_else(|| id.to_string(), |token| token.name.clone());
                ("token.revoke", name, id.to_string())
            }
            Self::NoteReset { domain, detail } => (RESET, domain.clone(), detail.clone()),
        }
    }
}

fn made(id: TokenId, token: &Token) -> String {
    let domains = match token.domains.as_slice() {
        [] => String::new(),
        domains => format!("; domains: {}", domains.join(", ")),
    };
    format!("{id}; roles: {}{domains}", token.roles)
}

/// Who may do what, and what they did. It is cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessState {
    /// The tokens.
    pub tokens: Arc<Tokens>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// The tokens that are shown by certificates. A snapshot without any ends before it, as those of versions do that know of none.
    #[serde(skip_serializing_if = "has_none")]
    pub certificates: Arc<CertificateNames>,
}

fn has_none(names: &Arc<CertificateNames>) -> bool {
    names.is_empty()
}

impl AccessState {
    /// The outcome of a request that was there before; those for rules have keys of their own.
    pub(super) fn known(&self, action: &Action) -> Option<Outcome> {
        if let Act::Write(_) = action.act {
            return None;
        }
        let entry = self.audit.of_key(action.key)?;
        Some(entry.error.clone().map_or(Outcome::Done, Outcome::NotDone))
    }

    /// Whether who asks may do it.
    pub(super) fn judge(&self, action: &Action) -> Result<(), ActError> {
        let role = action.act.role();
        match &action.actor.identity {
            Identity::AdminToken => Ok(()),
            Identity::Nobody if !self.tokens.is_guarded() => Ok(()),
            Identity::Nobody => Err(ActError::NotAllowed(format!(
                "this needs a token with the role {}: the cluster has tokens",
                role.as_str()
            ))),
            Identity::Token { id, name } | Identity::Certificate { id, name, .. } => {
                match self.tokens.get(*id) {
                    None => Err(ActError::NotAllowed(format!("the token {name:?} was revoked"))),
                    Some(token) if !token.roles.allow(role) => Err(ActError::NotAllowed(format!(
                        "the token {name:?} has the roles {}; this needs {}",
                        token.roles,
                        role.as_str()
                    ))),
                    Some(_) => Ok(()),
                }
            }
        }
    }

    /// Changes the tokens, if that is what is asked for.
    pub(super) fn change_tokens(&mut self, index: u64, action: &Action) -> Result<(), ActError> {
        let may_lock_out = action.actor.identity == Identity::AdminToken;
        let now_ms = action.at_ms;
        match &action.act {
            Act::MakeToken { id, token } => {
                Arc::make_mut(&mut self.tokens).add(index, now_ms, *id, token.clone(), may_lock_out)
            }
            Act::MakeCertificateToken { id, token, certificate } => {
                self.certificates.may_add(certificate)?;
                Arc::make_mut(&mut self.tokens).add(index, now_ms, *id, token.clone(), may_lock_out)?;
                Arc::make_mut(&mut self.certificates).add(certificate, *id);
                Ok(())
            }
            Act::RevokeToken { id } => {
                Arc::make_mut(&mut self.tokens).remove(index, now_ms, *id, may_lock_out)?;
                if self.certificates.of(*id).is_some() {
                    Arc::make_mut(&mut self.certificates).remove(*id);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes what became of it. What nobody in particular was refused is not noted: that would push out what was done.
    pub(super) fn note(&mut self, index: u64, told: Told, action: &Action, error: Option<ActError>) {
        let is_nobodys = error.is_some() && action.actor.identity == Identity::Nobody;
        if is_nobodys || self.audit.of_key(action.key).is_some() {
            return;
        }
        let (word, target, detail) = told.0;
        Arc::make_mut(&mut self.audit).add(AuditEntry {
            index,
            at_ms: action.at_ms,
            actor: action.actor.clone(),
            node: action.node.clone(),
            action: word.to_owned(),
            target,
            detail,
            error,
            key: action.key,
        });
    }

    /// What a request is about, as it is before it is done.
    pub(super) fn told(&self, action: &Action) -> Told {
        Told(action.act.told(&self.tokens))
    }
}

/// What a request is about, in words.
pub(super) struct Told((&'static str, String, String));

#[cfg(test)]
mod tests;
