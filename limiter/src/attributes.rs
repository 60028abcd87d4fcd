//! What is known of a request.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
};

use crate::{address::Address, rule::Rule};

/// The facts of a request, by name.
pub trait Attributes {
    /// The value of an attribute, if the request has it.
    fn get(&self, name: &str) -> Option<&str>;

    /// The value of an attribute as an address, if it is one. Whoever has read it before can say so here.
    fn address(&self, name: &str) -> Option<Address> {
        self.get(name).and_then(Address::parse)
    }

    /// Whether a rule may be about the request at all, whatever the values are. By default each may.
    fn may_match(&self, _rule: &Rule) -> bool {
        true
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Attributes for [(N, V)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.as_ref() == name).map(|(_, value)| value.as_ref())
    }
}

impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> Attributes for [(N, V); COUNT] {
    fn get(&self, name: &str) -> Option<&str> {
        <[(N, V)] as Attributes>::get(self, name)
    }
}

impl<N: Borrow<str> + Ord, V: AsRef<str>> Attributes for BTreeMap<N, V> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(AsRef::as_ref)
    }
}

impl<N: Borrow<str> + Eq + std::hash::Hash, V: AsRef<str>, S: BuildHasher> Attributes for HashMap<N, V, S> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(AsRef::as_ref)
    }
}
