//! YAML of any shape, with the lines of its values. A single value is the text that was written, whatever YAML makes of it.

use std::mem;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Location, Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

use super::imported::NotRead;

/// Values in a text; more are no configuration.
const MAX_NODES: usize = 200_000;

/// A value and its line.
#[derive(Debug)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) tree: Tree,
    /// Where its letters are.
    letters: Location,
}

#[derive(Debug)]
pub(super) enum Tree {
    Nothing,
    /// A single value, as it was written.
    Text(String),
    List(Vec<At>),
    Map(Vec<(String, At)>),
}

/// Which line of a file a line of a text is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lines {
    /// So many lines are before it.
    After(u64),
    /// All of it is said to be in this one.
    All(u64),
}

impl Lines {
    fn of(self, line: u64) -> u64 {
        match self {
            Self::After(before) => before + line,
            Self::All(line) => line,
        }
    }
}

/// The documents of a text.
pub(super) fn read(text: &str, lines: Lines) -> Result<Vec<At>, NotRead> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: MAX_NODES * 2, max_nodes: MAX_NODES },
        // As the decoder of envoyproxy/ratelimit.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    let mut documents: Vec<At> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let line = lines.of(error.location().map_or(0, |location| location.line()));
            let mut message = error.without_snippet().to_string();
            // The place is told with the file's name.
            if let Some(end) = message.find(" at line ") {
                message.truncate(end);
            }
            NotRead { line, message }
        })?;
    documents.iter_mut().for_each(|document| document.settle(text, lines));
    Ok(documents)
}

impl At {
    /// Makes texts of what YAML took for something else.
    fn settle(&mut self, text: &str, lines: Lines) {
        self.line = lines.of(self.line);
        let letters = self.letters_in(text);
        let is_quoted = letters.is_some_and(|letters| letters.starts_with(['"', '\'', '|', '>']));
        match &mut self.tree {
            Tree::Nothing => {}
            Tree::Text(value) => {
                if let Some(letters) = letters.filter(|letters| !is_quoted && !letters.contains('\n')) {
                    *value = letters.trim_end().to_owned();
                }
                if !is_quoted && matches!(&**value, "~" | "null" | "Null" | "NULL") {
                    self.tree = Tree::Nothing;
                }
            }
            Tree::List(items) => items.iter_mut().for_each(|item| item.settle(text, lines)),
            Tree::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.settle(text, lines)),
        }
    }

    fn letters_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        let span = self.letters.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        text.get(start..start.checked_add(length)?).filter(|letters| !letters.is_empty())
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Tree::Text(text) = &self.tree { Some(text) } else { None }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.tree, Tree::Nothing)
    }

    /// The fields of a map.
    pub(super) fn fields(&self) -> Option<&[(String, At)]> {
        if let Tree::Map(fields) = &self.tree { Some(fields) } else { None }
    }

    pub(super) fn field(&self, name: &str) -> Option<&At> {
        self.fields()?.iter().find(|(known, _)| known == name).map(|(_, field)| field)
    }

    pub(super) fn field_mut(&mut self, name: &str) -> Option<&mut At> {
        let Tree::Map(fields) = &mut self.tree else { return None };
        fields.iter_mut().find(|(known, _)| known == name).map(|(_, field)| field)
    }

    /// The documents in a text that this is, with their lines in the `whole` text.
    pub(super) fn documents(&self, whole: &str, text: &str) -> Result<Vec<At>, NotRead> {
        // Of a literal block each line is one of the whole text. In quotes it may be anything.
        let is_literal = self.letters_in(whole).is_some_and(|letters| letters.starts_with('|'));
        read(text, if is_literal { Lines::After(self.line) } else { Lines::All(self.line) })
    }

    /// Takes the items of a list out.
    pub(super) fn take_items(&mut self) -> Vec<At> {
        if let Tree::List(items) = &mut self.tree { mem::take(items) } else { Vec::new() }
    }
}
impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), tree: value, letters: defined })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyTree)
    }
}

struct AnyTree;

impl<'de> Visitor<'de> for AnyTree {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(text: &str) {
        for doc in read(text, Lines::After(0)).unwrap() {
            for (name, at) in doc.fields().unwrap() {
                eprintln!("{name}: {:?} line {} letters {:?}", at.tree, at.line, at.letters_in(text));
            }
        }
    }

    #[test]
    fn probing() {
        probe("a: NO\nb: 1.10 # x\nc: 0755\nd: &x y\ne: *x\nf: ~\ng: Null\nh: NULL\ni: \"~\"\nj: 'null'\nk: 2020-01-01\nl:\nm: 0x1F\nn: 1_000\no: .inf\np: !!str 5\nq: &y 1.50\nr: *y\ns: +5\nt: 12345678901234567890123\nu: -1\n");
        probe("a: |\n  x: 1\n\n  y: 2\nb: >-\n  x\n  y\nc: |-\n\n\n  z: 3\nd: plain\n  folded\ne: \"x\\ny\"\nf: | # comment\n  q\ng: &a |2\n   q\n");
        probe("b: &b { x: 1, y: 2 }\nc: { y: 3, <<: *b }\nd: { <<: *b, y: 3 }\ne: {y: 1, y: 2}\né: 1.10\nf: { a: 1.10, b: NO}\n");
        probe("{\"a\": 1.10, \"b\": \"x\\ny\", \"c\": null}");
    }
}
