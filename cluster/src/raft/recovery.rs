//! What is left of a group that has lost most of its votes for good, and how one node goes on with it.
//!
//! Raft itself can not help: without most voters nothing is written, and so neither is who votes. An operator who knows
//! that the others will not come back says so for one data directory, whose node is not running. Its log gets one more
//! entry, which makes this node the only voter, in a term of its own; all that is in the log before it counts from then on.
//!
//! **It is another cluster from then on** ([`ClusterId`]): should one of the others come back after all, with the log of the
//! old cluster, then neither takes the other in, and two logs never mix. What the node knew of its buckets is left behind:
//! the log of those that are lost may have given them to others since.

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
    Group, RaftNode,
    applied::Machine,
    command::{ClusterId, NodeId, Revision},
    disk::{Disk, DiskFault, KEY_CLUSTER, LOG, META, drop_debts, is_kept_in},
    log::{KEY_VOTE, encode},
};

/// Why a data directory is nothing to go on with.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryFault {
    /// It can not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// No node has kept anything in it.
    #[error("{0} is not the data directory of a node that has run (--data-dir)")]
    Empty(PathBuf),
    /// The node was in no cluster.
    #[error("the node of this data directory was never taken into a cluster: start it to join one")]
    Nowhere,
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
    pub fn look_for(directory: &Path) -> Result<(), RecoveryFault> {
        if is_kept_in(directory) { Ok(()) } else { Err(RecoveryFault::Empty(directory.to_owned())) }
    }

    /// Reads what is there, which nobody else may have open. Nothing is changed.
    ///
    /// # Errors
    /// When nothing of a cluster is there, or it can not be read.
    pub async fn read(directory: &Path) -> Result<Self, RecoveryFault> {
        Self::look_for(directory)?;
        let disk = Disk::open(directory)?;
        let (Some(me), Some(cluster)) = disk.kept_identity()? else { return Err(RecoveryFault::Nowhere) };
        let vote = disk.meta(KEY_VOTE).map_err(|error| disk.fault(error))?.ok_or(RecoveryFault::Nowhere)?;
        let vote: Vote<NodeId> = codec::decode(&vote).map_err(|error| disk.fault(error))?;
        let entries = entries_of(&disk).map_err(|error| disk.fault(error))?;
        let mut machine = Machine::open(&disk, watch::Sender::default())?;
        let snapshot = machine.state().0;
        // Whether all of them were acknowledged nobody can tell any more: they count.
        let newer = entries.into_iter().filter(|entry| snapshot.is_none_or(|id| entry.log_id > id));
        machine.apply(newer).await.map_err(|error| disk.fault(error))?;
        let last = machine.state().0.ok_or(RecoveryFault::Nowhere)?;
        let membership = machine.membership();
        let node = membership.get_node(&me).cloned().ok_or(RecoveryFault::Nowhere)?;
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        if voters.iter().eq([&me]) {
            return Err(RecoveryFault::Alone);
        }
        let name = |id: &NodeId| membership.get_node(id).map(|node| node.name.clone());
        let voters = voters.iter().filter_map(name).collect();
        let domains = machine.state().1.domains.iter();
        let rules = domains.map(|(name, history)| (name.to_string(), history.current().revision)).collect();
        let directory = directory.to_owned();
        Ok(Self { disk, directory, me, node, cluster, last, vote, voters, rules })
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
    /// When it can not be written: then nothing has changed but that buckets begin used up.
    pub fn go_on_alone(self) -> Result<ClusterId, DiskFault> {
        // First: counts that are lost are too strict, and counts from before others decided would be too loose.
        drop_debts(&self.directory)?;
        let cluster = ClusterId::random();
        self.write(cluster).map_err(|error| self.disk.fault(error))?;
        Ok(cluster)
    }

    fn write(&self, cluster: ClusterId) -> Result<(), redb::Error> {
        // Nobody else can have voted or led in it: who votes from now on has this entry.
        let term = self.vote.leader_id.term.max(self.last.leader_id.term) + 1;
        let vote = Vote::new(term, self.me);
        let log_id = LogId::new(CommittedLeaderId::new(term, self.me), self.last.index + 1);
        let nodes = std::iter::once((self.me, self.node.clone())).collect::<BTreeMap<_, _>>();
        let membership = Membership::new(vec![BTreeSet::from([self.me])], nodes);
        let entry = Entry::<Group> { log_id, payload: EntryPayload::Membership(membership) };
        let transaction = self.disk.database.begin_write()?;
        {
            transaction.open_table(LOG)?.insert(log_id.index, encode(&entry)?.as_slice())?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(KEY_VOTE, encode(&vote)?.as_slice())?;
            meta.insert(KEY_CLUSTER, &cluster.bytes()[..])?;
        }
        Ok(transaction.commit()?)
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
