//! Reads whole rule files.

use std::{collections::HashMap, sync::Arc};

use super::{DEFAULT_DOMAIN, compile::Compiler, error::Place, error::RuleError, node, shape};
use crate::{HashSecret, Rule, Rules, rule_set::Domain};

impl Rules {
    /// Reads a rule file: one YAML document (or JSON, which is YAML) for each domain.
    ///
    /// # Errors
    /// All errors that could be found, the first [`MAX_RULE_ERRORS`](crate::cluster::MAX_RULE_ERRORS) of them, in the order of the text. A text that is no YAML
    /// has one: the place where it is none.
    pub fn from_yaml(text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        let documents = node::read(text).map_err(|error| vec![error])?;
        let mut compiler = Compiler::new(text, secret);
        let mut domains = HashMap::new();
        for document in documents {
            let Some(file) = shape::file(document, &mut compiler.errors) else { continue };
            let name = file.domain.as_ref().map_or(DEFAULT_DOMAIN, |name| &name.text);
            if let Some(written) = &file.domain {
                compiler.check_name("domain", written);
            }
            if domains.contains_key(name) {
                compiler.error(
                    file.domain.as_ref().map_or(file.place, |name| name.place),
                    format!("the domain {name:?} is there twice"),
                    "put its rules into one document",
                );
            }
            let (rules, allow_unmatched) = compiler.rules(name, &file);
            domains.insert(name.into(), Arc::new(Domain::new(rules, allow_unmatched)));
        }
        compiler.finish()?;
        Ok(Self::of_domains(secret, domains))
    }

    /// These rules with those of one domain replaced; the others are shared. The text is one document, and need not name
    /// the domain.
    ///
    /// # Errors
    /// All errors that could be found in the text; or that it is about another domain, or several.
    pub fn with_domain(&self, name: &str, text: &str, secret: &HashSecret) -> Result<Self, Vec<RuleError>> {
        self.with_domain_at(name, text, secret, 0)
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
        let mut documents = node::read(text).map_err(|error| vec![error])?;
        let mut compiler = Compiler::new(text, secret);
        compiler.ip_prefix = self.ip_prefix();
        let count = documents.len();
        if count != 1 {
            let message = format!("{count} documents, where the rules of one domain are expected");
            compiler.error(Place::NOWHERE, message, "write each domain by itself");
        }
        let file = documents.pop().and_then(|document| shape::file(document, &mut compiler.errors));
        let domain = file.map(|file| {
            if let Some(written) = file.domain.as_ref().filter(|written| *written.text != *name) {
                let message =
                    format!("these are the rules of the domain {:?}, not of {name:?}", written.text);
                compiler.error(written.place, message, "leave `domain` out, or write to the other one");
            }
            let (rules, allow_unmatched) = compiler.rules(name, &file);
            Domain::new(rules, allow_unmatched)
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

/// The rules of a file that is about one domain, whatever its name is, and whether requests that none is about are allowed.
/// `None`: there is an error in it.
pub(crate) fn one_domain(text: &str, name: &str, compiler: &mut Compiler<'_>) -> Option<(Vec<Rule>, bool)> {
    let mut documents = match node::read(text) {
        Ok(documents) => documents,
        Err(error) => {
            compiler.errors.found(error);
            return None;
        }
    };
    if documents.len() > 1 {
        let message = format!("{} documents, where the rules of one domain are expected", documents.len());
        compiler.error(Place::NOWHERE, message, "make a limiter of each domain");
    }
    // An empty file has no rules.
    let Some(document) = documents.pop() else { return Some((Vec::new(), true)) };
    let file = shape::file(document, &mut compiler.errors)?;
    Some(compiler.rules(name, &file))
}
