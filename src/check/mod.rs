//! A check is decided here, whichever front end has read it: this room knows no protocol.
//!
//! In the order in which a check meets them:
//!
//! - `request`: what it asks. `problem`: what is said when something is wrong.
//! - `charges`: what the rules have charged for it. `prepared`: the same for as long as other nodes are waited for.
//! - `decide`: decides it, here or where its slots are owned.
//! - `outcome`: puts the decisions of all its limits together; `answer` is what the front ends write down.
//! - `explain`: why it would be decided so, for people. `together`: several checks as one. `amend`: units given back, and buckets that forget.

mod amend;
mod answer;
mod charges;
mod decide;
mod ends;
mod explain;
mod outcome;
mod prepared;
mod problem;
mod request;
mod together;

pub(crate) use self::{
    amend::{AmendedBuckets, amend_as_check, amend_buckets},
    answer::{CheckAnswer, Decider, Numbers, Policy},
    decide::{Begun, FirstLook, begin_check, check, check_group_here, check_here, check_here_at},
    explain::{Explanation, Limited, explain},
    prepared::Prepared,
    problem::{Problem, ProblemKind, echo},
    request::{
        AttributeList, CheckRequest, Costs, MAX_ATTRIBUTES, MAX_LIMITS, MAX_NAME_BYTES, MAX_VALUE_BYTES,
        Meant, Subject, too_long,
    },
    together::check_together,
};
