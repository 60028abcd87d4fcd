//! Which limits some requests have, and what of that is not sure.

use super::{pattern::Conditions, scope::Way};

/// The limits of some requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reached<'l> {
    /// Each for requests of which a condition holds; for others there is none.
    pub(super) ways: Vec<(Conditions, &'l [Way])>,
    /// What decides about them that no rule knows, with its line.
    pub(super) doubts: Vec<(u64, Doubt)>,
}

/// Why requests may have other limits in nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    If,
    Rewrite,
    RewrittenTo,
    Files,
    VariablePath,
    Index,
    Error,
    Subrequest,
    EmptyKey,
    TooMuch,
}

impl Doubt {
    /// What differs.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::If => {
                "if: no rule says this condition; requests that fit it are limited like all others here, and in nginx they are answered or sent on before"
            }
            Self::Rewrite => {
                "rewrite: rules know no such regular expression; requests that fit it are limited like all others here, and in nginx they are answered or sent on before"
            }
            Self::RewrittenTo => {
                "rewrite: the new path is made of variables; a rule is about the path that the client asked for, and not about what becomes of it"
            }
            Self::Files => {
                "try_files: a request that is answered from a file is counted here too; nginx counts only those for which there is none"
            }
            Self::VariablePath => {
                "its last path is made of variables, so it is not followed to the limits there"
            }
            Self::Index => {
                "index: a request for a directory is counted here as one for a file in it, whether that file is there or not"
            }
            Self::Error => {
                "error_page: a request that ends in this error has the limits of the location of its page in nginx, and none here"
            }
            Self::Subrequest => {
                "a subrequest of auth_request or mirror is limited in nginx, for requests that have no limit themselves; here it is not"
            }
            Self::EmptyKey => {
                "limit_req: a request with an empty key has the limits of the location that it is sent on to in nginx, and none here"
            }
            Self::TooMuch => {
                "too many conditions that depend on each other: what comes after them is not carried over"
            }
        }
    }
}

impl<'l> Reached<'l> {
    /// All of its limits.
    pub(super) fn uses(&self) -> impl Iterator<Item = &'l Way> {
        self.ways.iter().flat_map(|(_, uses)| uses.iter())
    }

    /// Whether it has any.
    pub(super) fn limits(&self) -> bool {
        !self.ways.is_empty()
    }

    /// Whether the limits are the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let uses = |way: &'l [Way]| way.iter().map(|(_, used)| used);
        self.ways.len() == other.ways.len()
            && self
                .ways
                .iter()
                .zip(&other.ways)
                .all(|((own, one), (when, two))| own == when && uses(one).eq(uses(two)))
    }

    /// With those of other requests.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.ways.extend(other.ways);
        self.doubts.extend(other.doubts);
        self
    }

    /// With a doubt, where something else would be limited otherwise.
    pub(super) fn unless(mut self, line: u64, doubt: Doubt, other: &Self) -> Self {
        if !self.is_as(other) && !self.doubts.contains(&(line, doubt)) {
            self.doubts.push((line, doubt));
        }
        self
    }
}
