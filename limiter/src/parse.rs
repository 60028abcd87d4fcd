//! From what rules are written in to compiled rules, or to all that is wrong with them, with places.
//!
//! Of a rule file (the feature `yaml`) in steps: `node` reads any YAML to a tree with places, `shape` finds the fields that a rule
//! file has in it, `file` makes rules of them. Each step goes on behind an error, so that all are reported at once. What `compile`
//! knows holds for rules that are written in Rust, too.

#[cfg(feature = "yaml")]
mod blocks;
mod compile;
mod error;
#[cfg(feature = "yaml")]
mod fields;
#[cfg(feature = "yaml")]
mod file;
#[cfg(feature = "yaml")]
mod node;
#[cfg(feature = "yaml")]
mod placing;
#[cfg(feature = "yaml")]
mod shape;
#[cfg(feature = "yaml")]
mod yaml;

pub use self::error::RuleError;
#[cfg(feature = "yaml")]
pub(crate) use self::yaml::one_domain;
pub(crate) use self::{
    compile::{Compiler, RawKey, RawPattern, RawTest, Written},
    error::Place,
};

/// The domain of rules that name none.
pub const DEFAULT_DOMAIN: &str = "default";
/// Longest name of a rule, a domain or an attribute, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Most attributes in one key.
pub const MAX_KEY_PARTS: usize = 8;
/// Most errors that are reported at once.
pub const MAX_RULE_ERRORS: usize = 100;

/// Without the feature nobody gives a file.
#[cfg(not(feature = "yaml"))]
pub(crate) fn one_domain(
    _text: &str,
    _name: &str,
    _compiler: &mut Compiler<'_>,
) -> Option<crate::rule_set::Content> {
    None
}

/// Whether a text can name a rule or a domain: 1 to [`MAX_NAME_BYTES`] letters, digits and `- _ . / :`.
pub fn is_valid_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.chars().all(good)
}

#[cfg(all(test, feature = "yaml"))]
mod tests;
