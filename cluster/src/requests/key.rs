//! What a request is known by at an owner.

use tidegate_limiter::cluster::Charge;

/// The bits of a number on the wire that tell the checks apart that have one id. By the others a refund finds what the request was charged: it
/// knows the id, and not what else the check has asked for.
const CHECK_BITS: u64 = (1 << 24) - 1;

/// A request at one owner: the bits of its number that say its id, and what was to be charged. The number is a hash under the cluster's secret,
/// so clients cannot choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub(super) number: u64,
    /// Of the whole number, and of this owner's charges.
    pub(super) charges: u64,
}

impl RequestKey {
    /// The number by which the owners know a check, made of the number of the request's id and of all that the check charges, wherever. Without
    /// the charges of the other owners, one that has the same part of two different checks would take the second one for the first.
    ///
    /// It says nothing of limits that change and of the order of rules: a check that is repeated after that is the same.
    pub(crate) fn number_of_check(id: u64, charges: &[Charge]) -> u64 {
        let sum = |sum: u64, charge: &Charge| {
            sum.wrapping_add(spread(mix(mix(id, charge.key.place()), charge.cost.get())))
        };
        // Of the id too: it needs all of its bits where many requests charge the same.
        id & !CHECK_BITS | spread(mix(charges.iter().fold(0, sum), id)) & CHECK_BITS
    }

    /// By the number on the wire. An owner can have several parts of one check.
    pub(crate) fn of(number: u64, own: &[Charge]) -> Self {
        let charges =
            own.iter().fold(number, |bits, charge| mix(mix(bits, charge.key.place()), charge.cost.get()));
        Self { number: Self::id_of(number), charges }
    }

    /// What the numbers of all checks with one id share.
    pub(super) fn id_of(number: u64) -> u64 {
        number & !CHECK_BITS
    }

    /// From the wire.
    pub(crate) fn new((number, charges): (u64, u64)) -> Self {
        Self { number: Self::id_of(number), charges }
    }

    /// For the wire.
    pub(crate) fn parts(self) -> (u64, u64) {
        (self.number, self.charges)
    }
}

fn mix(bits: u64, word: u64) -> u64 {
    (bits ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
}

/// Has each bit decide about the low ones too.
fn spread(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^ bits >> 32
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{
        Cost, Limit,
        cluster::{KeyHash, RuleId},
        rules::Mode,
    };

    use super::*;

    fn charge(key: u64, cost: u64) -> Charge {
        Charge {
            key: KeyHash::from_raw(key << 44),
            rule: RuleId::from_raw(8),
            limit: Limit::per_minute(10),
            cost: Cost::new(cost).unwrap(),
            mode: Mode::Enforce,
            floor: None,
            ban: None,
        }
    }

    #[test]
    fn a_check_is_known_by_all_that_it_charges_and_its_id_by_what_all_its_checks_share() {
        let id = 0x0123_4567_89ab_cdef;
        let (client, path, other) = (charge(1, 1), charge(2, 1), charge(3, 1));
        let number = RequestKey::number_of_check(id, &[client, path]);
        assert_eq!(RequestKey::number_of_check(id, &[path, client]), number, "rules have no order");
        let limit = Limit::per_minute(20);
        let bits = KeyHash::from_raw(client.key.get() | 1);
        assert_eq!(bits.place(), client.key.place());
        let changed = Charge { limit, key: bits, ..client };
        assert_eq!(RequestKey::number_of_check(id, &[changed, path]), number, "its limit has changed");
        let others = [
            vec![client, other],
            vec![client, charge(2, 5)],
            vec![client],
            vec![client, path, other],
            vec![charge(1, 0), path],
        ];
        for charges in others {
            let one = RequestKey::number_of_check(id, &charges);
            assert_ne!(one, number);
            assert_eq!(RequestKey::id_of(one), RequestKey::id_of(id));
            let (known, asked) = (RequestKey::of(number, &[client]), RequestKey::of(one, &[client]));
            assert_eq!(known.number, asked.number);
            assert_ne!(known.charges, asked.charges, "for the owner of the same part too");
        }
        // Ids that differ in any bit.
        for bit in 0..64 {
            assert_ne!(RequestKey::number_of_check(id ^ 1 << bit, &[client, path]), number, "{bit}");
        }
    }
}
