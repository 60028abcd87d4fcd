//! Keeps the floors of this node's buckets on its disk, ahead of spending. What that is worth stands in
//! [`crate::owner::floors`] and `owner::floor_replication::disk`.
//!
//! One commit at a time: what comes up meanwhile goes with the next one. Floors that charges wait for are written at once, the
//! others every 20 ms.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_limiter::cluster::{Held, LetGo};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    context::Context,
    disk_time::DiskTime,
    floor_file::{Change, DiskFloor, DiskLetGo, DiskState, FileError, FloorFile, SlotRecord},
    floor_task::unsent,
    from_disk::DiskFloors,
};
use crate::{
    fabric,
    owner::{
        acknowledged::Side,
        floor_replication::{DiskSlot, Raise},
        floors::{Agreement, SuccessorRef},
        takeover::TakeoverState,
    },
};

/// How often floors are written that nobody waits for.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// A node that has floors on its disk and writes none says that it is alive.
const STAMP_EVERY: Duration = Duration::from_secs(1);
/// A disk that does not answer for so long is silent.
const SILENT_AFTER: Duration = Duration::from_millis(300);
/// One that does not answer for so long hangs: charges that would have to wait for it are denied at once.
const HANGS_AFTER: Duration = Duration::from_secs(2);
/// How long a node that starts waits for the log to say whose its slots are.
const ADOPT_WITHIN: Duration = Duration::from_secs(3);
/// How long slots wait for the rules of the log to be in force, so that they can begin from the disk.
const RULES_WITHIN: Duration = Duration::from_secs(2);
/// Slots that are to be kept on the disk are waited for until no more have come for so long, or the longer time has passed: while slots
/// move, the log needs the disk.
const SETTLE: Duration = Duration::from_millis(250);
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// A disk that has failed is tried again after this.
const RETRY: Duration = Duration::from_secs(15);
/// How often it is tried to remove what a failed disk says.
const REMOVE_EVERY: Duration = Duration::from_secs(1);
/// Slots that there is no room for are tried again after this.
const POSTPONE: Duration = Duration::from_secs(15);
/// Floors in one commit.
const AT_ONCE: usize = 1 << 14;

/// Runs until it is dropped.
pub(crate) async fn keep(context: Arc<Context>, floors: Arc<DiskFloors>, file: Option<FloorFile>) {
    let mut task = DiskTask {
        context,
        floors,
        file,
        wants: 0,
        written: Instant::now(),
        postponed_until: Instant::now(),
        has_left: true,
        unsettled: None,
        seen: None,
        dropped: None,
    };
    loop {
        let outcome = if task.file.is_some() { task.step().await } else { task.make_anew().await };
        if let Err(reason) = outcome {
            task.give_up(&reason).await;
        }
    }
}

struct DiskTask {
    context: Arc<Context>,
    floors: Arc<DiskFloors>,
    /// `None`: there is none, and the disk knows of no slot.
    file: Option<FloorFile>,
    /// How many charges had waited when it was last written.
    wants: u64,
    written: Instant,
    postponed_until: Instant,
    /// Whether the file may still have slots of earlier starts.
    has_left: bool,
    /// Since when slots are to be kept, when more came for the last time, and the version then.
    unsettled: Option<(Instant, Instant, u64)>,
    /// The version at which nothing was to be done but to write what is spent.
    seen: Option<u64>,
    /// The version at which the file had no slot any more that this start had owned before.
    dropped: Option<u64>,
}

impl DiskTask {
    fn time(&self) -> &DiskTime {
        &self.floors.time
    }

    async fn step(&mut self) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        if !ownership.is_adopted() {
            return self.adopt().await;
        }
        self.drop_refused().await?;
        if self.has_left && !ownership.keeps_something() {
            self.drop_left().await?;
        }
        let version = ownership.version();
        if self.dropped != Some(version) {
            self.drop_ended().await?;
            self.dropped = Some(version);
        }
        if ownership.reserves().is_empty()
            || self.seen == Some(version)
            || Instant::now() < self.postponed_until
        {
            return self.go_on().await;
        }
        let open = ownership.not_on_disk();
        if open.is_empty() {
            self.seen = Some(version);
            return self.go_on().await;
        }
        let (inherited, others): (Vec<DiskSlot>, Vec<DiskSlot>) =
            open.into_iter().partition(|one| one.inherited.is_some());
        if !inherited.is_empty() {
            self.name_inherited(&inherited).await?;
        }
        if others.is_empty() {
            return Ok(());
        }
        if !self.is_settled(version) {
            return self.go_on().await;
        }
        self.unsettled = None;
        self.begin(&others).await
    }

    fn is_settled(&mut self, version: u64) -> bool {
        let now = Instant::now();
        let (since, changed, known) = self.unsettled.get_or_insert((now, now, version));
        if *known != version {
            (*changed, *known) = (now, version);
        }
        now - *changed >= SETTLE || now - *since >= SETTLE_WITHIN
    }

    /// Slots that are to begin without what the file has of them, because that is of other rules: first it goes.
    async fn drop_refused(&mut self) -> Result<(), FileError> {
        let context = Arc::clone(&self.context);
        let lags = context.rules.progress.borrow().index < context.group.applied.borrow().index;
        let patience = if lags { RULES_WITHIN } else { Duration::ZERO };
        let refused = context.ownership.take_refused_on_disk(
            patience,
            self.floors.has_left(),
            context.group.clock.now(),
        );
        if refused.is_empty() {
            return Ok(());
        }
        warn!(
            slots = refused.len(),
            "the floors on the disk are of other rules than those in force: they do not count"
        );
        let slots = refused.iter().map(|slot| (*slot, None)).collect();
        self.commit(Change { slots, ..Change::default() }).await?;
        context.ownership.dropped_on_disk(&refused);
        Ok(())
    }

    /// No slot begins with what the file has of earlier starts any more: what nothing is bound to goes.
    async fn drop_left(&mut self) -> Result<(), FileError> {
        self.floors.forget();
        let others = self.file.as_ref().map_or_else(Vec::new, FloorFile::slots_of_others);
        let others = self.context.ownership.unbound_on_disk(others);
        let slots = others.into_iter().map(|slot| (slot, None)).collect();
        self.commit(Change { slots, ..Change::default() }).await?;
        self.has_left = false;
        Ok(())
    }

    /// Slots that are another's now, or came back since: nothing begins with what the file has of them, and their floors are cleaned
    /// out of the log.
    async fn drop_ended(&mut self) -> Result<(), FileError> {
        let own = self.file.as_ref().map_or_else(Vec::new, FloorFile::slots_of_me);
        let ended = self.context.ownership.ended_on_disk(own);
        if ended.is_empty() {
            return Ok(());
        }
        let slots = ended.into_iter().map(|slot| (slot, None)).collect();
        self.commit(Change { slots, ..Change::default() }).await
    }

    /// Names the slots that an earlier start had begun as the log does, before this one can get any.
    async fn adopt(&mut self) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        let until = Instant::now() + ADOPT_WITHIN;
        let mut renamed = ownership.renamed_on_disk();
        while renamed.is_none() && !(self.is_complete() && Instant::now() >= until) {
            sleep(WRITE_EVERY).await;
            renamed = ownership.renamed_on_disk();
        }
        let named = |(slot, start, epoch): (u16, _, _)| {
            let known = self.file.as_ref().and_then(|file| file.slot(slot))?;
            Some((slot, Some(SlotRecord { start, epoch, ..known.clone() })))
        };
        // Without a table nothing was begun.
        let is_adopted = renamed.is_some();
        let slots: Vec<_> = renamed.unwrap_or_default().into_iter().filter_map(named).collect();
        if is_adopted {
            self.commit(Change { slots, is_adopted, ..Change::default() }).await?;
        }
        ownership.set_adopted();
        Ok(())
    }

    /// Whether this node has the rules, and would take part.
    fn is_complete(&self) -> bool {
        self.context.rules.progress.borrow().complete
    }

    /// Writes what has come up; or waits for it.
    async fn go_on(&mut self) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        if ownership.wants() == self.wants {
            let _ = timeout(WRITE_EVERY, ownership.urgent(self.wants)).await;
        }
        self.wants = ownership.wants();
        let raises = ownership.take_disk_raises(AT_ONCE);
        let is_due = self.written.elapsed() >= STAMP_EVERY && ownership.is_bound_to_disk();
        if raises.is_empty() && !is_due {
            return Ok(());
        }
        self.write(&raises).await
    }

    /// Has the disk know enough to begin from floors.
    async fn begin(&mut self, open: &[DiskSlot]) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        let started = Instant::now();
        let slots: Vec<(u16, SuccessorRef)> = open.iter().map(|one| (one.slot, one.successor_ref)).collect();
        let agreements = ownership.attempt(Side::Disk, &slots);
        let free = ownership.forget_on_disk(&slots);
        let file = self.file.as_ref().ok_or("there is no file")?;
        let begun = |(slot, agreement): &(u16, Agreement)| {
            // What has been acknowledged of a slot to which this node is bound goes on to count.
            let is_free = free.binary_search(slot).is_ok();
            let known = if is_free { Some(file.next()) } else { file.slot(*slot).map(|record| record.from) };
            let from = known.ok_or("the file has lost a slot")?;
            Ok((*slot, Some(record_of(agreement, from, None))))
        };
        let begun = agreements.iter().map(begun).collect::<Result<Vec<_>, &str>>()?;
        self.commit(Change { slots: begun, ..Change::default() }).await?;
        // Most of it goes ahead, so that few charges have to wait for their turn.
        let has_room = self.write_all(&slots).await?;
        let bound = ownership.bind(Side::Disk, &agreements);
        if !(has_room && self.write_all(&slots).await?) {
            // The disk knows that this attempt has begun, and never that it is complete.
            warn!(
                slots = bound.len(),
                "more buckets than floors can be kept of: these slots are not kept on the disk"
            );
            bound.iter().for_each(|(slot, agreement)| ownership.free(Side::Disk, *slot, *agreement));
            self.postponed_until = Instant::now() + POSTPONE;
            return Ok(());
        }
        let named = self.complete(&bound).await?;
        ownership.completed(Side::Disk, named.iter().copied());
        debug!(slots = named.len(), took = ?started.elapsed(), "the disk knows all");
        Ok(())
    }

    /// Slots that began with what is on the disk: what is missing there is written, and they get the name of this start.
    async fn name_inherited(&mut self, slots: &[DiskSlot]) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        let all: Vec<(u16, SuccessorRef)> = slots.iter().map(|one| (one.slot, one.successor_ref)).collect();
        let agreements: Vec<(u16, Agreement)> =
            slots.iter().filter_map(|one| Some((one.slot, one.inherited?))).collect();
        if !self.write_all(&all).await? {
            // It is bound to what is there until the file is gone.
            return Err("more buckets than floors can be kept of".into());
        }
        let named = self.complete(&agreements).await?;
        info!(slots = named.len(), "slots that began from the floors on the disk are kept there again");
        ownership.inherited_are_complete(&named);
        Ok(())
    }

    /// Writes that all floors of these slots are here. Those for which that still counts.
    async fn complete(
        &mut self,
        agreements: &[(u16, Agreement)],
    ) -> Result<Vec<(u16, Agreement)>, FileError> {
        let now = self.context.group.clock.now();
        let states = self.context.ownership.takeover_states(Side::Disk, agreements, now);
        let record = |(slot, agreement, state): &(u16, Agreement, TakeoverState)| {
            let from = self.file.as_ref()?.slot(*slot)?.from;
            Some((*slot, Some(record_of(agreement, from, Some(self.state_on_disk(state))))))
        };
        let slots: Vec<_> = states.iter().filter_map(record).collect();
        assert_eq!(slots.len(), states.len(), "the file knows of each slot that is bound to it");
        let let_go = Some(self.let_go());
        self.commit(Change { slots, let_go, ..Change::default() }).await?;
        Ok(states.into_iter().map(|(slot, agreement, _)| (slot, agreement)).collect())
    }

    fn state_on_disk(&self, state: &TakeoverState) -> DiskState {
        let at = |at| self.time().to_disk(at);
        DiskState {
            fingerprint: state.fingerprint,
            since: state.since,
            before: state.before.map(at),
            earlier: state.earlier.iter().map(|(heard, begun)| (at(*heard), at(*begun))).collect(),
        }
    }

    fn let_go(&self) -> DiskLetGo {
        let now = self.context.group.clock.now();
        let on_disk = |LetGo { rule, held }: LetGo| {
            let is_of_window = matches!(held, Held::Window(_));
            let kind = tidegate_limiter::cluster::KeyHash::from_raw(u64::from(is_of_window));
            Some((rule.get(), is_of_window, self.time().mark_to_disk(kind, held.mark(now)?).get()))
        };
        let known = self.context.buckets.store.let_go(now).into_iter().filter_map(on_disk);
        // What no slot has begun with yet is to be there for the next start, too.
        let mut marks: BTreeMap<(u64, bool), u64> = BTreeMap::new();
        for (rule, is_of_window, mark) in known.chain(self.floors.let_go_left()) {
            let most = marks.entry((rule, is_of_window)).or_default();
            *most = mark.max(*most);
        }
        marks.into_iter().map(|((rule, is_of_window), mark)| (rule, is_of_window, mark)).collect()
    }

    /// Writes all that is known of these slots and not acknowledged. False: there is no room for it.
    async fn write_all(&mut self, slots: &[(u16, SuccessorRef)]) -> Result<bool, FileError> {
        let found = unsent(&self.context, Side::Disk, slots).await.ok_or("the buckets cannot be read")?;
        let Some(found) = found else { return Ok(false) };
        for part in found.chunks(AT_ONCE) {
            self.wants = self.context.ownership.wants();
            let mut part = part.to_vec();
            part.extend(self.context.ownership.take_disk_raises(AT_ONCE));
            self.write(&part).await?;
        }
        Ok(true)
    }

    async fn write(&mut self, raises: &[Raise]) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        let floor = |one: &Raise| {
            let mark = self.time().mark_to_disk(one.key, one.mark);
            DiskFloor { key: one.key, rule: one.rule.get(), mark }
        };
        let floors = raises.iter().map(floor).collect();
        self.commit(Change { floors, ..Change::default() }).await?;
        ownership.floor_stats().count_on_disk(raises.len() as u64);
        let full = ownership.acknowledge(Side::Disk, raises, self.context.group.clock.now());
        if full.is_empty() { Ok(()) } else { self.release(full).await }
    }

    /// There is no room for what these slots need: they are not kept on the disk any more.
    async fn release(&mut self, slots: Vec<u16>) -> Result<(), FileError> {
        let ownership = Arc::clone(&self.context.ownership);
        let full: std::collections::BTreeSet<u16> = slots.into_iter().collect();
        let named = ownership.named_on_disk(&full);
        warn!(
            slots = named.len(),
            "more buckets than floors can be kept of: these slots are not kept on the disk"
        );
        let bound = ownership.bind(Side::Disk, &ownership.attempt(Side::Disk, &named));
        let Some(next) = self.file.as_ref().map(FloorFile::next) else { return Ok(()) };
        let begun = |(slot, agreement): &(u16, Agreement)| (*slot, Some(record_of(agreement, next, None)));
        self.commit(Change { slots: bound.iter().map(begun).collect(), ..Change::default() }).await?;
        bound.iter().for_each(|(slot, agreement)| ownership.free(Side::Disk, *slot, *agreement));
        self.postponed_until = Instant::now() + POSTPONE;
        Ok(())
    }

    /// Writes it, however long that takes: a disk that hangs keeps this node bound to what it has acknowledged.
    async fn commit(&mut self, change: Change) -> Result<(), FileError> {
        let mut file = self.file.take().ok_or("there is no file")?;
        let (context, floors) = (Arc::clone(&self.context), Arc::clone(&self.floors));
        let started = Instant::now();
        let work = fabric::blocking(move || {
            let (ownership, clock) = (&context.ownership, context.group.clock);
            let (now, stamp) = (clock.now(), floors.time.stamp(clock));
            let counts = |floor: &DiskFloor| {
                let mark = floors.time.mark_from_disk(floor.key, floor.mark);
                let known = ownership.acknowledged_by(Side::Disk, floor.key);
                !mark.is_over(now) && known.is_none_or(|known| known <= mark)
            };
            let outcome = file.commit(&change, &stamp, counts, ownership.known_floors());
            ownership.floor_stats().set_disk_bytes(file.bytes());
            (file, outcome)
        });
        tokio::pin!(work);
        let mut is_silent = false;
        let done = loop {
            if let Ok(done) = timeout(SILENT_AFTER, &mut work).await {
                break done;
            }
            if !is_silent {
                is_silent = true;
                warn!("the disk does not answer: charges wait for their floors to be written");
            }
            // Slots may have begun meanwhile.
            self.context.ownership.disk_is_silent(started.elapsed() >= HANGS_AFTER);
        };
        if is_silent {
            warn!(after = ?started.elapsed(), "the disk answers again");
            self.context.ownership.disk_is_heard_again();
        }
        let (file, outcome) = done.map_err(|panicked| FileError::from(panicked.to_string()))?;
        self.context.ownership.floor_stats().count_commit(started.elapsed());
        outcome?;
        (self.file, self.written) = (Some(file), Instant::now());
        Ok(())
    }

    /// The disk has failed, and nobody knows what it has: it is made to know nothing, and this node is free.
    async fn give_up(&mut self, reason: &FileError) {
        let ownership = Arc::clone(&self.context.ownership);
        warn!(%reason, "floors cannot be written to the disk: its file of floors is removed, and made again later");
        ownership.floor_stats().count_disk_error();
        self.file = None;
        loop {
            let directory = self.floors.directory.clone();
            let removed = fabric::blocking(move || FloorFile::remove(&directory)).await;
            match removed.map_err(|panicked| std::io::Error::other(panicked.to_string())).flatten() {
                Ok(()) => break,
                Err(error) => {
                    warn!(%error, "the file of floors cannot be removed: charges keep to what it has");
                    ownership.disk_is_silent(true);
                    sleep(REMOVE_EVERY).await;
                }
            }
        }
        // Not before: while the file is there, the next start may begin from it what this one has begun without it.
        self.floors.forget();
        ownership.release_disk();
        ownership.floor_stats().set_disk_bytes(0);
        ownership.set_adopted();
        (self.has_left, self.seen, self.dropped) = (false, None, None);
        sleep(RETRY).await;
    }

    /// Makes the file again.
    async fn make_anew(&mut self) -> Result<(), FileError> {
        let (floors, context) = (Arc::clone(&self.floors), Arc::clone(&self.context));
        let (me, clock) = (context.ownership.me(), context.group.clock);
        let make = move || FloorFile::create(&floors.directory, me, &floors.time.stamp(clock));
        let made = fabric::blocking(make).await.map_err(|panicked| FileError::from(panicked.to_string()))?;
        self.file = Some(made?);
        info!("floors are kept on the disk again");
        Ok(())
    }
}

fn record_of(agreement: &Agreement, from: u64, complete: Option<DiskState>) -> SlotRecord {
    let Agreement { owner, successor_ref, .. } = *agreement;
    SlotRecord { start: owner, epoch: successor_ref.epoch, from, complete, heard: None }
}
