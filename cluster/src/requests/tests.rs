use super::*;

fn key(number: u64) -> RequestKey {
    RequestKey { number, charges: 7 }
}

fn at(millis: u64) -> Nanos {
    Nanos::new(1_000_000_000 + millis * 1_000_000)
}

fn remember(requests: &Requests, number: u64, now: Nanos) {
    let slot = SlotId::all().next().unwrap();
    let remembered = Remembered { key: key(number), slot, rest: REMEMBER, decisions: Box::default() };
    requests.remember(&mut requests.lock(key(number)), Share::of_slot(slot), remembered, now);
}

fn is_known(requests: &Requests, number: u64, now: Nanos) -> bool {
    requests.repeat(&mut requests.lock(key(number)), key(number), now).is_some()
}

/// As who undoes it in time.
fn forget(requests: &Requests, number: u64, now: Nanos) -> bool {
    requests.forget(key(number), now.saturating_add(Duration::from_millis(1)), || now)
}

#[test]
fn a_request_is_known_for_two_seconds_and_another_charge_is_another_request() {
    let requests = Requests::default();
    remember(&requests, 1, at(0));
    assert!(is_known(&requests, 1, at(1999)));
    assert!(!is_known(&requests, 1, at(2000)) && !is_known(&requests, 2, at(0)));
    let other = RequestKey { charges: 8, ..key(1) };
    assert!(requests.repeat(&mut requests.lock(other), other, at(0)).is_none());
}

#[test]
fn what_is_undone_is_forgotten_unless_it_was_repeated() {
    let requests = Requests::default();
    remember(&requests, 1, at(0));
    assert!(forget(&requests, 1, at(1)) && !is_known(&requests, 1, at(1)));
    remember(&requests, 1, at(2));
    assert!(is_known(&requests, 1, at(3)) && !forget(&requests, 1, at(4)));
    remember(&requests, 2, at(10));
    assert!(!requests.forget(key(2), at(2010), || at(2010)), "nobody can tell whether it was repeated");
}

#[test]
fn what_is_remembered_is_bounded_and_room_comes_back() {
    let requests = Requests::default();
    let many = (MAX_REQUESTS / PARTS) as u64;
    (0..many + 5).for_each(|number| remember(&requests, number, at(0)));
    assert_eq!(requests.unremembered(), 5);
    assert!(is_known(&requests, many + 4, at(1)) && !is_known(&requests, 4, at(1)), "the oldest go");
    remember(&requests, many + 5, at(2000));
    assert!(is_known(&requests, many + 5, at(2001)));
    assert_eq!((requests.unremembered(), requests.of_slots(|_| true, 9, at(2001)).len()), (5, 1));
}

/// As a flood of ids would have it: twice as many as there is room for, at one part.
fn flood(requests: &Requests, share: impl Fn(u64) -> Share, now: Nanos) {
    let slot = SlotId::all().next().unwrap();
    for number in 0..2 * (MAX_REQUESTS / PARTS) as u64 {
        let key = key(1_000_000 + number);
        let remembered = Remembered { key, slot, rest: REMEMBER, decisions: Box::default() };
        requests.remember(&mut requests.lock(key), share(number), remembered, now);
    }
}

#[test]
fn a_flood_of_ids_under_one_key_makes_nobody_else_pay_twice() {
    let requests = Requests::default();
    let bucket = |number: u64| Share::of_bucket(KeyHash::from_raw(number << 44));
    let slot = SlotId::all().next().unwrap();
    for number in 0..100 {
        let remembered = Remembered { key: key(number), slot, rest: REMEMBER, decisions: Box::default() };
        requests.remember(&mut requests.lock(key(number)), bucket(number), remembered, at(0));
    }
    flood(&requests, |_| bucket(1000), at(1));
    let known = (0..100).filter(|number| is_known(&requests, *number, at(1999))).count();
    assert!(known >= 90, "{known} of 100");
    assert!(is_known(&requests, 1_000_000 + 2 * 4096 - 1, at(1)), "the flood's own last ones too");
}

#[test]
fn what_was_forgotten_before_its_time_is_not_undone_because_it_may_have_answered_another_check() {
    let requests = Requests::default();
    remember(&requests, 1, at(0));
    assert!(is_known(&requests, 1, at(1)), "another check is answered by it");
    let slot = SlotId::all().next().unwrap();
    flood(&requests, |_| Share::of_slot(slot), at(2));
    assert!(!is_known(&requests, 1, at(3)));
    assert!(!requests.forget(key(1), at(2000), || at(3)), "nobody can tell any more");
    // What came later is exact again.
    remember(&requests, 2, at(4001));
    assert!(forget(&requests, 2, at(4002)));
}

#[test]
fn what_is_taken_over_twice_is_one_request_and_what_is_known_here_stays() {
    let (from, to) = (Requests::default(), Requests::default());
    remember(&from, 1, at(0));
    remember(&to, 2, at(0));
    assert!(is_known(&to, 2, at(1)));
    remember(&from, 2, at(1));
    for _ in 0..2 {
        for one in from.of_slots(|_| true, 9, at(500)) {
            to.take_over(one, at(500));
        }
    }
    assert!(is_known(&to, 1, at(1999)) && !is_known(&to, 1, at(2000)), "not for longer than there");
    assert!(!forget(&to, 2, at(600)), "another check was answered by it");
}

#[test]
fn a_hand_over_has_a_bound_in_decisions() {
    let requests = Requests::default();
    let slot = SlotId::all().next().unwrap();
    let decision = Decision {
        allowed: true,
        limit: 1,
        remaining: 0,
        reset_after: Duration::ZERO,
        retry_after: None,
        delay: Duration::ZERO,
        assumed: false,
        banned: false,
    };
    for number in 0..10 {
        let remembered =
            Remembered { key: key(number), slot, rest: REMEMBER, decisions: [decision; 3].into() };
        requests.remember(&mut requests.lock(key(number)), Share::of_slot(slot), remembered, at(0));
    }
    assert_eq!(requests.of_slots(|_| true, 10, at(1)).len(), 3);
}

#[test]
fn what_was_undone_takes_no_room_for_ever_and_a_sweep_gives_memory_back() {
    let requests = Requests::default();
    let many = (MAX_REQUESTS / PARTS) as u64;
    for round in 0..4 {
        for number in 0..many {
            remember(&requests, number, at(round * 2000));
            assert!(forget(&requests, number, at(round * 2000 + 1)));
        }
    }
    assert_eq!(requests.unremembered(), 0);
    remember(&requests, 1, at(8000));
    requests.sweep(at(9999));
    assert!(is_known(&requests, 1, at(9999)));
    requests.sweep(at(10_000));
    let part = requests.lock(key(1));
    assert_eq!((part.known.capacity(), part.order.capacity()), (0, 0));
}
