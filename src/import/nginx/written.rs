//! How a limit is written as a rule.

use tidegate_limiter::{
    Algorithm,
    rules::{PatternForm, PatternText, short_form},
};

use super::{
    super::imported::{NewRule, When},
    pattern::{Conditions, Pattern},
    scope::Way,
    zone::Zone,
};

/// One rule: all requests that one of the conditions holds for are counted together.
pub(super) fn rule(
    name: String,
    zone: &Zone,
    (line, used): &Way,
    attributes: &[String],
    conditions: &[Conditions],
) -> NewRule {
    let common = Conditions::common(conditions);
    let alternatives: Vec<When> = match conditions {
        [_] => Vec::new(),
        several => several.iter().map(|one| when(&one.without(&common))).collect(),
    };
    NewRule {
        name,
        line: *line,
        when: when(&common),
        alternatives,
        key: attributes.to_vec(),
        limit: zone.rate.clone(),
        burst: Some(used.burst.saturating_add(1)),
        // To nginx, each address is a client.
        ipv6_prefix: attributes.iter().any(|attribute| attribute == "ip").then_some(128),
        algorithm: if used.delays { Algorithm::LeakyBucket } else { Algorithm::TokenBucket },
        shadow: used.shadow,
    }
}

fn when(conditions: &Conditions) -> When {
    let when = conditions.iter().map(|(attribute, test)| {
        let any_of = test.any_of.iter().map(|pattern| written(attribute, pattern, false));
        (
            attribute.clone(),
            any_of.chain(test.none_of.iter().map(|pattern| written(attribute, pattern, true))).collect(),
        )
    });
    when.collect()
}

fn written(attribute: &str, pattern: &Pattern, negated: bool) -> PatternText {
    let short = |form: PatternForm| short_form(attribute, &form);
    match (pattern, negated) {
        (Pattern::Exact(text), false) => short(PatternForm::Is(text.clone())),
        (Pattern::Exact(text), true) => short(PatternForm::IsNot(text.clone())),
        (Pattern::Like { start, end }, false) => short(PatternForm::ExactlyLike(format!("{start}*{end}"))),
        (Pattern::Like { start, end }, true) => short(PatternForm::NotExactlyLike(format!("{start}*{end}"))),
        (Pattern::Network(net), false) => PatternText::Short(net.to_string()),
        (Pattern::Network(net), true) => PatternText::Short(format!("!{net}")),
    }
}
