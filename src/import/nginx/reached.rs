//! Which limits some requests have, and what of that is not sure.

use super::{late::Late, pattern::Conditions, scope::Way};

/// The limits of some requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reached<'l> {
    pub(super) ways: Vec<Limited<'l>>,
    /// What decides about them that no rule knows, with its line.
    pub(super) doubts: Vec<(u64, Doubt)>,
}

/// Requests of which a condition holds, what they are where they are limited, and by what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limited<'l> {
    pub(super) when: Conditions,
    pub(super) late: Late,
    pub(super) uses: &'l [Way],
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
                "if: no rule says this condition; requests that fit it are limited like all others here, and otherwise, or not at all, in nginx"
            }
            Self::Rewrite => {
                "rewrite: no rule says which paths these are; requests that fit it are limited like all others here, and in nginx they are answered or sent on before"
            }
            Self::RewrittenTo => {
                "rewrite: the new path is made of variables; a rule is about the path that the client asked for, and not about what becomes of it"
            }
            Self::Files => {
                "try_files: a request that is answered from a file is counted here too; nginx counts only those for which there is none"
            }
            Self::VariablePath => {
                "the path that it sends requests on to is made of variables, so it is not followed to the limits there"
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
        self.ways.iter().flat_map(|one| one.uses.iter())
    }

    /// Whether it has any.
    pub(super) fn limits(&self) -> bool {
        !self.ways.is_empty()
    }

    /// Whether the limits are the same, and the keys.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let lates = |of: &Self| of.ways.iter().map(|one| one.late.clone()).collect::<Vec<_>>();
        self.has_limits_of(other) && lates(self) == lates(other)
    }

    /// Whether the limits are the same, maybe with other keys.
    pub(super) fn has_limits_of(&self, other: &Self) -> bool {
        let uses = |way: &'l [Way]| way.iter().map(|(_, used)| used);
        self.ways.len() == other.ways.len()
            && self
                .ways
                .iter()
                .zip(&other.ways)
                .all(|(one, two)| one.when == two.when && uses(one.uses).eq(uses(two.uses)))
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
