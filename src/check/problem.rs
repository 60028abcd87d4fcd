//! What is wrong with what was asked, or keeps a node from answering it; each front end has its own words for it.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Characters of a client's text that are repeated to it.
const MAX_ECHO: usize = 80;

/// The kinds of problems. Programs can tell them apart by the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    NotJson,
    InvalidUtf8,
    UnknownField,
    MissingField,
    InvalidValue,
    ValueTooLarge,
    DuplicateParameter,
    BodyTooLarge,
    BodyTimeout,
    BodyIncomplete,
    EncodedBody,
    UnknownCoding,
    BadHead,
    HeadTooLarge,
    HeadTimeout,
    NoSuchCall,
    MethodNotAllowed,
    NotReady,
    TooManyConnections,
    NoSuchDomain,
    NoSuchRevision,
    RevisionMismatch,
    KeyReused,
    InvalidRules,
    NoRoom,
    NoQuorum,
    NotEverywhereYet,
    NoSuchNode,
    NodeIsLive,
    OwnerUnreachable,
    NoSuchRule,
    ForeignOrigin,
    UnknownHost,
    Busy,
    TokenNeeded,
    BadToken,
    TooManyFailures,
    RoleMissing,
    DomainNotAllowed,
    AdminElsewhere,
    NoSuchToken,
    TokenConflict,
}

impl ProblemKind {
    pub(crate) const ALL: [Self; 42] = [
        Self::NotJson,
        Self::InvalidUtf8,
        Self::UnknownField,
        Self::MissingField,
        Self::InvalidValue,
        Self::ValueTooLarge,
        Self::DuplicateParameter,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyIncomplete,
        Self::EncodedBody,
        Self::UnknownCoding,
        Self::BadHead,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::NoSuchCall,
        Self::MethodNotAllowed,
        Self::NotReady,
        Self::TooManyConnections,
        Self::NoSuchDomain,
        Self::NoSuchRevision,
        Self::RevisionMismatch,
        Self::KeyReused,
        Self::InvalidRules,
        Self::NoRoom,
        Self::NoQuorum,
        Self::NotEverywhereYet,
        Self::NoSuchNode,
        Self::NodeIsLive,
        Self::OwnerUnreachable,
        Self::NoSuchRule,
        Self::ForeignOrigin,
        Self::UnknownHost,
        Self::Busy,
        Self::TokenNeeded,
        Self::BadToken,
        Self::TooManyFailures,
        Self::RoleMissing,
        Self::DomainNotAllowed,
        Self::AdminElsewhere,
        Self::NoSuchToken,
        Self::TokenConflict,
    ];

    /// The word for it, in answers and as a label in the metrics.
    pub(crate) fn word(self) -> &'static str {
        self.parts().0
    }

    /// The same for people.
    pub(crate) fn title(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::NotJson => ("not-json", "The body is not JSON"),
            Self::InvalidUtf8 => ("invalid-utf8", "The text is not UTF-8"),
            Self::UnknownField => ("unknown-field", "There is no such field"),
            Self::MissingField => ("missing-field", "A field is missing"),
            Self::InvalidValue => ("invalid-value", "Invalid value"),
            Self::ValueTooLarge => ("value-too-large", "A value is too large"),
            Self::DuplicateParameter => ("duplicate-parameter", "A parameter is given twice"),
            Self::BodyTooLarge => ("body-too-large", "The body is too large"),
            Self::EncodedBody => ("encoded-body", "The body is compressed"),
            Self::UnknownCoding => ("unknown-transfer-coding", "The transfer coding is not known"),
            Self::BodyTimeout => ("body-timeout", "The body took too long"),
            Self::BodyIncomplete => ("body-incomplete", "The body broke off"),
            Self::BadHead => ("bad-request", "The request is not HTTP/1.1"),
            Self::HeadTooLarge => ("head-too-large", "The request's head is too large"),
            Self::HeadTimeout => ("head-timeout", "The request's head took too long"),
            Self::NoSuchCall => ("no-such-call", "There is no such call"),
            Self::MethodNotAllowed => ("method-not-allowed", "The call has another method"),
            Self::NotReady => ("not-ready", "This node cannot decide yet"),
            Self::TooManyConnections => ("too-many-connections", "Too many connections"),
            Self::NoSuchDomain => ("no-such-domain", "The domain has no rules"),
            Self::NoSuchRevision => ("no-such-revision", "There is no such revision"),
            Self::RevisionMismatch => ("revision-mismatch", "The rules have changed meanwhile"),
            Self::KeyReused => ("key-reused", "The idempotency key was used for another write"),
            Self::InvalidRules => ("invalid-rules", "The rules cannot be used"),
            Self::NoRoom => ("no-room", "There is no room for these rules"),
            Self::NoQuorum => ("no-quorum", "A quorum cannot be reached"),
            Self::NoSuchNode => ("no-such-node", "There is no such node"),
            Self::NoSuchRule => ("no-such-rule", "There is no such rule"),
            Self::ForeignOrigin => ("foreign-origin", "A page of another site asks"),
            Self::UnknownHost => ("unknown-host", "The node is asked by a name that it does not know"),
            Self::Busy => ("busy", "The node has too much to do beside checks"),
            Self::TokenNeeded => ("token-needed", "A token is needed"),
            Self::BadToken => ("bad-token", "The token does not count"),
            Self::TooManyFailures => ("too-many-failures", "Too many failed authentications"),
            Self::RoleMissing => ("role-missing", "The token lacks a role"),
            Self::DomainNotAllowed => ("domain-not-allowed", "The token is not for this domain"),
            Self::AdminElsewhere => ("admin-elsewhere", "Administration has an address of its own"),
            Self::NoSuchToken => ("no-such-token", "There is no such token"),
            Self::TokenConflict => ("token-conflict", "The tokens cannot be changed like that"),
            Self::NodeIsLive => ("node-is-live", "The node is alive"),
            Self::OwnerUnreachable => ("owner-unreachable", "The owner of a bucket cannot be reached"),
            Self::NotEverywhereYet => ("not-everywhere-yet", "Written, but not yet in force everywhere"),
        }
    }
}

/// One problem.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: ProblemKind,
    pub(crate) detail: Cow<'static, str>,
    /// The field or parameter it is about, as in `attributes.ip`.
    pub(crate) field: Option<String>,
    /// Where in the text that was sent: line and column, from 1.
    pub(crate) place: Option<(usize, usize)>,
    /// What else there is to say, for programs.
    pub(crate) members: Option<Box<Map<String, Value>>>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), field: None, place: None, members: None }
    }

    /// A problem with a field or parameter.
    pub(crate) fn of_field(
        kind: ProblemKind,
        field: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: Some(field.into()), ..Self::new(kind, detail) }
    }

    /// With one more member.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }
}

/// A client's text, short enough to be repeated to it.
pub(crate) fn echo(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_ECHO) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_word_of_its_own() {
        let mut words: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ProblemKind::ALL.len());
        assert!(ProblemKind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(echo("short"), "short");
        let long = "ä".repeat(100);
        assert_eq!(echo(&long).chars().count(), MAX_ECHO + 1);
    }
}
