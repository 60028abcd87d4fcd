//! What the log adds up to, as Raft wants it kept: in memory, with a snapshot on the disk now and then.

use std::{io::Cursor, sync::Arc};

use openraft::{
    Entry, EntryPayload, LogId, Membership, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidegate_proto::{CodecError, codec};
use tokio::sync::watch;

use super::{
    disk::Disk,
    files::{DiskError, Snapshots},
};
use crate::{
    ids::{Leadership, NodeId, RaftNode},
    owner::shares::ShareTable,
    state::{
        access::AccessState,
        applied::Applied,
        certificate_names::CertificateNames,
        command::Outcome,
        machine::Replicated,
        types::{Group, MAX_SNAPSHOT_BYTES},
    },
};

type Fault = StorageError<NodeId>;

/// The state machine as Raft sees it.
#[derive(Debug)]
pub(crate) struct Machine {
    applied: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, RaftNode>,
    state: Replicated,
    snapshots: Snapshots,
    published: watch::Sender<Arc<Applied>>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the file is missing, or an older copy of it was put in its place: the log beside it goes on from entry {purged}, and what \
     comes before that is nowhere else"
)]
struct Older {
    purged: u64,
}

/// The bytes of a snapshot.
#[derive(Serialize, Deserialize)]
struct Kept {
    applied: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, RaftNode>,
    id: String,
    state: Replicated,
}

/// Reads a snapshot, or anything else that ends with a state. One without certificates that stand for tokens ends before these; one of an
/// earlier version before the tokens, or even before the shares: with none of them it is one of this version.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let error = match codec::decode(bytes) {
        Ok(kept) => return Ok(kept),
        Err(error) => error,
    };
    let mut rest = Vec::new();
    for left_out in [
        encoded(&CertificateNames::default())?,
        encoded(&AccessState::default())?,
        encoded(&ShareTable::default())?,
    ] {
        rest = [left_out, rest].concat();
        if let Ok(kept) = codec::decode(&[bytes, &rest].concat()) {
            return Ok(kept);
        }
    }
    Err(error)
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes, MAX_SNAPSHOT_BYTES)?;
    Ok(bytes)
}

/// Writes a state as the last snapshot, as if it had been applied up to `at` and these were the members.
///
/// # Errors
/// When it cannot be written: then the one before is there.
pub(crate) fn write_snapshot(
    snapshots: &Snapshots,
    state: Replicated,
    at: LogId<NodeId>,
    members: Membership<NodeId, RaftNode>,
) -> Result<(), DiskError> {
    let membership = StoredMembership::new(Some(at), members);
    let kept = Kept { applied: Some(at), membership, id: snapshot_id(Some(at)), state };
    let mut bytes = Vec::new();
    codec::encode(&kept, &mut bytes, MAX_SNAPSHOT_BYTES).map_err(|error| snapshots.fault(error))?;
    snapshots.write(at.index, &bytes).map_err(|error| snapshots.fault(error))
}

/// Two nodes may build one at the same index, and it need not have the same bytes.
fn snapshot_id(applied: Option<LogId<NodeId>>) -> String {
    format!("{}-{:x}", applied.map_or(0, |id| id.index), u32::from_be_bytes(crate::fabric::random_bytes()))
}

impl Machine {
    /// Begins with the last snapshot. Each state is published.
    pub(crate) fn open(disk: &Disk, published: watch::Sender<Arc<Applied>>) -> Result<Self, DiskError> {
        let kept: Option<Kept> = match disk.snapshots.read()? {
            Some(bytes) => Some(read(&bytes).map_err(|error| disk.snapshots.fault(error))?),
            None => None,
        };
        let applied = kept.as_ref().and_then(|kept| kept.applied).map(|id| id.index);
        if let Some(purged) = disk.purged()?.map(|id| id.index).filter(|purged| applied < Some(*purged)) {
            return Err(disk.snapshots.fault(Older { purged }));
        }
        disk.snapshots.note(applied.unwrap_or(0));
        let snapshots = disk.snapshots.clone();
        let machine = match kept {
            Some(Kept { applied, membership, state, .. }) => {
                Self { applied, membership, state, snapshots, published }
            }
            None => Self {
                applied: None,
                membership: StoredMembership::default(),
                state: Replicated::default(),
                snapshots,
                published,
            },
        };
        machine.publish();
        Ok(machine)
    }

    /// What was applied, and up to which entry.
    pub(crate) fn state(&self) -> (Option<LogId<NodeId>>, &Replicated) {
        (self.applied, &self.state)
    }

    /// The members of the group, after what was applied.
    pub(crate) fn membership(&self) -> &Membership<NodeId, RaftNode> {
        self.membership.membership()
    }

    /// Writes a snapshot of the state as it is, as if it had been applied up to `at` and these were the members.
    ///
    /// # Errors
    /// When it cannot be written: then the one before is there.
    pub(crate) fn write_as(
        &self,
        at: LogId<NodeId>,
        members: Membership<NodeId, RaftNode>,
    ) -> Result<(), DiskError> {
        write_snapshot(&self.snapshots, self.state.clone(), at, members)
    }

    /// What was applied stays so: after a failure of the disk Raft begins with the last snapshot again, and nothing of that is
    /// seen until it is where it was.
    fn publish(&self) {
        let index = self.applied.map_or(0, |id| id.index);
        self.published.send_if_modified(|known| {
            let is_news = index >= known.index;
            if is_news {
                *known = Arc::new(Applied { index, state: self.state.clone() });
            }
            is_news
        });
    }

    fn kept(&self) -> Kept {
        let id = snapshot_id(self.applied);
        Kept { applied: self.applied, membership: self.membership.clone(), id, state: self.state.clone() }
    }
}

impl RaftStateMachine<Group> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, RaftNode>), Fault> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, Fault>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        for Entry { log_id, payload } in entries {
            debug_assert!(
                self.applied.is_none_or(|applied| applied < log_id),
                "entries come in order, each once"
            );
            self.applied = Some(log_id);
            outcomes.push(match payload {
                EntryPayload::Blank => Outcome::Done,
                EntryPayload::Normal(command) => {
                    let leadership =
                        Leadership { term: log_id.leader_id.term, leader: log_id.leader_id.node_id };
                    self.state.apply(log_id.index, leadership, command)
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                    Outcome::Done
                }
            });
        }
        self.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { kept: self.kept(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Fault> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, RaftNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Fault> {
        let fault = |error: &(dyn std::error::Error + 'static)| {
            Fault::from(StorageIOError::write_snapshot(
                Some(meta.signature()),
                openraft::AnyError::from_dyn(error, None),
            ))
        };
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let bytes = snapshot.into_inner();
        let kept: Kept = read(&bytes).map_err(|error| {
            self.snapshots.note_failed(index);
            fault(&error)
        })?;
        if (kept.applied, &kept.membership) != (meta.last_log_id, &meta.last_membership) {
            // After a restart what it says of itself would count.
            self.snapshots.note_failed(index);
            return Err(fault(&std::io::Error::other(
                "a snapshot says something else of itself than its sender",
            )));
        }
        let snapshots = self.snapshots.clone();
        let written = crate::fabric::blocking(move || snapshots.write(index, &bytes)).await;
        written.map_err(|error| fault(&error))?.map_err(|error| fault(&error))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state = kept.state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Group>>, Fault> {
        let fault = |error: &(dyn std::error::Error + 'static)| {
            Fault::from(StorageIOError::read_snapshot(None, openraft::AnyError::from_dyn(error, None)))
        };
        let Some(bytes) = self.snapshots.read().map_err(|error| fault(&error))? else { return Ok(None) };
        let kept: Kept = read(&bytes).map_err(|error| fault(&error))?;
        let meta = SnapshotMeta {
            last_log_id: kept.applied,
            last_membership: kept.membership,
            snapshot_id: kept.id,
        };
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Writes a snapshot of the state at one instant while the log goes on.
pub(crate) struct Builder {
    kept: Kept,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Group> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Group>, Fault> {
        let fault = |error: &(dyn std::error::Error + 'static)| {
            Fault::from(StorageIOError::write_snapshot(None, openraft::AnyError::from_dyn(error, None)))
        };
        let mut bytes = Vec::new();
        codec::encode(&self.kept, &mut bytes, MAX_SNAPSHOT_BYTES).map_err(|error| fault(&error))?;
        let snapshots = self.snapshots.clone();
        let index = self.kept.applied.map_or(0, |id| id.index);
        let written = crate::fabric::blocking(move || snapshots.write(index, &bytes).map(|()| bytes)).await;
        let bytes = written.map_err(|error| fault(&error))?.map_err(|error| fault(&error))?;
        let meta = SnapshotMeta {
            last_log_id: self.kept.applied,
            last_membership: self.kept.membership.clone(),
            snapshot_id: self.kept.id.clone(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        owner::shares::ShareChange,
        raft::disk::{KEY_PURGED, META},
    };

    #[test]
    fn a_log_whose_beginning_no_snapshot_has_is_not_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let id = |index| LogId::new(openraft::CommittedLeaderId::new(1, 1), index);
        let machine = Machine::open(&disk, watch::Sender::default()).unwrap();
        let snapshot = |index| machine.write_as(id(index), Membership::new(Vec::new(), ())).unwrap();
        snapshot(7);
        let file = directory.path().join("raft.snapshot");
        let older = std::fs::read(&file).unwrap();
        snapshot(9);
        let transaction = disk.database.begin_write().unwrap();
        let purged = crate::raft::log::encode(&id(8)).unwrap();
        transaction.open_table(META).unwrap().insert(KEY_PURGED, purged.as_slice()).unwrap();
        disk.commit(transaction).unwrap();
        let open = || Machine::open(&disk, watch::Sender::default());
        assert_eq!(open().unwrap().state().0, Some(id(9)));
        let refused = |what: &str| {
            let fault = open().unwrap_err().to_string();
            assert!(fault.contains("raft.snapshot") && fault.contains("older copy"), "{what}: {fault}");
        };
        std::fs::write(&file, older).unwrap();
        refused("an older one");
        std::fs::remove_file(&file).unwrap();
        refused("none");
    }

    #[test]
    fn a_snapshot_from_before_there_were_tokens_or_shares_is_read_as_one_without_any() {
        let mut state = Replicated::default();
        let kept = |state: &Replicated| {
            let mut bytes = Vec::new();
            let kept = Kept {
                applied: None,
                membership: StoredMembership::default(),
                id: "7-1".to_owned(),
                state: state.clone(),
            };
            codec::encode(&kept, &mut bytes, MAX_SNAPSHOT_BYTES).unwrap();
            bytes
        };
        let mut none = Vec::new();
        codec::encode(&ShareTable::default(), &mut none, MAX_SNAPSHOT_BYTES).unwrap();
        let without_tokens = none.len();
        codec::encode(&AccessState::default(), &mut none, MAX_SNAPSHOT_BYTES).unwrap();
        let bytes = kept(&state);
        assert!(bytes.ends_with(&none));
        for length in [none.len(), none.len() - without_tokens] {
            assert_eq!(read::<Kept>(&bytes[..bytes.len() - length]).unwrap().state, state, "{length}");
        }
        let change = ShareChange { parts: vec![(1, 3)], ..ShareChange::default() };
        Arc::make_mut(&mut state.shares).apply(1, |_| true, &change);
        assert_eq!(read::<Kept>(&kept(&state)).unwrap().state.shares.parts(1), Some(3));
        assert!(read::<Kept>(&bytes[..bytes.len() - none.len() - 1]).is_err());
    }

    #[test]
    fn a_snapshot_says_which_certificates_stand_for_tokens_only_if_some_do() {
        let kept = |state: &Replicated| {
            let (applied, membership, id) = (None, StoredMembership::default(), "7-1".to_owned());
            encoded(&Kept { applied, membership, id, state: state.clone() }).unwrap()
        };
        let mut state = Replicated::default();
        let without = kept(&state);
        assert_eq!(read::<Kept>(&without).unwrap().state, state);
        state.access.certificates = Arc::new(CertificateNames::golden());
        let with = kept(&state);
        assert!(with.len() > without.len() && with.starts_with(&without));
        assert_eq!(read::<Kept>(&with).unwrap().state, state);
        assert!(read::<Kept>(&with[..with.len() - 1]).is_err());
    }
}
