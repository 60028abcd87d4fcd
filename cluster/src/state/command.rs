//! What is written into the log, and what becomes of it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    audit::Actor,
    token::{ActError, Token, TokenId},
};
use crate::{
    ids::{ClusterId, NodeId, NodeStart, Revision},
    member::MemberRow,
    owner::{shares::ShareChange, table},
};

/// Longest text of the rules of one domain, in bytes.
pub const MAX_RULES_BYTES: usize = 4 << 20;
/// Longest author or message of a change, in bytes.
pub const MAX_REMARK_BYTES: usize = 800;

/// One entry of the log. New ones are appended: the bytes of old ones lie on disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The first entry of a cluster. A second one changes nothing.
    Found(Founding),
    /// Changes the rules of a domain.
    Write(RuleWrite),
    /// Says what is known of a member.
    Member(MemberRow),
    /// Takes a member out of the table.
    Forget(NodeId),
    /// Changes who owns which slot.
    Slots(table::Entry),
    /// Says whether a node wants to own nothing.
    Drain {
        /// Which one, until its next start.
        start: NodeStart,
        /// Whether it does.
        on: bool,
    },
    /// Says that a node which is gone will not come back.
    Evict(NodeId),
    /// Changes which part of a lost bucket each node may give.
    Shares(ShareChange),
    /// Does what somebody asked for, if they may.
    By(Box<Action>),
}

/// What a cluster is founded with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// What fingerprints of buckets are keyed with, so that who chooses the keys cannot choose the buckets.
    pub hash_secret: [u8; 16],
}

impl fmt::Debug for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Founding").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// How the rules of a domain came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Somebody wrote them.
    Apply,
    /// They are those of an earlier revision.
    Rollback {
        /// Which.
        to: Revision,
    },
}

/// What the rules of a domain must be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Whatever they are.
    Any,
    /// There must be none.
    Absent,
    /// They must be at this revision.
    At(Revision),
}

/// How many rules a change touches, for the history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// New ones.
    pub added: u32,
    /// Those that are no longer there.
    pub removed: u32,
    /// Those that are different.
    pub changed: u32,
}

/// A change of a domain's rules, on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleWrite {
    /// Whose rules.
    pub domain: Arc<str>,
    /// The rules, whole, as text.
    pub text: Arc<str>,
    /// Where they come from.
    pub origin: Origin,
    /// What must be there for it to happen.
    pub expected: Expected,
    /// Makes a repeated write happen once.
    pub key: String,
    /// Who writes.
    pub author: String,
    /// Why.
    pub message: String,
    /// The node that took the write.
    pub node: String,
    /// When, by that node's clock, in Unix milliseconds. Told, never compared.
    pub at_ms: u64,
    /// How much it changes.
    pub extent: Extent,
}

/// What is asked for. New ones come last: the bytes of old ones lie on disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Changes the rules of a domain.
    Write(RuleWrite),
    /// Has a node own nothing (`on`), or its share again.
    Drain { start: NodeStart, on: bool, name: String },
    /// Says that a node which is gone will not come back.
    Evict { node: NodeId, name: String },
    /// Makes a token.
    MakeToken { id: TokenId, token: Token },
    /// Revokes one.
    RevokeToken { id: TokenId },
    /// Notes that buckets were reset: those are in no log.
    NoteReset { domain: String, detail: String },
    /// Makes a token that is shown by a certificate with this name.
    MakeCertificateToken { id: TokenId, token: Token, certificate: String },
}

/// A change that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Action {
    pub(crate) actor: Actor,
    /// The node that was asked.
    pub(crate) node: String,
    /// When, by that node's clock, in Unix milliseconds. Told, never compared.
    pub(crate) at_ms: u64,
    /// Makes a repeated request happen once.
    pub(crate) key: u64,
    pub(crate) act: Act,
}

/// What became of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// There is nothing to tell.
    Done,
    /// The rules are what was written.
    Written(Written),
    /// Nothing was written: the rules are not what was expected.
    Mismatch {
        /// What they are.
        current: Option<Revision>,
    },
    /// Nothing was written: the same idempotency key came with another write before.
    KeyReused,
    /// Nothing was written: there is no room, for this reason.
    Full(String),
    /// Nothing was done of what somebody asked for.
    NotDone(ActError),
}

/// A write that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The revision with these rules.
    pub revision: Revision,
    /// The one before.
    pub previous: Option<Revision>,
    /// Whether the rules are others than before; if not, the revision is what it was.
    pub changed: bool,
}
