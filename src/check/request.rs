//! What a check asks, whichever front end has read it. It borrows from the request's bytes what it can.

use std::borrow::Cow;

use smallvec::SmallVec;
use tidegate_limiter::{
    Cost, Limit,
    rules::{Address, Attributes, Rule},
};

use super::problem::{Problem, ProblemKind, echo};

/// The attribute whose value is an address.
const IP: &str = "ip";
/// Attributes of a check.
pub(crate) const MAX_ATTRIBUTES: usize = 64;
/// Costs of single rules in a check.
pub(crate) const MAX_COSTS: usize = 64;
/// Limits that a check brings with it.
pub(crate) const MAX_LIMITS: usize = 16;
/// Bytes of an attribute's name, and of a domain.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Bytes of an attribute's value, and of the key of a check without a rule.
pub(crate) const MAX_VALUE_BYTES: usize = 4 << 10;

/// What a check asks.
#[derive(Debug)]
pub(crate) struct CheckRequest<'a> {
    pub(crate) domain: Cow<'a, str>,
    pub(crate) subject: Subject<'a>,
    pub(crate) cost: Cost,
    /// What single rules take instead: by their names, or that of their `cost`.
    pub(crate) costs: Costs<'a>,
    /// What the asker calls the request that the check is for: asked again under this id, it is charged once.
    pub(crate) id: Option<Cow<'a, str>>,
}

/// Costs by name; there are few, and none in most checks.
#[derive(Debug, Default)]
pub(crate) struct Costs<'a>(Vec<(Cow<'a, str>, Cost)>);

impl<'a> Costs<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<Cost> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, cost)| *cost)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Whether none of them takes anything.
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.iter().all(|(_, cost)| *cost == Cost::PEEK)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in one more.
    pub(crate) fn insert(&mut self, name: Cow<'a, str>, units: u64) -> Result<(), Problem> {
        let field = || format!("costs.{}", echo(&name));
        too_long("the name of the cost", field, &name, MAX_NAME_BYTES)?;
        let cost = Cost::new(units)
            .map_err(|error| Problem::of_field(ProblemKind::ValueTooLarge, field(), error.to_string()))?;
        if self.get(&name).is_some() {
            let detail = format!("the cost {:?} is given twice", echo(&name));
            return Err(Problem::of_field(ProblemKind::DuplicateParameter, field(), detail));
        }
        if self.0.len() == MAX_COSTS {
            let detail = format!("there are more than {MAX_COSTS} costs");
            return Err(Problem::of_field(ProblemKind::ValueTooLarge, "costs", detail));
        }
        self.0.push((name, cost));
        Ok(())
    }
}

/// What limits it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is the large one almost always")]
pub(crate) enum Subject<'a> {
    /// The rules of the domain that match these.
    Attributes(AttributeList<'a>),
    /// A limit that the check brings with it.
    Inline { key: Cow<'a, str>, limit: Limit },
    /// Several, each under a name of its own; at least one.
    Named { key: Cow<'a, str>, limits: Vec<(Cow<'a, str>, Limit)> },
}

/// A check's attributes, by name; there are few, so they are searched one by one.
#[derive(Debug, Default)]
pub(crate) struct AttributeList<'a> {
    list: SmallVec<[(Cow<'a, str>, Cow<'a, str>); 8]>,
    meant: Meant,
    /// The value of `ip`.
    ip: Option<Address>,
}

/// Which rules attributes are meant for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    /// All that match some of them.
    #[default]
    ForAny,
    /// Those that name each of them, and those that require none: as Envoy's descriptors are.
    AsWhole,
}

impl Attributes for AttributeList<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn address(&self, name: &str) -> Option<Address> {
        if name == IP { self.ip } else { self.get(name).and_then(Address::parse) }
    }

    fn may_match(&self, rule: &Rule) -> bool {
        self.meant == Meant::ForAny
            || !rule.requires_attributes()
            || self.list.iter().all(|(name, _)| rule.names(name))
    }
}

impl<'a> AttributeList<'a> {
    /// None yet.
    pub(crate) fn meant(meant: Meant) -> Self {
        Self { meant, ..Self::default() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Takes in one more.
    pub(crate) fn insert(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Problem> {
        let field = || format!("attributes.{}", echo(&name));
        if name.is_empty() {
            return Err(Problem::of_field(
                ProblemKind::InvalidValue,
                "attributes",
                "an attribute has an empty name",
            ));
        }
        too_long("the attribute's name", field, &name, MAX_NAME_BYTES)?;
        too_long("the attribute", field, &value, MAX_VALUE_BYTES)?;
        if self.get(&name).is_some() {
            let detail = format!("the attribute {:?} is given twice", echo(&name));
            return Err(Problem::of_field(ProblemKind::DuplicateParameter, field(), detail));
        }
        if self.list.len() == MAX_ATTRIBUTES {
            let detail = format!("there are more than {MAX_ATTRIBUTES} attributes");
            return Err(Problem::of_field(ProblemKind::ValueTooLarge, "attributes", detail));
        }
        let value = if name == IP { self.take_address(value)? } else { value };
        self.list.push((name, value));
        Ok(())
    }
}

impl<'a> AttributeList<'a> {
    /// The attribute that is an address. Of all ways to write one, this is about the usual ones: what stands beside the address
    /// goes, so that whatever compares texts sees one host as one.
    fn take_address(&mut self, text: Cow<'a, str>) -> Result<Cow<'a, str>, Problem> {
        let Some(address) = Address::parse(&text) else {
            let detail = format!(
                "{:?} is no address: `ip` takes one, as in 203.0.113.7 or 2001:db8::1; other names take any text",
                echo(&text)
            );
            return Err(Problem::of_field(ProblemKind::InvalidValue, "attributes.ip", detail));
        };
        self.ip = Some(address);
        // Digits and points that are an address are its shortest text.
        let is_v4 = text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
        Ok(if is_v4 || address.is_written_as(&text) { text } else { Cow::Owned(address.to_string()) })
    }
}

/// The problem of a text that is longer than it may be.
pub(crate) fn too_long(
    what: &str,
    field: impl Fn() -> String,
    text: &str,
    max: usize,
) -> Result<(), Problem> {
    if text.len() <= max {
        return Ok(());
    }
    let detail = format!("{what} has {} bytes, at most {max} are allowed", text.len());
    Err(Problem::of_field(ProblemKind::ValueTooLarge, field(), detail))
}
