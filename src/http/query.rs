//! The query of `GET /v1/check`: `domain`, `cost`, `costs` and `request_id` are reserved, everything else is an attribute.

use std::borrow::Cow;

use super::fields::{Fields, no_attributes};
use crate::check::{CheckRequest, Costs, Problem, ProblemKind, echo};

/// Reads a query. `+` is a space, as HTML forms have it; a plus sign is `%2B`.
pub(super) fn parse(query: Option<&str>) -> Result<CheckRequest<'_>, Problem> {
    let mut fields = Fields { attributes: Some(Default::default()), ..Fields::default() };
    let mut any = false;
    pairs(query, |name, value| {
        any = true;
        match &*name {
            "domain" => set_once(&mut fields.domain, value, "domain"),
            "request_id" => set_once(&mut fields.request_id, value, "request_id"),
            "cost" => set_once(&mut fields.cost, parse_cost("cost", &value)?, "cost"),
            "costs" => set_once(&mut fields.costs, parse_costs(&value)?, "costs"),
            _ => fields.attributes.get_or_insert_default().insert(name, value),
        }
    })?;
    if any { fields.into_request() } else { Err(no_attributes()) }
}

/// Each parameter, decoded.
#[inline]
pub(super) fn pairs<'a>(
    query: Option<&'a str>,
    mut each: impl FnMut(Cow<'a, str>, Cow<'a, str>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, name)?;
        let value = decode(value, &name)?;
        each(name, value)?;
    }
    Ok(())
}

pub(super) fn set_once<T>(field: &mut Option<T>, value: T, name: &str) -> Result<(), Problem> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => {
            let detail = format!("the parameter {name:?} is given twice");
            Err(Problem::of_field(ProblemKind::DuplicateParameter, name, detail))
        }
    }
}

pub(super) fn parse_cost(field: &str, text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let kind = if all_digits { ProblemKind::ValueTooLarge } else { ProblemKind::InvalidValue };
        let detail = format!("the cost {:?} is no whole number from 0 to 2^53", echo(text));
        Problem::of_field(kind, field, detail)
    })
}

/// `tokens:500,requests:2`. Names of rules can have a colon, and no comma.
pub(super) fn parse_costs(text: &str) -> Result<Costs<'static>, Problem> {
    let mut costs = Costs::default();
    for one in text.split(',') {
        let Some((name, units)) = one.rsplit_once(':').filter(|(name, _)| !name.is_empty()) else {
            let detail = format!("{:?} is no cost of a rule; write costs=tokens:500,requests:2", echo(one));
            return Err(Problem::of_field(ProblemKind::InvalidValue, "costs", detail));
        };
        costs.insert(name.to_owned().into(), parse_cost(&format!("costs.{}", echo(name)), units)?)?;
    }
    Ok(costs)
}

/// Takes percent-encoding away; borrows if there is none.
fn decode<'a>(text: &'a str, parameter: &str) -> Result<Cow<'a, str>, Problem> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let fault = |kind, what: &str| {
        let detail = format!("the parameter {:?} {what}", echo(parameter));
        Err(Problem::of_field(kind, echo(parameter).into_owned(), detail))
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = (high, low) else {
                    return fault(
                        ProblemKind::InvalidValue,
                        "has a % without two hexadecimal digits (a percent sign is %25)",
                    );
                };
                high << 4 | low
            }
            byte => byte,
        });
    }
    match String::from_utf8(decoded) {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(_) => fault(ProblemKind::InvalidUtf8, "is not UTF-8 after percent-decoding"),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use tidegate_limiter::{Cost, rules::Attributes as _};

    use super::*;
    use crate::check::Subject;

    fn attribute(query: &str, name: &str) -> Option<String> {
        let Subject::Attributes(attributes) = parse(Some(query)).unwrap().subject else {
            panic!("a query has attributes")
        };
        attributes.get(name).map(str::to_owned)
    }

    fn fault(query: &str) -> (ProblemKind, String) {
        let problem = parse(Some(query)).unwrap_err();
        (problem.kind, problem.field.unwrap())
    }

    #[test]
    fn everything_but_domain_and_cost_is_an_attribute() {
        let request = parse(Some("ip=203.0.113.7&domain=shop&cost=3&path=/a/b")).unwrap();
        assert_eq!(request.domain, "shop");
        assert_eq!(request.cost, Cost::new(3).unwrap());
        assert_eq!(attribute("ip=203.0.113.7&path=/a/b", "path").as_deref(), Some("/a/b"));
        assert_eq!(attribute("a=1&flag", "flag").as_deref(), Some(""));
        assert_eq!(attribute("&a=1&&", "a").as_deref(), Some("1"));
        assert_eq!(attribute("a=b=c", "a").as_deref(), Some("b=c"));
        assert_eq!(attribute("domain=x", "domain"), None);
        let request = parse(Some("user=1&costs=tokens:500,a:b:2")).unwrap();
        let named = |name| request.costs.get(name).map(Cost::get);
        assert_eq!((named("tokens"), named("a:b"), named("a")), (Some(500), Some(2), None));
    }

    #[test]
    fn what_needs_no_decoding_is_borrowed() {
        assert!(matches!(decode("203.0.113.7", ""), Ok(Cow::Borrowed(_))));
        assert_eq!(attribute("user=a%20b%2Bc+d", "user").as_deref(), Some("a b+c d"));
        assert_eq!(attribute("us%65r=%C3%A4", "user").as_deref(), Some("ä"));
    }

    #[test]
    fn faults_name_the_parameter() {
        assert_eq!(fault("ip=%ff"), (ProblemKind::InvalidUtf8, "ip".to_owned()));
        assert_eq!(fault("ip=%f"), (ProblemKind::InvalidValue, "ip".to_owned()));
        assert_eq!(fault("ip=%zz"), (ProblemKind::InvalidValue, "ip".to_owned()));
        assert_eq!(fault("a=1&a=2"), (ProblemKind::DuplicateParameter, "attributes.a".to_owned()));
        assert_eq!(fault("a=1&%61=2"), (ProblemKind::DuplicateParameter, "attributes.a".to_owned()));
        assert_eq!(fault("cost=1&cost=1"), (ProblemKind::DuplicateParameter, "cost".to_owned()));
        assert_eq!(fault("a=1&cost=-1"), (ProblemKind::InvalidValue, "cost".to_owned()));
        assert_eq!(fault("a=1&cost=1.5"), (ProblemKind::InvalidValue, "cost".to_owned()));
        assert_eq!(fault("a=1&cost="), (ProblemKind::InvalidValue, "cost".to_owned()));
        assert_eq!(fault("a=1&cost=9007199254740993"), (ProblemKind::ValueTooLarge, "cost".to_owned()));
        assert_eq!(fault("a=1&cost=99999999999999999999"), (ProblemKind::ValueTooLarge, "cost".to_owned()));
        assert_eq!(fault(&format!("a=1&user={}", "x".repeat(5000))).1, "attributes.user");
        assert_eq!(fault("=1").1, "attributes");
        for costs in ["", "tokens", ":5", "tokens:5,", "tokens=5"] {
            assert_eq!(
                fault(&format!("user=1&costs={costs}")),
                (ProblemKind::InvalidValue, "costs".to_owned()),
                "{costs}"
            );
        }
        assert_eq!(
            fault("user=1&costs=a:1,tokens:-5"),
            (ProblemKind::InvalidValue, "costs.tokens".to_owned())
        );
        assert_eq!(fault("user=1&costs=a:1,a:1"), (ProblemKind::DuplicateParameter, "costs.a".to_owned()));
        assert_eq!(
            fault("user=1&costs=a:1&costs=b:1"),
            (ProblemKind::DuplicateParameter, "costs".to_owned())
        );
        assert_eq!(fault("").0, ProblemKind::MissingField);
        let many: String = (0..65).map(|n| format!("a{n}=1&")).collect();
        assert_eq!(fault(&many).0, ProblemKind::ValueTooLarge);
    }
}
