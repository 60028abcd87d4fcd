//! The parts of which a Tidegate node is made: compiled rules, fingerprints, buckets that move between nodes.
//!
//! **No promise of compatibility is made here.** These names change with the program, in any release. An application that limits requests
//! in one process finds all that it needs at the [root](crate) and in [`rules`](crate::rules).
//!
//! In the order in which a check meets them:
//!
//! - [`Rules`]: what is limited; compiled from a rule file, matched with the attributes of a request.
//! - [`KeyHash`]: the fingerprint of the bucket that a rule keeps for those attributes.
//! - [`Store`]: the buckets. It decides a [`Charge`], or several at once.
//! - [`Reserve`], [`Floor`], [`Mark`]: what a bucket's owner keeps with the node that would take it over.
//! - [`Held`], [`LetGo`]: buckets on their way to another node, or to a disk.

pub use crate::{
    about::{About, Finding, Findings, NotAbout, Wants},
    address::IpPrefix,
    ban::Ban,
    calendar::placed::CalendarParts,
    cardinality::estimate,
    charge::Charge,
    describe::{
        BanDescription, BlockDescription, Conditions, DomainDescription, FieldChange, IpPrefixDescription,
        OverrideDescription, RuleChange, RuleDescription, RulesDiff, WorstCase, conditions_text,
    },
    floor::Floor,
    key::{KeyHash, RuleId},
    limit::UnknownAlgorithm,
    limits::LimitRef,
    mark::{Held, Mark},
    matching::Matched,
    parse::{DEFAULT_DOMAIN, MAX_KEY_PARTS, MAX_NAME_BYTES, MAX_RULE_ERRORS, is_valid_name},
    policy::{Consistency, OnOwnerLoss},
    reserve::{Formerly, Reserve, Reserves},
    returned::Returned,
    revised::{Newer, Standing},
    rule_set::{Match, Rules},
    store::{Bucket, HoldId, LetGo, Store, StoreConfig, level},
    takeover::Takeover,
};
