//! The layer: what all services that it makes have together.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};

#[cfg(feature = "local")]
use crate::local::Local;
use crate::{
    answer::Answer,
    facts::Facts,
    nodes::{Nodes, Unanswered},
    refusal::Refusal,
};

/// What a node takes of attributes; what is beyond is left out.
const MAX_ATTRIBUTES: usize = 64;
/// Bytes of a value that a node takes; a longer one is left out.
const MAX_VALUE_BYTES: usize = 4096;

/// What happens to a request when no node answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// It runs.
    #[default]
    Allow,
    /// It is answered 503 (gRPC: `UNAVAILABLE`).
    Deny,
}

pub(crate) type AttributeOf = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;
pub(crate) type CostOf = Arc<dyn Fn(&Parts) -> u64 + Send + Sync>;
pub(crate) type ResponseTo = Arc<dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync>;

/// What each service of a layer needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) attributes: Vec<(String, AttributeOf)>,
    pub(crate) cost: CostOf,
    pub(crate) on_failure: OnFailure,
    pub(crate) on_refused: Option<ResponseTo>,
}

/// The layer. Clones share nodes, connections and buckets.
#[derive(Clone)]
pub struct Tidegate {
    pub(crate) decider: Decider,
    pub(crate) shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
pub(crate) enum Decider {
    Nodes(Arc<Nodes>),
    #[cfg(feature = "local")]
    Local(Arc<Local>),
}

impl Tidegate {
    /// Decides about a request without a layer, e.g. in a handler that knows more about it.
    ///
    /// # Errors
    /// When no node has answered in time; [`Builder::on_failure`](crate::Builder::on_failure) is for layers.
    pub async fn check(&self, parts: &Parts) -> Result<Answer, Unanswered> {
        let facts = self.shared.facts(parts);
        match &self.decider {
            Decider::Nodes(nodes) => nodes.ask(&facts).await,
            #[cfg(feature = "local")]
            Decider::Local(local) => Ok(local.decide(&facts)),
        }
    }

    pub(crate) fn on_failure(&self) -> OnFailure {
        self.shared.on_failure
    }

    /// What a request that does not run is answered.
    pub(crate) fn response(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        match &self.shared.on_refused {
            Some(response) => refusal.complete(response(refusal)),
            None => refusal.response(),
        }
    }
}

impl Shared {
    pub(crate) fn facts(&self, parts: &Parts) -> Facts {
        let attributes = self
            .attributes
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value(parts)?)))
            .filter(|(_, value)| value.len() <= MAX_VALUE_BYTES)
            .take(MAX_ATTRIBUTES)
            .collect();
        Facts { attributes, cost: (self.cost)(parts) }
    }
}

impl fmt::Debug for Tidegate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tidegate")
            .field("decider", &self.decider)
            .field("on_failure", &self.shared.on_failure)
            .finish_non_exhaustive()
    }
}
