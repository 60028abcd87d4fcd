//! What becomes of single connections, calls and datagrams, on top of what the links between machines do: the faults of which
//! whole machines see nothing.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, time::Duration};

use fastrand::Rng;

/// The faults that are on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// New connections to these machines come to nothing, as behind a firewall that has lost its state. Their own connections
    /// to others work.
    pub unreachable: BTreeSet<IpAddr>,
    /// Connections to these machines end, those that are open already too.
    pub reset: BTreeSet<IpAddr>,
    /// Of a thousand hand-overs so many are taken and not answered: their connection ends. Of other calls a twentieth of that.
    pub answers_lost: u32,
    /// Of a thousand hand-overs so many arrive long after their caller has given them up. Of other calls a twentieth of that.
    pub calls_late: u32,
    /// Of a thousand datagrams so many are lost, as many arrive twice, and as many arrive late.
    pub datagrams: u32,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    Twice,
    Late(Duration),
}

struct State {
    trouble: Trouble,
    dice: Rng,
}

thread_local! {
    static STATE: RefCell<State> =
        RefCell::new(State { trouble: Trouble::default(), dice: Rng::with_seed(0) });
}

/// Longer than any caller waits, up to longer than two moves of a slot take.
const LATE_MS: (u64, u64) = (1_000, 6_000);
/// How much less often calls are hit that hand nothing over.
const OTHER_CALLS: u32 = 20;

pub(super) fn forget() {
    seed(0);
}

/// Begins without trouble. What chance decides follows from the seed.
pub fn seed(seed: u64) {
    STATE.with_borrow_mut(|state| {
        *state = State { trouble: Trouble::default(), dice: Rng::with_seed(seed) };
    });
}

/// From now on these faults are on, and no others.
pub fn set(trouble: Trouble) {
    STATE.with_borrow_mut(|state| state.trouble = trouble);
}

/// Returns when a connection to that machine may be tried: for one that is unreachable, never.
pub(crate) async fn reach(to: IpAddr) {
    if STATE.with_borrow(|state| state.trouble.unreachable.contains(&to)) {
        std::future::pending::<()>().await;
    }
}

/// Whether a connection that this machine has taken ends.
pub(crate) fn resets(machine: IpAddr) -> bool {
    STATE.with_borrow(|state| state.trouble.reset.contains(&machine))
}

/// Whether a call is done and its answer is lost.
pub(crate) fn answer_is_lost(hands_over: bool) -> bool {
    STATE.with_borrow_mut(|state| {
        let rate = state.trouble.answers_lost / if hands_over { 1 } else { OTHER_CALLS };
        rate > 0 && state.dice.u32(..1_000) < rate
    })
}

/// Whether a call is on its way for longer than its caller waits, and how long.
pub(crate) fn call_is_late(hands_over: bool) -> Option<Duration> {
    STATE.with_borrow_mut(|state| {
        let rate = state.trouble.calls_late / if hands_over { 1 } else { OTHER_CALLS };
        let is_late = rate > 0 && state.dice.u32(..1_000) < rate;
        is_late.then(|| Duration::from_millis(state.dice.u64(LATE_MS.0..LATE_MS.1)))
    })
}

/// What becomes of the next datagram.
pub(crate) fn fate() -> Fate {
    STATE.with_borrow_mut(|state| {
        let rate = state.trouble.datagrams;
        if rate == 0 {
            return Fate::Arrives;
        }
        match state.dice.u32(..1_000) {
            thrown if thrown < rate => Fate::Lost,
            thrown if thrown < 2 * rate => Fate::Twice,
            thrown if thrown < 3 * rate => Fate::Late(Duration::from_millis(state.dice.u64(50..3_000))),
            _ => Fate::Arrives,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_datagrams_meet_what_is_on_and_nothing_else() {
        seed(7);
        assert!((0..1_000).all(|_| !answer_is_lost(true) && call_is_late(true).is_none()));
        assert!((0..1_000).all(|_| fate() == Fate::Arrives));
        let machine: IpAddr = [10, 0, 0, 1].into();
        set(Trouble {
            answers_lost: 500,
            calls_late: 500,
            datagrams: 250,
            reset: [machine].into(),
            ..Trouble::default()
        });
        let lost = (0..1_000).filter(|_| answer_is_lost(true)).count();
        assert!((400..600).contains(&lost), "{lost}");
        let others = (0..1_000).filter(|_| answer_is_lost(false)).count();
        assert!((5..60).contains(&others), "{others}");
        assert!((0..100).filter_map(|_| call_is_late(true)).all(|late| late >= Duration::from_secs(1)));
        let fates: Vec<Fate> = (0..1_000).map(|_| fate()).collect();
        for wanted in [Fate::Lost, Fate::Twice, Fate::Arrives] {
            let count = fates.iter().filter(|fate| **fate == wanted).count();
            assert!((180..320).contains(&count), "{wanted:?}: {count}");
        }
        assert!(resets(machine) && !resets([10, 0, 0, 2].into()));
        forget();
        assert!(!resets(machine));
    }
}
