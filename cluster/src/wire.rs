//! Between the limiter's types and those on the wire.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_limiter::{
    Algorithm, Cost, Decision, Limit,
    cluster::{Ban, CalendarParts, Charge, Consistency, KeyHash, LimitRef, RuleId},
    rules::{Calendar, Mode, Period},
};
use tidegate_proto::peer;

use crate::verdict::LossPolicy;

/// The charges of a check for its owner; `None` if they are more than one check may have.
pub(crate) fn charges_to_wire<'a>(
    charges: impl Iterator<Item = (&'a Charge, LossPolicy)>,
) -> Option<peer::Charges> {
    peer::Charges::new(charges.map(|(charge, policy)| peer::Charge {
        key: charge.key.get(),
        rule: charge.rule.get(),
        cost: charge.cost.get(),
        limit: peer::Limit {
            algorithm: charge.limit.algorithm() as u8,
            count: charge.limit.count(),
            period: match charge.limit.period() {
                Period::Fixed(length) => peer::Period::Nanos(nanos(length)),
                Period::FromFirst { nanos } => peer::Period::NanosFromFirst(nanos),
                Period::Day => peer::Period::Day,
                Period::Month => peer::Period::Month,
                Period::Calendar(calendar) => {
                    let CalendarParts { step, zone, place, seconds } = calendar.parts();
                    peer::Period::Calendar { step, zone, place, seconds }
                }
            },
            burst: charge.limit.burst_size(),
        },
        shadow: charge.mode == Mode::Shadow,
        strict: policy.consistency == Consistency::Strict,
        reserve: policy.reserve.is_some(),
        shape: policy.limit_ref.shape(),
        place: policy.limit_ref.place(),
        ban: charge.ban.map(|ban| (ban.first_seconds(), ban.longest_seconds())),
    }))
}

/// Whether the asker's rule wants an owner that is surely the only one.
pub(crate) fn consistency_of(charge: &peer::Charge) -> Consistency {
    if charge.strict { Consistency::Strict } else { Consistency::Available }
}

/// Which of its rule's limits the asker has found.
pub(crate) fn limit_ref_of(charge: &peer::Charge) -> LimitRef {
    LimitRef::new(charge.shape, charge.place)
}

/// The charges of another node's check; `None` if one of them is not valid.
pub(crate) fn charges_from_wire(charges: &peer::Charges) -> Option<SmallVec<[Charge; 4]>> {
    charges
        .as_slice()
        .iter()
        .map(|charge| {
            let period = match charge.limit.period {
                peer::Period::Nanos(length) => Period::Fixed(Duration::from_nanos(length)),
                peer::Period::NanosFromFirst(nanos) => Period::FromFirst { nanos },
                peer::Period::Day => Period::Day,
                peer::Period::Month => Period::Month,
                peer::Period::Calendar { step, zone, place, seconds } => {
                    Period::Calendar(Calendar::from_parts(CalendarParts { step, zone, place, seconds })?)
                }
            };
            let algorithm = Algorithm::try_from(charge.limit.algorithm).ok()?;
            let ban = match charge.ban {
                Some((first, longest)) => Some(Ban::of_seconds(first, longest)?),
                None => None,
            };
            Some(Charge {
                key: KeyHash::from_raw(charge.key),
                rule: RuleId::from_raw(charge.rule),
                limit: Limit::new(algorithm, charge.limit.count, period, Some(charge.limit.burst)).ok()?,
                cost: Cost::new(charge.cost).ok()?,
                mode: if charge.shadow { Mode::Shadow } else { Mode::Enforce },
                floor: None,
                ban,
            })
        })
        .collect()
}

pub(crate) fn decision_to_wire(decision: &Decision) -> peer::Decision {
    peer::Decision {
        allowed: decision.allowed,
        limit: decision.limit,
        remaining: decision.remaining,
        reset_after: nanos(decision.reset_after),
        retry_after: decision.retry_after.map(nanos),
        delay: nanos(decision.delay),
        assumed: decision.assumed,
        banned: decision.banned,
    }
}

pub(crate) fn decision_from_wire(decision: &peer::Decision) -> Decision {
    Decision {
        allowed: decision.allowed,
        limit: decision.limit,
        remaining: decision.remaining,
        reset_after: Duration::from_nanos(decision.reset_after),
        retry_after: decision.retry_after.map(Duration::from_nanos),
        delay: Duration::from_nanos(decision.delay),
        assumed: decision.assumed,
        banned: decision.banned,
    }
}

/// Durations on the wire are 64 bits of nanoseconds, 584 years; a longer one says that.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(period: Period) -> Charge {
        Charge {
            key: KeyHash::from_raw(77),
            rule: RuleId::from_raw(5),
            limit: Limit::new(Algorithm::TokenBucket, 7, period, Some(9)).unwrap(),
            cost: Cost::new(3).unwrap(),
            mode: Mode::Shadow,
            floor: None,
            ban: None,
        }
    }

    fn policy(consistency: Consistency) -> LossPolicy {
        LossPolicy {
            on_owner_loss: tidegate_limiter::cluster::OnOwnerLoss::Deny,
            consistency,
            carved: false,
            reserve: None,
            limit_ref: LimitRef::new(0x5a, 3),
        }
    }

    #[test]
    fn a_charge_arrives_as_it_was_sent() {
        for period in [Period::Fixed(Duration::from_millis(1500)), Period::Fixed(Duration::from_secs(86_400))]
        {
            let sent = charge(period);
            let wire = charges_to_wire([(&sent, policy(Consistency::Strict))].into_iter()).unwrap();
            let arrived = charges_from_wire(&wire).unwrap();
            assert_eq!(arrived.len(), 1);
            assert_eq!(consistency_of(&wire.as_slice()[0]), Consistency::Strict);
            assert_eq!(limit_ref_of(&wire.as_slice()[0]), LimitRef::new(0x5a, 3));
            assert_eq!(format!("{:?}", arrived[0]), format!("{sent:?}"));
        }
    }

    #[test]
    fn windows_of_time_zones_and_dates_arrive_as_they_were_sent() {
        for text in [
            "7/day",
            "7/month",
            "7/week",
            "7/month timezone Europe/Paris starts 2026-03-17",
            "7/year timezone America/New_York",
            "7/90d fixed_window starts 2026-03-17",
            "7/3650d sliding_window",
        ] {
            let sent =
                Charge { limit: text.parse().unwrap(), ..charge(Period::Fixed(Duration::from_secs(1))) };
            let wire = charges_to_wire([(&sent, policy(Consistency::Available))].into_iter()).unwrap();
            assert_eq!(charges_from_wire(&wire).unwrap()[0].limit, sent.limit, "{text}");
            let mut other = wire.as_slice()[0];
            if let peer::Period::Calendar { zone, .. } = &mut other.limit.period {
                // Of a database that this node does not have.
                *zone = 7;
                assert!(charges_from_wire(&peer::Charges::new([other]).unwrap()).is_none());
            }
        }
    }

    #[test]
    fn a_limit_that_no_rule_could_have_is_refused() {
        let good = *charges_to_wire(
            [(&charge(Period::Fixed(Duration::from_secs(1))), policy(Consistency::Available))].into_iter(),
        )
        .unwrap()
        .as_slice()
        .first()
        .unwrap();
        let arrives =
            |charge: peer::Charge| charges_from_wire(&peer::Charges::new([charge]).unwrap()).is_some();
        assert!(arrives(good));
        assert!(!arrives(peer::Charge { cost: u64::MAX, ..good }));
        assert!(!arrives(peer::Charge { limit: peer::Limit { algorithm: 99, ..good.limit }, ..good }));
        assert!(!arrives(peer::Charge { limit: peer::Limit { burst: 0, ..good.limit }, ..good }));
        assert!(!arrives(peer::Charge {
            limit: peer::Limit { period: peer::Period::Nanos(0), ..good.limit },
            ..good
        }));
    }
}
