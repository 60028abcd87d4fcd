//! Who may do what: one place decides for all front ends.
//!
//! - A call needs nothing, or a role ([`Role`]); each front end says which. [`Access::admit`] says whether who asks has it.
//! - What was proved is a [`Grant`]. A token may be limited to some domains: [`Grant::may_ask`].
//! - `following`: the tokens that the log says. `failures`: how often an address may present what is no token. `presented`: what a client
//!   presents, and where HTTP and gRPC do.
//! - A certificate that was shown in the handshake may stand for a token. **A token that is presented goes first, and alone.**
//!
//! **Where checks need no token, a check pays one branch for all of this.**

mod failures;
mod following;
mod presented;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use tidegate_cluster::{
    Clock,
    state::{Actor, AdminSecret, Applied, CertificateNames, Identity, Role, Token, TokenId, Tokens},
};

use self::failures::Failures;
pub(crate) use self::{
    following::follow,
    presented::{Presented, of_headers, of_values},
};
use crate::{
    check::{Problem, ProblemKind, echo},
    config::RequireToken,
    tls::Certificate,
};

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: whether a node lives, and what its calls are.
    Nothing,
    /// This role.
    Role(Role),
}

/// Where a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Where services ask.
    Public,
    /// Where administration has an address of its own.
    Administration,
}

/// What somebody has proved.
#[derive(Debug, Clone)]
pub(crate) enum Grant {
    /// Nothing, and nothing was needed.
    Nobody,
    /// To know the admin token of this node.
    AdminToken,
    /// To hold a token, or a certificate that stands for one.
    Token(Arc<GrantedToken>),
}

/// A token that was presented.
#[derive(Debug)]
pub(crate) struct GrantedToken {
    id: TokenId,
    token: Arc<Token>,
    /// Of the tokens that it was found among.
    version: u64,
    /// What stands for it, if its text was not presented.
    certificate: Option<ShownCertificate>,
}

/// A certificate that stands for a token.
#[derive(Debug)]
struct ShownCertificate {
    /// The name by which it does.
    name: String,
    /// When it ends, in Unix milliseconds.
    ends_ms: u64,
}

impl Grant {
    /// Whether checks about this domain may be asked.
    #[inline]
    pub(crate) fn may_ask(&self, domain: &str) -> Result<(), Problem> {
        match self {
            Self::Token(granted) if !granted.token.domains.is_empty() => granted.may_ask(domain),
            _ => Ok(()),
        }
    }

    /// Who that is, for what is written down.
    pub(crate) fn actor(&self, address: IpAddr) -> Actor {
        let identity = match self {
            Self::Nobody => Identity::Nobody,
            Self::AdminToken => Identity::AdminToken,
            Self::Token(granted) => granted.identity(),
        };
        Actor { identity, address: address.to_canonical().to_string() }
    }
}

impl GrantedToken {
    fn identity(&self) -> Identity {
        let (id, name) = (self.id, self.token.name.clone());
        match &self.certificate {
            None => Identity::Token { id, name },
            Some(shown) => Identity::Certificate { id, name, certificate: shown.name.clone() },
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.token.is_expired(now_ms) || self.certificate.as_ref().is_some_and(|shown| now_ms > shown.ends_ms)
    }

    #[cold]
    fn may_ask(&self, domain: &str) -> Result<(), Problem> {
        if self.token.domains.iter().any(|allowed| allowed == domain) {
            return Ok(());
        }
        let detail = format!(
            "the token {:?} may ask about the domains {}, and not about this one",
            self.token.name,
            self.token.domains.join(", ")
        );
        Err(Problem::new(ProblemKind::DomainNotAllowed, detail))
    }
}

/// Who makes a call, with what they have presented: some of what a call asks for may need more than the call does.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) grant: Grant,
    pub(crate) token: Option<Box<[u8]>>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) address: IpAddr,
    pub(crate) door: Door,
}

/// Without what was presented, which is a secret.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grant, token: _, certificate: _, address, door } = self;
        f.debug_struct("Caller")
            .field("grant", grant)
            .field("address", address)
            .field("door", door)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// Whether checks about this domain may be asked.
    pub(crate) fn may_ask(&self, domain: &str) -> Result<(), Problem> {
        self.grant.may_ask(domain)
    }

    /// Whether buckets may be reset.
    pub(crate) fn may_reset(&self, access: &Access) -> Result<(), Problem> {
        self.may(Role::Operate, access)
    }

    /// Whether what needs this role is told, by the tokens that are known now: an answer that was waited for, or that is of a later state
    /// than the one by which the call was admitted, may be for others only.
    pub(crate) fn may(&self, role: Role, access: &Access) -> Result<(), Problem> {
        let needs = Needs::Role(role);
        let presented = Presented { token: self.token.as_deref(), certificate: self.certificate.as_deref() };
        access.admit(needs, self.door, presented, self.address).map(drop)
    }

    /// Who that is, for what is written down.
    pub(crate) fn actor(&self) -> Actor {
        self.grant.actor(self.address)
    }
}

/// What this node asks of its clients.
pub(crate) struct Access {
    /// Whether checks need a token.
    guards_checks: bool,
    /// Whether administration needs one though nobody has made any.
    guards_administration: bool,
    admin: Option<AdminSecret>,
    /// Whether administration has an address of its own.
    has_admin_door: bool,
    /// Those that are applied: a snapshot, swapped whole.
    known: ArcSwap<Known>,
    /// They have been, since the start, all that the cluster had. Until then one that is not among them may be among those to come.
    is_up_to_date: AtomicBool,
    failures: Failures,
    clock: Clock,
}

/// Tokens, and up to where the log was applied then.
#[derive(Debug, Default)]
struct Known {
    index: u64,
    tokens: Arc<Tokens>,
    certificates: Arc<CertificateNames>,
}

impl Access {
    pub(crate) fn new(
        require: Option<RequireToken>,
        admin: Option<AdminSecret>,
        has_admin_door: bool,
        clock: Clock,
    ) -> Self {
        Self {
            guards_checks: require == Some(RequireToken::All),
            guards_administration: require.is_some() || admin.is_some(),
            admin,
            has_admin_door,
            known: ArcSwap::default(),
            is_up_to_date: AtomicBool::new(false),
            failures: Failures::default(),
            clock,
        }
    }

    /// From now on the tokens of this state count, unless those of a later one do.
    pub(crate) fn publish(&self, applied: &Applied) {
        let (index, access) = (applied.index, &applied.state.access);
        // Certificates change with tokens only.
        if Arc::ptr_eq(&self.known.load().tokens, &access.tokens) {
            return;
        }
        let (tokens, certificates) = (Arc::clone(&access.tokens), Arc::clone(&access.certificates));
        let new = Arc::new(Known { index, tokens, certificates });
        self.known.rcu(|known| Arc::clone(if index >= known.index { &new } else { known }));
    }

    /// The same of a state that has all that the log had when it was asked for.
    pub(crate) fn publish_latest(&self, applied: &Applied) {
        self.publish(applied);
        // Whoever sees it sees those tokens.
        self.is_up_to_date.store(true, Ordering::Release);
    }

    /// Whether this may be a token that the node has not heard of yet since its start.
    pub(crate) fn may_be_to_come(&self, presented: &[u8]) -> bool {
        !self.is_up_to_date.load(Ordering::Acquire) && Tokens::has_form(presented)
    }

    /// Whether checks need a token.
    #[inline]
    pub(crate) fn guards_checks(&self) -> bool {
        self.guards_checks
    }

    /// Whether what needs this role needs a token.
    pub(crate) fn guards(&self, role: Role) -> bool {
        match role {
            Role::Check => self.guards_checks,
            Role::Read | Role::Operate | Role::Admin => {
                self.guards_administration || self.known.load().tokens.is_guarded()
            }
        }
    }

    /// Whether a client may present something at all.
    pub(crate) fn knows_tokens(&self) -> bool {
        self.guards(Role::Admin)
    }

    /// Whether a call may be made there by who presents this.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(
        &self,
        needs: Needs,
        door: Door,
        presented: Presented<'_>,
        address: IpAddr,
    ) -> Result<Grant, Problem> {
        let Needs::Role(role) = needs else { return Ok(Grant::Nobody) };
        self.has_door(role, door)?;
        if !self.guards(role) {
            return Ok(Grant::Nobody);
        }
        let grant = match presented {
            Presented { token: Some(token), .. } => self.authenticate(token, address)?,
            Presented { certificate: Some(certificate), .. } => self.identify(certificate)?,
            Presented { token: None, certificate: None } => Grant::Nobody,
        };
        self.permit(&grant, role)
            .map_err(|problem| of_certificate(problem, &grant, presented.certificate))?;
        Ok(grant)
    }

    /// Whether what needs this role is answered there.
    fn has_door(&self, role: Role, door: Door) -> Result<(), Problem> {
        if role == Role::Check || !self.has_admin_door || door == Door::Administration {
            return Ok(());
        }
        let detail = "this call is answered at an address of its own (--admin-listen of this node), not here";
        Err(Problem::new(ProblemKind::AdminElsewhere, detail))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// When it is none, or may be one that the node does not know yet; another one when the address has presented too many that were none.
    pub(crate) fn authenticate(&self, presented: &[u8], address: IpAddr) -> Result<Grant, Problem> {
        // Before the tokens, which may be the latest a moment later.
        let may_be_to_come = self.may_be_to_come(presented);
        let known = self.known.load();
        let tokens = &known.tokens;
        if let Some((id, token)) = tokens.look_up(presented) {
            if !token.is_expired(self.clock.unix_millis()) {
                let (token, version) = (Arc::clone(token), tokens.version());
                return Ok(Grant::Token(Arc::new(GrantedToken { id, token, version, certificate: None })));
            }
            let detail = format!("the token {:?} has expired", token.name);
            return Err(self.failed(address, detail));
        }
        // Before anything is counted: whoever shares an address with those who fail is not kept out.
        if self.admin.as_ref().is_some_and(|admin| admin.is(presented)) {
            return Ok(Grant::AdminToken);
        }
        if may_be_to_come {
            let detail = "this node has just started and has not applied the log yet, so it does not know whether this is a token of the \
                          cluster: ask another node, or this one again";
            return Err(Problem::new(ProblemKind::NotReady, detail));
        }
        Err(self
            .failed(address, "this is no token of the cluster: it is another's, or was revoked".to_owned()))
    }

    /// What a certificate stands for, which was genuine when the connection began: the token of the first of its names that has one.
    ///
    /// # Errors
    /// When it is over, or its token, or the node does not know yet whether there is one.
    pub(crate) fn identify(&self, certificate: &Certificate) -> Result<Grant, Problem> {
        // Before the tokens, which may be the latest a moment later.
        let is_up_to_date = self.is_up_to_date.load(Ordering::Acquire);
        let known = self.known.load();
        let tokens = certificate.client_names().iter().filter_map(|name| {
            let id = known.certificates.find(name)?;
            Some((name, id, known.tokens.get(id)?))
        });
        let now_ms = self.clock.unix_millis();
        let mut over = None;
        for (name, id, token) in tokens {
            // It holds through its last second.
            let ends_ms = u64::try_from(certificate.not_after()).unwrap_or(0).saturating_mul(1000) + 999;
            let shown = ShownCertificate { name: name.clone(), ends_ms };
            let (token, version) = (Arc::clone(token), known.tokens.version());
            let granted = GrantedToken { id, token, version, certificate: Some(shown) };
            if !granted.is_over(now_ms) {
                return Ok(Grant::Token(Arc::new(granted)));
            }
            over = over.or(Some(granted));
        }
        if let Some(granted) = over {
            let token = &granted.token.name;
            let detail = match granted.token.is_expired(now_ms) {
                true => format!(
                    "the token {token:?}, which the certificate of this connection stands for, has expired"
                ),
                false => "the certificate of this connection has expired: connect anew with one that holds"
                    .to_owned(),
            };
            return Err(Problem::new(ProblemKind::BadToken, detail));
        }
        if !is_up_to_date && !certificate.client_names().is_empty() {
            let detail = "this node has just started and has not applied the log yet, so it does not know what the certificate of this \
                          connection stands for: ask another node, or this one again";
            return Err(Problem::new(ProblemKind::NotReady, detail));
        }
        Ok(Grant::Nobody)
    }

    fn failed(&self, address: IpAddr, detail: String) -> Problem {
        match self.failures.count(address, self.clock.now()) {
            Ok(()) => Problem::new(ProblemKind::BadToken, detail),
            Err(too_many) => too_many,
        }
    }

    /// Whether what was proved suffices for buckets to be reset at the public address.
    pub(crate) fn may_reset(&self, grant: &Grant) -> Result<(), Problem> {
        self.has_door(Role::Operate, Door::Public)?;
        self.permit(grant, Role::Operate)
    }

    /// Whether what was proved suffices to be told at the public address what the node is, and does.
    pub(crate) fn may_read(&self, grant: &Grant) -> bool {
        self.has_door(Role::Read, Door::Public).is_ok() && self.permit(grant, Role::Read).is_ok()
    }

    /// Whether what was proved suffices for this role.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn permit(&self, grant: &Grant, role: Role) -> Result<(), Problem> {
        if !self.guards(role) {
            return Ok(());
        }
        let needed = role.as_str();
        match grant {
            Grant::AdminToken => Ok(()),
            Grant::Token(granted) if granted.token.roles.allow(role) => Ok(()),
            Grant::Token(granted) => {
                let has = granted.token.roles;
                let detail =
                    format!("the token {:?} has the roles {has}; this needs {needed}", granted.token.name);
                Err(Problem::new(ProblemKind::RoleMissing, detail).with("role", needed))
            }
            Grant::Nobody => {
                let detail = format!(
                    "this needs a token with the role {needed}, as in Authorization: Bearer tg_...; the commands of tidegate take one by \
                     --token-file or TIDEGATE_TOKEN"
                );
                Err(Problem::new(ProblemKind::TokenNeeded, detail).with("role", needed))
            }
        }
    }

    /// Whether a grant still counts: not that of a token that was revoked or has expired meanwhile.
    #[inline]
    pub(crate) fn still_counts(&self, grant: &Grant) -> bool {
        let Grant::Token(granted) = grant else { return true };
        let known = self.known.load();
        let tokens = &known.tokens;
        let is_known = tokens.version() == granted.version || tokens.get(granted.id).is_some();
        is_known && !granted.is_over(self.clock.unix_millis())
    }
}

/// A problem of somebody who has proved nothing, by the certificate least of all.
fn of_certificate(problem: Problem, grant: &Grant, certificate: Option<&Certificate>) -> Problem {
    let Some(certificate) = certificate.filter(|_| matches!(grant, Grant::Nobody)) else { return problem };
    let names = certificate.client_names();
    let shown = names.first().map_or_else(|| "it has none".to_owned(), |name| format!("{:?}", echo(name)));
    let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
    let detail = format!(
        "{}. No name in the certificate of this connection ({shown}{more}) stands for a token: tidegate token create --for-certificate",
        problem.detail
    );
    Problem { detail: detail.into(), ..problem }
}

#[cfg(test)]
mod tests;
