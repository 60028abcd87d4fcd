//! A problem as gRPC tells it.

use tonic::{Code, Status};

use crate::{
    check::{Problem, ProblemKind},
    node::Node,
};

/// The status of a problem, which is counted.
pub(super) fn refused(node: &Node, worker: usize, problem: &Problem) -> Status {
    node.metrics[worker].count_problem(problem.kind);
    let code = match problem.kind {
        ProblemKind::NotReady | ProblemKind::OwnerUnreachable => Code::Unavailable,
        ProblemKind::TokenNeeded | ProblemKind::BadToken => Code::Unauthenticated,
        ProblemKind::RoleMissing | ProblemKind::DomainNotAllowed | ProblemKind::AdminElsewhere => {
            Code::PermissionDenied
        }
        ProblemKind::TooManyFailures => Code::ResourceExhausted,
        _ => Code::InvalidArgument,
    };
    Status::new(code, problem.detail.clone())
}
