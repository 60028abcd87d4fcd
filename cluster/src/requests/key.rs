//! What a request is known by at an owner.

use tidegate_limiter::cluster::Charge;

/// A request at one owner: its number, and what was to be charged. The number is a hash under the cluster's secret, so
/// clients cannot choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub(super) number: u64,
    pub(super) charges: u64,
}

impl RequestKey {
    pub(crate) fn of(number: u64, charges: &[Charge]) -> Self {
        let mix = |bits: u64, word: u64| (bits ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        let charges =
            charges.iter().fold(0, |bits, charge| mix(mix(bits, charge.key.place()), charge.cost.get()));
        Self { number, charges }
    }

    /// From the wire.
    pub(crate) fn new((number, charges): (u64, u64)) -> Self {
        Self { number, charges }
    }

    /// For the wire.
    pub(crate) fn parts(self) -> (u64, u64) {
        (self.number, self.charges)
    }
}
