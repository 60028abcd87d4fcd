//! From the text of a rule file to compiled rules, or to all that is wrong with it, with places.
//!
//! In steps: `node` reads any YAML to a tree with places, `shape` finds the fields that a rule file has in it, `compile`
//! makes rules of them. Each step goes on behind a fault, so that all are told at once.

mod compile;
mod fault;
mod fields;
mod node;
mod shape;

use std::{collections::HashMap, sync::Arc};

pub use self::fault::RuleError;
pub(crate) use self::{
    compile::Compiler,
    fault::Place,
    shape::{RawKey, RawTest, Written},
};
use crate::{HashSecret, Rules, rule::Domain};

/// The domain of rules that name none.
pub const DEFAULT_DOMAIN: &str = "default";
/// Longest name of a rule, a domain or an attribute, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Most attributes in one key.
pub const MAX_KEY_PARTS: usize = 8;
/// Faults that are told at once.
pub const MAX_FAULTS: usize = 100;
/// Values, lists and maps of a rule file: about a hundred thousand rules. What else a file may have (depth, aliases) is
/// what the parser thinks enough.
const MAX_NODES: usize = 2_000_000;

impl Rules {
    /// Reads a rule file: one YAML document (or JSON, which is YAML) for each domain.
    ///
    /// # Errors
    /// All faults that could be found, the first [`MAX_FAULTS`] of them, in the order of the text. A text that is no YAML
    /// has one: the place where it is none.
    pub fn from_yaml(text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        let documents = node::read(text).map_err(|fault| vec![fault])?;
        let mut compiler = Compiler::new(text, secret);
        let mut domains = HashMap::new();
        for document in documents {
            let Some(file) = shape::file(document, &mut compiler.faults) else { continue };
            let name = file.domain.as_ref().map_or(DEFAULT_DOMAIN, |name| &name.text);
            if let Some(written) = &file.domain {
                compiler.check_name("domain", written);
            }
            if domains.contains_key(name) {
                compiler.fault(
                    file.domain.as_ref().map_or(file.place, |name| name.place),
                    format!("the domain {name:?} is there twice"),
                    "put its rules into one document",
                );
            }
            let domain = compiler.domain(name, &file);
            domains.insert(name.into(), Arc::new(domain));
        }
        compiler.finish()?;
        Ok(Self::of_domains(secret, domains))
    }

    /// These rules with those of one domain replaced; the others are shared. The text is one document, and need not name
    /// the domain.
    ///
    /// # Errors
    /// All faults that could be found in the text; or that it is about another domain, or several.
    pub fn with_domain(&self, name: &str, text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        self.with_domain_at(name, text, secret, 0)
    }

    /// These rules and a domain that denies everything, for one whose rules cannot be used; `None` if there is one of that name.
    pub fn with_denied_domain(&self, name: &str) -> Option<Self> {
        if self.domains.contains_key(name) {
            return None;
        }
        let mut domains = self.domains.clone();
        domains.insert(name.into(), Arc::new(Domain::new(Vec::new(), false)));
        Some(self.with_domains(domains))
    }

    /// The same, for rules that were written at this revision.
    ///
    /// # Errors
    /// As [`Rules::with_domain`].
    pub fn with_domain_at(
        &self,
        name: &str,
        text: &str,
        secret: &HashSecret,
        revision: u64,
    ) -> Result<Self, Vec<RuleError>> {
        let mut documents = node::read(text).map_err(|fault| vec![fault])?;
        let mut compiler = Compiler::new(text, secret);
        let count = documents.len();
        if count != 1 {
            let message = format!("{count} documents, where the rules of one domain are expected");
            compiler.fault(Place::NOWHERE, message, "write each domain by itself");
        }
        let file = documents.pop().and_then(|document| shape::file(document, &mut compiler.faults));
        let domain = file.map(|file| {
            if let Some(written) = file.domain.as_ref().filter(|written| *written.text != *name) {
                let message =
                    format!("these are the rules of the domain {:?}, not of {name:?}", written.text);
                compiler.fault(written.place, message, "leave `domain` out, or write to the other one");
            }
            compiler.domain(name, &file)
        });
        compiler.finish()?;
        let mut domains = self.domains.clone();
        if let Some(domain) = domain {
            let mut domain = match domains.get(name) {
                Some(before) => domain.following(before),
                None => domain,
            };
            domain.revision = revision;
            domains.insert(name.into(), Arc::new(domain));
        }
        Ok(self.with_domains(domains))
    }
}

/// Whether a text can name a rule or a domain: 1 to [`MAX_NAME_BYTES`] letters, digits and `- _ . / :`.
pub fn is_valid_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.chars().all(good)
}

#[cfg(test)]
mod tests;
