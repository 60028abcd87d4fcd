//! Several limits in one check: their order says nothing, a look says what a check would, and a denial takes nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;
use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit, Nanos,
    cluster::{Charge, KeyHash, RuleId, Store, StoreConfig},
    rules::Mode,
};

const START: Nanos = Nanos::new(1_800_000_000_000_000_000);

/// A limit of a check: algorithm, count, burst, seconds, cost, whether it only watches.
type Part = (usize, u64, u64, u64, u64, bool);

fn charge(number: usize, (algorithm, count, burst, seconds, cost, watches): Part) -> Charge {
    let algorithm = Algorithm::ALL[algorithm % Algorithm::ALL.len()];
    let burst = algorithm.has_burst().then_some(burst);
    let limit = Limit::parse(&format!("{count}/{seconds}s"), burst, algorithm).unwrap();
    Charge {
        // The last bit of a key is its kind.
        key: KeyHash::from_raw((number as u64 + 1) << 40 | 2),
        rule: RuleId::from_raw(number as u64 + 1),
        limit,
        cost: Cost::new(cost).unwrap(),
        mode: if watches { Mode::Shadow } else { Mode::Enforce },
        floor: None,
        ban: None,
    }
}

fn store() -> Store {
    Store::new(StoreConfig::of_memory(1 << 22), START)
}

fn check(store: &Store, charges: &[Charge], now: Nanos) -> (bool, SmallVec<[Decision; 4]>) {
    let mut decisions = SmallVec::new();
    (store.check_all(charges, now, &mut decisions), decisions)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_rules_never_changes_the_answer(
        parts in prop::collection::vec(
            (0usize..5, 1u64..8, 1u64..12, 1u64..20, 0u64..6, prop::bool::weighted(0.2)), 2..5,
        ),
        order in any::<u64>(),
        waits in prop::collection::vec(0u64..4_000, 1..40),
    ) {
        let charges: Vec<Charge> = parts.iter().enumerate().map(|(number, part)| charge(number, *part)).collect();
        let mut places: Vec<usize> = (0..charges.len()).collect();
        places.rotate_left(order as usize % charges.len());
        if order & 1 << 40 != 0 {
            places.reverse();
        }
        let others: Vec<Charge> = places.iter().map(|place| charges[*place]).collect();
        let (one, other) = (store(), store());
        let mut now = START;
        for wait in waits {
            now = now.saturating_add(Duration::from_millis(wait));
            let previews: Vec<Decision> = charges.iter().map(|charge| one.preview(charge, now)).collect();
            let (allowed, decisions) = check(&one, &charges, now);
            let (other_allowed, other_decisions) = check(&other, &others, now);
            prop_assert_eq!(allowed, other_allowed);
            for (place, decision) in places.iter().zip(&other_decisions) {
                prop_assert_eq!(decision, &decisions[*place]);
            }
            let denies = |(charge, preview): (&Charge, &Decision)| charge.mode == Mode::Enforce && !preview.allowed;
            prop_assert_eq!(allowed, !charges.iter().zip(&previews).any(denies));
            for ((charge, preview), decision) in charges.iter().zip(&previews).zip(&decisions) {
                if allowed {
                    let given_back = decision.given_back(&charge.limit, charge.cost);
                    prop_assert_eq!(given_back.remaining, preview.remaining, "{:?} {:?}", charge, decision);
                } else {
                    prop_assert_eq!(decision, preview, "what is left without it, for {:?}", charge);
                }
            }
        }
    }
}
