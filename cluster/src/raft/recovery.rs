//! What is left of a group that has permanently lost a quorum, and how one node goes on with it.
//!
//! Raft itself cannot help: without a quorum nothing is written, and so neither is who votes. An operator who knows
//! that the others will not come back says so for one data directory, whose node is not running. Its log gets one more
//! entry, which makes this node the only voter, in a term of its own; all that is in the log before it counts from then on.
//!
//! **It is another cluster from then on** ([`ClusterId`]): should one of the others come back after all, with the log of the
//! old cluster, then neither takes the other in, and two logs never mix. What the node knew of its buckets, its floors too, is left behind:
//! the log of those that are lost may have given them to others since.
//!
//! **A log with a term that no cluster comes to**, which somebody has forged, has no later one for that entry. Then all that it
//! adds up to becomes a snapshot in the first term of the new cluster, and the log begins anew behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, Vote, storage::RaftStateMachine as _,
};
use redb::{ReadableDatabase as _, ReadableTable as _};
use tidegate_proto::codec;
use tokio::sync::watch;

use super::{
    applied::Machine,
    disk::{Disk, KEY_CLUSTER, KEY_PURGED, KEY_VOTE, LOG, META, is_kept_in},
    files::{DiskError, drop_buckets},
    log::{KEY_COMMITTED, encode},
};
use crate::{
    ids::{ClusterId, NodeId, RaftNode, Revision},
    rpc::sane::is_absurd,
    state::types::Group,
};

/// Why a data directory is nothing to go on with.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No node has kept anything in it.
    #[error("{0} is not the data directory of a node that has run (--data-dir)")]
    Empty(PathBuf),
    /// The node was in no cluster.
    #[error(
        "the node of this data directory is in no cluster, or is no member of it any more: start it to join one"
    )]
    Nowhere,
    /// The log does not tell yet what the cluster was founded with, or who owned what.
    #[error("the log in this data directory is too short to go on with: take another node's")]
    Young,
    /// Some of the log is missing.
    #[error(
        "in this data directory the entries of the log between {0} and {1} are missing: take another node's"
    )]
    Gap(u64, u64),
    /// It says that there are more entries than any cluster writes.
    #[error(
        "the log in this data directory says that it has entry {0}, which no cluster comes to: take another node's"
    )]
    Absurd(u64),
    /// Nothing is lost.
    #[error("this node is the only voter of its cluster already: start it")]
    Alone,
}

/// What a node that is not running has of its group.
#[derive(Debug)]
pub struct Remains {
    disk: Disk,
    directory: PathBuf,
    me: NodeId,
    node: RaftNode,
    cluster: ClusterId,
    snapshot: Option<LogId<NodeId>>,
    machine: Machine,
    last: LogId<NodeId>,
    vote: Vote<NodeId>,
    voters: Vec<String>,
    rules: Vec<(String, Revision)>,
}

impl Remains {
    /// Whether there is something to read.
    ///
    /// # Errors
    /// When there is not.
    pub fn look_for(directory: &Path) -> Result<(), RecoveryError> {
        if is_kept_in(directory) { Ok(()) } else { Err(RecoveryError::Empty(directory.to_owned())) }
    }

    /// Reads what is there, which nobody else may have open. Nothing is changed.
    ///
    /// # Errors
    /// When nothing of a cluster is there, or it cannot be read.
    pub async fn read(directory: &Path) -> Result<Self, RecoveryError> {
        Self::look_for(directory)?;
        let disk = Disk::open(directory)?;
        let (Some(me), Some(cluster)) = disk.kept_identity()? else { return Err(RecoveryError::Nowhere) };
        let vote = disk.meta(KEY_VOTE).map_err(|error| disk.fault(error))?.ok_or(RecoveryError::Nowhere)?;
        let vote: Vote<NodeId> = codec::decode(&vote).map_err(|error| disk.fault(error))?;
        let entries = entries_of(&disk).map_err(|error| disk.fault(error))?;
        let mut machine = Machine::open(&disk, watch::Sender::default())?;
        let snapshot = machine.state().0;
        // Whether all of them were acknowledged nobody can tell any more: they count.
        // (By their indexes: what was forged may be of a later term than what a recovery that was cut short has written.)
        let newer = |entry: &Entry<Group>| snapshot.is_none_or(|id| entry.log_id.index > id.index);
        let entries: Vec<Entry<Group>> = entries.into_iter().filter(newer).collect();
        // A node that ended while it installed a snapshot may have the one half of it.
        let purged: Option<LogId<NodeId>> = match disk.meta(KEY_PURGED).map_err(|error| disk.fault(error))? {
            Some(bytes) => Some(codec::decode(&bytes).map_err(|error| disk.fault(error))?),
            None => None,
        };
        let next = snapshot.map_or(0, |id| id.index + 1);
        if let Some(purged) = purged.filter(|purged| purged.index >= next) {
            return Err(RecoveryError::Gap(next, purged.index));
        }
        for (next, entry) in (next..).zip(&entries) {
            if entry.log_id.index != next {
                return Err(RecoveryError::Gap(next, entry.log_id.index));
            }
        }
        machine.apply(entries).await.map_err(|error| disk.fault(error))?;
        if machine.state().1.founding.is_none() || !machine.state().1.slots.is_assigned() {
            return Err(RecoveryError::Young);
        }
        let last = machine.state().0.ok_or(RecoveryError::Nowhere)?;
        let membership = machine.membership();
        let node = membership.get_node(&me).cloned().ok_or(RecoveryError::Nowhere)?;
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        if is_absurd(last.index) {
            return Err(RecoveryError::Absurd(last.index));
        }
        if voters.iter().eq([&me]) && !is_absurd(vote.leader_id.term) && !is_absurd(last.leader_id.term) {
            return Err(RecoveryError::Alone);
        }
        let name = |id: &NodeId| membership.get_node(id).map(|node| node.name.clone());
        let voters = voters.iter().filter_map(name).collect();
        let domains = machine.state().1.domains.iter();
        let rules = domains.map(|(name, history)| (name.to_string(), history.current().revision)).collect();
        let directory = directory.to_owned();
        Ok(Self { disk, directory, me, node, cluster, snapshot, machine, last, vote, voters, rules })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// Which cluster it was in.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Term and index of the last entry of its log. Of two logs of one cluster that with the larger pair knows more.
    pub fn last(&self) -> (u64, u64) {
        (self.last.leader_id.term, self.last.index)
    }

    /// A term in it that no cluster comes to: somebody has forged it.
    pub fn forged_term(&self) -> Option<u64> {
        [self.vote.leader_id.term, self.last.leader_id.term].into_iter().find(|term| is_absurd(*term))
    }

    /// Who voted.
    pub fn voters(&self) -> &[String] {
        &self.voters
    }

    /// The domains that have rules, each with its revision.
    pub fn rules(&self) -> &[(String, Revision)] {
        &self.rules
    }

    /// Makes the node the only member of a cluster of its own, with the rules of the one that it was in. Returns which.
    ///
    /// # Errors
    /// When it cannot be written: then nothing has changed but that buckets start exhausted.
    pub fn go_on_alone(self) -> Result<ClusterId, DiskError> {
        // First: counts that are lost are too strict, and counts from before others decided would be too loose.
        drop_buckets(&self.directory)?;
        let cluster = ClusterId::random();
        if self.forged_term().is_some() {
            self.begin_anew(cluster)?;
        } else {
            self.write(cluster).map_err(|error| self.disk.fault(error))?;
        }
        Ok(cluster)
    }

    fn only_me(&self) -> Membership<NodeId, RaftNode> {
        let nodes = std::iter::once((self.me, self.node.clone())).collect::<BTreeMap<_, _>>();
        Membership::new(vec![BTreeSet::from([self.me])], nodes)
    }

    /// Puts all that the log adds up to in a snapshot of the first term, and removes the log. Cut short in between, it can be
    /// done once more.
    fn begin_anew(&self, cluster: ClusterId) -> Result<(), DiskError> {
        // Terms are counted anew: nobody has voted in the new cluster, and those of the old one are not taken in.
        let term = 1;
        let at = LogId::new(CommittedLeaderId::new(term, self.me), self.last.index + 1);
        self.machine.write_as(at, self.only_me())?;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.disk.database.begin_write()?;
            {
                transaction.open_table(LOG)?.retain(|_, _| false)?;
                let mut meta = transaction.open_table(META)?;
                meta.remove(KEY_COMMITTED)?;
                meta.insert(KEY_PURGED, encode(&at)?.as_slice())?;
                meta.insert(KEY_VOTE, encode(&Vote::new(term, self.me))?.as_slice())?;
                meta.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
            }
            self.disk.commit(transaction)
        };
        write().map_err(|error| self.disk.fault(error))
    }

    fn write(&self, cluster: ClusterId) -> Result<(), redb::Error> {
        // Nobody else can have voted or led in it: who votes from now on has this entry.
        let term = self.vote.leader_id.term.max(self.last.leader_id.term) + 1;
        let vote = Vote::new(term, self.me);
        let log_id = LogId::new(CommittedLeaderId::new(term, self.me), self.last.index + 1);
        let entry = Entry::<Group> { log_id, payload: EntryPayload::Membership(self.only_me()) };
        let transaction = self.disk.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            if let Some(snapshot) = self.snapshot {
                // What the snapshot has replaced may be there in part, and Raft would look for the rest.
                log.retain_in(..=snapshot.index, |_, _| false)?;
                meta.insert(KEY_PURGED, encode(&snapshot)?.as_slice())?;
            }
            log.insert(log_id.index, encode(&entry)?.as_slice())?;
            meta.insert(KEY_VOTE, encode(&vote)?.as_slice())?;
            meta.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
        }
        self.disk.commit(transaction)
    }
}

fn entries_of(disk: &Disk) -> Result<Vec<Entry<Group>>, Box<dyn std::error::Error + Send + Sync>> {
    let table = disk.database.begin_read()?.open_table(LOG)?;
    let mut entries = Vec::new();
    for row in table.iter()? {
        entries.push(codec::decode(row?.1.value())?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use openraft::RaftSnapshotBuilder as _;

    use super::*;
    use crate::{
        owner::table,
        raft::files::{FLOORS_FILE, load_buckets, save_buckets},
        state::command::{Command, Founding},
    };

    /// A directory of a voter of three, whose log has a founding, owners of slots, and one entry more.
    fn directory() -> (tempfile::TempDir, NodeId) {
        directory_with(4, Vote::new_committed(6_u64, 3_u64))
    }

    /// The same with the last entry of this term, and this vote.
    fn directory_with(term: u64, vote: Vote<NodeId>) -> (tempfile::TempDir, NodeId) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let me = disk.start(1).unwrap().node;
        let cluster = ClusterId::from_bytes([7; 16]);
        disk.belong_to(cluster).unwrap();
        let start = crate::ids::NodeStart { node: me, incarnation: 1 };
        let voters = BTreeSet::from([me, 2, 3]);
        let nodes = voters.iter().map(|id| (*id, RaftNode { name: format!("n{id}"), ..Default::default() }));
        let membership = Membership::new(vec![voters.clone()], nodes.collect::<BTreeMap<_, _>>());
        let payloads = [
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Command::Found(Founding { cluster, hash_secret: [1; 16] })),
            EntryPayload::Normal(Command::Slots(table::Entry::Assign(vec![start; crate::slots::SLOTS]))),
            EntryPayload::Blank,
        ];
        let transaction = disk.database.begin_write().unwrap();
        for (index, payload) in (0..).zip(payloads) {
            let term = if index == 3 { term } else { 4 };
            let log_id = LogId::new(CommittedLeaderId::new(term, 2), index);
            let entry = encode(&Entry::<Group> { log_id, payload }).unwrap();
            transaction.open_table(LOG).unwrap().insert(index, entry.as_slice()).unwrap();
        }
        let vote = encode(&vote).unwrap();
        transaction.open_table(META).unwrap().insert(KEY_VOTE, vote.as_slice()).unwrap();
        transaction.commit().unwrap();
        (directory, me)
    }

    fn remove(directory: &Path, index: u64) {
        let disk = Disk::open(directory).unwrap();
        let transaction = disk.database.begin_write().unwrap();
        transaction.open_table(LOG).unwrap().remove(index).unwrap();
        transaction.commit().unwrap();
    }

    async fn snapshot(directory: &Path) {
        let disk = Disk::open(directory).unwrap();
        let mut machine = Machine::open(&disk, watch::Sender::default()).unwrap();
        machine.apply(entries_of(&disk).unwrap()).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    }

    #[tokio::test]
    async fn the_last_entry_makes_the_node_the_only_voter_in_a_term_that_nobody_had() {
        let (directory, me) = directory();
        let remains = Remains::read(directory.path()).await.unwrap();
        assert_eq!((remains.last(), remains.voters().len()), ((4, 3), 3));
        let cluster = remains.go_on_alone().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        assert_eq!(disk.kept_identity().unwrap(), (Some(me), Some(cluster)));
        let entries = entries_of(&disk).unwrap();
        let last = entries.last().unwrap();
        assert_eq!((entries.len(), last.log_id), (5, LogId::new(CommittedLeaderId::new(7, me), 4)));
        let vote: Vote<NodeId> = codec::decode(&disk.meta(KEY_VOTE).unwrap().unwrap()).unwrap();
        assert_eq!(vote, Vote::new(7, me));
        drop(disk);
        assert!(matches!(Remains::read(directory.path()).await, Err(RecoveryError::Alone)));
    }

    /// Found by a review: the floors stayed, and the node began from them though others had decided since.
    #[tokio::test]
    async fn nothing_of_what_buckets_knew_is_left_when_a_node_goes_on_alone() {
        for vote in [Vote::new_committed(6, 3), Vote::new_committed(u64::MAX, 3)] {
            let (directory, _) = directory_with(4, vote);
            let floors = directory.path().join(FLOORS_FILE);
            std::fs::write(&floors, b"floors").unwrap();
            save_buckets(directory.path(), b"buckets").unwrap();
            let remains = Remains::read(directory.path()).await.unwrap();
            assert!(floors.exists(), "reading changes nothing");
            remains.go_on_alone().unwrap();
            assert!(!floors.exists());
            assert!(load_buckets(directory.path()).unwrap().unwrap().is_none());
        }
    }

    /// Attack C4 of the review: such a vote, and such entries, were written to the disk.
    #[tokio::test]
    async fn a_forged_term_is_left_behind_and_what_was_applied_goes_on_in_the_first_one() {
        for (last, vote) in [
            (4, Vote::new_committed(u64::MAX, 3)),
            (u64::MAX, Vote::new_committed(u64::MAX, 3)),
            (u64::MAX - 7, Vote::new(u64::MAX - 7, 2)),
        ] {
            let (forged, me) = directory_with(last, vote);
            let remains = Remains::read(forged.path()).await.unwrap();
            assert_eq!(remains.forged_term(), Some(vote.leader_id.term));
            // It ends after it has written the snapshot, and is done again.
            let at = LogId::new(CommittedLeaderId::new(1, me), 4);
            remains.machine.write_as(at, remains.only_me()).unwrap();
            drop(remains);
            let cluster = Remains::read(forged.path()).await.unwrap().go_on_alone().unwrap();

            let disk = Disk::open(forged.path()).unwrap();
            assert_eq!(disk.kept_identity().unwrap(), (Some(me), Some(cluster)));
            assert!(entries_of(&disk).unwrap().is_empty());
            let mut log = crate::raft::log::Log::start(disk.clone()).unwrap();
            assert_eq!(log.absurd().await.unwrap(), None);
            let machine = Machine::open(&disk, watch::Sender::default()).unwrap();
            let (applied, state) = machine.state();
            assert_eq!((applied.unwrap().leader_id.term, applied.unwrap().leader_id.node_id), (1, me));
            assert!(state.founding.is_some() && state.slots.is_assigned());
            assert!(machine.membership().voter_ids().eq([me]));
            drop((log, machine, disk));
            // The thread that writes the log has the disk for a moment longer.
            let is_alone = async {
                while !matches!(Remains::read(forged.path()).await, Err(RecoveryError::Alone)) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(5), is_alone).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_log_with_a_hole_is_refused_and_what_a_snapshot_replaced_is_removed() {
        let (damaged, _) = directory();
        remove(damaged.path(), 2);
        assert!(matches!(Remains::read(damaged.path()).await, Err(RecoveryError::Gap(2, 3))));
        let (young, _) = directory();
        remove(young.path(), 3);
        remove(young.path(), 2);
        assert!(matches!(Remains::read(young.path()).await, Err(RecoveryError::Young)));

        // It ended after it had written the snapshot, and before what that replaced was gone.
        let (half, me) = directory();
        snapshot(half.path()).await;
        remove(half.path(), 3);
        remove(half.path(), 1);
        Remains::read(half.path()).await.unwrap().go_on_alone().unwrap();
        let disk = Disk::open(half.path()).unwrap();
        let indexes: Vec<u64> = entries_of(&disk).unwrap().iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indexes, [4]);
        let purged: LogId<NodeId> = codec::decode(&disk.meta(KEY_PURGED).unwrap().unwrap()).unwrap();
        assert_eq!(purged, LogId::new(CommittedLeaderId::new(4, 2), 3));
        assert_ne!(me, 2);
    }
}
