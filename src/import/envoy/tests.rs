//! Configurations as they are written, and what becomes of them.

mod reference;

use std::{fmt::Write as _, time::Duration};

use tidegate_limiter::{Algorithm, Limit, rules::Period};

use super::*;

fn of(files: &[(&str, &str)]) -> Result<(Imported, Sources), NotRead> {
    let mut sources = Sources::default();
    for (name, text) in files {
        sources.add(*name, text.as_bytes().to_vec()).unwrap();
    }
    let imported = read(&mut sources)?;
    assert_eq!(imported.check(&sources), Ok(()), "{}", imported.to_yaml(&sources));
    Ok((imported, sources))
}

/// The rules, a line each, and the remarks.
fn summary(files: &[(&str, &str)]) -> String {
    let (imported, sources) = of(files).unwrap();
    let mut text = String::new();
    for domain in &imported.domains {
        for rule in &domain.rules {
            let when: Vec<String> = rule
                .when
                .iter()
                .map(|(name, patterns)| {
                    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
                    format!(" {name}={}", patterns.join("|"))
                })
                .collect();
            let key = rule.key.join(",");
            _ = writeln!(text, "{} {}: {} [{key}]{}", domain.name, rule.name, rule.limit, when.concat());
        }
    }
    for remark in &imported.remarks {
        let place = sources.place(remark.line);
        let kind = if remark.lost { "lost" } else { "note" };
        _ = writeln!(text, "{}:{} {kind}: {}", place.name, place.line, remark.message);
    }
    text
}

fn one(text: &str) -> String {
    summary(&[("f", text)])
}

fn refused(text: &str) -> (u64, String) {
    let NotRead { line, message } = of(&[("f", text)]).unwrap_err();
    (line, message)
}

#[test]
fn a_star_in_a_value_is_a_pattern_wherever_it_stands() {
    let text = one("domain: d
descriptors:
- { key: file, value: /api/*/download, rate_limit: { unit: minute, requests_per_unit: 1 } }
- { key: file, value: '*.exe', share_threshold: true, rate_limit: { unit: minute, requests_per_unit: 2 } }
- { key: file, value: /api/free.exe }
- { key: file, value: /static/*, rate_limit: { unit: minute, requests_per_unit: 3 } }
- { key: file, rate_limit: { unit: minute, requests_per_unit: 4 } }
");
    assert_eq!(
        text,
        r#"d file:/api/-/download: 1/1m [file] file={ like: "/api/*/download" }
d file:-.exe: 2/1m [] file={ like: "*.exe" }|!/api/free.exe
d file:/static/: 3/1m [file] file=/static/*|{ not_like: "*.exe" }
d file: 4/1m [file] file={ not_like: "/api/*/download" }|{ not_like: "*.exe" }|!/api/free.exe|!/static/*
"#
    );
}

#[test]
fn a_value_is_the_text_that_is_written() {
    let values = [
        ("NO", "NO"),
        ("1.10", "1.10"),
        ("0755", "0755"),
        ("y", "y"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("TRUE", "TRUE"),
        ("+5", "+5"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("!!str 7", "7"),
        ("&anchor 1.50", "1.50"),
        ("*anchor", "1.50"),
        ("'~'", "~"),
        ("\"null\"", "null"),
        ("|-\n      1.60", "1.60"),
    ];
    for (written, expected) in values {
        let text = format!(
            "domain: d\ndescriptors:\n- key: &anchor 1.50\n  descriptors:\n  - key: v\n    value: {written}\n    rate_limit: {{ unit: hour, requests_per_unit: 1 }}\n"
        );
        let (imported, _) = of(&[("f", &text)]).unwrap_or_else(|fault| panic!("{written}: {fault:?}"));
        let patterns: Vec<String> =
            imported.domains[0].rules[0].when[0].1.iter().map(ToString::to_string).collect();
        assert_eq!(patterns, [expected], "{written}");
        assert_eq!(imported.domains[0].rules[0].key, ["1.50"]);
    }
    // Nothing is no value.
    for nothing in ["~", "null", "Null", "NULL", "", "\"\""] {
        let text = one(&format!(
            "domain: d\ndescriptors: [{{ key: v, value: {nothing}, rate_limit: {{ unit: hour, requests_per_unit: 1 }} }}]"
        ));
        assert_eq!(text, "d v: 1/1h [v]\n", "{nothing}");
    }
}

#[test]
fn texts_that_look_like_patterns_are_compared_as_texts() {
    let text = one("domain: d
descriptors:
- { key: a, value: 192.168.0.0/16, rate_limit: { unit: minute, requests_per_unit: 1 } }
- { key: a, value: '!x', rate_limit: { unit: minute, requests_per_unit: 2 } }
- { key: a, value: 10.0.0.1, rate_limit: { unit: minute, requests_per_unit: 3 } }
- { key: a, value: '!y*', rate_limit: { unit: minute, requests_per_unit: 4 } }
- { key: a, rate_limit: { unit: minute, requests_per_unit: 5 } }
");
    assert_eq!(
        text,
        r#"d a:192.168.0.0/16: 1/1m [] a={ is: "192.168.0.0/16" }
d a:-x: 2/1m [] a={ is: "!x" }
d a:10.0.0.1: 3/1m [] a={ is: "10.0.0.1" }
d a:-y: 4/1m [a] a={ like: "!y*" }
d a: 5/1m [a] a={ is_not: "192.168.0.0/16" }|!!x|{ is_not: "10.0.0.1" }|!!y*
"#
    );
}

#[test]
fn what_rules_read_as_addresses_and_paths_is_written_so_that_it_stays_a_text() {
    let text = one("domain: d
descriptors:
- { key: path, value: /login, rate_limit: { unit: minute, requests_per_unit: 1 } }
- { key: path, rate_limit: { unit: minute, requests_per_unit: 2 } }
- { key: ip, value: '10.1.*', rate_limit: { unit: minute, requests_per_unit: 3 } }
");
    assert_eq!(
        text,
        r#"d path:/login: 1/1m [] path={ is: "/login" }
d path: 2/1m [path] path={ is_not: "/login" }
d ip:10.1.: 3/1m [ip] ip={ like: "10.1.*" }
f:4 lost: the key path: slashes at the end make no other path; there each text is counted by itself
f:5 lost: the key ip: a node refuses a value that is not one address, and takes all ways to write an address as one; there it is any text
"#
    );
}

/// The fields of such a file are all there, most of them with nothing in them.
#[test]
fn what_envoy_gateway_writes_is_read() {
    let text = one(r#"name: default/eg/http
domain: default/eg/http
descriptors:
  - key: httproute/default/web/rule/0
    value: httproute/default/web/rule/0
    rate_limit: null
    descriptors:
      - key: masked_remote_address
        value: 192.168.0.0/16
        rate_limit: ~
        metadata: {}
        descriptors:
          - key: remote_address
            value: ""
            rate_limit:
              requests_per_unit: 5
              unit: SECOND
              unlimited: false
              name: ""
              replaces: []
            descriptors: []
            shadow_mode: false
            quota_mode: false
            detailed_metric: false
            value_to_metric: false
            share_threshold: false
            metadata: { team: web }
        shadow_mode: false
"#);
    assert_eq!(
        text,
        r#"default/eg/http httproute/default/web/rule/0:httproute/default/web/rule/0.masked_remote_address:192.168.0.0/16.remot: 5/1s [remote_address] httproute/default/web/rule/0=httproute/default/web/rule/0 masked_remote_address={ is: "192.168.0.0/16" }
f:27 note: metadata is left out: answers have no dynamic metadata here
"#
    );
}

#[test]
fn switches_and_numbers_are_read_as_that_server_reads_them() {
    let text = one("domain: d
descriptors:
- { key: a, rate_limit: { unit: Minute, requests_per_unit: 1_000 }, shadow_mode: off }
- { key: b, rate_limit: { unlimited: yes } }
- { key: c, rate_limit: { unit: week, requests_per_unit: 010 }, shadow_mode: ~ }
- { key: d, rate_limit: { unit: month, requests_per_unit: 3, shadow_mode: true } }
- { key: e, rate_limit: { unit: fortnight, requests_per_unit: 3 } }
- { key: f, rate_limit: { unit: day, requests_per_unit: many } }
- { key: g, rate_limit: { unit: day, unlimited: true } }
- { key: h, rate_limit: {}, colour: red }
");
    assert_eq!(
        text,
        r#"d a: 1000/1m [a]
d b: unlimited [b]
d c: 8/7d [c]
d d: 3/30d [d]
f:6 note: shadow_mode in a rate_limit means nothing, for envoyproxy/ratelimit neither
f:7 lost: a rate_limit with the unit "fortnight": it is one of second, minute, hour, day, week, month, year
f:8 lost: requests_per_unit is many, which is no whole number below 2^32
f:9 lost: a rate_limit is unlimited and has the unit day; envoyproxy/ratelimit refuses that
f:10 lost: a rate_limit with the unit "": it is one of second, minute, hour, day, week, month, year
f:10 lost: the field colour is not known; envoyproxy/ratelimit refuses it
"#
    );
    assert_eq!(
        refused("domain: d\ndescriptors:\n- { key: a, shadow_mode: perhaps }\n"),
        (3, "shadow_mode is true or false, here is perhaps".to_owned())
    );
    assert_eq!(refused("domain: d\ndescriptors: { key: a }\n"), (2, "descriptors must be a list".to_owned()));
    assert_eq!(refused("domain: d\ndescriptors:\n- value: a\n"), (3, "a descriptor has no key".to_owned()));
    assert_eq!(refused("domain: d\ndescriptors:\n- key: [a]\n"), (3, "key must be a text".to_owned()));
    assert_eq!(refused("domain: d\ndescriptors:\n- ~\n"), (3, "a descriptor is a map with a key".to_owned()));
    assert_eq!(refused("domain: ~\n").0, 1);
    assert_eq!(refused("# nothing\n").0, 0);
}

#[test]
fn a_limit_of_nothing_denies_and_what_goes_around_it_stays() {
    let text = one("domain: d
descriptors:
- { key: a, rate_limit: { unit: second, requests_per_unit: 10 } }
- { key: a, value: bad, rate_limit: { unit: second, requests_per_unit: 0 } }
- { key: b, rate_limit: { unit: hour } }
");
    assert_eq!(text, "d a: 10/1s [a] a=!bad\nd a:bad: 0/1s [] a=bad\nd b: 0/1h [b]\n");
}

#[test]
fn what_one_limit_does_to_another_is_told_where_it_does_something() {
    let text = one("domain: d
descriptors:
- { key: a, rate_limit: { name: first, unit: hour, requests_per_unit: 1 } }
- { key: b, rate_limit: { unit: hour, requests_per_unit: 1, replaces: [{ name: first }] } }
- { key: c, rate_limit: { unit: hour, requests_per_unit: 1, replaces: [{ name: nowhere }] } }
- { key: d, rate_limit: { name: d, unit: hour, requests_per_unit: 1, replaces: [{ name: d }, {}] } }
- { key: e, quota_mode: true, rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: f, quota_mode: true, rate_limit: { unlimited: true } }
- { key: g, share_threshold: true, rate_limit: { unlimited: true } }
");
    let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with("f:")).collect();
    assert_eq!(
        remarks,
        [
            "f:4 lost: replaces first: of the descriptors of a request each is decided by itself here, so first must allow too",
            "f:5 note: replaces nowhere: no limit of this domain has that name",
            "f:6 lost: replaces has the name of another rate_limit; envoyproxy/ratelimit refuses none, and its own",
            "f:7 lost: quota_mode: here each limit denies by itself, there a request passes as long as one of its quotas has something left",
            "f:9 lost: share_threshold belongs to a value with a *; envoyproxy/ratelimit refuses it elsewhere",
        ]
    );
    assert_eq!(text.lines().count() - remarks.len(), 7, "each is a rule all the same: {text}");
}

#[test]
fn what_no_rule_can_say_is_told_and_the_rest_is_carried_over() {
    let text = one("domain: d
descriptors:
- { key: cost, rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: 'a*', rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: b, rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: b, rate_limit: { unit: hour, requests_per_unit: 2 } }
- { key: c, value: '*', rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: c, value: x*, rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: c, rate_limit: { unit: hour, requests_per_unit: 1 } }
");
    assert_eq!(
        text,
        r#"d b: 1/1h [b]
d c: 1/1h [c] c=*
f:3 lost: a limit of 1/1h: "cost" cannot be an attribute: calls use that name for something else
f:4 lost: a*: a key with a * is a pattern for keys there; a rule names its attributes
f:6 lost: the same key and value stand here twice; envoyproxy/ratelimit refuses that
f:8 note: c: this is never reached: a * takes all values before it
f:9 note: c: this is never reached: a * takes all values before it
"#
    );
    let text = one("domain: my domain\ndescriptors: []\n");
    assert!(text.starts_with("f:1 lost: the domain \"my domain\": a domain has 1 to 128"), "{text}");
}

#[test]
fn a_year_is_carried_over_if_a_limit_can_be_so_long() {
    let text =
        one("domain: d\ndescriptors: [{ key: a, rate_limit: { unit: YEAR, requests_per_unit: 7 } }]\n");
    let year = Period::Fixed(Duration::from_secs(365 * 86_400));
    let is_possible = Limit::new(Algorithm::FixedWindow, 7, year, None).is_ok();
    assert_eq!(text.starts_with("d a: 7/365d [a]\n"), is_possible, "{text}");
    assert_eq!(text.starts_with("f:2 lost: a limit of 7/365d: "), !is_possible, "{text}");
}

#[test]
fn keys_and_values_that_are_joined_to_the_same_are_told() {
    let text = one("domain: d
descriptors:
- { key: user, value: '*', rate_limit: { unit: hour, requests_per_unit: 1 } }
- { key: user_id, rate_limit: { unit: hour, requests_per_unit: 2 } }
- { key: path }
- { key: path_x, rate_limit: { unit: hour, requests_per_unit: 3 } }
- { key: other_thing, rate_limit: { unit: hour, requests_per_unit: 3 } }
");
    let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with("f:")).collect();
    assert_eq!(
        remarks,
        [
            "f:3 lost: user: *: there it takes values of user_id too, because a key and its value are joined with a _; here it does not",
            "f:4 note: user_id: there user: id is the same, because a key and its value are joined with a _; here it is not",
            "f:6 note: path_x: there path: x is the same, because a key and its value are joined with a _; here it is not",
        ]
    );
}

#[test]
fn the_order_of_entries_is_told_where_two_ways_differ_only_by_it() {
    let limit = "rate_limit: { unit: hour, requests_per_unit: 1 }";
    let text = one(&format!(
        "domain: d
descriptors:
- {{ key: a, descriptors: [{{ key: b, {limit} }}] }}
- {{ key: b, descriptors: [{{ key: a, {limit} }}, {{ key: c, {limit} }}] }}
"
    ));
    let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with("f:")).collect();
    assert_eq!(
        remarks,
        [
            "f:4 lost: b, a is another way than a, b there; here the order of entries does not count, so the limits of both hold for both"
        ]
    );
}

const LIMIT: &str = "rate_limit: { unit: hour, requests_per_unit: 1 }";

#[test]
fn several_files_of_one_domain_are_put_together() {
    let text = summary(&[
        ("a.yaml", &format!("domain: d\ndescriptors: [{{ key: a, value: x*, {LIMIT} }}]\n")),
        ("b.yaml", &format!("domain: other\ndescriptors: [{{ key: a, {LIMIT} }}]\n")),
        (
            "c.yaml",
            &format!(
                "# more\ndomain: d\ndescriptors: [{{ key: a, {LIMIT} }}, {{ key: a, value: x*, {LIMIT} }}]\n"
            ),
        ),
    ]);
    assert_eq!(
        text,
        "d a:x: 1/1h [a] a=x*
d a: 1/1h [a] a=!x*|!x*
other a: 1/1h [a]
c.yaml:2 note: the domain d again: its descriptors are put together, as with MERGE_DOMAIN_CONFIG=true
c.yaml:3 lost: the same key and value stand here twice; envoyproxy/ratelimit refuses that
"
    );
    let text = one(&format!(
        "---\ndomain: d\ndescriptors: [{{ key: a, {LIMIT} }}]\n---\n---\ndomain: e\ndescriptors: [{{ key: a, {LIMIT} }}]\n"
    ));
    assert_eq!(
        text,
        "d a: 1/1h [a]
e a: 1/1h [a]
f:6 note: envoyproxy/ratelimit reads only the first document of a file; this one is carried over all the same
"
    );
}

#[test]
fn objects_of_kubernetes_are_unwrapped_and_lines_are_those_of_the_file() {
    let map = format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{ name: ratelimit }}
data:
  a.yaml: |
    # in a block
    domain: d
    descriptors:
      - {{ key: a, colour: red, {LIMIT} }}
  b.yaml: \"domain: e\\ndescriptors:\\n- {{ key: b, colour: blue, {LIMIT} }}\"
  notes.txt: just words
  broken.yaml: |
    domain: [
  nothing: ''
"
    );
    let expected = |first: u64, name: &str| {
        let line = |number| first + number;
        format!(
            "d a: 1/1h [a]
e b: 1/1h [b]
{name}:{} lost: the field colour is not known; envoyproxy/ratelimit refuses it
{name}:{} lost: the field colour is not known; envoyproxy/ratelimit refuses it
{name}:{} note: notes.txt of a ConfigMap is left out: it has neither domain nor descriptors
",
            line(9),
            line(10),
            line(11),
        )
    };
    let text = one(&map);
    assert!(text.starts_with(&expected(0, "f")), "{text}");
    assert!(text.contains("lost: broken.yaml of a ConfigMap is no YAML: "), "{text}");

    let several = format!("# of a chart\n---\n{map}---\napiVersion: apps/v1\nkind: Deployment\nspec: {{}}\n");
    let text = one(&several);
    assert!(text.starts_with(&expected(2, "f")), "{text}");
    assert!(
        text.ends_with("note: an object of the kind Deployment is left out: only ConfigMaps are read\n"),
        "{text}"
    );

    let item: String = map.lines().map(|line| format!("  {line}\n")).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n-{}", &item[1..]);
    let text = one(&list);
    assert!(text.starts_with(&expected(3, "f")), "{text}");

    let (imported, _) =
        of(&[("f", r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"x":"domain: d\ndescriptors: []\n"}}"#)])
            .unwrap();
    assert_eq!(imported.domains.len(), 1, "as kubectl writes JSON");
    assert_eq!(refused("apiVersion: v1\nkind: ConfigMap\ndata: {}\n").0, 0, "there is none in it");
    let secret = format!("{map}---\napiVersion: v1\nkind: Secret\ndata: {{ x: Zg== }}\n");
    assert!(one(&secret).contains("lost: a Secret"));
}

#[test]
fn a_tree_whose_rules_would_be_too_many_is_refused() {
    let mut text = "domain: d\ndescriptors:\n".to_owned();
    (0..1_500).for_each(|number| _ = writeln!(text, "- {{ key: a, value: '*{number}*', {LIMIT} }}"));
    let (line, message) = refused(&text);
    assert!(line > 500 && message.contains("too many descriptors"), "{line}: {message}");
}
