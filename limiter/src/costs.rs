//! What a check takes of each rule: its cost, times what the rule says, or what the check says for this rule.

use crate::{Cost, Rule};

/// What a check takes: the same of each rule, or of some rules what is said for them.
///
/// ```
/// use tidegate_limiter::{Cost, Limit, Limiter, NewRule, rules::Costs};
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
    fn a_node_with_another_price_cannot_tell_what_a_request_takes() {
        let shape = |cost: &str| {
            let text = format!("rules: [{{ name: r, key: [], limit: 100/1m{cost} }}]");
            Rules::from_yaml(&text, &HashSecret::new([7; 16])).unwrap().rules("default")[0].shape
        };
        let shapes = ["", ", cost: 5", ", cost: 7", ", cost: tokens", ", cost: words"].map(shape);
        assert!((0..shapes.len()).all(|place| !shapes[..place].contains(&shapes[place])));
        assert_eq!(shape(", cost: 1"), shapes[0]);
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
