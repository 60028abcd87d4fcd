//! The task that turns what the log says into this node's rights and the routes that the router reads, and news from
//! gossip into what people are told.

mod publish;
mod waiting;

use std::{
    collections::{BTreeMap, btree_map},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    clock::Clock,
    gossip::{ForeignNodes, Gossip, foreigners_of, members_of, name_conflict_of, twins_of},
    ids::Revision,
    link::Identity,
    member::{Alive, Member, MemberRow, MemberState},
    owner::slot_ownership::SlotOwnership,
    ownership::{context::Context, hand_over, heritage::Inherited},
    placement::{Candidate, Placement},
    raft::belonging::Foreign,
    router::Router,
    routes::Routes,
    rules::ledger::Ledger,
    rules_in_force::InForce,
    slots::SlotTable,
    state::applied::Applied,
    stats::WorkerStats,
    status::{ClusterStatus, Lost},
};

/// How long a member that has gone is still shown.
const SHOW_LOST_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a node that starts waits for those that it was told of.
const HEAR_OTHERS_WITHIN: Duration = Duration::from_secs(2);
/// How often a node that waits for its cluster looks again whether it still has to.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often the node checks whether slots that wait for the disk can begin.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_millis(20);
/// How many members that have gone are shown.
const MAX_LOST: usize = 64;

/// What the controller is asked for.
pub(crate) enum Command {
    /// Say to the others that this node leaves; `done` when that is being announced.
    Leave { done: oneshot::Sender<()> },
}

/// How a node came to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has no slot table yet.
    Joining,
    Serving,
    Leaving,
    /// A newer node has its name, and the log says so: gossip alone ends nobody.
    Superseded,
}

pub(crate) struct Controller {
    standing: Standing,
    /// Until when a node that was told of others does not go on alone with what lies on its disk: it may be another
    /// cluster's.
    alone_at: Option<Instant>,
    /// It was told of others (`--join`).
    joins: bool,
    expect: Option<u32>,
    gossip: Gossip,
    /// Who of other clusters is heard of.
    foreign_nodes: Arc<ForeignNodes>,
    identity: Arc<Identity>,
    router: Arc<Router>,
    clock: Clock,
    workers: Vec<(Handle, Arc<WorkerStats>)>,
    tasks: TaskTracker,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<ClusterStatus>,
    in_force: watch::Receiver<InForce>,
    applied: watch::Receiver<Arc<Applied>>,
    foreign: watch::Receiver<Option<Foreign>>,
    /// What keeps this node from founding a cluster.
    obstacle: watch::Receiver<Option<String>>,
    context: Arc<Context>,
    /// For the tasks of the group.
    alive: watch::Sender<Alive>,
    ownership: Arc<SlotOwnership>,
    ledger: Ledger,
    announced: MemberState,
    live: Vec<Member>,
    /// A newer node that is said to have this node's name.
    name_conflict: Option<Member>,
    /// Names that several nodes have, and where these are.
    twins: BTreeMap<Arc<str>, Vec<SocketAddr>>,
    lost: BTreeMap<Arc<str>, Lost>,
    /// Who should own which slot, if these were all.
    placed: Option<(Vec<Candidate>, SlotTable)>,
    /// What the log says is not taken in yet, because slots that are to begin wait for the disk.
    waits_for_disk: bool,
}

impl Controller {
    #[expect(clippy::too_many_arguments, reason = "each is one part of the node, given once")]
    pub(crate) fn new(
        joins: bool,
        expect: Option<u32>,
        gossip: Gossip,
        foreign_nodes: Arc<ForeignNodes>,
        identity: Arc<Identity>,
        router: Arc<Router>,
        clock: Clock,
        workers: Vec<(Handle, Arc<WorkerStats>)>,
        context: Arc<Context>,
        ledger: Ledger,
        alive: watch::Sender<Alive>,
        tasks: TaskTracker,
    ) -> (Self, mpsc::Sender<Command>, watch::Receiver<ClusterStatus>) {
        let (commands, received) = mpsc::channel(4);
        let (status, watched) = watch::channel(ClusterStatus::new(identity.me.clone()));
        let controller = Self {
            standing: Standing::Joining,
            alone_at: joins.then(|| Instant::now() + HEAR_OTHERS_WITHIN),
            joins,
            expect,
            gossip,
            foreign_nodes,
            identity,
            router,
            clock,
            workers,
            tasks,
            commands: received,
            status,
            alive,
            in_force: context.rules.progress.subscribe(),
            applied: ledger.watch(),
            foreign: ledger.watch_foreign(),
            obstacle: ledger.watch_obstacle(),
            ledger,
            ownership: Arc::clone(&context.ownership),
            context,
            announced: MemberState::Joining,
            live: Vec::new(),
            name_conflict: None,
            twins: BTreeMap::new(),
            lost: BTreeMap::new(),
            placed: None,
            waits_for_disk: false,
        };
        (controller, commands, watched)
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut news = self.gossip.watch();
        let mut foreign_news = self.foreign_nodes.watch();
        let mut hears = true;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                // The node goes on: who owns what comes by the log, and the leader knows by its session that it is there. It cannot
                //  begin again as the same node, whose versions and heartbeats the others know.
                reason = self.gossip.died(), if hears => {
                    error!(%reason, "this node no longer hears who comes and goes: restart it");
                    self.status.send_modify(|status| status.gossip_alive = false);
                    hears = false;
                    // What was heard last would be true for ever; who has a session is there without it.
                    self.live.retain(|member| member.id == self.identity.me);
                    self.name_conflict = None;
                    self.twins.clear();
                    self.publish_status();
                }
                changed = news.changed(), if hears => {
                    if changed.is_err() {
                        continue;
                    }
                    let ours = self.belongs_to();
                    let live = {
                        let (news, me) = (news.borrow_and_update(), &self.identity.me);
                        self.name_conflict = name_conflict_of(&news, me, ours);
                        self.twins = twins_of(&news, ours);
                        for (address, theirs) in foreigners_of(&news, ours) {
                            self.foreign_nodes.note(std::iter::once(address), theirs, Instant::now());
                        }
                        members_of(&news, (self.standing != Standing::Superseded).then_some(me), ours)
                    };
                    self.take_in(live).await;
                }
                changed = self.in_force.changed() => {
                    if changed.is_ok() {
                        self.announce_group().await;
                        self.take_in(self.live.clone()).await;
                    }
                }
                () = sleep_until(self.alone_at.unwrap_or_else(Instant::now)), if self.alone_at.is_some() => {
                    self.alone_at = None;
                    self.take_in(self.live.clone()).await;
                }
                // What spoke against going on with what it has may be over without a word.
                () = sleep(LOOK_AGAIN_AFTER), if self.standing == Standing::Joining && self.alone_at.is_none() => {
                    self.take_in(self.live.clone()).await;
                }
                () = sleep(LOOK_AT_DISK_EVERY), if self.waits_for_disk => self.take_table(),
                changed = self.applied.changed() => {
                    if changed.is_ok() {
                        self.note_successor();
                        self.take_table();
                        self.announce().await;
                        self.publish_status();
                    }
                }
                changed = self.obstacle.changed() => {
                    if changed.is_ok() {
                        self.publish_status();
                    }
                }
                changed = self.foreign.changed() => {
                    if changed.is_ok() {
                        self.publish_status();
                    }
                }
                // It lives as long as this task.
                _ = foreign_news.changed() => self.publish_status(),
                Some(command) = self.commands.recv() => match command {
                    Command::Leave { done } => {
                        self.standing = Standing::Leaving;
                        self.announce().await;
                        self.publish_status();
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
        if self.live.len() > 1 {
            self.alone_at = None;
        }
        self.note_successor();
        self.take_table();
        self.announce().await;
        self.publish_status();
    }

    /// Ends this node's part if a newer one has its name: not when anybody says so, only when that one has told the leader where
    /// it is. It must be there, too: one without this node's disk may have come after one whose clock was ahead.
    fn note_successor(&mut self) {
        let me = &self.identity.me;
        let is_later = |row: &MemberRow| *row.name == *me.name && row.incarnation > me.incarnation;
        let Some(newer) = self.name_conflict.as_ref().filter(|_| self.standing != Standing::Superseded)
        else {
            return;
        };
        if !self.applied.borrow().state.members.values().any(is_later) {
            return;
        }
        error!(name = %me.name, "a newer node has this node's name: it decides nothing any more");
        self.standing = Standing::Superseded;
        self.ownership.give_up();
        self.router.publish(None);
        // Should this node lead the group, it has to see itself go.
        self.live.iter_mut().filter(|member| member.id == *me).for_each(|member| *member = newer.clone());
    }

    /// Takes in what the log says of who owns what.
    fn take_table(&mut self) {
        let applied = Arc::clone(&self.applied.borrow_and_update());
        // A node without the cluster's secret and rules would decide about other buckets, or allow everything; one with
        // those of another cluster too.
        let is_able = self.is_complete() && self.foreign_cluster().is_none() && self.alone_at.is_none();
        if !is_able || self.standing == Standing::Superseded || !applied.state.slots.is_assigned() {
            return;
        }
        // Rules are in force a little after they are applied.
        let revision = |domain: &str| applied.state.revision(domain).map(Revision::get);
        let newest = applied.state.domains.values().map(|history| history.current().revision.get()).max();
        let are_in_force = self.ownership.floors_are_of(revision, newest);
        let share = applied.state.shares.parts(self.ledger.id());
        self.ownership.set_share(applied.index, share, self.clock.now());
        let heritage = Inherited {
            context: &self.context,
            are_in_force,
            is_alone: applied.state.shares.rows().keys().all(|id| *id == self.ledger.id()),
        };
        let todo = self.ownership.observe(applied.index, &applied.state.slots, self.clock.now(), heritage);
        self.waits_for_disk = todo.waits_for_disk;
        if self.waits_for_disk {
            return;
        }
        if todo.reserved > 0 {
            self.ownership.floor_stats().count_begun(todo.reserved as u64);
            info!(slots = todo.reserved, "slots of a lost node begin from what it has told this one");
        }
        if todo.from_disk > 0 {
            self.ownership.floor_stats().count_from_disk(todo.from_disk as u64);
            info!(slots = todo.from_disk, "slots begin from the floors on the disk");
        }
        let same = |routes: &Arc<Routes>| {
            Arc::ptr_eq(&routes.rows, &applied.state.slots) && routes.rows_of == applied.state.members
        };
        if !self.router.routes().as_ref().is_some_and(same) {
            self.publish(&applied.state);
        }
        for moves in todo.send.chunk_by(|one, other| one.id == other.id) {
            self.tasks.spawn(hand_over::send(Arc::clone(&self.context), moves.to_vec()));
        }
        if self.standing == Standing::Joining {
            info!(members = applied.state.members.len(), "this node has the slot table");
            self.standing = Standing::Serving;
        }
    }

    /// Whether this node has what it needs to decide.
    fn is_complete(&self) -> bool {
        self.in_force.borrow().complete
    }

    async fn announce_group(&mut self) {
        let in_force = self.in_force.borrow_and_update().index;
        self.gossip.announce_group(self.ledger.group(), in_force).await;
    }

    fn state(&self) -> MemberState {
        match self.standing {
            Standing::Joining | Standing::Superseded => MemberState::Joining,
            Standing::Serving => MemberState::Serving,
            Standing::Leaving => MemberState::Leaving,
        }
    }

    async fn announce(&mut self) {
        let state = self.state();
        if state != self.announced {
            self.announced = state;
            self.gossip.announce(state).await;
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
                if member.state == MemberState::Leaving {
                    info!(node = %member.id.name, "a node has left: others have its slots");
                } else {
                    info!(node = %member.id.name, "a node has gone: the others take its slots over");
                }
                entry.insert(Lost { member: member.clone(), since: now });
            }
        }
        self.lost.retain(|_, lost| now.duration_since(lost.since) < SHOW_LOST_FOR);
        while self.lost.len() > MAX_LOST {
            self.lost.pop_first();
        }
    }

    /// How many slots are not where they should be, as far as this node can tell: the leader knows who has a session.
    fn misplaced(&mut self, routes: Option<&Routes>) -> usize {
        let Some(routes) = routes else { return 0 };
        let state = &self.applied.borrow().state;
        let is_live = |row: &&MemberRow| {
            !state.draining.contains(&row.node_start())
                && self
                    .live
                    .iter()
                    .any(|member| member.node == Some(row.id) && member.state != MemberState::Leaving)
        };
        let candidates: Vec<Candidate> =
            state.members.values().filter(is_live).map(Candidate::from).collect();
        if candidates.is_empty() {
            return 0;
        }
        // It takes some 4,096 draws of each member, and the log has entries that change nothing of this.
        let wanted = match self.placed.take() {
            Some(known) if known.0 == candidates => known,
            _ => {
                let owners = Placement::of(candidates.iter().cloned()).owners;
                (candidates, owners)
            }
        };
        let (_, wanted) = self.placed.insert(wanted);
        wanted.owners().zip(routes.table.owners()).filter(|(wanted, owner)| wanted != owner).count()
    }

    fn publish_status(&mut self) {
        let routes = self.router.routes();
        // Worked out before: both look at the status themselves.
        let waiting_for =
            self.foreign_cluster().or_else(|| self.outnumbered()).or_else(|| self.waiting_for_rules());
        let waiting_for = waiting_for.or_else(|| self.waiting_for_others());
        // It may be the reason.
        let waiting_for = waiting_for.map(|reason| match self.ledger.slow_network() {
            Some(slow) => format!("{reason} ({slow})"),
            None => reason,
        });
        let now = self.clock.now();
        let has_session = self.ownership.has_session(now);
        let misplaced = self.misplaced(routes.as_deref());
        self.alive
            .send_replace(Alive { members: self.live.clone(), name_conflict: self.name_conflict.clone() });
        self.status.send_modify(|status| {
            status.live = self.live.clone();
            status.name_conflict = self.name_conflict.clone();
            status.twins.clone_from(&self.twins);
            status.lost = self.lost.values().cloned().collect();
            status.state = self.state();
            status.has_session = has_session;
            status.moving = routes.as_ref().map_or(0, |routes| routes.targets.len());
            status.misplaced = misplaced;
            status.waiting_for = waiting_for;
            let table = routes.as_ref().map(|routes| Arc::clone(&routes.table));
            if status.table_since.is_none() && table.is_some() {
                status.table_since = Some(Instant::now());
            }
            status.table = table;
        });
    }
}
