//! What the log adds up to: a state machine of values.
//!
//! Each node applies the same entries in the same order and gets the same state, so nothing in here may depend on
//! anything but the entry: no clock, no chance, no map whose order is not fixed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    access::AccessState,
    command::{
        Act, Action, Command, Expected, Extent, Founding, MAX_REMARK_BYTES, MAX_RULES_BYTES, Origin, Outcome,
        RuleWrite, Written,
    },
};
use crate::{
    ids::{Leadership, NodeId, NodeStart, Revision},
    member::MemberRow,
    owner::{shares::ShareTable, table::Table},
};

/// Domains of a cluster; one more is refused.
pub(super) const MAX_DOMAINS: usize = 1024;
/// Bytes of all rules in force; more are refused.
pub(super) const MAX_TOTAL_RULES_BYTES: usize = 64 << 20;
/// Revisions of a domain whose text is kept; older ones keep their line in the history.
pub(super) const MAX_KEPT_TEXTS: usize = 64;
/// Bytes of the texts of revisions that are not in force; the oldest are dropped beyond that.
pub(super) const MAX_KEPT_BYTES: usize = 64 << 20;
/// Lines in the history of a domain; the oldest are dropped beyond that.
pub(super) const MAX_HISTORY: usize = 1000;
/// Writes that are recognised when they come again.
const MAX_RECENT_WRITES: usize = 4096;
/// Members in the table; one more is not taken in.
const MAX_MEMBERS: usize = 1024;

/// One change of a domain's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The revision that it made.
    pub revision: Revision,
    /// Where the rules came from.
    pub origin: Origin,
    /// Who wrote.
    pub author: String,
    /// Why.
    pub message: String,
    /// The node that took the write.
    pub node: String,
    /// When, by that node's clock, in Unix milliseconds.
    pub at_ms: u64,
    /// How much it changed.
    pub extent: Extent,
    /// The rules; `None` when they are no longer kept.
    pub text: Option<Arc<str>>,
}

/// The rules of a domain and how they came to be. There is at least one change, and the last has its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainHistory {
    changes: Vec<Change>,
}

impl DomainHistory {
    /// The change that made the rules in force.
    pub fn current(&self) -> &Change {
        self.changes.last().expect("a domain is there from its first change on")
    }

    /// The rules in force.
    pub fn text(&self) -> &Arc<str> {
        self.current().text.as_ref().expect("the text in force is never dropped")
    }

    /// All changes that are remembered, the oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The change that made a revision.
    pub fn at(&self, revision: Revision) -> Option<&Change> {
        let place = self.changes.binary_search_by_key(&revision, |change| change.revision).ok()?;
        Some(&self.changes[place])
    }
}

/// All that is replicated. Cheap to clone: what is large is shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicated {
    /// What the cluster was founded with.
    pub founding: Option<Founding>,
    /// The rules, by domain.
    pub domains: BTreeMap<Arc<str>, Arc<DomainHistory>>,
    /// The members.
    pub members: BTreeMap<NodeId, MemberRow>,
    /// Who owns which slot.
    pub slots: Arc<Table>,
    /// The nodes that want to own nothing.
    pub draining: BTreeSet<NodeStart>,
    /// The members that are gone and will not come back.
    pub evicted: BTreeSet<NodeId>,
    recent: Arc<Recent>,
    /// Which part of a lost bucket each node may give. A snapshot of an earlier version may end before it.
    pub(crate) shares: Arc<ShareTable>,
    /// Who may do what, and what was done. It is the last field: a snapshot of an earlier version ends before it.
    pub access: AccessState,
}

/// The writes that happened last, so that one that comes again happens once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    order: VecDeque<Arc<str>>,
    by_key: BTreeMap<Arc<str>, ([u8; 16], Written)>,
}

impl Recent {
    fn note(&mut self, key: &str, fingerprint: [u8; 16], written: Written) {
        let key: Arc<str> = key.into();
        if self.by_key.insert(Arc::clone(&key), (fingerprint, written)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > MAX_RECENT_WRITES {
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }
}

impl Replicated {
    /// The revision of a domain's rules.
    pub fn revision(&self, domain: &str) -> Option<Revision> {
        self.domains.get(domain).map(|history| history.current().revision)
    }

    /// Applies the entry with this index, written by that leader.
    pub(crate) fn apply(&mut self, index: u64, leadership: Leadership, command: Command) -> Outcome {
        match command {
            Command::Found(founding) => {
                self.founding.get_or_insert(founding);
                Outcome::Done
            }
            Command::Write(write) => self.write(Revision::new(index), write),
            Command::Member(row) => {
                if self.members.contains_key(&row.id) || self.members.len() < MAX_MEMBERS {
                    // Who starts again wants its share again.
                    self.draining.retain(|one| one.node != row.id || *one == row.node_start());
                    // It has come back after all.
                    self.evicted.remove(&row.id);
                    self.members.insert(row.id, row);
                }
                Outcome::Done
            }
            Command::Shares(change) => {
                let members = &self.members;
                Arc::make_mut(&mut self.shares).apply(index, |id| members.contains_key(&id), &change);
                Outcome::Done
            }
            Command::Forget(id) => {
                // Its share stays promised: it may live on.
                self.members.remove(&id);
                self.draining.retain(|start| start.node != id);
                self.evicted.remove(&id);
                Outcome::Done
            }
            Command::Slots(entry) => {
                Arc::make_mut(&mut self.slots).apply(index, leadership, &entry);
                Outcome::Done
            }
            Command::Evict(id) => {
                if self.members.contains_key(&id) {
                    self.evicted.insert(id);
                }
                Outcome::Done
            }
            Command::Drain { start, on } => {
                let is_member = self.members.get(&start.node).is_some_and(|row| row.node_start() == start);
                match on {
                    true if is_member => self.draining.insert(start),
                    _ => self.draining.remove(&start),
                };
                Outcome::Done
            }
            Command::By(action) => self.act(index, leadership, *action),
        }
    }

    /// Does what somebody asked for, if they may, and notes it.
    fn act(&mut self, index: u64, leadership: Leadership, action: Action) -> Outcome {
        if let Some(known) = self.access.known(&action) {
            return known;
        }
        let told = self.access.told(&action);
        let judged = self.access.judge(&action).and_then(|()| self.access.change_tokens(index, &action));
        if let Err(error) = judged {
            self.access.note(index, told, &action, Some(error.clone()));
            return Outcome::NotDone(error);
        }
        let outcome = match &action.act {
            Act::Write(write) => {
                let mut write = write.clone();
                // What was proved counts, not what is claimed.
                if let Some(name) = action.actor.name(&action.node) {
                    write.author = name;
                }
                self.write(Revision::new(index), write)
            }
            Act::Drain { start, on, .. } => {
                self.apply(index, leadership, Command::Drain { start: *start, on: *on })
            }
            Act::Evict { node, .. } => self.apply(index, leadership, Command::Evict(*node)),
            Act::MakeToken { .. }
            | Act::MakeCertificateToken { .. }
            | Act::RevokeToken { .. }
            | Act::NoteReset { .. } => Outcome::Done,
        };
        // A write that was late, or came twice, has done nothing.
        let is_done = match &outcome {
            Outcome::Done => true,
            Outcome::Written(written) => !written.changed || written.revision.get() == index,
            _ => false,
        };
        if is_done {
            self.access.note(index, told, &action, None);
        }
        outcome
    }

    fn write(&mut self, index: Revision, write: RuleWrite) -> Outcome {
        let fingerprint = fingerprint_of(&write);
        if let Some((known, written)) = self.recent.by_key.get(&*write.key) {
            return if *known == fingerprint { Outcome::Written(*written) } else { Outcome::KeyReused };
        }
        let before = self.domains.get(&write.domain);
        let current = before.map(|history| history.current().revision);
        let fits = match write.expected {
            Expected::Any => true,
            Expected::Absent => current.is_none(),
            Expected::At(revision) => current == Some(revision),
        };
        if !fits {
            return Outcome::Mismatch { current };
        }
        if let Some(reason) = self.lack_of_room(&write) {
            return Outcome::Full(reason);
        }
        let same = before
            .filter(|history| **history.text() == *write.text)
            .map(|history| history.current().revision);
        let written = match same {
            Some(revision) => Written { revision, previous: Some(revision), changed: false },
            None => Written { revision: index, previous: current, changed: true },
        };
        Arc::make_mut(&mut self.recent).note(&write.key, fingerprint, written);
        if written.changed {
            self.add(index, write);
        }
        Outcome::Written(written)
    }

    /// Why the write cannot be taken in. Whoever proposes has looked before; here it is made sure of.
    fn lack_of_room(&self, write: &RuleWrite) -> Option<String> {
        if write.text.len() > MAX_RULES_BYTES {
            return Some(format!("the rules have more than {MAX_RULES_BYTES} bytes"));
        }
        if write.author.len().max(write.message.len()) > MAX_REMARK_BYTES {
            return Some(format!("author or message has more than {MAX_REMARK_BYTES} bytes"));
        }
        if !self.domains.contains_key(&write.domain) && self.domains.len() >= MAX_DOMAINS {
            return Some(format!("there are {MAX_DOMAINS} domains already"));
        }
        let others = self.domains.iter().filter(|(name, _)| **name != write.domain);
        let total: usize = others.map(|(_, history)| history.text().len()).sum();
        (total + write.text.len() > MAX_TOTAL_RULES_BYTES)
            .then(|| format!("the rules of all domains would have more than {MAX_TOTAL_RULES_BYTES} bytes"))
    }

    fn add(&mut self, revision: Revision, write: RuleWrite) {
        let RuleWrite { domain, text, origin, author, message, node, at_ms, extent, .. } = write;
        let change = Change { revision, origin, author, message, node, at_ms, extent, text: Some(text) };
        let history =
            self.domains.entry(domain).or_insert_with(|| Arc::new(DomainHistory { changes: Vec::new() }));
        let changes = &mut Arc::make_mut(history).changes;
        changes.push(change);
        if changes.len() > MAX_HISTORY {
            changes.remove(0);
        }
        if let Some(old) = changes.len().checked_sub(MAX_KEPT_TEXTS + 1) {
            changes[old].text = None;
        }
        self.drop_old_texts();
    }

    /// Drops the oldest texts that are not in force until they fit.
    fn drop_old_texts(&mut self) {
        let old = |history: &DomainHistory| history.changes.len() - 1;
        let mut kept: Vec<(Revision, Arc<str>, usize)> = Vec::new();
        let mut total = 0;
        for (name, history) in &self.domains {
            for (place, change) in history.changes[..old(history)].iter().enumerate() {
                if let Some(text) = &change.text {
                    total += text.len();
                    kept.push((change.revision, Arc::clone(name), place));
                }
            }
        }
        if total <= MAX_KEPT_BYTES {
            return;
        }
        kept.sort_unstable();
        for (_, name, place) in kept {
            let Some(history) = self.domains.get_mut(&name) else { continue };
            total -= Arc::make_mut(history).changes[place].text.take().map_or(0, |text| text.len());
            if total <= MAX_KEPT_BYTES {
                return;
            }
        }
    }
}

/// What makes two writes the same.
fn fingerprint_of(write: &RuleWrite) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for text in [&write.domain, &write.text] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let to = match write.origin {
        Origin::Apply => u64::MAX,
        Origin::Rollback { to } => to.get(),
    };
    hasher.update(&to.to_le_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

#[cfg(test)]
mod tests;
