//! `POST /v1/check/batch`: many checks in one request, an answer each, in order.
//!
//! Each check is decided by itself: one that is wrong gets its problem in its place and does not disturb the others.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    answer::Answer,
    check::{check, check_here},
    json,
    problem::{Kind, Problem},
};
use crate::node::Node;

/// Checks in a batch.
pub(super) const MAX_CHECKS: usize = 1_000;
/// Checks of one batch that are on their way to other nodes at the same time.
const IN_FLIGHT: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with checks: {\"checks\": [{\"attributes\": {}}]}")]
struct Batch<'a> {
    #[serde(borrow)]
    checks: Vec<&'a RawValue>,
}

/// Decides a batch; the answer's JSON.
pub(super) async fn decide(node: &Node, lane: usize, body: &[u8]) -> Result<Bytes, Problem> {
    let batch: Batch<'_> =
        serde_json::from_str(json::utf8(body)?).map_err(|error| json::problem_of(&error))?;
    if batch.checks.len() > MAX_CHECKS {
        let detail = format!("the batch has {} checks, at most {MAX_CHECKS} are allowed", batch.checks.len());
        return Err(Problem::of_field(Kind::ValueTooLarge, "checks", detail));
    }
    node.metrics[lane].count_batch();
    let mut out = BytesMut::with_capacity(64 + 192 * batch.checks.len());
    out.put_slice(b"{\"answers\":[");
    let checks = &batch.checks;
    let mut answers = stream::iter(0..checks.len())
        .map(|place| answer(node, lane, checks[place].get()))
        .buffered(IN_FLIGHT);
    let mut first = true;
    while let Some(answer) = answers.next().await {
        if !std::mem::take(&mut first) {
            out.put_u8(b',');
        }
        out.put_slice(&answer);
    }
    out.put_slice(b"]}");
    Ok(out.freeze())
}

async fn answer(node: &Node, lane: usize, text: &str) -> Vec<u8> {
    let decided = match json::parse_text(text) {
        Ok(asked) => match check_here(node, lane, &asked, to_json) {
            Some(decided) => decided,
            None => check(node, lane, &asked, to_json).await,
        },
        Err(problem) => Err(problem),
    };
    decided.unwrap_or_else(|problem| {
        node.metrics[lane].count_problem(problem.kind);
        problem.to_json()
    })
}

fn to_json(answer: Answer<'_>) -> Vec<u8> {
    let mut json = BytesMut::with_capacity(192);
    answer.write_json(&mut json);
    json.into()
}
