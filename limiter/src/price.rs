//! What a check takes of a rule: its cost, times what the rule says, or what the check says for this rule.

use crate::{
    Cost, Rule,
    key::KeyBytes,
    limit::Limit,
    parse::{Compiler, MAX_NAME_BYTES, Written, is_valid_name},
};

/// What a check takes: the same of each rule, or of some rules what is said for them.
///
/// ```
/// use tidegate_limiter::{Cost, Costs, Limit, Limiter, NewRule};
///
/// let limiter = Limiter::builder()
///     .rule(NewRule::new("requests", Limit::per_minute(60)).key("user"))
///     .rule(NewRule::new("tokens", Limit::per_minute(100_000)).key("user"))
///     .build()?;
/// let tokens = [("tokens", Cost::new(500)?)];
/// let costs = Costs::new(Cost::ONE, &tokens);
/// let verdict = limiter.check_now(&[("user", "ada")], costs);
/// let remaining: Vec<u64> = verdict.rules().iter().map(|one| one.decision.remaining).collect();
/// assert_eq!(remaining, [59, 99_500]);
/// # Ok::<(), tidegate_limiter::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Costs<'c> {
    cost: Cost,
    named: &'c [(&'c str, Cost)],
}

impl<'c> Costs<'c> {
    /// `cost` of each rule but those that `named` says another one for: by their names, or for all whose `cost` in a rule file
    /// is that name. What no rule is called says nothing.
    pub const fn new(cost: Cost, named: &'c [(&'c str, Cost)]) -> Self {
        Self { cost, named }
    }

    pub(crate) fn of(&self, rule: &Rule) -> Cost {
        rule.cost_of(self.cost, |name| {
            self.named.iter().find(|(known, _)| *known == name).map(|(_, cost)| *cost)
        })
    }
}

impl From<Cost> for Costs<'_> {
    fn from(cost: Cost) -> Self {
        Self::new(cost, &[])
    }
}

/// What a rule makes of the cost of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Price {
    /// So many units for each of the cost: at least 1.
    Times(u64),
    /// What the check says under this name; otherwise its cost.
    Named(Box<str>),
}

impl Price {
    pub(crate) const ONE: Self = Self::Times(1);

    /// Fills in what makes it another one, if it is not the usual one: a fingerprint is that of before then.
    pub(crate) fn feed(&self, bytes: &mut KeyBytes) {
        match self {
            Self::Times(1) => {}
            Self::Times(units) => bytes.number(*units),
            Self::Named(name) => bytes.text(name),
        }
    }
}

impl std::fmt::Display for Price {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(units) => units.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl Rule {
    /// What a check of this cost takes of it. `named` is what the check says for rules by their names, and for all rules whose
    /// `cost` has that name.
    #[inline]
    pub fn cost_of(&self, cost: Cost, named: impl Fn(&str) -> Option<Cost>) -> Cost {
        match &self.price {
            Price::Times(1) => named(&self.name).unwrap_or(cost),
            Price::Times(units) => named(&self.name).unwrap_or_else(|| cost.times(*units)),
            Price::Named(name) => named(&self.name).or_else(|| named(name)).unwrap_or(cost),
        }
    }

    /// The names by which a check can say what it takes of the rule.
    pub(crate) fn price_names(&self) -> impl Iterator<Item = &str> {
        let named = if let Price::Named(name) = &self.price { Some(&**name) } else { None };
        [&*self.name].into_iter().chain(named)
    }
}

impl Compiler<'_> {
    /// What the text says; the usual where it is wrong, which is reported.
    pub(crate) fn price<'l>(
        &mut self,
        given: Option<&Written>,
        limits: impl Iterator<Item = &'l Limit>,
    ) -> Price {
        let Some(Written { text, place }) = given else { return Price::ONE };
        let (text, place) = (text.as_str(), *place);
        let help = "write a whole number from 1, as in `cost: 5`, or a name for `costs` of checks, as in `cost: tokens`";
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let units = text.parse().ok().filter(|units| (1..=Cost::MAX.get()).contains(units));
            let Some(units) = units else {
                self.error(place, format!("a cost of {text} is not from 1 to 2^53"), help);
                return Price::ONE;
            };
            let least = limits.map(Limit::burst_size).filter(|most| *most > 0).min();
            if let Some(most) = least.filter(|most| units > *most) {
                let message =
                    format!("no request could pass: it takes {units}, and a limit of the rule holds {most}");
                self.error(place, message, "lower the cost, or raise the limit or its burst");
            }
            return Price::Times(units);
        }
        if !is_valid_name(text) || !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.error(
                place,
                format!("{:?} is no cost", text.chars().take(MAX_NAME_BYTES).collect::<String>()),
                help,
            );
            return Price::ONE;
        }
        Price::Named(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HashSecret, Rules};

    fn cost(rule: &str, cost: u64, named: &[(&str, u64)]) -> u64 {
        let text = format!("rules: [{{ name: r, key: [], limit: 100/1m, {rule} }}]");
        let rules = Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap();
        let said = |name: &str| {
            let (_, units) = named.iter().find(|(known, _)| *known == name)?;
            Cost::new(*units).ok()
        };
        rules.rules("default")[0].cost_of(Cost::new(cost).unwrap(), said).get()
    }

    #[test]
    fn a_check_says_it_for_the_rule_then_for_its_price_then_for_all() {
        assert_eq!(cost("", 3, &[]), 3);
        assert_eq!(cost("", 3, &[("r", 7), ("tokens", 9)]), 7);
        assert_eq!(cost("cost: 5", 3, &[]), 15);
        assert_eq!(cost("cost: 5", 0, &[]), 0, "a look stays one");
        assert_eq!(cost("cost: 5", 1 << 53, &[]), 1 << 53);
        assert_eq!(cost("cost: 5", 3, &[("r", 7)]), 7, "which says the units themselves");
        assert_eq!(cost("cost: tokens", 3, &[]), 3);
        assert_eq!(cost("cost: tokens", 3, &[("tokens", 9)]), 9);
        assert_eq!(cost("cost: tokens", 3, &[("tokens", 9), ("r", 7)]), 7);
    }

    #[test]
    fn a_price_that_cannot_be_is_refused_with_what_to_write() {
        let fault = |cost: &str| {
            let text = format!("rules:\n  - {{ name: r, key: [], limit: 100/1m, cost: {cost} }}\n");
            let error = Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap_err();
            format!("{error:?}")
        };
        for text in ["0", "-1", "1.5", "9007199254740993", "\"a b\"", "[1]", "5x"] {
            assert!(fault(text).contains("cost: tokens"), "{text}: {}", fault(text));
        }
        assert!(fault("101").contains("holds 100"));
    }
}
