//! Rules of a domain as a text that names the domain, so that `tidegate rules apply` puts them where they were.

use serde::Serialize;
use tidegate_limiter::{
    cluster::{BlockDescription, DomainDescription, RuleDescription, Rules},
    rules::HashSecret,
};

/// The source of a domain's rules as one document that says of which domain it is, among other documents too. As it was written
/// wherever the name can be added to that; else what it means, written anew.
pub(super) fn named(domain: &str, source: &str) -> String {
    let secret = HashSecret::new([0; 16]);
    let body = without_head(source);
    let with_line = |name: &str| format!("domain: {name}\n{body}");
    let meaning = Rules::empty(&secret).with_domain_at(domain, source, &secret, 0);
    if let Ok(meaning) = meaning.map(|rules| rules.describe(domain)) {
        let quoted = format!("{domain:?}");
        let forms: [&dyn Fn() -> Option<String>; 5] = [
            &|| Some(body.clone()),
            &|| Some(with_line(domain)),
            // Of names that are something else in YAML, as `null`.
            &|| Some(with_line(&quoted)),
            &|| with_member(&quoted, &body),
            &|| written_anew(domain, &meaning),
        ];
        let text = forms.iter().filter_map(|form| form()).find(|text| means(text, domain, &meaning, &secret));
        if let Some(text) = text {
            return text;
        }
    }
    // This version cannot read them; one that can must not take them for those of another domain.
    if body.lines().any(|line| line.starts_with("domain:")) { body } else { with_line(domain) }
}

/// Whether a document with this text has these rules of this domain, and nothing else.
fn means(text: &str, domain: &str, meaning: &DomainDescription, secret: &HashSecret) -> bool {
    // Documents of other domains stand before and behind it.
    let Ok(rules) = Rules::from_yaml(&format!("---\n{text}\n---\n"), secret) else { return false };
    rules.domains() == [domain] && rules.describe(domain) == *meaning
}

/// The text without what may stand only at the beginning of a file: a byte order mark, directives, the marker `---`. Comments stay.
fn without_head(source: &str) -> String {
    let source = source.trim_start_matches('\u{feff}').trim_end();
    let mut kept = String::new();
    let mut rest = source;
    for line in source.split_inclusive('\n') {
        rest = &rest[line.len()..];
        let behind_marker = line
            .strip_prefix("---")
            .filter(|behind| behind.is_empty() || behind.starts_with(char::is_whitespace))
            .map(str::trim_start);
        let shown = behind_marker.unwrap_or(line);
        if !line.starts_with('%') {
            kept.push_str(shown);
        }
        let is_head = shown.trim_start().is_empty() || shown.trim_start().starts_with(['#', '%']);
        if !is_head {
            break;
        }
    }
    kept + rest
}

/// The name as the first member of a text in braces, as JSON is.
fn with_member(quoted: &str, body: &str) -> Option<String> {
    let is_content = |line: &&str| !line.trim_start().is_empty() && !line.trim_start().starts_with('#');
    let before: usize = body.split_inclusive('\n').take_while(|line| !is_content(line)).map(str::len).sum();
    let behind = body[before..].trim_start().strip_prefix('{')?;
    let space = if behind.starts_with(char::is_whitespace) { "" } else { " " };
    Some(format!("{}{{\"domain\": {quoted},{space}{behind}", &body[..before]))
}

/// What the rules mean, in the order in which a rule file has it.
#[derive(Serialize)]
struct WrittenAnew<'r> {
    domain: &'r str,
    unmatched: &'static str,
    all_or_nothing: bool,
    block: &'r [BlockDescription],
    rules: &'r [RuleDescription],
}

fn written_anew(domain: &str, meaning: &DomainDescription) -> Option<String> {
    let DomainDescription { rules, allow_unmatched, all_or_nothing, block } = meaning;
    let unmatched = if *allow_unmatched { "allow" } else { "deny" };
    let all = WrittenAnew { domain, unmatched, all_or_nothing: *all_or_nothing, block, rules };
    let json = serde_json::to_string_pretty(&all).ok()?;
    Some(format!("# What they mean: as they were written, no name of a domain can be added.\n{json}"))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn secret() -> HashSecret {
        HashSecret::new([0; 16])
    }

    fn meaning(domain: &str, source: &str) -> DomainDescription {
        Rules::empty(&secret()).with_domain(domain, source, &secret()).unwrap().describe(domain)
    }

    const BLOCK: &str = "unmatched: deny
# Whoever guesses.
rules:
  - name: login
    when: { path: [\"/login\", { like: \"*/in\" }] }
    key: [ip]
    limit: 5/1m
    overrides: [{ when: { user: a }, limit: unlimited }]
";
    const FLOW: &str =
        "{rules: [{name: a, key: [user], limit: 1000/month, timezone: Europe/Paris}], all_or_nothing: true}";
    const JSON: &str = r#"{
  "block": [{"when": {"ip": "10.0.0.0/8"}, "until": "2036-12-31T00:00:00Z"}],
  "rules": [{"name": "a", "key": [], "limit": "deny"}]
}"#;

    /// The ways to write a text that may stand before and behind it.
    fn heads() -> Vec<&'static str> {
        vec![
            "",
            "\n",
            "---\n",
            "--- # of a file\n",
            "# a comment with { and domain: x\n",
            "# one\n---\n\n# two\n",
            "%YAML 1.2\n---\n",
            "# c\n%YAML 1.2\n# d\n---\n---\n",
            "\u{feff}",
            "--- ",
            "--- !!map\n",
            "--- &anchor\n",
        ]
    }

    fn named_and_read(domain: &str, source: &str) -> (String, DomainDescription) {
        let text = named(domain, source);
        let rules = Rules::from_yaml(&text, &secret()).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        assert_eq!(rules.domains(), [domain], "{text}");
        let read = rules.describe(domain);
        (text, read)
    }

    #[test]
    fn what_was_written_stays_where_the_name_can_be_added() {
        let kept = |domain: &str, source: &str| named_and_read(domain, source).0;
        assert_eq!(kept("default", BLOCK), BLOCK.trim_end());
        assert_eq!(kept("api", BLOCK), format!("domain: api\n{}", BLOCK.trim_end()));
        assert_eq!(kept("null", BLOCK), format!("domain: \"null\"\n{}", BLOCK.trim_end()));
        assert_eq!(kept("api", FLOW), format!("{{\"domain\": \"api\", {}", &FLOW[1..]));
        assert_eq!(
            kept("api", &format!("# {{\n{JSON}")),
            format!("# {{\n{{\"domain\": \"api\",{}", &JSON[1..])
        );
        assert_eq!(kept("api", "%YAML 1.2\n---\nrules: []\n"), "domain: api\nrules: []");
        assert_eq!(kept("api", "--- # mine\nrules: []\n"), "domain: api\n# mine\nrules: []");
        let own = "rules: []\n\"domain\": api\n";
        assert_eq!(kept("api", own), own.trim_end());
        assert!(
            kept("api", "  rules: []\n").starts_with("# What they mean"),
            "a line before it ends the map"
        );
    }

    #[test]
    fn what_this_version_cannot_read_is_of_no_other_domain() {
        for (source, text) in [
            ("rules: []\nnew: 1\n", "domain: api\nrules: []\nnew: 1"),
            ("{rules: [], new: 1}", "domain: api\n{rules: [], new: 1}"),
            ("new: 1\ndomain: api\nrules: []", "new: 1\ndomain: api\nrules: []"),
        ] {
            assert_eq!(named("api", source), text);
        }
    }

    proptest! {
        #[test]
        fn in_whatever_form_rules_are_written_they_are_read_as_the_same_of_the_same_domain(
            body in select(vec![BLOCK, FLOW, JSON, "rules: []\n"]), head in select(heads()),
            tail in select(vec!["", "\n\n", "\n...\n", "\n---\n", "\n# the end\n"]),
            domain in select(vec!["default", "api", "null", "true", "12", "1e3", "-", "---", "...", "a:", "x/y.z"]),
            (crlf, indented, names_itself) in any::<(bool, bool, bool)>(),
        ) {
            let body = match body.strip_prefix('{') {
                Some(rest) if names_itself => format!("{{\"domain\": \"{domain}\", {rest}"),
                None if names_itself => format!("{body}domain: '{domain}'\n"),
                _ => body.to_owned(),
            };
            let body = if indented { format!("  {}", body.trim_end().replace('\n', "\n  ")) } else { body };
            let source = format!("{head}{body}{tail}");
            let source = if crlf { source.replace('\n', "\r\n") } else { source };
            let Ok(written) = Rules::empty(&secret()).with_domain(domain, &source, &secret()) else {
                // Not each combination is YAML.
                return Ok(());
            };
            let written = written.describe(domain);
            prop_assert_eq!(&named_and_read(domain, &source).1, &written);
            // Among others, each below a line of its own.
            let parts = [named(domain, &source), named("before", FLOW), named("behind", JSON)];
            for order in [[1, 0, 2], [0, 1, 2], [1, 2, 0]] {
                let all: Vec<String> = order.iter().map(|part| format!("# x\n{}\n# y", parts[*part])).collect();
                let all = all.join("\n---\n");
                let read = Rules::from_yaml(&all, &secret());
                let read = read.unwrap_or_else(|errors| panic!("{errors:?}\n{all}"));
                prop_assert_eq!(read.describe(domain), written.clone());
                prop_assert_eq!(read.describe("before"), meaning("before", FLOW));
                prop_assert_eq!(read.describe("behind"), meaning("behind", JSON));
            }
        }
    }
}
