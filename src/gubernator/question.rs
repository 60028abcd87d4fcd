//! A request of Gubernator's as a check.
//!
//! | theirs | ours |
//! | --- | --- |
//! | name, unique key | domain, key of a limit that comes with the check |
//! | `TOKEN_BUCKET` | a fixed window that begins with the first hit |
//! | `LEAKY_BUCKET` | a token bucket: it refills steadily |
//! | `DURATION_IS_GREGORIAN` | a window of the calendar, UTC |
//! | negative hits, `RESET_REMAINING` | a refund, a reset |

use std::{borrow::Cow, time::Duration};

use tidegate_cluster::Amendment;
use tidegate_limiter::{
    Algorithm, Cost, Limit,
    rules::{LimitError, Period, Unit, Zone},
};
use tidegate_proto::grpc::pb::gubernator::{self as theirs, Behavior, RateLimitReq};

use crate::check::{CheckRequest, Costs, MAX_NAME_BYTES, MAX_VALUE_BYTES, Problem, ProblemKind, Subject};

/// Flags that say how Gubernator works inside. Here every answer is exact, so there is nothing to do.
const NOTHING_TO_DO: i32 = Behavior::NoBatching as i32 | Behavior::Global as i32;

/// What one request asks.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) asked: Asked<'a>,
    /// What is done first: the cost is given back, or the bucket forgets.
    pub(super) amends: Option<Amendment>,
    /// Whether the hits are asked for (then).
    pub(super) counts: bool,
    /// A request that is over the limit takes what is left.
    pub(super) drains: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
pub(super) enum Asked<'a> {
    Check(CheckRequest<'a>),
    /// Its limit is 0.
    Never,
}

impl<'a> Question<'a> {
    pub(super) fn read(request: &'a RateLimitReq) -> Result<Self, Problem> {
        // Gubernator's own words for these two.
        if request.unique_key.is_empty() {
            return Err(fault("unique_key", "field 'unique_key' cannot be empty"));
        }
        if request.name.is_empty() {
            return Err(fault("name", "field 'namespace' cannot be empty"));
        }
        for (field, text, max) in
            [("name", &request.name, MAX_NAME_BYTES), ("unique_key", &request.unique_key, MAX_VALUE_BYTES)]
        {
            if text.len() > max {
                let detail = format!("{field} has {} bytes, at most {max} are allowed", text.len());
                return Err(Problem::of_field(ProblemKind::ValueTooLarge, field, detail));
            }
        }
        let has = |flag: Behavior| request.behavior & flag as i32 != 0;
        if has(Behavior::MultiRegion) {
            return Err(fault("behavior", "MULTI_REGION is not supported: a limit holds for one cluster"));
        }
        let known = NOTHING_TO_DO
            | Behavior::DurationIsGregorian as i32
            | Behavior::ResetRemaining as i32
            | Behavior::DrainOverLimit as i32;
        if request.behavior & !known != 0 {
            let detail = format!("behavior {} has flags that are not known", request.behavior);
            return Err(fault("behavior", detail));
        }
        let count = u64::try_from(request.limit)
            .map_err(|_| fault("limit", format!("the limit is {}, and cannot be negative", request.limit)))?;
        let asked = if count == 0 {
            Asked::Never
        } else {
            let limit = limit_of(request, count, has(Behavior::DurationIsGregorian))?;
            Asked::Check(CheckRequest {
                domain: Cow::Borrowed(&request.name),
                subject: Subject::Inline { key: Cow::Borrowed(&request.unique_key), limit },
                cost: cost(request.hits.unsigned_abs())?,
                costs: Costs::default(),
                id: None,
            })
        };
        let (amends, counts) = if has(Behavior::ResetRemaining) {
            // As Gubernator does it: a window is reset and no more, a leaky bucket takes the hits then.
            let takes = request.algorithm == theirs::Algorithm::LeakyBucket as i32 && request.hits > 0;
            (Some(Amendment::Reset), takes)
        } else if request.hits < 0 {
            (Some(Amendment::Refund), false)
        } else {
            (None, true)
        };
        Ok(Self { asked, amends, counts, drains: has(Behavior::DrainOverLimit) && request.hits > 0 })
    }

    /// The same check once more.
    pub(super) fn copy(&self, check: &CheckRequest<'a>) -> CheckRequest<'a> {
        let Subject::Inline { key, limit } = &check.subject else {
            unreachable!("a request of Gubernator's brings its limit");
        };
        let subject = Subject::Inline { key: key.clone(), limit: *limit };
        CheckRequest {
            domain: check.domain.clone(),
            subject,
            cost: check.cost,
            costs: Costs::default(),
            id: None,
        }
    }
}

pub(super) fn cost(units: u64) -> Result<Cost, Problem> {
    Cost::new(units).map_err(|error| Problem::of_field(ProblemKind::ValueTooLarge, "hits", error.to_string()))
}

fn limit_of(request: &RateLimitReq, count: u64, is_gregorian: bool) -> Result<Limit, Problem> {
    let burst = match u64::try_from(request.burst) {
        Ok(0) => None,
        Ok(burst) => Some(burst),
        Err(_) => {
            return Err(fault("burst", format!("the burst is {}, and cannot be negative", request.burst)));
        }
    };
    let (algorithm, period, burst) = match theirs::Algorithm::try_from(request.algorithm) {
        // It has no burst.
        Ok(theirs::Algorithm::TokenBucket) if is_gregorian => {
            (Algorithm::FixedWindow, calendar(request.duration)?, None)
        }
        Ok(theirs::Algorithm::TokenBucket) => {
            (Algorithm::FixedWindow, Period::from_first(length(request.duration)?), None)
        }
        Ok(theirs::Algorithm::LeakyBucket) if is_gregorian => match calendar(request.duration)? {
            period @ (Period::Fixed(_) | Period::Day) => (Algorithm::TokenBucket, period, burst),
            _ => {
                let detail = "a LEAKY_BUCKET drips evenly, and windows of weeks, months and years do not; take TOKEN_BUCKET, or a duration";
                return Err(fault("duration", detail));
            }
        },
        Ok(theirs::Algorithm::LeakyBucket) => {
            (Algorithm::TokenBucket, Period::Fixed(length(request.duration)?), burst)
        }
        Err(_) => {
            let detail =
                format!("there is no algorithm {}: TOKEN_BUCKET is 0, LEAKY_BUCKET 1", request.algorithm);
            return Err(fault("algorithm", detail));
        }
    };
    Limit::new(algorithm, count, period, burst).map_err(|error| fault("limit", error.to_string()))
}

fn length(duration: i64) -> Result<Duration, Problem> {
    match u64::try_from(duration) {
        // Gubernator takes it for a window that has ended before the next request: a limit that limits nothing.
        Ok(0) => Err(fault(
            "duration",
            "a duration of 0 limits nothing: write milliseconds, from 1 on, or set DURATION_IS_GREGORIAN, where 0 is a minute",
        )),
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => Err(fault("duration", format!("the duration is {duration} ms, and cannot be negative"))),
    }
}

fn calendar(unit: i64) -> Result<Period, Problem> {
    match unit {
        0 => Ok(Period::Fixed(Duration::from_secs(60))),
        1 => Ok(Period::Fixed(Duration::from_secs(3_600))),
        2 => Ok(Period::Day),
        3 => of_utc(Unit::Week),
        4 => Ok(Period::Month),
        5 => of_utc(Unit::Year),
        _ => Err(fault(
            "duration",
            format!(
                "behavior DURATION_IS_GREGORIAN is set, and {unit} is no unit: 0 minute, 1 hour, 2 day, 3 week, 4 month, 5 year"
            ),
        )),
    }
}

fn of_utc(unit: Unit) -> Result<Period, Problem> {
    Period::calendar(unit, Zone::UTC, None)
        .ok_or_else(|| fault("duration", LimitError::TooManyPlaces.to_string()))
}

fn fault(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::of_field(ProblemKind::InvalidValue, field, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RateLimitReq {
        RateLimitReq {
            name: "requests_per_sec".into(),
            unique_key: "account:12345".into(),
            hits: 1,
            limit: 10,
            duration: 60_000,
            ..Default::default()
        }
    }

    fn limit(request: &RateLimitReq) -> Limit {
        match Question::read(request).unwrap().asked {
            Asked::Check(CheckRequest { subject: Subject::Inline { limit, .. }, .. }) => limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_bucket_is_a_window_and_a_leaky_bucket_refills() {
        let token = limit(&request());
        assert_eq!(token.algorithm(), Algorithm::FixedWindow);
        assert_eq!(token.period(), Period::from_first(Duration::from_secs(60)));
        for (duration, algorithm) in [(1, 0), (5, 0), (5, 1), (31_536_000_000, 0), (31_536_000_000, 1)] {
            let own = limit(&RateLimitReq { duration, algorithm, ..request() });
            assert_eq!(own.window().as_millis(), duration as u128, "it is kept as asked");
        }
        let leaky = limit(&RateLimitReq { algorithm: 1, burst: 20, ..request() });
        assert_eq!((leaky.algorithm(), leaky.count(), leaky.burst_size()), (Algorithm::TokenBucket, 10, 20));
        assert_eq!(limit(&RateLimitReq { algorithm: 1, ..request() }).burst_size(), 10);
        let day = limit(&RateLimitReq { behavior: 4, duration: 2, ..request() });
        assert_eq!(day.period(), Period::Day);
        let gregorian = |duration| limit(&RateLimitReq { behavior: 4, duration, ..request() }).to_string();
        assert_eq!([3, 4, 5].map(gregorian), ["10/week", "10/month", "10/year"]);
        assert!(matches!(
            Question::read(&RateLimitReq { limit: 0, ..request() }).unwrap().asked,
            Asked::Never
        ));
        assert!(Question::read(&RateLimitReq { behavior: 32, ..request() }).unwrap().drains);
    }

    #[test]
    fn negative_hits_are_a_refund_and_a_reset_goes_before_the_hits_of_a_leaky_bucket() {
        let does = |hits, behavior, algorithm| {
            let request = RateLimitReq { hits, behavior, algorithm, ..request() };
            let question = Question::read(&request).unwrap();
            let Asked::Check(check) = &question.asked else { panic!() };
            (question.amends, question.counts, check.cost.get())
        };
        assert_eq!(does(3, 0, 0), (None, true, 3));
        assert_eq!(does(-3, 0, 0), (Some(Amendment::Refund), false, 3));
        assert_eq!(does(-3, 8, 0), (Some(Amendment::Reset), false, 3));
        assert_eq!(does(3, 8, 0), (Some(Amendment::Reset), false, 3));
        assert_eq!(does(3, 8, 1), (Some(Amendment::Reset), true, 3));
        assert_eq!(does(0, 8, 1), (Some(Amendment::Reset), false, 0));
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        for (request, why) in [
            (RateLimitReq { unique_key: String::new(), ..request() }, "unique_key"),
            (RateLimitReq { name: String::new(), ..request() }, "namespace"),
            (RateLimitReq { behavior: 16, ..request() }, "MULTI_REGION"),
            (RateLimitReq { behavior: 64, ..request() }, "64"),
            (RateLimitReq { hits: i64::MIN, ..request() }, "2^53"),
            (RateLimitReq { behavior: 4, duration: 6, ..request() }, "5 year"),
            (RateLimitReq { behavior: 4, duration: 3, algorithm: 1, ..request() }, "weeks"),
            (RateLimitReq { behavior: 4, duration: 60_000, ..request() }, "60000"),
            (RateLimitReq { behavior: 4, duration: 4, algorithm: 1, ..request() }, "months"),
            (RateLimitReq { duration: 0, ..request() }, "limits nothing"),
            (RateLimitReq { duration: i64::MAX, ..request() }, "3650d"),
            (RateLimitReq { duration: i64::MAX, algorithm: 1, ..request() }, "3650d"),
            (RateLimitReq { duration: -1, ..request() }, "negative"),
            (RateLimitReq { limit: -1, ..request() }, "negative"),
            (RateLimitReq { burst: -1, algorithm: 1, ..request() }, "negative"),
            (RateLimitReq { algorithm: 2, ..request() }, "LEAKY_BUCKET"),
            (RateLimitReq { unique_key: "x".repeat(5_000), ..request() }, "4096"),
        ] {
            let problem = Question::read(&request).unwrap_err();
            assert!(problem.detail.contains(why), "{}", problem.detail);
        }
    }
}
