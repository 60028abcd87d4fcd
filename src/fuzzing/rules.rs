//! Rule files, and the texts in them.

use tidegate_limiter::{
    Cost, Limit, Limiter, Nanos,
    cluster::Rules,
    rules::{Address, HashSecret, Starts, Zone},
};

/// The year 2027.
const NOW: Nanos = Nanos::new(1_800_000_000_000_000_000);

/// The bytes as a rule file. What is wrong has its place in the text; what can be used limits.
pub(super) fn files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let secret = HashSecret::new([7; 16]);
    let rules = match Rules::from_yaml(text, &secret) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                let end = error.offset + error.length;
                assert!(text.get(error.offset..end).is_some(), "{error:?}");
            }
            return;
        }
    };
    if let [domain] = rules.domains()[..] {
        let alone = Rules::empty(&secret).with_domain(domain, text, &secret).expect("it is the same text");
        let names = |rules: &Rules| rules.all().map(|rule| rule.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&alone), names(&rules));
        limit(text);
    }
}

/// Requests are allowed or denied, and none gets more than there is.
fn limit(text: &str) {
    let Ok(limiter) = Limiter::builder().yaml(text).max_memory(1 << 20).build() else { return };
    let request = [
        ("ip", "203.0.113.7"),
        ("user", "ada"),
        ("path", "/login"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("api_key", "k"),
    ];
    for cost in [0, 1, 1, 5, 1 << 53] {
        let verdict = limiter.check(&request, Cost::new(cost).expect("it is no more than 2^53"), NOW);
        for ruled in verdict.rules() {
            assert!(ruled.decision.remaining <= ruled.decision.limit, "{ruled:?}");
        }
    }
}

/// The bytes as each of the short texts that rules and requests have. What can be read can be written, and is read as the same.
pub(super) fn limits(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(limit) = text.parse::<Limit>() {
        let written = format!("{limit:#}");
        assert_eq!(written.parse::<Limit>().ok(), Some(limit), "{text:?} -> {written:?}");
    }
    if let Some(address) = Address::parse(text) {
        let written = address.written().to_string();
        assert_eq!(Address::parse(&written), Some(address), "{text:?} -> {written:?}");
        let host = address.to_string();
        assert_eq!(Address::parse(&host).map(Address::host), Some(address.host()), "{text:?} -> {host:?}");
    }
    if let Ok(starts) = text.parse::<Starts>() {
        let written = starts.to_string();
        assert_eq!(written.parse().ok(), Some(starts), "{text:?} -> {written:?}");
    }
    if let Ok(zone) = Zone::named(text) {
        assert_eq!(Zone::named(zone.name()).ok(), Some(zone), "{text:?}");
    }
}
