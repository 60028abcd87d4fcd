//! The task that turns news from gossip into the slot table that the router reads.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    clock::Clock,
    gossip::{Gossip, members_of},
    link::{Identity, Link},
    member::{Member, MemberState},
    ownership::{Assignment, Change, Ownership},
    raft::{GroupRole, InForce, Ledger, RaftGroup},
    router::Router,
    routes::{LostSince, Peer, Routes},
    stats::LaneStats,
    status::{ClusterStatus, Lost},
};

/// How long a member that has gone is still shown.
const SHOW_LOST_FOR: Duration = Duration::from_secs(15 * 60);
/// How many members that have gone are shown.
const MAX_LOST: usize = 64;

/// What the controller is asked for.
pub(crate) enum Command {
    /// Tell the others that this node leaves; `done` when they are being told.
    Leave { done: oneshot::Sender<()> },
}

pub(crate) struct Controller {
    ownership: Ownership,
    gossip: Gossip,
    identity: Arc<Identity>,
    router: Arc<Router>,
    clock: Clock,
    lanes: Vec<(Handle, Arc<LaneStats>)>,
    tasks: TaskTracker,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<ClusterStatus>,
    in_force: watch::Receiver<InForce>,
    ledger: Ledger,
    announced: MemberState,
    live: Vec<Member>,
    lost: BTreeMap<Arc<str>, Lost>,
}

impl Controller {
    #[expect(clippy::too_many_arguments, reason = "each is one part of the node, given once")]
    pub(crate) fn new(
        ownership: Ownership,
        gossip: Gossip,
        identity: Arc<Identity>,
        router: Arc<Router>,
        clock: Clock,
        lanes: Vec<(Handle, Arc<LaneStats>)>,
        group: &RaftGroup,
        tasks: TaskTracker,
    ) -> (Self, mpsc::Sender<Command>, watch::Receiver<ClusterStatus>) {
        let (commands, received) = mpsc::channel(4);
        let (status, watched) = watch::channel(ClusterStatus::new(identity.me.clone()));
        let controller = Self {
            ownership,
            gossip,
            identity,
            router,
            clock,
            lanes,
            tasks,
            commands: received,
            status,
            in_force: group.in_force(),
            ledger: group.ledger(),
            announced: MemberState::Joining,
            live: Vec::new(),
            lost: BTreeMap::new(),
        };
        (controller, commands, watched)
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut news = self.gossip.watch();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                // Without gossip the node goes on with the table that it has.
                reason = self.gossip.died() => {
                    error!("{reason}: this node no longer hears who comes and goes; restart it");
                    self.status.send_modify(|status| status.gossip_alive = false);
                    break;
                }
                changed = news.changed() => {
                    if changed.is_err() {
                        continue;
                    }
                    let live = members_of(&news.borrow_and_update());
                    self.take_in(live).await;
                }
                changed = self.in_force.changed() => {
                    if changed.is_ok() {
                        self.announce_group().await;
                        self.take_in(self.live.clone()).await;
                    }
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Leave { done } => {
                        self.ownership.leave();
                        self.announce().await;
                        self.tell_status();
                        // Whoever asked may be gone.
                        let _ = done.send(());
                    }
                },
            }
        }
        // Nobody waits for what can no longer be told.
        let Self { commands, gossip, .. } = self;
        drop(commands);
        cancel.cancelled().await;
        gossip.stop();
    }

    async fn take_in(&mut self, live: Vec<Member>) {
        self.note_comings_and_goings(&live);
        self.live = live;
        // A node without the cluster's secret and rules would decide about other buckets, or allow everything; one with
        // those of another cluster too.
        if !self.is_complete() || self.stranger().is_some() {
            self.tell_status();
            return;
        }
        let group = self.ledger.group();
        let is_ours = |member: &&Member| {
            member.id == self.identity.me || member.group.is_none() || member.group == group
        };
        // How far a member has come in the log is no reason for another table.
        let plain = |member: &Member| Member { group: None, in_force: None, ..member.clone() };
        let ours: Vec<Member> = self.live.iter().filter(is_ours).map(plain).collect();
        match self.ownership.observe(&ours, self.clock.now()) {
            Change::None => {}
            Change::Assigned(assignment) => {
                info!(
                    members = assignment.members.len(),
                    table = format_args!("{:016x}", assignment.table.fingerprint()),
                    "the slot table has changed"
                );
                self.publish(assignment);
            }
            Change::Superseded => {
                error!(name = %self.identity.me.name, "a newer node has this node's name: it decides nothing any more");
                self.router.publish(None);
            }
        }
        self.announce().await;
        self.tell_status();
    }

    /// Puts the new table in force; links to members that stay are kept.
    fn publish(&self, assignment: Arc<Assignment>) {
        let before = self.router.routes();
        let known = |member: &Member| {
            let peers = &before.as_ref()?.peers;
            peers.iter().flatten().find(|peer| peer.member.id == member.id && peer.member.peer == member.peer)
        };
        let mut me = None;
        let peers = assignment
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                if member.id.name == self.identity.me.name {
                    me = Some(index);
                    return None;
                }
                Some(known(member).cloned().unwrap_or_else(|| Arc::new(self.link_to(member))))
            })
            .collect();
        let me = me.expect("a node that takes part is among the members of its own table");
        self.router.publish(Some(Arc::new(Routes { assignment, me, peers })));
    }

    fn link_to(&self, member: &Member) -> Peer {
        let end = CancellationToken::new();
        let lost_since = Arc::new(LostSince::default());
        let links = self
            .lanes
            .iter()
            .map(|(runtime, stats)| {
                let (link, run) = Link::start(
                    member.id.clone(),
                    member.peer,
                    Arc::clone(&self.identity),
                    Arc::clone(stats),
                    Arc::clone(&lost_since),
                    end.clone(),
                );
                self.tasks.spawn_on(run, runtime);
                link
            })
            .collect();
        Peer::new(member.clone(), links, lost_since, end.drop_guard())
    }

    /// Whether this node has what it needs to decide.
    fn is_complete(&self) -> bool {
        self.in_force.borrow().complete
    }

    async fn announce_group(&mut self) {
        let in_force = self.in_force.borrow_and_update().index;
        self.gossip.announce_group(self.ledger.group(), in_force).await;
    }

    /// What keeps this node from having the cluster's rules.
    fn waiting_for_rules(&self) -> Option<String> {
        if self.is_complete() {
            return None;
        }
        let group = self.ledger.status();
        if let Some(trouble) = group.trouble {
            return Some(trouble);
        }
        let other = self.live.iter().find(|member| member.group.is_some() && member.group != group.cluster);
        match (group.role, other) {
            (GroupRole::None, Some(_)) => {
                Some("the leader of the Raft group to take this node in".to_owned())
            }
            (GroupRole::None, None) => None,
            (_, _) if group.leader.is_none() => {
                Some(format!("a leader of the Raft group (voters: {})", group.voters.join(", ")))
            }
            (_, _) => Some("the rules of the cluster".to_owned()),
        }
    }

    /// A node that has the log of another cluster than the others, and what to do.
    fn stranger(&self) -> Option<String> {
        let ours = self.ledger.group()?;
        if self.status.borrow().was_ready() {
            // It is the others who came.
            return None;
        }
        let others: Vec<_> = self.live.iter().filter(|member| member.id != self.identity.me).collect();
        let theirs = others.iter().find_map(|member| member.group.filter(|theirs| *theirs != ours))?;
        // One node that is wrong does not make all others so.
        let with_us = others.iter().filter(|member| member.group == Some(ours)).count();
        let against = others.iter().filter(|member| member.group == Some(theirs)).count();
        (with_us < against).then(|| {
            format!(
                "its own cluster: the data directory belongs to the cluster {ours}, the nodes here to {theirs}; start it with an empty --data-dir to join these, or with another --join"
            )
        })
    }

    async fn announce(&mut self) {
        let state = self.ownership.state();
        if state != self.announced {
            self.announced = state;
            self.gossip.announce(state, self.ownership.founders()).await;
        }
    }

    fn note_comings_and_goings(&mut self, live: &[Member]) {
        let now = Instant::now();
        for member in live {
            if !self.live.iter().any(|known| known.id == member.id) {
                info!(node = %member.id.name, address = %member.peer, "a node is there");
            }
            self.lost.remove(&member.id.name);
        }
        for member in &self.live {
            if let btree_map::Entry::Vacant(entry) = self.lost.entry(Arc::clone(&member.id.name))
                && !live.iter().any(|known| known.id.name == member.id.name)
            {
                info!(node = %member.id.name, "a node has gone: the others take its slots over");
                entry.insert(Lost { member: member.clone(), since: now });
            }
        }
        self.lost.retain(|_, lost| now.duration_since(lost.since) < SHOW_LOST_FOR);
        while self.lost.len() > MAX_LOST {
            self.lost.pop_first();
        }
    }

    fn tell_status(&self) {
        let routes = self.router.routes();
        // Worked out before: both look at the status themselves.
        let waiting_for = self
            .stranger()
            .or_else(|| self.waiting_for_rules())
            .or_else(|| self.ownership.waiting_for(&self.live));
        self.status.send_modify(|status| {
            status.live = self.live.clone();
            status.lost = self.lost.values().cloned().collect();
            status.state = self.ownership.state();
            status.waiting_for = waiting_for;
            let table = routes.as_ref().map(|routes| Arc::clone(&routes.assignment.table));
            if status.table_since.is_none() && table.is_some() {
                status.table_since = Some(Instant::now());
            }
            status.table = table;
        });
    }
}
