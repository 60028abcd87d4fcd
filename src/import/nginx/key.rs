//! What tells the buckets of a zone apart.

use super::pattern::Conditions;

/// What tells the buckets of some requests apart, by what they are [where they are limited](late).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) when: Conditions,
    /// As a rule writes them.
    pub(super) attributes: Vec<String>,
    /// The texts between them: keys with others are other keys.
    pub(super) texts: Vec<String>,
    /// Each first name of a server has a bucket of its own.
    pub(super) by_server: bool,
    /// It is empty, so not counted, where the server has no name.
    pub(super) needs_name: bool,
}

impl Key {
    /// For some of its requests, which nginx does not count.
    pub(super) fn may_be_empty(&self) -> bool {
        self.needs_name && self.attributes.iter().all(|written| written.ends_with('?'))
    }

    pub(super) fn asks(&self, attribute: &str) -> bool {
        self.when.ask(attribute) || self.attributes.iter().any(|written| written == attribute)
    }
}
