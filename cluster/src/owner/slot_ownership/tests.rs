//! The rights of one node, step by step.

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
        node::{Install, KeptBuckets, KeptFloors, KeptSlot},
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

fn shares_since(world: &World, now: Nanos) -> Option<Nanos> {
    world.ownership.share(now).map(|share| share.since)
}

#[test]
fn a_strict_charge_needs_the_session_before_and_after() {
    let world = World::owning();
    let claim = world.claim(Consistency::Strict, at(2900)).unwrap();
    assert!(world.ownership.confirm(&claim, key(), at(2940)));
    assert!(!world.ownership.confirm(&claim, key(), at(2950)));
    assert_eq!(world.claim(Consistency::Strict, at(2950)).unwrap_err(), Unclaimed::Lapsed);
}

#[test]
fn an_available_owner_goes_on_without_a_session_but_not_after_it_was_stopped() {
    let world = World::owning();
    world.watch(0, 10_000);
    let claim = world.claim(Consistency::Available, at(10_000)).unwrap();
    let question = world.ownership.ask(at(10_000));
    // Stopped between the charge and the second look.
    assert!(!world.ownership.confirm(&claim, key(), at(14_000)));
    world.ownership.watch(at(14_000));
    assert_eq!(world.claim(Consistency::Available, at(14_000)).unwrap_err(), Unclaimed::Lapsed);
    // A grant that was asked for before does not tell what happened meanwhile.
    world.ownership.grant(question, 1, at(10_000));
    world.ownership.watch(at(14_200));
    assert!(world.claim(Consistency::Available, at(14_200)).is_err());
    let question = world.ownership.ask(at(14_300));
    world.ownership.grant(question, 1, at(14_300));
    world.ownership.watch(at(14_400));
    assert!(world.claim(Consistency::Available, at(14_400)).is_ok());
}

/// Review H7: others get its slots, and it cannot know since when.
#[test]
fn a_node_that_the_leader_finds_behind_decides_nothing_after_its_session_whatever_the_rule_says() {
    let mut world = World::owning();
    world.ownership.set_share(1, Some(3), at(0));
    world.watch(0, 1_000);
    world.ownership.is_behind(5, at(1_000));
    world.watch(1_000, 2_900);
    assert!(world.claim(Consistency::Available, at(2_200)).is_ok(), "nobody else can have the slot yet");
    assert!(world.claim(Consistency::Strict, at(2_900)).is_ok());
    assert_eq!(shares_since(&world, at(2_900)), None);
    assert_eq!(world.ownership.lag(at(2_900)), None, "its session lasts");
    assert!(world.claim(Consistency::Available, at(2_950)).is_err());
    world.watch(2_900, 20_000);
    assert_eq!(world.claim(Consistency::Available, at(20_000)).unwrap_err(), Unclaimed::Lapsed);
    assert_eq!(world.ownership.lag(at(20_000)), Some((5, 1)));
    // It applies what it lacked, and nobody leads: it goes on after as long as a session lasts.
    while world.index < 5 {
        world.write(&Entry::Succeed(Vec::new()), at(20_000));
    }
    assert_eq!(world.ownership.lag(at(20_000)), None);
    world.watch(20_000, 22_800);
    assert!(world.claim(Consistency::Available, at(22_800)).is_err());
    world.watch(22_800, 23_400);
    assert!(world.claim(Consistency::Available, at(23_400)).is_ok());
}

/// A node that can have no session, because its disk has failed: as long as a leader lives, which
/// says so, it ends with its session; without one it goes on, for nobody gets its slots.
#[test]
fn a_node_that_can_have_no_session_ends_with_its_last_one_as_long_as_there_is_a_leader() {
    let world = World::owning();
    world.watch(0, 1_000);
    for now in (1_000..20_000).step_by(100) {
        world.ownership.watch(at(now));
        world.ownership.is_taken_over(at(now));
        let claimed = world.claim(Consistency::Available, at(now)).is_ok();
        assert!(claimed || now >= 2_900, "nobody else can have the slot yet: {now}");
        assert!(!claimed || now < 2_950, "somebody may have the slot: {now}");
    }
    world.watch(20_000, 22_800);
    assert!(world.claim(Consistency::Available, at(22_800)).is_err());
    world.watch(22_800, 23_400);
    assert!(world.claim(Consistency::Available, at(23_400)).is_ok(), "nobody leads");
}

#[test]
fn a_node_that_was_behind_goes_on_with_its_next_session() {
    let mut world = World::owning();
    world.watch(0, 1_000);
    world.ownership.is_behind(2, at(1_000));
    world.watch(1_000, 5_000);
    let question = world.ownership.ask(at(5_000));
    world.ownership.grant(question, 2, at(5_000));
    world.watch(5_000, 5_200);
    assert!(world.claim(Consistency::Available, at(5_200)).is_err(), "it has not applied what it lacks");
    world.write(&Entry::Succeed(Vec::new()), at(5_200));
    let question = world.ownership.ask(at(5_200));
    world.ownership.grant(question, 2, at(5_200));
    world.watch(5_200, 5_600);
    assert!(world.claim(Consistency::Available, at(5_600)).is_ok());
}

/// Found by review: where the log is always a little behind, such a grant let nobody go on until the next one.
#[test]
fn a_grant_counts_for_all_rules_once_the_log_is_applied_up_to_it() {
    let mut world = World::owning();
    world.watch(0, 1_000);
    world.ownership.is_behind(2, at(1_000));
    world.watch(1_000, 5_000);
    let question = world.ownership.ask(at(5_000));
    world.ownership.grant(question, 2, at(5_000));
    assert!(world.claim(Consistency::Available, at(5_050)).is_err(), "it has not applied what it lacks");
    world.write(&Entry::Succeed(Vec::new()), at(5_060));
    assert!(world.claim(Consistency::Strict, at(5_070)).is_ok());
    assert!(world.claim(Consistency::Available, at(5_070)).is_ok());
}

#[test]
fn without_a_quorum_a_node_that_was_stopped_goes_on_after_a_session() {
    let world = World::owning();
    world.watch(14_000, 18_000);
    assert!(world.claim(Consistency::Available, at(17_900)).is_ok());
}

#[test]
fn shares_are_given_out_only_by_who_can_know_that_an_owner_is_lost() {
    let world = World::owning();
    world.watch(0, 1000);
    assert_eq!(shares_since(&world, at(900)), None, "it has just begun");
    assert_eq!(shares_since(&world, at(1000)), Some(at(1000)));
    assert_eq!(shares_since(&world, at(14_000)), None, "it was stopped, and nobody has noticed yet");
    world.ownership.watch(at(14_000));
    let question = world.ownership.ask(at(14_100));
    world.ownership.grant(question, 1, at(14_100));
    world.watch(14_200, 15_000);
    assert_eq!(shares_since(&world, at(14_900)), None, "its links may not be back");
    assert_eq!(shares_since(&world, at(15_000)), Some(at(15_000)));
    // Without a quorum.
    world.watch(20_000, 23_000);
    assert_eq!(shares_since(&world, at(23_000)), None);
    world.watch(23_000, 23_400);
    assert_eq!(shares_since(&world, at(23_400)), Some(at(23_200)));
}

#[test]
fn who_has_just_begun_gives_out_shares_when_it_knows_who_owns_what_and_its_links_are_there() {
    let world = |granted: Option<u64>, linked: Option<u64>| {
        let mut world = World {
            ownership: SlotOwnership::new(start(2), SessionTiming::of(LENGTH), at(0)),
            table: Table::default(),
            index: 0,
        };
        world.ownership.set_share(0, Some(2), at(0));
        for millis in (0..6000).step_by(100) {
            world.ownership.watch(at(millis));
            if granted == Some(millis) {
                let question = world.ownership.ask(at(millis));
                world.ownership.grant(question, 1, at(millis));
                // It learns what it was granted for, and has to apply that first.
                world.write(&Entry::Assign(vec![start(1); SLOTS]), at(millis));
                let question = world.ownership.ask(at(millis));
                world.ownership.grant(question, 1, at(millis));
            }
            if linked == Some(millis) {
                world.ownership.links_begin(at(millis));
            }
        }
        shares_since(&world, at(6000))
    };
    assert_eq!(world(Some(300), None), Some(at(1000)));
    assert_eq!(world(Some(1900), None), Some(at(2000)), "the table was an old one until then");
    assert_eq!(world(None, None), Some(at(3100)), "without a quorum");
    assert_eq!(world(Some(300), Some(2000)), Some(at(3000)));
    assert_eq!(world(None, Some(2500)), Some(at(3500)));
}

#[test]
fn a_grant_after_a_stop_does_not_let_shares_count_from_before_it() {
    let world = World::owning();
    world.watch(0, 1000);
    world.watch(14_000, 16_000);
    assert_eq!(shares_since(&world, at(15_900)), None);
    let question = world.ownership.ask(at(15_900));
    world.ownership.grant(question, 1, at(15_900));
    world.watch(16_000, 16_200);
    assert_eq!(shares_since(&world, at(16_100)), Some(at(16_000)));
}

#[test]
fn shares_of_a_slot_without_a_session_count_from_when_no_new_leader_has_granted_one() {
    let mut world = World::owning();
    let session = SessionTiming::of(LENGTH).node;
    assert_eq!(world.ownership.lapsed_since(), at(0).saturating_add(session * 2));
    for to in [2, 1] {
        let lapsed = vec![start(3 - to)];
        let slots = vec![(slot().get(), start(to))];
        world.write(&Entry::Expire { leadership: LEADERSHIP, lapsed, slots }, at(8000));
    }
    assert!(world.claim(Consistency::Strict, at(8001)).is_err());
    assert_eq!(
        world.ownership.lapsed_since(),
        at(8000).saturating_add(session),
        "another has decided until then"
    );
}

#[test]
fn a_charge_during_a_move_is_sent_or_does_not_count() {
    let mut world = World::owning();
    let early = world.claim(Consistency::Available, at(1)).unwrap();
    let moves = world.begin_move();
    assert_eq!(moves.len(), 1);
    let late = world.claim(Consistency::Available, at(2)).unwrap();
    assert!(world.ownership.confirm(&early, key(), at(2)), "noted");
    assert!(world.ownership.confirm(&late, key(), at(2)));
    let (frozen, keys) = world.ownership.freeze(&moves);
    assert_eq!((frozen.len(), keys), (1, vec![key()]));
    assert!(!world.ownership.confirm(&late, key(), at(3)), "too late to be sent");
    assert_eq!(world.claim(Consistency::Available, at(3)).unwrap_err(), Unclaimed::Frozen);
    world.write(&Entry::Commit(moves), at(4));
    assert_eq!(world.claim(Consistency::Available, at(4)).unwrap_err(), Unclaimed::Elsewhere);
}

#[test]
fn a_claim_of_an_earlier_tenure_does_not_count() {
    let mut world = World::owning();
    let early = world.claim(Consistency::Available, at(1)).unwrap();
    for to in [2, 1] {
        let lapsed = vec![start(3 - to)];
        let slots = vec![(slot().get(), start(to))];
        world.write(&Entry::Expire { leadership: LEADERSHIP, lapsed, slots }, at(5));
    }
    let claim = world.claim(Consistency::Available, at(6)).unwrap();
    assert_eq!(claim.floor, Some(at(5)));
    assert!(!world.ownership.confirm(&early, key(), at(6)));
    assert!(world.ownership.confirm(&claim, key(), at(6)));
}

#[test]
fn who_has_given_away_what_it_knew_decides_nothing_whatever_the_log_says() {
    let mut world = World::owning();
    let claim = world.claim(Consistency::Available, at(1)).unwrap();
    assert_eq!(world.ownership.retire().len(), SLOTS);
    assert!(!world.ownership.confirm(&claim, key(), at(1)));
    assert_eq!(world.begin_move(), []);
    assert!(world.claim(Consistency::Available, at(2)).is_err());
}

#[test]
fn what_was_kept_counts_for_slots_that_nobody_owned_in_between() {
    let again = NodeStart { incarnation: 2, ..start(1) };
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let mine = slot().get();
    let other = (mine + 1) % SLOTS as u16;
    let expire = |lapsed: NodeStart, slot: u16, to: NodeStart| Entry::Expire {
        leadership: LEADERSHIP,
        lapsed: vec![lapsed],
        slots: vec![(slot, to)],
    };
    table.apply(2, LEADERSHIP, &expire(start(1), other, start(2)));
    table.apply(3, LEADERSHIP, &expire(start(2), other, again));
    table.apply(4, LEADERSHIP, &expire(start(1), mine, again));
    let ownership = SlotOwnership::new(again, SessionTiming::of(LENGTH), at(0));
    let saved = KeptBuckets { floor: 77, basis: None };
    let kept = KeptSlot { start: start(1), epoch: 1, saved: Some(saved), floors: None };
    let slots = [mine, other].map(|slot| (slot, kept.clone())).into();
    ownership.keep(Kept { slots, readers: Vec::new() });
    ownership.watch(at(0));
    ownership.observe(4, &Arc::new(table), at(5), NoBuckets);
    assert_eq!(world_floor(&ownership, slot()), Some(Nanos::new(77)));
    let other = SlotId::all().find(|slot| slot.get() == other).unwrap();
    assert_eq!(world_floor(&ownership, other), Some(at(5)));
}

fn world_floor(ownership: &SlotOwnership, slot: SlotId) -> Option<Nanos> {
    ownership.claim(slot, Consistency::Available, at(6)).unwrap().floor
}

#[test]
fn a_target_decides_as_soon_as_it_has_the_buckets() {
    let ownership = SlotOwnership::new(start(2), SessionTiming::of(LENGTH), at(0));
    ownership.watch(at(0));
    let mut world = World { ownership, table: Table::default(), index: 0 };
    world.write(&Entry::Assign(vec![start(1); SLOTS]), at(0));
    world.write(&Entry::Prepare { slots: vec![slot().get()], to: start(2) }, at(1));
    let one = SlotMove { slot: slot().get(), id: 2 };
    assert_eq!(world.ownership.install(one, 1, Some(at(0)), None, at(1)), Install::Now);
    let claim = world.claim(Consistency::Available, at(1)).unwrap();
    assert_eq!(claim.floor, Some(at(0)));
    world.write(&Entry::Commit(vec![one]), at(2));
    assert!(world.ownership.confirm(&claim, key(), at(2)), "the same tenure");
}

/// The order of marks and charges, with real threads: whatever counts was sent.
#[test]
fn no_charge_that_counts_is_missed_by_the_move() {
    use std::sync::atomic::AtomicU64;
    for _ in 0..200 {
        let mut world = World::owning();
        let bucket = AtomicU64::new(0);
        let counted = AtomicU64::new(0);
        let entry = Entry::Prepare { slots: vec![slot().get()], to: start(2) };
        world.index += 1;
        world.table.apply(world.index, LEADERSHIP, &entry);
        let table = Arc::new(world.table.clone());
        let (ownership, index) = (&world.ownership, world.index);
        let sent = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Ok(claim) = ownership.claim(slot(), Consistency::Available, at(1)) {
                        bucket.fetch_add(1, Relaxed);
                        if ownership.confirm(&claim, key(), at(1)) {
                            counted.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let moves = ownership.observe(index, &table, at(1), NoBuckets).send;
            let scanned = bucket.load(Relaxed);
            let (_, keys) = ownership.freeze(&moves);
            if keys.is_empty() { scanned } else { bucket.load(Relaxed) }
        });
        assert!(counted.load(Relaxed) <= sent, "{} counted, {sent} sent", counted.load(Relaxed));
    }
}

/// Its first slot is the one of [`key`].
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
            assert!(ownership.take_refused_on_disk(Duration::from_secs(2), now).is_empty());
            let refused = ownership.take_refused_on_disk(Duration::ZERO, now);
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
        assert!(ownership.take_refused_on_disk(Duration::from_secs(2), at(1)).is_empty());
    }
    ownership.set_reserves(Arc::clone(rules.reserves()), since(4));
    let todo = observe(at(1));
    assert_eq!((todo.waits_for_disk, todo.from_disk), (false, SLOTS));
    assert!(ownership.is_bound_to_disk() && ownership.take_refused_on_disk(Duration::ZERO, at(9)).is_empty());
    let known = reserve.at_least(&charge.limit, at(1), at(1)).unwrap();
    let found = at_most(&ownership, &charge, reserve, at(1));
    assert_eq!(found, Some(Floor::between(None, known, mark)));
}
