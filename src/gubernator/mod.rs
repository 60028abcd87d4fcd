//! Gubernator's service: limits that come with the requests, as its clients ask for them, over gRPC and over HTTP. It knows
//! neither: those two front ends hand it what they have read.
//!
//! - `question`: a request as a check, or why it cannot be one.
//! - `json`: requests and answers as proto3 JSON.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod json;
mod question;

use futures_util::{StreamExt as _, stream};
use tidegate_cluster::{Amendment, Member, Readiness};
use tidegate_proto::{
    batch::{Batch, MAX_REQUESTS},
    grpc::pb::gubernator::{
        Behavior, GetRateLimitsResp, HealthCheckResp, PeerHealthResp, RateLimitReq, RateLimitResp, Status,
    },
};

use self::question::{Asked, Question, cost};
use crate::{
    access::Caller,
    check::{
        CheckAnswer, CheckRequest, FirstLook, Numbers, Problem, ProblemKind, amend_as_check, check,
        check_here,
    },
    node::Node,
};

/// Bytes of a batch.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Requests of one batch that are on their way to other nodes at the same time.
const IN_FLIGHT: usize = 256;
/// How often the rest of a bucket is asked for that others take from at the same time.
const MAX_DRAINS: usize = 8;

/// What the metadata of an answer names its owner by, where that is another node.
const OWNER: &str = "owner";

/// What is told of one check.
#[derive(Debug, Clone)]
struct Told {
    allowed: bool,
    numbers: Option<Numbers>,
    /// The other node that decided.
    owner: Option<String>,
}

impl Told {
    fn of(node: &Node, answer: &CheckAnswer<'_>) -> Self {
        let owner = (answer.node != node.name).then(|| answer.node.to_owned());
        Self { allowed: answer.allowed, numbers: answer.numbers, owner }
    }
}

/// Whether a batch gives units back, or makes a bucket forget.
pub(crate) fn gives_back(batch: &Batch) -> bool {
    let resets = |behavior: i32| behavior & Behavior::ResetRemaining as i32 != 0;
    batch.requests.iter().any(|request| request.hits < 0 || resets(request.behavior))
}

/// Decides a batch, each request by itself. What is wrong with one of them stands in its `error`.
pub(crate) async fn decide(
    node: &Node,
    worker: usize,
    batch: &Batch,
    caller: &Caller,
) -> Result<GetRateLimitsResp, Problem> {
    if batch.has_too_many {
        // The words that clients of Gubernator know.
        let detail = format!("Requests.RateLimits list too large; max size is '{MAX_REQUESTS}'");
        return Err(Problem::of_field(ProblemKind::ValueTooLarge, "requests", detail));
    }
    node.metrics[worker].count_batch();
    let requests = &batch.requests;
    let answers = stream::iter(0..requests.len())
        .map(|place| answer(node, worker, &requests[place], caller))
        .buffered(IN_FLIGHT);
    let mut responses: Vec<RateLimitResp> = answers.collect().await;
    name_owners(node, &mut responses);
    Ok(GetRateLimitsResp { responses })
}

/// Writes the address where the name of an owner stands: once for a batch, as it takes a copy of the members.
fn name_owners(node: &Node, responses: &mut [RateLimitResp]) {
    let mut named = responses.iter_mut().filter_map(|one| one.metadata.get_mut(OWNER)).peekable();
    if named.peek().is_none() {
        return;
    }
    let status = node.cluster.status();
    for owner in named {
        let member = status.live.iter().find(|member| *member.id.name == **owner);
        // An older version does not tell: its name stays.
        if let Some(address) = member.and_then(grpc_of) {
            *owner = address;
        }
    }
}

async fn answer(node: &Node, worker: usize, request: &RateLimitReq, caller: &Caller) -> RateLimitResp {
    let answered = match Question::read(request) {
        Ok(question) => match permitted(node, &question, request, caller) {
            Ok(()) => ask(node, worker, &question).await,
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(problem),
    };
    let told = answered.unwrap_or_else(|problem| {
        node.metrics[worker].count_problem(problem.kind);
        // Nobody decided: a client that reads only the status must not take it for a yes.
        let status = Status::OverLimit.into();
        RateLimitResp { status, error: problem.detail.into_owned(), ..Default::default() }
    });
    RateLimitResp { limit: if told.error.is_empty() { request.limit } else { 0 }, ..told }
}

/// Whether the client may ask that.
fn permitted(
    node: &Node,
    question: &Question<'_>,
    request: &RateLimitReq,
    caller: &Caller,
) -> Result<(), Problem> {
    caller.may_ask(&request.name)?;
    if question.amends == Some(Amendment::Reset) { caller.may_reset(&node.access) } else { Ok(()) }
}

async fn ask(node: &Node, worker: usize, question: &Question<'_>) -> Result<RateLimitResp, Problem> {
    let check = match &question.asked {
        Asked::Check(check) => check,
        Asked::Never => return Ok(RateLimitResp { status: Status::OverLimit.into(), ..Default::default() }),
    };
    if let Some(amendment) = question.amends {
        let told = amend_as_check(node, worker, amendment, check, |answer| Told::of(node, &answer)).await?;
        if !question.counts {
            return Ok(in_their_words(node, told));
        }
    }
    let mut told = decided(node, worker, check).await?;
    if !told.allowed && question.drains {
        for _ in 0..MAX_DRAINS {
            let left = told.numbers.map_or(0, |numbers| numbers.remaining);
            if left == 0 {
                break;
            }
            // What is left now may be less already: then what is left then.
            let rest = CheckRequest { cost: cost(left)?, ..question.copy(check) };
            told = Told { allowed: false, ..decided(node, worker, &rest).await? };
        }
    }
    Ok(in_their_words(node, told))
}

async fn decided(node: &Node, worker: usize, check_request: &CheckRequest<'_>) -> Result<Told, Problem> {
    match check_here(node, worker, check_request, |answer| Told::of(node, &answer)) {
        FirstLook::Decided(told) => told,
        FirstLook::Elsewhere(found) => {
            check(node, worker, check_request, Some(found), |answer| Told::of(node, &answer)).await
        }
    }
}

fn in_their_words(node: &Node, told: Told) -> RateLimitResp {
    let status = if told.allowed { Status::UnderLimit } else { Status::OverLimit };
    let mut answer = RateLimitResp { status: status.into(), ..Default::default() };
    if let Some(numbers) = told.numbers {
        answer.remaining = integer(numbers.remaining);
        let reset = numbers.reset_after.as_nanos().div_ceil(1_000_000);
        let now = node.clock.now().get() / 1_000_000;
        answer.reset_time = integer(now.saturating_add(u64::try_from(reset).unwrap_or(u64::MAX)));
    }
    if let Some(name) = told.owner {
        answer.metadata.insert(OWNER.to_owned(), name);
    }
    answer
}

/// Where gRPC is asked of a node.
fn grpc_of(member: &Member) -> Option<String> {
    member.grpc.map(|address| address.to_string())
}

/// Who is there, as this node sees it.
///
/// # Errors
/// When this node cannot decide.
pub(crate) fn health(node: &Node) -> Result<HealthCheckResp, Problem> {
    if let Readiness::NotReady(reason) = node.readiness() {
        return Err(Problem::new(ProblemKind::NotReady, reason));
    }
    let status = node.cluster.status();
    let me = status.live.iter().find(|member| member.id == status.me);
    let peers = status.live.iter().map(|member| PeerHealthResp {
        grpc_address: grpc_of(member).unwrap_or_default(),
        data_center: member.zone.clone().unwrap_or_default(),
    });
    Ok(HealthCheckResp {
        status: "healthy".to_owned(),
        message: String::new(),
        peer_count: i32::try_from(status.live.len()).unwrap_or(i32::MAX),
        advertise_address: me.and_then(grpc_of).unwrap_or_else(|| node.grpc_address.to_string()),
        local_peers: peers.collect(),
        region_peers: Vec::new(),
    })
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
