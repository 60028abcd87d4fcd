//! envoyproxy/ratelimit: a tree of descriptors. At each level the entry of the request is looked for with its value, then
//! among the patterns in their order, then without value; and only what is found at the depth of the last entry limits it.
//!
//! A way through the tree becomes a rule: its attributes are the keys on the way, and what goes before it at each level is
//! excluded. Counters are fixed windows.
//!
//! - `wrapped`: the configurations in objects of Kubernetes.
//! - `descriptor`: the fields of a configuration, as that server's decoder reads them.
//! - `step`: which values one of several descriptors gets.
//! - `ways`: the ways through a tree as rules.

mod descriptor;
mod step;
mod ways;
mod wrapped;

use std::collections::HashMap;

use tidegate_limiter::cluster::is_valid_name;

use self::descriptor::Descriptor;
use super::{
    imported::{Domain, Imported, NotRead},
    sources::Sources,
};

/// What the texts say of a domain.
struct Config<'t> {
    domain: &'t str,
    line: u64,
    descriptors: Vec<Descriptor<'t>>,
}

/// Reads the files of a configuration.
pub(crate) fn read(sources: &mut Sources) -> Result<Imported, NotRead> {
    let mut imported = Imported::default();
    let mut documents = Vec::new();
    for source in sources.iter() {
        wrapped::read(source, &mut documents, &mut imported)?;
    }
    if documents.is_empty() {
        let message = "there is no configuration of envoyproxy/ratelimit: it is a map with domain and descriptors";
        return Err(NotRead { line: 0, message: message.to_owned() });
    }
    let mut configs: Vec<Config<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for document in &documents {
        let more = descriptor::config(document, &mut imported)?;
        match places.get(more.domain).map(|place| &mut configs[*place]) {
            Some(known) => {
                let message = format!(
                    "the domain {} again: its descriptors are put together, as with MERGE_DOMAIN_CONFIG=true",
                    more.domain
                );
                imported.note(more.line, message);
                known.descriptors.extend(more.descriptors);
            }
            None => {
                places.insert(more.domain, configs.len());
                configs.push(more);
            }
        }
    }
    for Config { domain, line, descriptors } in configs {
        if is_valid_name(domain) {
            let rules = ways::rules(&descriptors, &mut imported)?;
            imported.domains.push(Domain { name: domain.to_owned(), rules });
        } else {
            let message = format!(
                "the domain {domain:?}: a domain has 1 to 128 letters, digits and - _ . / : here; change the name, in the filter of Envoy too"
            );
            imported.lost(line, message);
        }
    }
    imported.sort();
    Ok(imported)
}

#[cfg(test)]
mod tests;
