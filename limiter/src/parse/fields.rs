//! The fields of a map in a rule file: those that are known, and what is wrong with the others.

use super::{
    compile::Written,
    error::{MAX_WORD_CHARS, Place, RuleErrors, shortened},
    node::{Node, Value},
};

/// What a map of a rule file can hold.
pub(super) struct Kind {
    /// E.g. `a rule`.
    pub(super) name: &'static str,
    /// A field each, with an example of it.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// A whole one.
    pub(super) example: &'static str,
}

impl Kind {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|(name, _)| *name)
    }

    fn example_of(&self, field: &str) -> &'static str {
        self.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, example)| example)
    }
}

/// The fields of one map.
pub(super) struct Fields<'f, 't> {
    pub(super) errors: &'f mut RuleErrors<'t>,
    kind: &'static Kind,
    /// The map's beginning.
    place: Place,
    found: Vec<(&'static str, Node)>,
}

impl<'f, 't> Fields<'f, 't> {
    /// Looks at the names of all fields. A field whose name is nearly right is read as the one that it resembles, so that
    /// its value is looked at too, and the right one is not missed.
    pub(super) fn of(node: Node, kind: &'static Kind, errors: &'f mut RuleErrors<'t>) -> Option<Self> {
        let place = node.shown();
        let entries = match node.value {
            Value::Map(entries) => entries,
            _ => {
                let message = format!("{} is a map of its fields, here is {}", kind.name, node.kind());
                errors.add(place, message, format!("write e.g. {}", kind.example));
                return None;
            }
        };
        let mut found: Vec<(&'static str, Node)> = Vec::with_capacity(entries.len());
        let mut unknown = Vec::new();
        for (key, value) in entries {
            let (place, what) = (key.shown(), key.kind());
            let Ok(name) = key.into_text(errors.text()) else {
                errors.add(place, format!("the name of a field must be a text, here is {what}"), "");
                continue;
            };
            match kind.names().find(|known| *known == name) {
                None => unknown.push((name, place, value)),
                Some(field) if found.iter().any(|(known, _)| *known == field) => errors.add(
                    place,
                    format!("the field `{field}` is there twice in {}", kind.name),
                    "keep one of them",
                ),
                Some(field) => found.push((field, value)),
            }
        }
        for (name, place, value) in unknown {
            let near = nearest(&name, kind.names());
            let help = match near {
                Some(field) => format!("did you mean `{field}`?"),
                None => format!("{} has: {}", kind.name, kind.names().collect::<Vec<_>>().join(", ")),
            };
            errors.add(place, format!("{} has no field `{}`", kind.name, shortened(&name)), help);
            if let Some(field) = near.filter(|near| found.iter().all(|(known, _)| known != near)) {
                found.push((field, value));
            }
        }
        Some(Self { errors, kind, place, found })
    }

    /// A field that can be left out, or be empty.
    pub(super) fn take(&mut self, field: &str) -> Option<Node> {
        let place = self.found.iter().position(|(known, _)| *known == field)?;
        Some(self.found.swap_remove(place).1).filter(|node| !matches!(node.value, Value::Nothing))
    }

    /// A field that must be there. `None`: it is not, which is an error.
    pub(super) fn need(&mut self, field: &str) -> Option<Node> {
        let empty = self
            .found
            .iter()
            .find(|(known, node)| *known == field && matches!(node.value, Value::Nothing))
            .map(|(_, node)| node.place);
        let found = self.take(field);
        if found.is_none() {
            let help = format!("write e.g. {}", self.kind.example_of(field));
            match empty {
                Some(place) => self.errors.add(place, format!("`{field}` is empty"), help),
                None => self.errors.add(self.place, format!("{} needs `{field}`", self.kind.name), help),
            }
        }
        found
    }

    /// A field that can be left out and is a text.
    pub(super) fn text(&mut self, field: &str) -> Option<Written> {
        let node = self.take(field)?;
        self.read_text(field, node)
    }

    /// A field that must be there and is a text.
    pub(super) fn needed_text(&mut self, field: &str) -> Option<Written> {
        let node = self.need(field)?;
        self.read_text(field, node)
    }

    /// Says that a field is not what it must be.
    pub(super) fn mistaken(&mut self, field: &str, expected: &str, node: &Node) {
        let help = format!("write e.g. {}", self.kind.example_of(field));
        self.errors.add(node.shown(), format!("`{field}` must be {expected}, here is {}", node.kind()), help);
    }

    fn read_text(&mut self, field: &str, node: Node) -> Option<Written> {
        let place = node.place;
        match node.into_text(self.errors.text()) {
            Ok(text) => Some(Written { text, place }),
            Err(node) => {
                self.mistaken(field, "a text", &node);
                None
            }
        }
    }
}

/// The known word that was probably meant, if one resembles it enough: about one letter in three may be wrong.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.chars().count() > MAX_WORD_CHARS {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|known| (strsim::damerau_levenshtein(&word, known), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised_and_others_are_not() {
        let near = |word| nearest(word, ["limit", "burst", "key", "on_owner_loss", "when"].into_iter());
        assert_eq!(near("limt"), Some("limit"));
        assert_eq!(near("Limits"), Some("limit"));
        assert_eq!(near("brust"), Some("burst"));
        assert_eq!(near("keys"), Some("key"));
        assert_eq!(near("on-owner-los"), Some("on_owner_loss"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(&"limit".repeat(1_000)), None);
    }
}
