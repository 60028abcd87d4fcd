//! `POST /v1/check/batch`: many checks in one request, an answer each, in order.
//!
//! Each check is decided by itself: one that is wrong gets its problem in its place and does not disturb the others.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    answers::{self, Reserved},
    json,
};
use crate::{
    access::Grant,
    check::{CheckAnswer, CheckRequest, Prepared, Problem, ProblemKind, check, check_group_here},
    node::Node,
    parts::Part,
};

/// Bytes of the body.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Checks in a batch.
pub(super) const MAX_CHECKS: usize = 1_000;
/// Bytes of the answer to one check, about.
const ANSWER_BYTES: usize = 192;
/// Checks of one batch that are on their way to other nodes at the same time.
const IN_FLIGHT: usize = 256;
/// Checks that are read before the first of them is decided.
const GROUP: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with checks: {\"checks\": [{\"attributes\": {}}]}")]
struct Batch<'a> {
    #[serde(borrow)]
    checks: Vec<&'a RawValue>,
}

/// Decides a batch; the answer's JSON, with the room that it has taken.
pub(super) async fn decide(
    node: &Node,
    worker: usize,
    body: &[u8],
    grant: &Grant,
    room: Part,
) -> Result<(Bytes, Reserved), Problem> {
    let batch: Batch<'_> =
        serde_json::from_str(json::utf8(body)?).map_err(|error| json::problem_of(&error))?;
    if batch.checks.len() > MAX_CHECKS {
        let detail = format!("the batch has {} checks, at most {MAX_CHECKS} are allowed", batch.checks.len());
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "checks", detail));
    }
    let length = 64 + ANSWER_BYTES * batch.checks.len();
    let room = answers::reserve(room, length)?;
    node.metrics[worker].count_batch();
    let mut out = BytesMut::with_capacity(length);
    out.put_slice(b"{\"answers\":[");
    let mut steps = Vec::with_capacity(batch.checks.len());
    for group in batch.checks.chunks(GROUP) {
        decide_group(node, worker, group, grant, &mut steps);
    }
    let (mut steps, mut answers) = (steps.into_iter(), FuturesOrdered::new());
    let mut first = true;
    loop {
        answers.extend(steps.by_ref().take(IN_FLIGHT - answers.len()).map(|step| finish(node, worker, step)));
        let Some(answer) = answers.next().await else { break };
        if !std::mem::take(&mut first) {
            out.put_u8(b',');
        }
        out.put_slice(&answer);
    }
    out.put_slice(b"]}");
    Ok((out.freeze(), room))
}

/// How far one check is.
enum Step<'a> {
    Told(Vec<u8>),
    /// Another node owns a slot of it.
    Elsewhere(Box<(CheckRequest<'a>, Option<Box<Prepared>>)>),
}

fn decide_group<'a>(
    node: &Node,
    worker: usize,
    group: &[&'a RawValue],
    grant: &Grant,
    steps: &mut Vec<Step<'a>>,
) {
    let parse = |text: &&'a RawValue| {
        let asked = json::parse_text(text.get())?;
        grant.may_ask(&asked.domain)?;
        Ok(asked)
    };
    let asked: Vec<Result<CheckRequest<'a>, Problem>> = group.iter().map(parse).collect();
    let whole = asked.iter().filter_map(|asked| asked.as_ref().ok());
    let mut elsewhere = Vec::new();
    let mut here = check_group_here(node, worker, whole, to_json, &mut elsewhere).into_iter();
    let mut elsewhere = elsewhere.into_iter();
    steps.extend(asked.into_iter().map(|asked| {
        let decided = match asked {
            Ok(asked) => match here.next().flatten() {
                Some(decided) => decided,
                None => return Step::Elsewhere(Box::new((asked, elsewhere.next()))),
            },
            Err(problem) => Err(problem),
        };
        Step::Told(decided.unwrap_or_else(|problem| told(node, worker, &problem)))
    }));
}

async fn finish(node: &Node, worker: usize, step: Step<'_>) -> Vec<u8> {
    match step {
        Step::Told(answer) => answer,
        Step::Elsewhere(mut step) => {
            let (asked, prepared) = &mut *step;
            let decided = check(node, worker, asked, prepared.take(), to_json).await;
            decided.unwrap_or_else(|problem| told(node, worker, &problem))
        }
    }
}

fn told(node: &Node, worker: usize, problem: &Problem) -> Vec<u8> {
    node.metrics[worker].count_problem(problem.kind);
    problem.to_json()
}

fn to_json(answer: CheckAnswer<'_>) -> Vec<u8> {
    let mut json = BytesMut::with_capacity(ANSWER_BYTES);
    answer.write_json(&mut json);
    json.into()
}
