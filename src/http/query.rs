//! The query of `GET /v1/check`: `domain`, `cost`, `costs` and `request_id` are reserved, everything else is an attribute, but not
//! what is meant as a limit that comes with the check: a body can say one.

use std::borrow::Cow;

use tidegate_limiter::Limit;

use super::fields::{Fields, no_attributes};
use crate::check::{CheckRequest, Costs, Problem, ProblemKind, echo};

/// Reads a query. `+` is a space, as HTML forms have it; a plus sign is `%2B`.
pub(super) fn parse(query: Option<&str>) -> Result<CheckRequest<'_>, Problem> {
    let mut fields = Fields { attributes: Some(Default::default()), ..Fields::default() };
    let (mut any, mut brought) = (false, OwnLimit::default());
    pairs(query, |name, value| {
        any = true;
        match &*name {
            "domain" => set_once(&mut fields.domain, value, "domain"),
            "request_id" => set_once(&mut fields.request_id, value, "request_id"),
            "cost" => set_once(&mut fields.cost, parse_cost("cost", &value)?, "cost"),
            "costs" => set_once(&mut fields.costs, parse_costs(&value)?, "costs"),
            _ => {
                brought.note(&name, &value)?;
                fields.attributes.get_or_insert_default().insert(name, value)
            }
        }
    })?;
    brought.is_none()?;
    if any { fields.into_request() } else { Err(no_attributes()) }
}

/// Whether the attributes of a query are meant as a limit that comes with the check. As attributes they would match no rule, and
/// everything would be allowed.
#[derive(Default)]
pub(super) struct OwnLimit {
    key: bool,
    limit: bool,
}

impl OwnLimit {
    /// Looks at one attribute.
    pub(super) fn note(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        self.key |= name == "key";
        self.limit |= name == "limit" || name == "limits";
        if name == "limit" && value.parse::<Limit>().is_ok() { Err(Self::refused()) } else { Ok(()) }
    }

    /// After all of them.
    pub(super) fn is_none(&self) -> Result<(), Problem> {
        if self.key && self.limit { Err(Self::refused()) } else { Ok(()) }
    }

    fn refused() -> Problem {
        let detail = "a query has attributes for the rules to match, and no limit of its own; a check with one is asked by \
                      POST /v1/check, with {\"key\": \"user-42\", \"limit\": \"100/1m\"}";
        Problem::of_field(ProblemKind::InvalidValue, "limit", detail)
    }
}

/// A check that is asked with a body has all of it there.
pub(super) fn none_beside_body(query: Option<&str>) -> Result<(), Problem> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(()) };
    let name = query.split(['=', '&']).next().unwrap_or_default();
    let detail = format!(
        "POST /v1/check takes no parameters, and here is {:?}: write it into the body, or ask GET /v1/check",
        echo(name)
    );
    Err(Problem::of_field(ProblemKind::UnknownField, echo(name), detail))
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
    fn a_limit_of_its_own_is_no_attribute_of_a_query() {
        for query in
            ["key=k9&limit=1/1h", "limit=x&key=k9", "limit=100%2F1m", "a=b&limit=deny", "key=k&limits=a"]
        {
            assert_eq!(fault(query), (ProblemKind::InvalidValue, "limit".to_owned()), "{query}");
        }
        assert_eq!(attribute("key=k9&path=/a", "key").as_deref(), Some("k9"));
        assert_eq!(attribute("limit=50", "limit").as_deref(), Some("50"));
        assert_eq!(fault("domain=&ip=10.0.0.1"), (ProblemKind::InvalidValue, "domain".to_owned()));
        assert!(none_beside_body(None).is_ok() && none_beside_body(Some("")).is_ok());
        let problem = none_beside_body(Some("cost=5&a=b")).unwrap_err();
        assert_eq!((problem.kind, problem.field.as_deref()), (ProblemKind::UnknownField, Some("cost")));
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
