//! Reads whole rule files.

use std::{collections::HashMap, sync::Arc};

use super::{DEFAULT_DOMAIN, compile::Compiler, error::Place, error::RuleError, node, shape};
use crate::{
    HashSecret, Rules,
    rule_set::{Content, Domain},
};

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
            let content = compiler.content(name, &file);
            let domain = Domain::new(content).charging(compiler.all_or_nothing(&file));
            domains.insert(name.into(), Arc::new(domain));
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
        self.replaced(name, Compiler::new(text, secret), 0)
    }

    /// The same, for rules that were written at this revision, maybe by an earlier version: what that took is taken, with the
    /// meaning that it had.
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
        self.replaced(name, Compiler::of_stored(text, secret), revision)
    }

    fn replaced(
        &self,
        name: &str,
        mut compiler: Compiler<'_>,
        revision: u64,
    ) -> Result<Self, Vec<RuleError>> {
        let mut documents = node::read(compiler.errors.text()).map_err(|error| vec![error])?;
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
            Domain::new(compiler.content(name, &file)).charging(compiler.all_or_nothing(&file))
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

/// What a file says that is about one domain, whatever its name is. `None`: there is an error in it.
pub(crate) fn one_domain(text: &str, name: &str, compiler: &mut Compiler<'_>) -> Option<Content> {
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
    let Some(document) = documents.pop() else {
        return Some(Content { rules: Vec::new(), block: None, allow_unmatched: true });
    };
    let file = shape::file(document, &mut compiler.errors)?;
    Some(compiler.content(name, &file))
}
