//! `POST /throttle`, as clients of throttlecrab ask it: a denied check is a 200 too, and an error is an object with `error`.

use serde::{Deserialize, Serialize};
use tidegate_limiter::{Cost, Limit};

use super::{Dialect, MAX_KEY_BYTES, check_of, limit_of};
use crate::{
    check::{Begun, CheckAnswer, Problem, ProblemKind, begin_check},
    node::Node,
};

/// Bytes of a request.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// Fields that are not known are ignored, as throttlecrab does.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with key, max_burst, count_per_period, period and, optionally, quantity")]
struct Request {
    key: String,
    max_burst: i64,
    count_per_period: i64,
    period: i64,
    quantity: Option<i64>,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(crate) struct Response {
    allowed: bool,
    limit: i64,
    remaining: i64,
    reset_after: i64,
    retry_after: i64,
}

/// A problem, as its clients read it.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    error: String,
}

impl Refusal {
    pub(crate) fn of(problem: &Problem) -> Self {
        Self { error: problem.detail.to_string() }
    }
}

/// Decides a check.
pub(crate) async fn decide(node: &Node, worker: usize, text: &str) -> Result<Response, Problem> {
    let (key, limit, cost) = read(text)?;
    let request = check_of(&key, limit, cost);
    let render = |answer: CheckAnswer<'_>| {
        let [allowed, limit, remaining, reset_after, retry_after] = Dialect::Crab.five(&limit, cost, &answer);
        Response { allowed: allowed == 1, limit, remaining, reset_after, retry_after }
    };
    match begin_check(node, worker, &request, render) {
        Begun::Decided(decided) => decided,
        Begun::Waits(decided) => decided.await,
    }
}

fn read(text: &str) -> Result<(String, Limit, Cost), Problem> {
    let asked: Request = serde_json::from_str(text).map_err(|error| {
        let kind = if error.is_data() { ProblemKind::InvalidValue } else { ProblemKind::NotJson };
        Problem::new(kind, error.to_string())
    })?;
    if asked.key.len() > MAX_KEY_BYTES {
        let detail = format!("the key has {} bytes, at most {MAX_KEY_BYTES} are allowed", asked.key.len());
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "key", detail));
    }
    let number = |field: &'static str, number: i64, least: u64| {
        u64::try_from(number).ok().filter(|number| *number >= least).ok_or_else(|| {
            let detail = format!("{field} is {number}, and must be at least {least}");
            Problem::of_field(ProblemKind::InvalidValue, field, detail)
        })
    };
    let size = Dialect::Crab.size_of(number("max_burst", asked.max_burst, Dialect::Crab.least_burst())?);
    let count = number("count_per_period", asked.count_per_period, 1)?;
    let period = number("period", asked.period, 1)?;
    let quantity = number("quantity", asked.quantity.unwrap_or(1), 0)?;
    let limit = limit_of(size, count, period)
        .map_err(|error| Problem::new(ProblemKind::InvalidValue, error.to_string()))?;
    let cost = Cost::new(quantity)
        .map_err(|error| Problem::of_field(ProblemKind::ValueTooLarge, "quantity", error.to_string()))?;
    Ok((asked.key, limit, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_fields_say() {
        let text = r#"{"key": "user:1", "max_burst": 10, "count_per_period": 100, "period": 60, "new": {}}"#;
        let (key, limit, cost) = read(text).unwrap();
        assert_eq!((&*key, limit, cost), ("user:1", limit_of(10, 100, 60).unwrap(), Cost::ONE));
        let looks = text.replace("\"new\": {}", "\"quantity\": 0");
        assert_eq!(read(&looks).unwrap().2, Cost::PEEK);
        let silent = text.replace("\"new\": {}", "\"quantity\": null");
        assert_eq!(read(&silent).unwrap().2, Cost::ONE);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let good = [("max_burst", 10), ("count_per_period", 100), ("period", 60), ("quantity", 1)];
        for (field, number, kind) in [
            ("max_burst", 0, ProblemKind::InvalidValue),
            ("count_per_period", -1, ProblemKind::InvalidValue),
            ("period", 0, ProblemKind::InvalidValue),
            ("quantity", -1, ProblemKind::InvalidValue),
            ("quantity", i64::MAX, ProblemKind::ValueTooLarge),
        ] {
            let fields =
                good.map(|(name, own)| format!("\"{name}\": {}", if name == field { number } else { own }));
            let problem = read(&format!("{{\"key\": \"k\", {}}}", fields.join(", "))).unwrap_err();
            assert_eq!((problem.kind, problem.field.as_deref()), (kind, Some(field)));
        }
        for (text, says) in [("{", "EOF"), (r#"{"key": "k"}"#, "max_burst"), (r#"{"key": 5}"#, "string")] {
            let problem = read(text).unwrap_err();
            assert!(problem.detail.contains(says), "{}", problem.detail);
        }
        let long = format!(
            r#"{{"key": "{}", "max_burst": 1, "count_per_period": 1, "period": 1}}"#,
            "k".repeat(MAX_KEY_BYTES + 1)
        );
        assert!(read(&long).unwrap_err().detail.contains("4096"));
    }
}
