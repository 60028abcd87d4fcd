use std::{future::poll_fn, time::Duration};

use tokio::{runtime::Builder, spawn};

use super::*;

const BUSY: usize = 200;
const POLL: Duration = Duration::from_micros(50);

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn work_for(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// A client has many connections that are always ready; somebody else asks now and then. How often the one is polled before the other
/// is, in nine of ten cases (a machine that stops for a while is no matter), and how often in all. Without an address the other one is a node.
fn polls_before_somebody_else(turns: &Arc<Turns>, busy: IpAddr, other: Option<IpAddr>) -> (usize, usize) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (since, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let busy = turns.of(Whose::Clients, busy);
    let other = other.map(|other| turns.of(Whose::Clients, other));
    let mut between = runtime.block_on(async {
        for _ in 0..BUSY {
            let (since, all) = (Arc::clone(&since), Arc::clone(&all));
            spawn(busy.take(poll_fn(move |cx| {
                work_for(POLL);
                since.fetch_add(1, Relaxed);
                all.fetch_add(1, Relaxed);
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })));
        }
        let since = Arc::clone(&since);
        let asks = async move {
            let mut between = Vec::new();
            for _ in 0..200 {
                yield_now().await;
                between.push(since.swap(0, Relaxed));
            }
            between
        };
        match other {
            Some(other) => spawn(other.take(asks)).await.unwrap(),
            None => spawn(asks).await.unwrap(),
        }
    });
    // What the busy one does has to be known first.
    let mut between = between.split_off(100);
    between.sort_unstable();
    (between[90], all.load(Relaxed))
}

#[test]
fn a_client_with_many_busy_connections_has_one_turn_between_those_of_another_one() {
    let turns = Turns::new();
    let (most, all) = polls_before_somebody_else(&turns, address(1), Some(address(2)));
    let in_a_turn = TURN as usize / POLL.as_nanos() as usize;
    // The other one is woken between two rounds, and may be at the end of the first and at the beginning of the second.
    assert!((1..=2 * in_a_turn + 1).contains(&most), "{most} polls between two of the other one");
    assert!(all >= 100, "the busy one goes on: {all}");
}

#[test]
fn the_connections_of_one_client_among_themselves_are_as_they_were() {
    let turns = Turns::new();
    let (most, _) = polls_before_somebody_else(&turns, address(1), Some(address(1)));
    assert!(most >= BUSY / 4, "{most}");
}

#[test]
fn another_node_does_not_wait_for_all_connections_of_a_client_that_is_alone() {
    let turns = Turns::new();
    turns.count_peers();
    turns.count_peers();
    let (most, all) = polls_before_somebody_else(&turns, address(1), None);
    // Two rounds are 40 polls, and as many run freely after the machine has stopped for a while. Without turns it is all of them.
    assert!((1..=BUSY / 2).contains(&most), "{most} polls before the node's");
    assert!(all >= 100, "the busy one goes on: {all}");
    assert_eq!(turns.count.load(Relaxed), 1, "however many nodes there are");
}

#[test]
fn an_operator_at_an_address_of_its_own_and_an_announced_client_have_turns_of_their_own() {
    let turns = Turns::new();
    let proxy = turns.of(Whose::Clients, address(1));
    let (operator, other) = (turns.of(Whose::Operators, address(1)), turns.of(Whose::Clients, address(2)));
    proxy.announce(address(2));
    let mut connection = Box::pin(proxy.take(poll_fn(|_| {
        work_for(POLL);
        Poll::<()>::Pending
    })));
    drop(proxy);
    let _ = connection.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(other.usage.spent.load(Relaxed) > 0 && operator.usage.spent.load(Relaxed) == 0);
    assert_eq!(turns.count.load(Relaxed), 2, "the proxy's own turn is over");
}

#[test]
fn who_takes_little_is_never_refused_and_who_takes_much_is_heavy_until_it_has_paused() {
    let turns = Turns::new();
    let turn = turns.of(Whose::Clients, address(1));
    let mut refused = None;
    for window in 0..100 {
        assert!(turn.has_come(window * WINDOW, &mut refused), "{window}");
        turn.usage.spend(window * WINDOW, LIGHT);
    }
    let now = 100 * WINDOW;
    assert!(turn.has_come(now, &mut refused));
    turn.usage.spend(now, LIGHT + 1);
    assert!(turn.has_come(now, &mut refused), "its first turn as a heavy one");
    turn.usage.spend(now, TURN);
    assert!(!turn.has_come(now, &mut refused) && refused.is_some(), "it has had it");
    // Another connection of it, in the same round.
    let mut of_other = None;
    assert!(!turn.has_come(now, &mut of_other));
    assert!(turn.has_come(now, &mut refused), "the next round");
    turn.usage.spend(now, TURN - 1);
    assert!(turn.has_come(now, &mut of_other), "it is the same round for all of them");
    turn.usage.spend(now, 1);
    assert!(!turn.has_come(now, &mut of_other));
    assert!(!turn.has_come(now + WINDOW, &mut refused), "as before");
    assert!(turn.has_come(now + 3 * WINDOW, &mut refused) && refused.is_none());
}

#[test]
fn nothing_is_kept_of_clients_that_are_gone() {
    let turns = Turns::new();
    let all: Vec<_> = (0..100).map(|n| turns.of(Whose::Clients, address(n % 10))).collect();
    assert_eq!((turns.clients.len(), turns.count.load(Relaxed)), (10, 10));
    drop(all);
    assert!(turns.clients.is_empty() && turns.count.load(Relaxed) == 0);
}

#[test]
fn requests_of_a_client_that_takes_much_do_not_wait_and_are_counted() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let turns = Turns::new();
    let (turn, _other) = (turns.of(Whose::Clients, address(1)), turns.of(Whose::Clients, address(2)));
    runtime.block_on(async {
        let all: Vec<_> = (0..BUSY).map(|_| spawn(turn.count(async { work_for(POLL) }))).collect();
        yield_now().await;
        assert!(all.iter().filter(|one| one.is_finished()).count() > BUSY / 4, "they do not wait for a turn");
        for one in all {
            one.await.unwrap();
        }
        let spent = turn.usage.spent.load(Relaxed) + turn.usage.before.load(Relaxed);
        assert!(spent > 0, "and they are counted");
    });
}
