//! Slots that begin from the disk, and rules that change.

use super::*;

fn rules(text: &str) -> Rules {
    Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap()
}

fn with(more: &str) -> Rules {
    rules(&format!("rules: [{{ name: r, key: [], limit: 1000/1d, on_owner_loss: deny }}{more}]"))
}

fn since(revision: u64) -> Since {
    Since::new([("default".into(), revision)])
}

/// A start of the node that begins all slots from the disk, where the log is at this revision of the rules.
fn crashed(rules: &Rules, revision: u64, before: Option<Nanos>, now: Nanos) -> (SlotOwnership, Arc<Table>) {
    let second = NodeStart { incarnation: 2, ..start(1) };
    let ownership = SlotOwnership::new(second, SessionTiming::of(LENGTH), at(0));
    ownership.keep_floors_on_disk(true);
    ownership.set_reserves(Arc::clone(rules.reserves()), since(revision));
    let floors = KeptFloors {
        fingerprint: rules.reserves().fingerprint(),
        since: since(revision).number(),
        before,
        earlier: Vec::new(),
        heard: now,
        shown: now,
    };
    let kept = KeptSlot { start: start(1), epoch: 1, saved: None, floors: Some(floors) };
    let slots = (0..SLOTS as u16).map(|slot| (slot, kept.clone())).collect();
    ownership.keep(Kept { slots, readers: Vec::new() });
    ownership.watch(at(0));
    let mut table = Table::default();
    table.apply(1, LEADERSHIP, &Entry::Assign(vec![start(1); SLOTS]));
    let slots = (0..SLOTS as u16).map(|slot| (slot, second)).collect();
    table.apply(5, LEADERSHIP, &Entry::Expire { leadership: LEADERSHIP, lapsed: vec![start(1)], slots });
    let table = Arc::new(table);
    let todo = ownership.observe(5, &table, now, OnDisk(Vec::new()));
    assert_eq!(todo.from_disk, SLOTS);
    (ownership, table)
}

/// What is written to the disk about the slot.
fn before_on_disk(ownership: &SlotOwnership, now: Nanos) -> Option<Nanos> {
    let named = ownership.not_on_disk().iter().find(|one| one.slot == slot().get()).unwrap().successor_ref;
    let agreements = ownership.attempt(Side::Disk, &[(slot().get(), named)]);
    assert_eq!(ownership.bind(Side::Disk, &agreements).len(), 1);
    let states = ownership.takeover_states(Side::Disk, &agreements, now);
    assert_eq!(states.len(), 1);
    states[0].2.before
}

/// Found by a review: a crash, any change of the rules, a second crash: everybody was locked out.
#[test]
fn a_rule_that_is_written_between_two_crashes_leaves_what_the_others_have() {
    let (ownership, _) = crashed(&with(""), 1, None, at(10));
    let more = with(", { name: new, key: [], limit: 5/1d }");
    ownership.note_changes(more.reserves(), at(20));
    ownership.set_reserves(Arc::clone(more.reserves()), since(2));
    let before = before_on_disk(&ownership, at(30));
    assert_eq!(before, None);
    // The next start has all but a quantum of each bucket that nobody knows.
    let (again, _) = crashed(&more, 2, before, at(40));
    for rule in more.rules("default") {
        let (limit, reserve) = (*rule.limit().unwrap(), rule.reserve().unwrap());
        let charge = Charge { rule: rule.id(), limit, ..with_floors().1 };
        let known = reserve.at_least(&limit, at(40), at(40)).unwrap();
        let found = at_most(&again, &charge, reserve, at(41));
        let most = reserve.at_most(&limit, None, at(41));
        assert_eq!(found, Some(Floor::between(None, known, most)), "{}", rule.name());
    }
}

/// Found by a review: after sixteen writes in any domains nobody knew under which rules a slot was begun.
#[test]
fn the_rules_that_slots_were_begun_under_are_known_however_many_are_written() {
    let first = with("");
    let (ownership, _) = crashed(&first, 1, None, at(10));
    for revision in 2..600 {
        let more = with(&format!(", {{ name: new, key: [], limit: {revision}/1d }}"));
        ownership.set_reserves(Arc::clone(more.reserves()), since(revision));
    }
    let basis = ownership.basis_of(slot().get()).unwrap();
    let known = ownership.reserves_of(ownership.number_of(&basis.rules));
    assert_eq!(known.as_ref(), Some(first.reserves()));
    assert_eq!(ownership.reserves_of(77), None);
}

#[test]
fn rules_that_look_the_same_to_an_earlier_version_are_told_apart() {
    let of = |limit: &str| {
        rules(&format!("rules: [{{ name: r, key: [], limit: {limit}, algorithm: fixed_window }}]"))
    };
    let (hour, day, other) = (of("1000/1h"), of("1000/1d"), of("3000/1d"));
    let ownership = SlotOwnership::new(start(1), SessionTiming::of(LENGTH), at(0));
    ownership.set_reserves(Arc::clone(hour.reserves()), since(1));
    assert_eq!(ownership.number_of(hour.reserves()), hour.reserves().fingerprint(), "as they know it");
    ownership.set_reserves(Arc::clone(day.reserves()), since(2));
    ownership.set_reserves(Arc::clone(other.reserves()), since(3));
    for known in [&hour, &day, &other] {
        let number = ownership.number_of(known.reserves());
        assert_eq!(ownership.reserves_of(number).as_ref(), Some(known.reserves()));
    }
    let newest = ownership.reserves_of(hour.reserves().fingerprint());
    assert_eq!(newest.as_ref(), Some(day.reserves()), "of those that look so the newest");
}

/// Found by a review: the rules that slots had waited for came into force while it was decided that they had waited long enough.
#[test]
fn a_slot_whose_floors_count_by_now_does_not_lose_them_to_those_that_have_waited() {
    let rules = with("");
    for (has_floors, dropped) in [(true, 0), (false, SLOTS)] {
        let second = NodeStart { incarnation: 2, ..start(1) };
        let ownership = SlotOwnership::new(second, SessionTiming::of(LENGTH), at(0));
        ownership.keep_floors_on_disk(true);
        let floors = KeptFloors {
            fingerprint: rules.reserves().fingerprint(),
            since: since(2).number(),
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
        let table = Arc::new(table);
        ownership.set_reserves(Arc::clone(rules.reserves()), since(1));
        assert!(ownership.observe(5, &table, at(1), OnDisk(Vec::new())).waits_for_disk);
        ownership.set_reserves(Arc::clone(rules.reserves()), since(2));
        let refused = ownership.take_refused_on_disk(Duration::from_secs(2), has_floors, at(3_000));
        assert_eq!(refused.len(), dropped);
        if has_floors {
            let todo = ownership.observe(5, &table, at(3_001), OnDisk(Vec::new()));
            assert_eq!((todo.waits_for_disk, todo.from_disk), (false, SLOTS));
        }
    }
}
