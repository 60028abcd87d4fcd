//! The rights of one node, step by step.

mod crashes;
mod moves;
mod sessions;
mod shares;

use std::{sync::Arc, time::Duration};

use tidegate_limiter::{
    Cost,
    cluster::{Charge, Floor, Mark, Reserve, Rules},
    rules::{HashSecret, Mode},
};

use super::{
    observe::{NoBuckets, ToDo},
    *,
};
use crate::{
    ids::Leadership,
    owner::{
        acknowledged::Side,
        floor_replication::{Raise, Since},
        floors::SuccessorRef,
        kept::{KeptBuckets, KeptFloors, KeptSlot},
        node::Install,
        table::{Entry, SlotMove, Table},
    },
};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };
const LENGTH: Duration = Duration::from_secs(3);

fn start(node: u64) -> NodeStart {
    NodeStart { node, incarnation: 1 }
}

fn at(millis: u64) -> Nanos {
    Nanos::new((1_000_000 + millis) * 1_000_000)
}

fn key() -> KeyHash {
    KeyHash::from_raw(0x1234_5678_9abc_def0)
}

fn slot() -> SlotId {
    SlotId::of(key())
}

struct World {
    ownership: SlotOwnership,
    table: Table,
    index: u64,
}

impl World {
    fn owning() -> Self {
        let ownership = SlotOwnership::new(start(1), SessionTiming::of(LENGTH), at(0));
        ownership.set_share(0, Some(2), at(0));
        let mut world = Self { ownership, table: Table::default(), index: 0 };
        world.write(&Entry::Assign(vec![start(1); SLOTS]), at(0));
        world.ownership.watch(at(0));
        let question = world.ownership.ask(at(0));
        world.ownership.grant(question, 1, at(0));
        world
    }

    fn write(&mut self, entry: &Entry, now: Nanos) -> ToDo {
        self.index += 1;
        self.table.apply(self.index, LEADERSHIP, entry);
        self.ownership.observe(self.index, &Arc::new(self.table.clone()), now, NoBuckets)
    }

    /// The process runs from one millisecond to another one.
    fn watch(&self, from: u64, to: u64) {
        (from..to).step_by(200).for_each(|millis| self.ownership.watch(at(millis)));
    }

    fn claim(&self, consistency: Consistency, now: Nanos) -> Result<Claim, Unclaimed> {
        self.ownership.claim(slot(), consistency, now)
    }

    fn begin_move(&mut self) -> Vec<SlotMove> {
        self.write(&Entry::Prepare { slots: vec![slot().get()], to: start(2) }, at(1)).send
    }
}

/// Its first slot is the one of [`key`].
fn shares_since(world: &World, now: Nanos) -> Option<Nanos> {
    world.ownership.share(now).map(|share| share.since)
}

fn with_floors() -> (Rules, Charge, Reserve) {
    let text = "rules: [{ name: r, key: [], limit: 160/1h, takeover: reserve, on_owner_loss: deny }]";
    let rules = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap();
    let rule = &rules.rules("default")[0];
    let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
    let charge = Charge {
        key: key(),
        rule: rule.id(),
        limit,
        cost: Cost::ONE,
        mode: Mode::Enforce,
        floor: None,
        ban: None,
    };
    (rules, charge, reserve)
}

fn at_most(ownership: &SlotOwnership, charge: &Charge, reserve: Reserve, now: Nanos) -> Option<Floor> {
    let mut claim = ownership.claim(slot(), Consistency::Available, now).unwrap();
    ownership.bounds(&mut claim, charge, Some(reserve), now)
}

#[test]
fn a_charge_goes_no_further_than_both_the_successor_and_the_disk_have_acknowledged() {
    let (rules, charge, reserve) = with_floors();
    let ownership = SlotOwnership::new(start(1), SessionTiming::of(LENGTH), at(0));
    ownership.keep_floors_on_disk(true);
    ownership.set_reserves(Arc::clone(rules.reserves()), Since::new([("default".into(), 1)]));
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let all = (0..SLOTS as u16).collect();
    table.apply(2, LEADERSHIP, &Entry::Succeed(vec![(Some(start(2)), all)]));
    ownership.watch(at(0));
    ownership.observe(2, &Arc::new(table), at(0), NoBuckets);
    let now = at(1);
    assert_eq!(at_most(&ownership, &charge, reserve, now), None, "it is free");
    let named = SuccessorRef { epoch: 1, named: 0 };
    assert_eq!(ownership.not_on_disk().len(), SLOTS);
    let on_disk = ownership.bind(Side::Disk, &ownership.attempt(Side::Disk, &[(slot().get(), named)]));
    let least = reserve.at_most(&charge.limit, None, now);
    let bound = |mark| Some(Floor::between(None, Mark::default(), mark));
    assert_eq!(at_most(&ownership, &charge, reserve, now), bound(least));
    let mark = Mark::new(least.get() * 2);
    let raise = |successor_ref| Raise { key: key(), rule: charge.rule, mark, successor_ref };
    assert!(ownership.acknowledge(Side::Disk, &[raise(named)], now).is_empty());
    assert_eq!(at_most(&ownership, &charge, reserve, now), bound(mark));
    let told = vec![(slot().get(), 1), (slot().get() ^ 1, 0)];
    assert_eq!(ownership.ended_on_disk(told), [slot().get() ^ 1], "it has begun anew since");
    // The successor binds too, and has acknowledged nothing.
    let successor = SuccessorRef { epoch: 1, named: 2 };
    ownership.bind(Side::Successor, &ownership.attempt(Side::Successor, &[(slot().get(), successor)]));
    assert_eq!(at_most(&ownership, &charge, reserve, now), bound(least));
    ownership.acknowledge(Side::Successor, &[raise(successor)], now);
    assert_eq!(at_most(&ownership, &charge, reserve, now), bound(mark));
    // A disk of which all is known does not set the owner free; one that knows nothing does.
    ownership.completed(Side::Disk, on_disk.iter().copied());
    ownership.free(Side::Disk, on_disk[0].0, on_disk[0].1);
    assert!(ownership.is_bound_to_disk());
    assert_eq!(ownership.not_on_disk().len(), SLOTS - 1);
    ownership.release_disk();
    assert!(!ownership.is_bound_to_disk());
    assert_eq!(at_most(&ownership, &charge, reserve, now), bound(mark), "the successor binds on");
}

/// Found by a review: with all disks hung, `available` rules went on beyond what was on them, and all nodes were killed then.
#[test]
fn a_charge_goes_beyond_a_successor_that_is_lost_with_the_leader_and_never_beyond_a_disk_that_hangs() {
    let (rules, charge, reserve) = with_floors();
    let ownership = SlotOwnership::new(start(1), SessionTiming::of(LENGTH), at(0));
    ownership.keep_floors_on_disk(true);
    ownership.set_reserves(Arc::clone(rules.reserves()), Since::new([("default".into(), 1)]));
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let all = (0..SLOTS as u16).collect();
    table.apply(2, LEADERSHIP, &Entry::Succeed(vec![(Some(start(2)), all)]));
    ownership.watch(at(0));
    ownership.observe(2, &Arc::new(table), at(0), NoBuckets);
    let now = at(1);
    assert!(!ownership.has_session(now));
    let successor = SuccessorRef { epoch: 1, named: 2 };
    ownership.bind(Side::Successor, &ownership.attempt(Side::Successor, &[(slot().get(), successor)]));
    let bound = Floor::between(None, Mark::default(), reserve.at_most(&charge.limit, None, now));
    assert_eq!(at_most(&ownership, &charge, reserve, now), Some(bound));
    assert!(ownership.is_silent(&[slot().get()], now));
    assert_eq!(at_most(&ownership, &charge, reserve, now), None, "the successor is lost");
    let named = SuccessorRef { epoch: 1, named: 0 };
    ownership.bind(Side::Disk, &ownership.attempt(Side::Disk, &[(slot().get(), named)]));
    for hangs in [false, true] {
        ownership.disk_is_silent(hangs);
        assert_eq!(at_most(&ownership, &charge, reserve, now), Some(bound), "{hangs}");
        assert_eq!(ownership.waits_in_vain(key()), hangs);
    }
    ownership.disk_is_heard_again();
    assert_eq!(at_most(&ownership, &charge, reserve, now), Some(bound));
    assert!(!ownership.waits_in_vain(key()));
    ownership.disk_is_silent(true);
    ownership.release_disk();
    assert_eq!(at_most(&ownership, &charge, reserve, now), None);
    assert!(!ownership.waits_in_vain(key()));
}

/// What the disk has, as a test has made it up.
struct OnDisk(Vec<(KeyHash, Mark)>);

impl Heritage for OnDisk {
    fn take_floors(&mut self, _slots: &[usize], _unheard: Duration) -> bool {
        false
    }

    fn take_from_disk(&mut self, _slots: &[usize], _puts: bool) -> Option<Vec<(KeyHash, Mark)>> {
        Some(self.0.clone())
    }

    fn is_alone(&self) -> bool {
        true
    }
}

#[test]
fn a_slot_that_begins_from_the_disk_is_bound_to_it_from_its_first_charge_on() {
    let (rules, charge, reserve) = with_floors();
    let since = Since::new([("default".into(), 1)]);
    let [second, third] = [2, 3].map(|incarnation| NodeStart { incarnation, ..start(1) });
    let expire = |lapsed: NodeStart, to: NodeStart| Entry::Expire {
        leadership: LEADERSHIP,
        lapsed: vec![lapsed],
        slots: (0..SLOTS as u16).map(|slot| (slot, to)).collect(),
    };
    let now = at(5);
    let mark = Mark::new(reserve.at_most(&charge.limit, None, now).get() * 2);
    for (revision, has_read, begins) in [(1, true, true), (2, true, false), (1, false, false)] {
        let mut table = Table::default();
        table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
        let ownership = SlotOwnership::new(third, SessionTiming::of(LENGTH), at(0));
        ownership.keep_floors_on_disk(false);
        ownership.set_reserves(Arc::clone(rules.reserves()), Since::new([("default".into(), revision)]));
        let floors = KeptFloors {
            fingerprint: rules.reserves().fingerprint(),
            since: since.number(),
            before: None,
            earlier: Vec::new(),
            heard: at(0),
            shown: at(0),
        };
        let kept = KeptSlot { start: start(1), epoch: 1, saved: None, floors: Some(floors) };
        let slots = (0..SLOTS as u16).map(|slot| (slot, kept.clone())).collect();
        ownership.keep(Kept { slots, readers: if has_read { vec![second] } else { Vec::new() } });
        ownership.watch(at(0));
        // The start between had the slots, and ended before the disk had its name.
        table.apply(2, LEADERSHIP, &expire(start(1), second));
        ownership.observe(2, &Arc::new(table.clone()), at(1), OnDisk(Vec::new()));
        let renamed = ownership.renamed_on_disk().unwrap();
        assert_eq!(renamed.len(), if has_read { SLOTS } else { 0 });
        assert!(ownership.keeps_something());
        table.apply(3, LEADERSHIP, &expire(second, third));
        let table = Arc::new(table);
        let observe = || ownership.observe(3, &table, now, OnDisk(vec![(key(), mark)]));
        let mut todo = observe();
        assert_eq!(todo.waits_for_disk, revision == 2, "{revision} {has_read}");
        if todo.waits_for_disk {
            let claimed = ownership.claim(slot(), Consistency::Available, now);
            assert_eq!(claimed.unwrap_err(), Unclaimed::Elsewhere);
            assert!(ownership.take_refused_on_disk(Duration::from_secs(2), true, now).is_empty());
            let refused = ownership.take_refused_on_disk(Duration::ZERO, true, now);
            assert_eq!(refused.len(), SLOTS);
            // While the disk is made to forget them they begin neither way.
            ownership.set_reserves(Arc::clone(rules.reserves()), since.clone());
            assert!(observe().waits_for_disk);
            ownership.dropped_on_disk(&refused);
            todo = observe();
            assert!(!todo.waits_for_disk);
        }
        assert_eq!(todo.from_disk, if begins { SLOTS } else { 0 }, "{revision} {has_read}");
        assert_eq!(ownership.is_bound_to_disk(), begins);
        assert!(!ownership.keeps_something());
        let found = at_most(&ownership, &charge, reserve, now);
        if begins {
            let known = reserve.at_least(&charge.limit, now, now).unwrap();
            assert_eq!(found, Some(Floor::between(None, known, mark)));
            assert!(ownership.not_on_disk().iter().all(|one| one.inherited.is_some()));
        } else {
            assert_eq!(found, Some(Floor::empty_at(now)), "nobody can tell");
        }
    }
}

#[test]
fn a_slot_waits_for_the_rules_of_the_log_and_then_begins_from_the_disk() {
    let (rules, charge, reserve) = with_floors();
    let second = NodeStart { incarnation: 2, ..start(1) };
    let since = |revision| Since::new([("default".into(), revision)]);
    let ownership = SlotOwnership::new(second, SessionTiming::of(LENGTH), at(0));
    ownership.keep_floors_on_disk(true);
    let floors = KeptFloors {
        fingerprint: rules.reserves().fingerprint(),
        since: since(4).number(),
        before: None,
        earlier: Vec::new(),
        heard: at(0),
        shown: at(0),
    };
    let kept = KeptSlot { start: start(1), epoch: 1, saved: None, floors: Some(floors) };
    let slots = (0..SLOTS as u16).map(|slot| (slot, kept.clone())).collect();
    ownership.keep(Kept { slots, readers: Vec::new() });
    ownership.watch(at(0));
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let slots = (0..SLOTS as u16).map(|slot| (slot, second)).collect();
    table.apply(5, LEADERSHIP, &Entry::Expire { leadership: LEADERSHIP, lapsed: vec![start(1)], slots });
    let (table, mark) = (Arc::new(table), Mark::new(u64::MAX / 2));
    let observe = |now| ownership.observe(5, &table, now, OnDisk(vec![(key(), mark)]));
    // Those of an earlier revision are in force, with the same floors or without any.
    for (reserves, revision) in [(Arc::clone(rules.reserves()), 3), (Arc::default(), 3)] {
        ownership.set_reserves(reserves, since(revision));
        assert!(observe(at(1)).waits_for_disk);
        assert_eq!(ownership.applied(), 0, "no session counts for this table yet");
        assert!(ownership.take_refused_on_disk(Duration::from_secs(2), true, at(1)).is_empty());
    }
    ownership.set_reserves(Arc::clone(rules.reserves()), since(4));
    let todo = observe(at(1));
    assert_eq!((todo.waits_for_disk, todo.from_disk), (false, SLOTS));
    assert!(
        ownership.is_bound_to_disk()
            && ownership.take_refused_on_disk(Duration::ZERO, true, at(9)).is_empty()
    );
    let known = reserve.at_least(&charge.limit, at(1), at(1)).unwrap();
    let found = at_most(&ownership, &charge, reserve, at(1));
    assert_eq!(found, Some(Floor::between(None, known, mark)));
}
