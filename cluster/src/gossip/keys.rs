//! What nodes say of themselves by gossip, and how long it counts.

use std::time::Duration;

/// A member counts as dead when nothing was heard of it for this many times the usual pause between two signs of life.
/// With three messages an interval in each direction that pause is a third to a fifth of the gossip interval, so that
/// a death is noticed after 4 to 7 intervals.
pub(super) const PHI_THRESHOLD: f64 = 20.0;
/// How long the death of a member is remembered. Short, because the list of all members has to fit a datagram.
pub(super) const DEAD_MEMBER_GRACE: Duration = Duration::from_secs(15 * 60);

/// A pause between signs of life that is longer than so many intervals is not counted among the usual ones.
pub(super) const LONGEST_PAUSE: u32 = 20;

pub(super) const KEY_STATE: &str = "state";
pub(super) const KEY_HTTP: &str = "http";
pub(super) const KEY_GRPC: &str = "grpc";
pub(super) const KEY_ZONE: &str = "zone";
pub(super) const KEY_WEIGHT: &str = "weight";
pub(super) const KEY_NODE: &str = "node";
pub(super) const KEY_GROUP: &str = "group";
pub(super) const KEY_IN_FORCE: &str = "in-force";
pub(super) const KEY_EXPECT: &str = "expect";
/// All that nodes tell of themselves; nothing else is let in. **A key that a later version adds reaches another node of that
/// version only if no older one stands between them**: nothing may depend on it before all know it.
pub(super) const KEYS: [&str; 9] =
    [KEY_STATE, KEY_HTTP, KEY_GRPC, KEY_ZONE, KEY_WEIGHT, KEY_NODE, KEY_GROUP, KEY_IN_FORCE, KEY_EXPECT];

/// Longest name of a node.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// Whether a text can name a node: 1 to 64 letters, digits, `.`, `_` and `-`.
pub fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
