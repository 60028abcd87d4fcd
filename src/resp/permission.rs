//! Who may give which command, and `AUTH`. Clients read the first word of an error, so it is that of Redis.

use std::{net::IpAddr, sync::Arc};

use tidegate_cluster::state::Role;
use tidegate_limiter::cluster::DEFAULT_DOMAIN;

use super::{
    command::{Auth, Command, Plain},
    throttle::Deed,
};
use crate::{
    access::Grant,
    check::{Problem, ProblemKind},
    node::Node,
    tls::Certificate,
};

/// The error of a problem.
pub(super) fn error_of(problem: &Problem) -> String {
    let word = match problem.kind {
        // Clients know this word as one for "later".
        ProblemKind::NotReady => "LOADING",
        ProblemKind::TokenNeeded => "NOAUTH",
        ProblemKind::BadToken => "WRONGPASS",
        ProblemKind::RoleMissing | ProblemKind::DomainNotAllowed | ProblemKind::AdminElsewhere => "NOPERM",
        _ => "ERR",
    };
    format!("{word} {}", problem.detail)
}

/// Who is at the other end of a connection, and what they have proved.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    /// What was shown in the handshake. It counts as long as no token was presented, from the last `RESET` on.
    certificate: Option<Arc<Certificate>>,
    has_presented: bool,
    grant: Grant,
}

impl Peer {
    pub(super) fn new(address: IpAddr, certificate: Option<Arc<Certificate>>) -> Self {
        Self { address, certificate, has_presented: false, grant: Grant::Nobody }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// From now on no token has been presented.
    pub(super) fn forget(&mut self) {
        (self.has_presented, self.grant) = (false, Grant::Nobody);
    }

    /// What was proved and still counts: a token may have been revoked meanwhile, and one made that a certificate stands for.
    fn proved(&mut self, node: &Node) -> Result<&Grant, Problem> {
        if !node.access.still_counts(&self.grant) {
            self.grant = Grant::Nobody;
        }
        if let (Grant::Nobody, Some(certificate)) = (&self.grant, &self.certificate)
            && !self.has_presented
            && node.access.knows_tokens()
        {
            self.grant = node.access.identify(certificate)?;
        }
        Ok(&self.grant)
    }

    /// Whether the client may be told what the node is, and does.
    pub(super) fn may_read(&mut self, node: &Node) -> bool {
        node.access.may_read(self.proved(node).unwrap_or(&Grant::Nobody))
    }

    /// The command, or why the client may not give it: told when it is queued, too, so that its transaction is none. Where checks
    /// need no token, nothing is looked at but that.
    #[inline]
    pub(super) fn permitted<'a>(&mut self, node: &Node, worker: usize, command: Command<'a>) -> Command<'a> {
        let is_reset = matches!(&command, Command::Throttle(throttle) if throttle.deed == Deed::Reset);
        if !is_reset && !node.access.guards_checks() {
            return command;
        }
        match self.refusal(node, &command, is_reset) {
            Ok(()) => command,
            Err(problem) => {
                node.metrics[worker].count_problem(problem.kind);
                Command::Refused(error_of(&problem))
            }
        }
    }

    fn refusal(&mut self, node: &Node, command: &Command<'_>, is_reset: bool) -> Result<(), Problem> {
        // What a client says before it is known.
        if let Command::Auth(_)
        | Command::CrossProtocol
        | Command::Plain(Plain::Hello(_) | Plain::Quit | Plain::Reset) = command
        {
            return Ok(());
        }
        let access = &node.access;
        let grant = self.proved(node)?;
        match command {
            Command::Throttle(_) => {
                // As over HTTP: a reset is no check, and needs the role for resets alone.
                if is_reset {
                    access.may_reset(grant)?;
                } else {
                    access.permit(grant, Role::Check)?;
                }
                grant.may_ask(DEFAULT_DOMAIN)
            }
            _ if matches!(grant, Grant::Nobody) => access.permit(grant, Role::Check),
            _ => Ok(()),
        }
    }

    /// Looks at the token that is presented.
    ///
    /// # Errors
    /// What is to be answered instead.
    pub(super) fn authenticate(&mut self, node: &Node, worker: usize, auth: &Auth<'_>) -> Result<(), String> {
        let access = &node.access;
        if !access.knows_tokens() && !access.may_be_to_come(auth.token) {
            return Err(
                "ERR AUTH: this node asks for no password, because its cluster has no tokens".to_owned()
            );
        }
        match access.authenticate(auth.token, self.address) {
            Ok(grant) => {
                (self.has_presented, self.grant) = (true, grant);
                Ok(())
            }
            Err(problem) => {
                node.metrics[worker].count_problem(problem.kind);
                Err(error_of(&problem))
            }
        }
    }
}
