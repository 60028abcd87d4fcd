//! The audit trail: what was done, when, and by whom, as this was proved and not as it was claimed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::token::{ActError, TokenId};

/// Entries that are kept; the oldest go.
const MAX_ENTRIES: usize = 1000;
/// Bytes of their texts, about; the oldest go.
const MAX_BYTES: usize = 256 << 10;
/// The part of both that resets may have: whoever may do nothing else must not push out what others did.
const PART_OF_RESETS: usize = 4;
/// The action of a reset.
pub(super) const RESET: &str = "bucket.reset";
/// Bytes of a text in an entry; what is beyond is cut off.
const MAX_TEXT_BYTES: usize = 256;

/// Who has proved to be whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// Nobody had to prove anything.
    Nobody,
    /// Whoever knows the admin token of the node that was asked.
    AdminToken,
    /// Whoever holds this token.
    Token {
        /// Which.
        id: TokenId,
        /// Its name.
        name: String,
    },
    /// Whoever has shown a certificate that stands for this token.
    Certificate {
        /// Which.
        id: TokenId,
        /// Its name.
        name: String,
        /// The name in the certificate.
        certificate: String,
    },
}

/// Who asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who that is.
    pub identity: Identity,
    /// The address that the connection came from.
    pub address: String,
}

impl Actor {
    /// Nobody in particular, as in tests.
    pub fn nobody() -> Self {
        Self { identity: Identity::Nobody, address: String::new() }
    }

    /// What the history of rules, and a token that is made, name: nothing if nothing was proved.
    pub fn name(&self, node: &str) -> Option<String> {
        match &self.identity {
            Identity::Nobody => None,
            Identity::AdminToken => Some(format!("admin token of {node}")),
            Identity::Token { name, .. } => Some(format!("token {name}")),
            Identity::Certificate { certificate, .. } => Some(format!("certificate {certificate}")),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its place in the log.
    pub index: u64,
    /// When, by the clock of the node that was asked, in Unix milliseconds.
    pub at_ms: u64,
    /// By whom.
    pub actor: Actor,
    /// The node that was asked.
    pub node: String,
    /// What, in a word.
    pub action: String,
    /// To what.
    pub target: String,
    /// What else there is to say.
    pub detail: String,
    /// Why it was not done; `None`: it was.
    pub error: Option<ActError>,
    /// Tells what comes again from what is new.
    pub(crate) key: u64,
}

/// What was done last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    entries: VecDeque<AuditEntry>,
    bytes: usize,
}

impl Audit {
    /// The oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &AuditEntry> {
        self.entries.iter()
    }

    /// The entry of a request that comes again.
    pub(super) fn of_key(&self, key: u64) -> Option<&AuditEntry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    pub(super) fn add(&mut self, mut entry: AuditEntry) {
        for text in [&mut entry.target, &mut entry.detail, &mut entry.node, &mut entry.actor.address] {
            cut(text);
        }
        let is_reset = is_reset(&entry);
        self.bytes += size_of(&entry);
        self.entries.push_back(entry);
        if is_reset {
            self.bound_resets();
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= size_of(&oldest);
        }
    }

    /// Drops the oldest resets beyond their part.
    fn bound_resets(&mut self) {
        let resets = || self.entries.iter().filter(|entry| is_reset(entry));
        let (mut count, mut bytes) = (resets().count(), resets().map(size_of).sum::<usize>());
        let is_too_much =
            |count, bytes| count > MAX_ENTRIES / PART_OF_RESETS || bytes > MAX_BYTES / PART_OF_RESETS;
        while is_too_much(count, bytes) {
            let Some(oldest) = self.entries.iter().position(is_reset) else { return };
            let Some(gone) = self.entries.remove(oldest) else { return };
            (count, bytes) = (count - 1, bytes - size_of(&gone));
            self.bytes -= size_of(&gone);
        }
    }
}

fn is_reset(entry: &AuditEntry) -> bool {
    entry.action == RESET
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES - 3));
        text.push('\u{2026}');
    }
}

fn size_of(entry: &AuditEntry) -> usize {
    /// What an entry has besides its texts.
    const REST: usize = 96;
    let name = match &entry.actor.identity {
        Identity::Nobody | Identity::AdminToken => 0,
        Identity::Token { name, .. } => name.len(),
        Identity::Certificate { name, certificate, .. } => name.len() + certificate.len(),
    };
    let error = entry.error.as_ref().map_or(0, |error| error.to_string().len());
    let texts = [&entry.actor.address, &entry.node, &entry.action, &entry.target, &entry.detail];
    texts.iter().map(|text| text.len()).sum::<usize>() + name + error + REST
}
