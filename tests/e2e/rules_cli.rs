//! The promise: `tidegate rules` is all that one needs in an incident, and says what it does and what is wrong.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::kit::{
    self,
    rules::{check, keeping},
};
use serde_json::Value;
use tidegate_jepsen::cluster::{Cluster, Node};

fn rules(arguments: &[&str]) -> Output {
    Command::new(kit::binary())
        .arg("rules")
        .args(arguments)
        .env_remove("TIDEGATE_NODE")
        .env("USER", "ada")
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn at(node: &Node, arguments: &[&str]) -> Output {
    let url = format!("http://{}", node.http);
    rules(&[arguments, &["--node", &url]].concat())
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code and what was printed, for messages.
fn told(output: &Output) -> String {
    format!("{:?}\n{}\n{}", output.status.code(), out(output), err(output))
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

const LOGIN: &str = "domain: api
rules:
  # Whoever guesses passwords.
  - name: login
    when: { path: /login, method: POST }
    key: [ip]
    limit: 5/1m
  - name: all
    key: [ip]
    limit: 100/1s
";

#[test]
fn a_day_with_the_rules() {
    let cluster = Cluster::start(2, keeping());
    let (here, there) = (&cluster.nodes[0], &cluster.nodes[1]);
    let files = Files::new();
    let first = files.write("first.yaml", LOGIN);
    let second = files.write(
        "second.yaml",
        &LOGIN.replace("5/1m", "10/1m").replace("  - name: all\n    key: [ip]\n    limit: 100/1s\n", ""),
    );

    assert_eq!(rules(&["validate", "-f", &first]).status.code(), Some(0));
    let diff = at(here, &["diff", "-f", &first]);
    assert_eq!(diff.status.code(), Some(1), "it differs: {}", told(&diff));
    assert!(out(&diff).contains("login") && out(&diff).contains("5/1m"), "{}", told(&diff));

    let dry = at(here, &["apply", "-f", &first, "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{}", told(&dry));
    assert!(at(here, &["get", "--domain", "api"]).status.code() == Some(1), "nothing was written");

    let applied = at(here, &["apply", "-f", &first, "--message", "to begin with", "--wait"]);
    assert_eq!(applied.status.code(), Some(0), "{}", told(&applied));
    assert!(out(&applied).contains("revision"), "{}", told(&applied));
    assert_eq!(at(there, &["diff", "-f", &first]).status.code(), Some(0), "no difference");
    let got = at(there, &["get", "--domain", "api"]);
    assert!(out(&got).contains("# Whoever guesses passwords."), "as it was written: {}", told(&got));

    let diff = out(&at(there, &["diff", "-f", &second]));
    assert!(diff.contains("5/1m") && diff.contains("10/1m") && diff.contains("all"), "{diff}");
    let json: Value =
        serde_json::from_str(&out(&at(there, &["diff", "-f", &second, "--output", "json"]))).unwrap();
    assert_eq!(json[0]["diff"]["removed"][0]["name"], "all", "{json}");

    let json = out(&at(there, &["apply", "-f", &second, "--output", "json", "--wait", "-m", "more"]));
    let applied: Value = serde_json::from_str(&json).unwrap();
    let (now, before) = (applied[0]["revision"].as_u64().unwrap(), applied[0]["previous"].as_u64().unwrap());

    let lost = at(here, &["apply", "-f", &first, "--if-revision", &before.to_string()]);
    assert_eq!(lost.status.code(), Some(1), "{}", told(&lost));
    assert!(err(&lost).contains(&now.to_string()), "it says where the rules are: {}", told(&lost));

    let history = out(&at(here, &["history", "--domain", "api"]));
    for words in ["to begin with", "more", "ada", "+2 ~0 -0", "+0 ~1 -1"] {
        assert!(history.contains(words), "{words}: {history}");
    }
    let back =
        at(here, &["rollback", &before.to_string(), "--domain", "api", "--message", "too lax", "--wait"]);
    assert_eq!(back.status.code(), Some(0), "{}", told(&back));
    assert!(out(&at(there, &["get", "--domain", "api"])).contains("5/1m"));
    assert!(
        out(&at(there, &["history", "--domain", "api"])).contains(&format!("rollback to {before}: too lax"))
    );
    let then = out(&at(there, &["get", "--domain", "api", "--revision", &now.to_string()]));
    assert!(then.contains("10/1m"), "{then}");
    let answer =
        here.client(kit::rules::PATIENCE).get("/v1/check?domain=api&ip=192.0.2.1&path=/login&method=POST");
    assert_eq!(answer.unwrap().json()["limit"], 5);

    // What is printed can be applied.
    let again = files.write("again.yaml", &out(&at(there, &["get", "--domain", "api"])));
    assert_eq!(at(here, &["diff", "-f", &again]).status.code(), Some(0));
}

#[test]
fn a_file_of_several_domains_is_applied_whole() {
    let cluster = Cluster::start(1, keeping());
    let files = Files::new();
    let both = files.write(
        "both.yaml",
        "domain: one\nrules: [{ name: a, key: [user], limit: 1/1m }]\n---\ndomain: two\nrules: [{ name: b, key: [user], limit: 2/1m }]\n",
    );
    let applied = at(&cluster.nodes[0], &["apply", "-f", &both]);
    assert_eq!(applied.status.code(), Some(0), "{}", told(&applied));
    assert_eq!(check(&cluster.nodes[0], "one", "u")["limit"], 1);
    assert_eq!(check(&cluster.nodes[0], "two", "u")["limit"], 2);
    let all = files.write("all.yaml", &out(&at(&cluster.nodes[0], &["get"])));
    assert_eq!(
        rules(&["validate", "-f", &all]).status.code(),
        Some(0),
        "{}",
        fs::read_to_string(all).unwrap()
    );
}

#[test]
fn what_is_printed_of_a_domain_is_taken_for_that_domain_however_it_was_written() {
    let cluster = Cluster::start(1, keeping());
    let (node, files) = (&cluster.nodes[0], Files::new());
    for (domain, text) in [
        ("json", r#"{"rules": [{"name": "a", "key": ["user"], "limit": "1/1m"}]}"#),
        ("flow", "# mine\n{rules: [{name: a, key: [user], limit: 1/1m}]}\n"),
        ("head", "%YAML 1.2\n---\nrules: []\n"),
        ("null", "rules: []\n"),
        ("indented", "  rules: [{ name: a, key: [user], limit: 1/1m }]\n"),
        ("default", r#"{"rules": [{"name": "b", "key": ["user"], "limit": "2/1m"}]}"#),
    ] {
        kit::rules::write(node, domain, text);
        let again = files.write("again.yaml", &out(&at(node, &["get", "--domain", domain])));
        let diff = at(node, &["diff", "-f", &again]);
        assert!(diff.status.code() == Some(0) && out(&diff).starts_with(domain), "{}", told(&diff));
    }
    let all = files.write("all.yaml", &out(&at(node, &["get"])));
    let diff = at(node, &["diff", "-f", &all]);
    assert!(diff.status.code() == Some(0) && out(&diff).lines().count() == 6, "{}", told(&diff));
}

#[test]
fn each_kind_of_mistake_in_a_file_is_shown_at_its_place() {
    let rule = |rest: &str| format!("rules:\n  - name: one\n    key: [ip]\n    {rest}\n");
    let files = Files::new();
    for (text, line, words) in [
        (rule("limit: 5 per minute"), 4, "limit"),
        (rule("limit: 5/1fortnight"), 4, "fortnight"),
        (rule("limit: -5/1m"), 4, "limit"),
        (rule("limit: 5/1m\n    burst: 0"), 5, "burst"),
        (rule("limit: 5/1m\n    algorithm: token_buckt"), 5, "token_bucket"),
        (rule("limit: 5/1m\n    algoritm: token_bucket"), 5, "algorithm"),
        (rule("limit: 5/1m\n    mode: maybe"), 5, "shadow"),
        (rule("limit: 5/1m\n    on_owner_loss: panic"), 5, "share"),
        (rule("limit: 5/1m\n    consistency: eventual"), 5, "available"),
        (rule("limit: 5/1m\n    when: { ip: 10.0.0.0/99 }"), 5, "10.0.0.0/99"),
        (rule("limit: 5/1m\n  - name: one\n    key: [ip]\n    limit: 6/1m"), 5, "one"),
        (rule("limit: [5, 6]"), 4, "limit"),
        ("rules:\n  - key: [ip]\n    limit: 5/1m\n".to_owned(), 2, "name"),
        ("rules:\n  - name: one\n    key: ip:\n".to_owned(), 3, ""),
        ("rules: 7\n".to_owned(), 1, "rules"),
        ("rulez: []\n".to_owned(), 1, "rules"),
        ("domain: \"two words\"\nrules: []\n".to_owned(), 1, "domain"),
        ("rules:\n  - name: \"\\q\"\n".to_owned(), 2, ""),
        ("rules: [}\n".to_owned(), 1, ""),
    ] {
        let file = files.write("rules.yaml", &text);
        let shown = rules(&["validate", "-f", &file]);
        assert_eq!(shown.status.code(), Some(1), "{text}{}", told(&shown));
        let shown = err(&shown);
        assert!(shown.contains(&format!("rules.yaml:{line}:")), "line {line} of\n{text}is not in\n{shown}");
        assert!(shown.contains(words), "{words} is not in\n{shown}");
        let json = out(&rules(&["validate", "-f", &file, "--output", "json"]));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["valid"], &json["faults"][0]["line"]),
            (&Value::from(false), &Value::from(line)),
            "{json}"
        );
    }
    let file = files.write("latin.yaml", "rules: []\n");
    fs::write(&file, b"rules: [] # caf\xe9\n").unwrap();
    assert!(err(&rules(&["validate", "-f", &file])).contains("UTF-8"));
    let missing = rules(&["validate", "-f", "/nowhere/rules.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("/nowhere/rules.yaml"));
}

#[test]
fn all_faults_of_a_file_are_shown_at_once() {
    let files = Files::new();
    let file = files.write(
        "rules.yaml",
        "rules:\n  - { name: a, key: [ip], limit: ten }\n  - { name: a, key: [ip], limit: 5/1m }\n  - { name: c, key: [ip], limit: 5/1m, mode: x }\n",
    );
    let shown = err(&rules(&["validate", "-f", &file]));
    for line in [2, 3, 4] {
        assert!(shown.contains(&format!("rules.yaml:{line}:")), "{line}: {shown}");
    }
}

#[test]
fn a_node_that_is_not_there_or_not_a_node_is_told() {
    let nobody = rules(&["get", "--node", "http://127.0.0.1:9", "--timeout", "1s"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("127.0.0.1:9"), "{}", told(&nobody));
    assert_eq!(rules(&["get", "--node", "ftp://x"]).status.code(), Some(2));
    let cluster = Cluster::start(1, keeping());
    let none = at(&cluster.nodes[0], &["rollback", "77"]);
    assert_eq!(none.status.code(), Some(1), "{}", told(&none));
    assert!(err(&none).contains("77"), "{}", told(&none));
}

/// The campaigns of `jepsen` know nothing of the product, so it is said here whether their rules are rules.
#[test]
fn the_rules_of_the_fault_injection_are_valid() {
    let files = Files::new();
    let file = files.write("rules.yaml", &tidegate_jepsen::workload::checks::rules_text());
    let validated = rules(&["validate", "-f", &file]);
    assert_eq!(validated.status.code(), Some(0), "{}", told(&validated));
}
