//! Who may give which command, and `AUTH`. Clients read the first word of an error, so it is that of Redis.

use std::net::IpAddr;

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
    grant: Grant,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
        Self { address, grant: Grant::Nobody }
    }

    /// From now on nothing is proved.
    pub(super) fn forget(&mut self) {
        self.grant = Grant::Nobody;
    }

    /// Whether the client may be told what the node is, and does.
    pub(super) fn may_read(&mut self, node: &Node) -> bool {
        if !node.access.still_counts(&self.grant) {
            self.forget();
        }
        node.access.may_read(&self.grant)
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
        let access = &node.access;
        if !access.still_counts(&self.grant) {
            self.forget();
        }
        match command {
            Command::Throttle(_) => {
                // As over HTTP: a reset is no check, and needs the role for resets alone.
                if is_reset {
                    access.may_reset(&self.grant)?;
                } else {
                    access.permit(&self.grant, Role::Check)?;
                }
                self.grant.may_ask(DEFAULT_DOMAIN)
            }
            // What a client says before it is known.
            Command::Auth(_)
            | Command::CrossProtocol
            | Command::Plain(Plain::Hello(_) | Plain::Quit | Plain::Reset) => Ok(()),
            _ if matches!(self.grant, Grant::Nobody) => access.permit(&self.grant, Role::Check),
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
                self.grant = grant;
                Ok(())
            }
            Err(problem) => {
                node.metrics[worker].count_problem(problem.kind);
                Err(error_of(&problem))
            }
        }
    }
}
