//! What all nodes agree on: the entries of the log, and what they add up to.
//!
//! - `command`: what is written. `machine`: what the entries add up to ([`Replicated`]), a state machine of values.
//!   `applied`: how far this node is.
//! - `access`: whether somebody may do what they ask for. `token`: what they prove that with; `certificate_names`: or what stands for it.
//!   `audit`: what was done.
//! - `types`, `runtime`: the types and the runtime that openraft uses.

pub(crate) mod access;
pub(crate) mod applied;
pub(crate) mod audit;
pub(crate) mod certificate_names;
pub(crate) mod command;
pub(crate) mod machine;
pub(crate) mod runtime;
pub(crate) mod token;
pub(crate) mod types;

pub use self::{
    access::AccessState,
    applied::Applied,
    audit::{Actor, Audit, AuditEntry, Identity},
    certificate_names::{CertificateNames, MAX_CERTIFICATE_NAME_BYTES},
    command::{Expected, Extent, Founding, MAX_REMARK_BYTES, MAX_RULES_BYTES, Origin, Written},
    machine::{Change, DomainHistory, Replicated},
    token::{
        ActError, AdminSecret, BadAdminToken, MAX_TOKEN_DOMAINS, MAX_TOKEN_NAME_BYTES, MAX_TOKENS, Role,
        Roles, Token, TokenId, Tokens,
    },
};
