//! The messages between nodes.
//!
//! A stream opens with a greeting ([`crate::greeting`]): a nonce of each side. Then the caller sends an [`Introduction`] and
//! the other side a [`Welcome`], each of them in a record whose seal proves that the sender holds the cluster key; the caller
//! goes first, so that a stranger learns nothing. Then the caller sends `Check`, `Amend`, `Undo` and `Ping`; the other side
//! sends `Answer` and `Pong`, in any order, matched by `id`. Or the caller sends `Control`, and calls of the Raft group from
//! then on; it need not wait for the `Welcome` before that.
//!
//! Wire structs are plain and append-only: a new shape is a new [`crate::WIRE_VERSION`].

use serde::{Deserialize, Deserializer, Serialize, de};
use smallvec::SmallVec;

use crate::frame::{Kind, Message};

/// Most charges in one check: as many rules may match one request at one owner.
pub const MAX_CHARGES: usize = 64;

/// The first record of the caller. Its seal shows that the caller holds the cluster key and has seen the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The name of the cluster that the caller belongs to.
    pub cluster: String,
    /// The caller's node name.
    pub node: String,
    /// The caller's incarnation: grows with each start of that node.
    pub incarnation: u64,
    /// The caller's id in the Raft group.
    pub id: u64,
    /// The name of the node that the caller means to talk to; empty: whoever is there.
    pub to: String,
}

/// The first record of the side that was called, after the [`Introduction`]. Its seal shows that it holds the cluster key and
/// has seen the caller's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The name of the node that answers.
    pub node: String,
    /// Its incarnation.
    pub incarnation: u64,
}

/// Says why a connection ends, before it is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people: goes into the peer's log.
    pub reason: String,
}

/// Asks the owner for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Chosen by the asking side, not used again on this connection while it is open.
    pub id: u64,
    /// Whether an [`Undo`] may follow, because other owners decide about the same request.
    pub undoable: bool,
    /// What to charge, all or nothing.
    pub charges: Charges,
    /// A number for what the client calls its request, if it says, and for all that the check charges, at other owners too: one that is asked
    /// again is charged once. Its 40 high bits are those of the request's id.
    pub request: Option<u64>,
    /// Of the rules that the asker has made the charges by: all that was written up to here was in force at it.
    pub revision: u64,
}

/// Asks the owner to change buckets without a decision. Answered by an [`Answer`], whose decisions are those about a look
/// afterwards; ids are shared with those of [`Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amend {
    /// Chosen by the asking side, not used again on this connection while it is open.
    pub id: u64,
    /// What to do with the buckets.
    pub amendment: Amendment,
    /// Which buckets; of each its `cost` counts for a refund.
    pub charges: Charges,
    /// As of a [`Check`].
    pub revision: u64,
}

/// What is done with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amendment {
    /// The cost is given back, as far as the bucket has given it.
    Refund,
    /// It forgets what it knows.
    Reset,
    /// Of what a request was charged, the one whose id has this number, the cost is given back, as far as it still weighs.
    RefundOf(u64),
}

/// One bucket to charge. It carries the whole limit, so that an owner whose rules are those of the asker, or earlier ones,
/// needs no rule to decide. One with newer rules decides by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The key hash of the bucket.
    pub key: u64,
    /// The number of the rule; 0: the limit came with the check.
    pub rule: u64,
    /// Units to take; 0 only looks.
    pub cost: u64,
    /// The limit.
    pub limit: Limit,
    /// Whether the rule only reports (shadow mode) and never denies.
    pub shadow: bool,
    /// Whether only an owner may decide that is surely the only one.
    pub strict: bool,
    /// Whether the owner of the rule's buckets keeps floors with its successor.
    pub reserve: bool,
    /// A fingerprint of all by which the rule tells requests apart.
    pub shape: u64,
    /// 0: the limit where no override of the rule fits; otherwise the place of the one that does, counted from 1.
    pub place: u32,
    /// For how long a key is banned that exceeds the limit, in seconds: the first time, and at most.
    pub ban: Option<(u32, u32)>,
}

/// A limit in plain numbers. The receiver validates it as it would a rule's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The number of the algorithm (`tidegate_limiter::Algorithm`).
    pub algorithm: u8,
    /// Units in a period.
    pub count: u64,
    /// The period.
    pub period: Period,
    /// Capacity or queue length.
    pub burst: u64,
}

/// The period of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Period {
    /// A fixed number of nanoseconds.
    Nanos(u64),
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
    /// A fixed number of nanoseconds, from the first charge on.
    NanosFromFirst(u64),
    /// Windows of a time zone, or from a date on (`tidegate_limiter::cluster::CalendarParts`). A receiver whose database has no such
    /// zone refuses the check.
    Calendar {
        /// Which kind of windows.
        step: u8,
        /// A number of the name of the time zone; 0: UTC.
        zone: u64,
        /// Where in the calendar a window begins.
        place: u32,
        /// When, in seconds.
        seconds: u32,
    },
}

/// The charges of a check: at most [`MAX_CHARGES`], refused beyond that before memory is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Charges(SmallVec<[Charge; 2]>);

impl Charges {
    /// Takes the charges of one check; `None` if there are more than [`MAX_CHARGES`].
    pub fn new(charges: impl IntoIterator<Item = Charge>) -> Option<Self> {
        let charges: SmallVec<[Charge; 2]> = charges.into_iter().collect();
        (charges.len() <= MAX_CHARGES).then_some(Self(charges))
    }

    /// The charges, in the order of the request.
    pub fn as_slice(&self) -> &[Charge] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Charges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded_sequence(deserializer).map(Self)
    }
}

/// Answers a [`Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The id of the check.
    pub id: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a check at the node that it was sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was decided.
    Decided(Decided),
    /// Nothing was charged: by the receiver's slot table another node owns this slot.
    NotOwner {
        /// The slot in question.
        slot: u16,
    },
    /// Nothing was charged: the receiver has no slot table yet, or is leaving.
    NotReady,
    /// Nothing was charged: a limit in the check is not a valid one.
    Malformed,
    /// Nothing was charged: the receiver owns the slots, but has no session with the leader in which it may decide.
    Lapsed {
        /// For how long it can be relied on that nobody decides about them, in nanoseconds.
        for_nanos: u64,
    },
    /// Nothing was charged: the receiver's rules are newer than the asker's, and only who sees the request can tell what they
    /// make of it.
    Newer {
        /// A node that has the rules of this revision, or later ones, can tell.
        revision: u64,
    },
}

/// A decision about all charges of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Whether all charges were made (none otherwise).
    pub allowed: bool,
    /// A decision for each charge, in their order.
    pub decisions: SmallVec<[Decision; 2]>,
}

impl<'de> Deserialize<'de> for Decided {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            allowed: bool,
            decisions: Bounded,
        }
        struct Bounded(SmallVec<[Decision; 2]>);
        impl<'de> Deserialize<'de> for Bounded {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                bounded_sequence(deserializer).map(Bounded)
            }
        }
        let plain = Plain::deserialize(deserializer)?;
        Ok(Self { allowed: plain.allowed, decisions: plain.decisions.0 })
    }
}

/// The decision about one bucket. Times are durations: each node adds its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether this bucket allowed.
    pub allowed: bool,
    /// What `remaining` counts against.
    pub limit: u64,
    /// Units left.
    pub remaining: u64,
    /// Nanoseconds until the bucket is full again.
    pub reset_after: u64,
    /// Nanoseconds until the same cost can pass; `None` when allowed, or when it never can.
    pub retry_after: Option<u64>,
    /// Nanoseconds that the request has to wait for its turn (leaky bucket).
    pub delay: u64,
    /// Whether what was consumed before was not in memory any more, and had to be assumed.
    pub assumed: bool,
    /// Whether the key is banned.
    pub banned: bool,
}

/// Takes back an undoable check that was allowed: another owner denied the same request. At most once for an id;
/// not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The id of the check.
    pub id: u64,
}

/// Asks for a [`Pong`] with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Chosen by the asking side.
    pub id: u64,
}

/// Answers a [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The id of the ping.
    pub id: u64,
}

/// Makes the stream, from now on, one for calls of the Raft group, one at a time: each side answers a
/// [`Kind::Call`] with a [`Kind::Reply`] before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control;

macro_rules! kinds {
    ($($message:ident),*) => { $(impl Message for $message { const KIND: Kind = Kind::$message; })* };
}
kinds!(Introduction, Welcome, Refused, Check, Answer, Undo, Ping, Pong, Control, Amend);

/// Reads a sequence of at most [`MAX_CHARGES`] items. The length on the wire is not trusted with an allocation.
fn bounded_sequence<'de, T, D>(deserializer: D) -> Result<SmallVec<[T; 2]>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Visitor<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = SmallVec<[T; 2]>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX_CHARGES} items")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut found = SmallVec::new();
            while let Some(item) = items.next_element()? {
                if found.len() == MAX_CHARGES {
                    return Err(de::Error::custom(format_args!("more than {MAX_CHARGES} items")));
                }
                found.push(item);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
}

#[cfg(test)]
mod tests;
