//! The ways through a tree as rules.

use std::collections::{HashMap, HashSet};

use tidegate_limiter::{Algorithm, rules::PatternText};

use super::{
    super::imported::{Imported, Names, NewRule, NotRead},
    descriptor::{Descriptor, Limit, Rate},
    step::{Level, Step, attribute},
};

/// Patterns of all rules of a domain; a tree whose rules have more is none that anybody has written.
const MAX_PATTERNS: usize = 500_000;

struct Walk<'i, 't> {
    imported: &'i mut Imported,
    rules: Vec<NewRule>,
    names: Names,
    /// Of all limits.
    limit_names: HashSet<&'t str>,
    /// By their attributes in the order of the alphabet, how the first rule with them has them.
    orders: HashMap<Vec<String>, Vec<String>>,
    patterns: usize,
}

/// The rules of a domain.
pub(super) fn rules(
    descriptors: &[Descriptor<'_>],
    imported: &mut Imported,
) -> Result<Vec<NewRule>, NotRead> {
    let mut limit_names = HashSet::new();
    look_over(descriptors, &mut limit_names, imported);
    let mut walk = Walk {
        imported,
        rules: Vec::new(),
        names: Names::default(),
        limit_names,
        orders: HashMap::new(),
        patterns: 0,
    };
    walk.level(descriptors, &mut Vec::new())?;
    Ok(walk.rules)
}

/// All of the tree, what is never reached too: that server refuses it as well.
fn look_over<'t>(all: &[Descriptor<'t>], limit_names: &mut HashSet<&'t str>, imported: &mut Imported) {
    let mut seen = HashSet::new();
    for one in all {
        if !seen.insert(one.final_key()) {
            imported
                .lost(one.line, "the same key and value stand here twice; envoyproxy/ratelimit refuses that");
        }
        // What is unlimited is nothing that could be replaced.
        let limit = one.limit.iter().filter(|limit| limit.rate != Rate::Unlimited);
        limit_names.extend(limit.map(|limit| limit.name));
        look_over(&one.children, limit_names, imported);
    }
}

impl<'t> Walk<'_, 't> {
    fn level(&mut self, all: &[Descriptor<'t>], way: &mut Vec<Step>) -> Result<(), NotRead> {
        let level = Level::new(all, self.imported);
        for place in level.usable(self.imported) {
            let one = &all[place];
            if one.limit.is_none() && one.children.is_empty() {
                continue;
            }
            let step = level.step(place, way);
            self.count(&step, one.line)?;
            way.push(step);
            if let Some(limit) = &one.limit {
                self.limit(one, limit, way)?;
            }
            self.level(&one.children, way)?;
            way.pop();
        }
        Ok(())
    }

    fn count(&mut self, step: &Step, line: u64) -> Result<(), NotRead> {
        self.patterns += step.patterns.len();
        if self.patterns <= MAX_PATTERNS {
            return Ok(());
        }
        let message = format!(
            "the rules up to here would have more than {MAX_PATTERNS} values: too many descriptors of one key stand beside each other"
        );
        Err(NotRead { line, message })
    }

    fn limit(&mut self, one: &Descriptor<'t>, limit: &Limit<'t>, way: &[Step]) -> Result<(), NotRead> {
        for step in way {
            self.count(step, limit.line)?;
        }
        let mut when: Vec<(String, Vec<PatternText>)> = way
            .iter()
            .filter(|step| !step.patterns.is_empty())
            .map(|step| (step.attribute.clone(), step.patterns.clone()))
            .collect();
        // A request that goes on deeper is not limited here.
        for child in &one.children {
            let deeper = attribute(child.key, way);
            if when.iter().all(|(known, _)| *known != deeper) {
                when.push((deeper, vec!["!*".into()]));
            }
        }
        let name = match limit.name {
            "" => way.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join("."),
            name => name.to_owned(),
        };
        let key: Vec<String> =
            way.iter().filter(|step| step.is_key).map(|step| step.attribute.clone()).collect();
        let rule = NewRule {
            name: self.names.take(&name),
            line: limit.line,
            when,
            alternatives: Vec::new(),
            // That server counts each address by itself.
            ipv6_prefix: key.iter().any(|attribute| attribute == "ip").then_some(128),
            key,
            limit: match limit.rate {
                Rate::Unlimited => "unlimited".to_owned(),
                Rate::Per(count, period) => format!("{count}/{period}"),
            },
            burst: None,
            algorithm: Algorithm::FixedWindow,
            shadow: one.shadow,
        };
        if let Some(fault) = rule.fault() {
            self.imported.lost(limit.line, format!("a limit of {}: {fault}", rule.limit));
            return Ok(());
        }
        self.tell_replaced(limit);
        self.tell_order(way, limit.line);
        if way.iter().any(|step| step.attribute == "ip") {
            self.imported.lost(
                limit.line,
                "the key ip: a node refuses a value that is not one address, and takes all ways to write an address as one; there it is any text",
            );
        }
        if rule.key.iter().any(|name| name == "path") {
            self.imported.lost(
                limit.line,
                "the key path: slashes at the end make no other path; there each text is counted by itself",
            );
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Of several descriptors of a request, one can put another one's limit out of force there.
    fn tell_replaced(&mut self, limit: &Limit<'t>) {
        for (line, name) in &limit.replaces {
            if name.is_empty() || *name == limit.name {
                self.imported.lost(
                    *line,
                    "replaces has the name of another rate_limit; envoyproxy/ratelimit refuses none, and its own",
                );
            } else if self.limit_names.contains(name) {
                self.imported.lost(
                    *line,
                    format!("replaces {name}: of the descriptors of a request each is decided by itself here, so {name} must allow too"),
                );
            } else {
                self.imported.note(*line, format!("replaces {name}: no limit of this domain has that name"));
            }
        }
    }

    /// Entries of a descriptor have an order there, and none here.
    fn tell_order(&mut self, way: &[Step], line: u64) {
        let order: Vec<String> = way.iter().map(|step| step.attribute.clone()).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let first = self.orders.entry(sorted).or_insert_with(|| order.clone());
        if *first != order {
            let message = format!(
                "{} is another way than {} there; here the order of entries does not count, so the limits of both hold for both",
                order.join(", "),
                first.join(", "),
            );
            self.imported.lost(line, message);
        }
    }
}
