//! Which values one of several descriptors gets, without those that others of the same level take before it.

use std::collections::{BTreeSet, HashMap, HashSet};

use tidegate_limiter::rules::{PatternForm, PatternText, is_like, short_form};

use super::{super::imported::Imported, descriptor::Descriptor};

/// One step on the way to a limit.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) attribute: String,
    pub(super) patterns: Vec<PatternText>,
    /// Each value has a counter of its own.
    pub(super) is_key: bool,
    /// For the name of a rule.
    pub(super) name: String,
}

/// The descriptors of one level.
pub(super) struct Level<'d, 't> {
    all: &'d [Descriptor<'t>],
    /// The places of those with a key.
    by_key: HashMap<&'t str, Vec<usize>>,
}

impl<'d, 't> Level<'d, 't> {
    pub(super) fn new(all: &'d [Descriptor<'t>], imported: &mut Imported) -> Self {
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, one) in all.iter().enumerate() {
            by_key.entry(one.key).or_default().push(place);
        }
        let level = Self { all, by_key };
        level.tell_joined(imported);
        level
    }

    /// The places of those that can be carried over.
    pub(super) fn usable(&self, imported: &mut Imported) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut all_taken: HashMap<&str, usize> = HashMap::new();
        for (place, one) in self.all.iter().enumerate().filter(|(_, one)| one.value == "*") {
            all_taken.entry(one.key).or_insert(place);
        }
        let mut usable = Vec::new();
        for (place, one) in self.all.iter().enumerate() {
            let is_never_reached = all_taken.get(one.key).is_some_and(|star| {
                // Without value it is the last that is looked for, wherever it stands.
                one.value.is_empty() || one.is_pattern() && *star < place
            });
            // Which was told.
            if !seen.insert(one.final_key()) {
                continue;
            }
            if one.key.contains('*') {
                let message = format!(
                    "{}: a key with a * is a pattern for keys there; a rule names its attributes",
                    one.key
                );
                imported.lost(one.line, message);
            } else if one.key.ends_with('?') {
                let message = format!("{}: an attribute whose name ends with ? cannot be in a key", one.key);
                imported.lost(one.line, message);
            } else if is_never_reached {
                imported.note(
                    one.line,
                    format!("{}: this is never reached: a * takes all values before it", one.key),
                );
            } else {
                usable.push(place);
            }
        }
        usable
    }

    /// How the descriptor at a place is chosen, below the steps of a way.
    pub(super) fn step(&self, place: usize, way: &[Step]) -> Step {
        let one = &self.all[place];
        let mut forms = Vec::new();
        if one.is_pattern() {
            forms.push(PatternForm::ExactlyLike(one.value.to_owned()));
            for (other_place, other) in self.others(one) {
                if other.is_pattern() {
                    if other_place < place && may_share_values(other.value, one.value) {
                        forms.push(PatternForm::NotExactlyLike(other.value.to_owned()));
                    }
                } else if !other.value.is_empty() && is_like(one.value, other.value) {
                    forms.push(PatternForm::IsNot(other.value.to_owned()));
                }
            }
        } else if one.value.is_empty() {
            for (_, other) in self.others(one).filter(|(_, other)| !other.value.is_empty()) {
                let value = other.value.to_owned();
                forms.push(if other.is_pattern() {
                    PatternForm::NotExactlyLike(value)
                } else {
                    PatternForm::IsNot(value)
                });
            }
        } else {
            forms.push(PatternForm::Is(one.value.to_owned()));
        }
        let attribute = attribute(one.key, way);
        Step {
            patterns: forms.iter().map(|form| short_form(&attribute, form)).collect(),
            attribute,
            is_key: if one.is_pattern() { !one.shares } else { one.value.is_empty() },
            name: match one.value.trim_end_matches('*') {
                "" => one.key.to_owned(),
                value => format!("{}:{value}", one.key),
            },
        }
    }

    fn others(&self, one: &Descriptor<'t>) -> impl Iterator<Item = (usize, &'d Descriptor<'t>)> {
        self.by_key[one.key].iter().map(|place| (*place, &self.all[*place]))
    }

    /// That server joins key and value with a `_` before it compares them, so `a: b_c` and `a_b: c` are the same to it.
    fn tell_joined(&self, imported: &mut Imported) {
        let starts: BTreeSet<String> = self.by_key.keys().map(|key| format!("{key}_")).collect();
        for one in self.all {
            let joined = one.final_key();
            let start = joined.split('*').next().unwrap_or_default();
            if one.is_pattern() {
                let mut taken = starts.range(start.to_owned()..).take_while(|other| other.starts_with(start));
                if let Some(other) = taken.find(|other| **other != format!("{}_", one.key)) {
                    let message = format!(
                        "{}: {}: there it takes values of {} too, because a key and its value are joined with a _; here it does not",
                        one.key,
                        one.value,
                        &other[..other.len() - 1],
                    );
                    imported.lost(one.line, message);
                }
            }
            let ends = start.char_indices().filter(|(_, character)| *character == '_').map(|(at, _)| at);
            for key in
                ends.map(|at| &start[..at]).filter(|key| *key != one.key && self.by_key.contains_key(key))
            {
                let message = format!(
                    "{joined}: there {key}: {} is the same, because a key and its value are joined with a _; here it is not",
                    &joined[key.len() + 1..],
                );
                imported.note(one.line, message);
            }
        }
    }
}

/// The attribute of a key below the steps of a way: as the front end for Envoy names a key that comes again.
pub(super) fn attribute(key: &str, way: &[Step]) -> String {
    let is_taken = |name: &str| way.iter().any(|step| step.attribute == name);
    if !is_taken(key) {
        return key.to_owned();
    }
    let more = (2..).map(|number| format!("{key}.{number}"));
    more.into_iter().find(|name| !is_taken(name)).unwrap_or_default()
}

/// Whether a value could fit both patterns, by how they begin and end.
fn may_share_values(one: &str, other: &str) -> bool {
    let start = |pattern: &str| pattern.split('*').next().unwrap_or_default().to_owned();
    let end = |pattern: &str| pattern.rsplit('*').next().unwrap_or_default().to_owned();
    let ((a, b), (c, d)) = ((start(one), start(other)), (end(one), end(other)));
    (a.starts_with(&b) || b.starts_with(&a)) && (c.ends_with(&d) || d.ends_with(&c))
}
