//! What the block list of a rule file means.

use std::collections::{HashMap, HashSet};

use super::{
    compile::{Compiler, Written},
    error::shortened,
    is_valid_name,
    shape::{RawBlocked, RawFile},
};
use crate::{
    Limit, Nanos, NewRule, Rule,
    block::{BlockList, Blocked},
    rfc3339,
};

/// The name of entries that have none.
const UNNAMED: &str = "block";

impl Compiler<'_> {
    /// `None`: there is none, or nothing in it.
    pub(super) fn block(&mut self, domain: &str, file: &RawFile) -> Option<BlockList> {
        let (mut entries, mut rules) = (Vec::with_capacity(file.block.len()), Vec::new());
        let mut places = HashMap::new();
        let of_rules = file.rules.iter().filter_map(|rule| rule.name.as_ref());
        let of_rules: HashSet<&str> = of_rules.map(|name| &*name.text).collect();
        for raw in &file.block {
            let name = raw.name.as_ref().map_or(UNNAMED, |name| &*name.text);
            if let Some(written) = &raw.name {
                self.check_name("block list entry", written);
                if of_rules.contains(name) {
                    let message = format!("{:?} is the name of a rule", shortened(name));
                    self.error(written.place, message, "answers name what denies: choose another name");
                }
            }
            let known = places.get(name).copied();
            let rule = known.or_else(|| {
                if !is_valid_name(name) {
                    return None;
                }
                let rule: Rule = NewRule::new(name, Limit::DENY).compile(domain, self)?;
                places.insert(name, rules.len());
                rules.push(rule);
                Some(rules.len() - 1)
            });
            let entry = self.blocked(raw);
            // What has no place is an error that was reported.
            entries.extend(rule.zip(entry).map(|(rule, entry)| Blocked { rule, ..entry }));
        }
        (!entries.is_empty()).then(|| BlockList::new(entries, rules))
    }

    fn blocked(&mut self, raw: &RawBlocked) -> Option<Blocked> {
        if raw.when.is_empty() {
            self.error(
                raw.place,
                "an entry of `block` without an attribute in `when` would block every request",
                "name one, e.g. `when: { ip: 203.0.113.7 }`; to deny all, write a rule with `limit: deny`",
            );
            return None;
        }
        let until = raw.until.as_ref().and_then(|until| self.instant(until));
        Some(Blocked { when: self.condition(&raw.when), until, rule: 0 })
    }

    /// `None`: it is none, which is reported.
    pub(super) fn instant(&mut self, written: &Written) -> Option<Nanos> {
        let instant = rfc3339::parse(&written.text);
        if instant.is_none() {
            let message = format!("{:?} is no instant from 1970 to 2115", shortened(&written.text));
            let help = format!("write date, time and zone (RFC 3339), e.g. {}", rfc3339::EXAMPLE);
            self.error(written.place, message, help);
        }
        instant
    }
}
