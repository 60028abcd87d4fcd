//! From when on, and until when, a rule or an override is in force.

use crate::{Nanos, key::KeyBytes, rfc3339};

/// Some time. What is in force always has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    from: Nanos,
    /// Not any more at this instant.
    until: Nanos,
}

impl Span {
    pub(crate) const ALWAYS: Self = Self { from: Nanos::new(0), until: Nanos::new(u64::MAX) };

    /// `None`: there is no time between them.
    pub(crate) fn new(from: Option<Nanos>, until: Option<Nanos>) -> Option<Self> {
        let span =
            Self { from: from.unwrap_or(Self::ALWAYS.from), until: until.unwrap_or(Self::ALWAYS.until) };
        (span.from < span.until).then_some(span)
    }

    #[inline]
    pub(crate) fn has(self, now: Nanos) -> bool {
        self.from <= now && now < self.until
    }

    /// Its end; `None`: it has none.
    #[inline]
    pub(crate) fn end(self) -> Option<Nanos> {
        (self.until != Self::ALWAYS.until).then_some(self.until)
    }

    pub(crate) fn is_over(self, now: Nanos) -> bool {
        self.until <= now
    }

    /// Takes it in, where it is not always: fingerprints of rules without one are what they were before there were any.
    pub(crate) fn feed(self, bytes: &mut KeyBytes) {
        if self != Self::ALWAYS {
            bytes.text("span");
            bytes.number(self.from.get());
            bytes.number(self.until.get());
        }
    }

    /// The instants that it has, as RFC 3339.
    pub(crate) fn texts(self) -> (Option<String>, Option<String>) {
        let text = |instant: Nanos, end: Nanos| (instant != end).then(|| rfc3339::text_of(instant));
        (text(self.from, Self::ALWAYS.from), text(self.until, Self::ALWAYS.until))
    }
}
