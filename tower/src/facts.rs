//! What a request is asked about.

/// Its attributes, and its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) cost: u64,
}
