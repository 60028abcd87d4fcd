//! YAML of any shape, with the lines of its values.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::imported::NotRead;

/// Values in a file; more are no configuration.
const MAX_NODES: usize = 200_000;

/// A value and its line.
#[derive(Debug)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) tree: Tree,
}

#[derive(Debug)]
pub(super) enum Tree {
    Nothing,
    /// A single value, as text.
    Text(String),
    List(Vec<At>),
    Map(Vec<(String, At)>),
}

/// The documents of a text, whose lines come after `before` others.
pub(super) fn read(text: &str, before: u64) -> Result<Vec<At>, NotRead> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: MAX_NODES * 2, max_nodes: MAX_NODES },
        with_snippet: false,
    };
    let mut documents: Vec<At> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let line = before + error.location().map_or(0, |location| location.line());
            NotRead { line, message: error.to_string() }
        })?;
    documents.iter_mut().for_each(|document| document.come_after(before));
    Ok(documents)
}

impl At {
    fn come_after(&mut self, lines: u64) {
        self.line += lines;
        match &mut self.tree {
            Tree::Nothing | Tree::Text(_) => {}
            Tree::List(items) => items.iter_mut().for_each(|item| item.come_after(lines)),
            Tree::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.come_after(lines)),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Tree::Text(text) = &self.tree { Some(text) } else { None }
    }

    pub(super) fn is_true(&self) -> bool {
        self.text() == Some("true")
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), tree: value })
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
