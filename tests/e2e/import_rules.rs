//! The promise: rules that are made of another limiter's configuration decide as that limiter does, and what they cannot say
//! is told with its line.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::kit::{self, rules::PATIENCE};
use serde_json::{Value, json};
use tidegate_jepsen::cluster::Cluster;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

fn import(arguments: &[&str], path: &Path) -> (i32, String, String) {
    let output =
        Command::new(kit::binary()).args(["rules", "import"]).args(arguments).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The rules and the remarks are those that are written down; `UPDATE=1 cargo test --test import_rules` writes them down.
fn is_as_written(kind: &str, source: &str) -> String {
    let path = file(source);
    let (code, rules, remarks) = import(&["--from", kind], &path);
    assert_eq!(code, 0, "{remarks}");
    let remarks = remarks.replace(&format!("{}/", path.parent().unwrap().display()), "");
    for (name, found) in [(format!("{kind}.rules.yaml"), &rules), (format!("{kind}.remarks.txt"), &remarks)] {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(file(&name), found).unwrap();
        }
        assert_eq!(&fs::read_to_string(file(&name)).unwrap(), found, "tests/import/{name}");
    }
    rules
}

fn check(cluster: &Cluster, domain: &str, attributes: &Value) -> bool {
    let body = json!({ "domain": domain, "attributes": attributes }).to_string();
    let answer = cluster.nodes[0].client(PATIENCE).post("/v1/check", &body).unwrap();
    assert!([200, 429].contains(&answer.status), "{}", answer.text());
    answer.status == 200
}

/// Asks so often, and counts what is allowed.
fn allowed(cluster: &Cluster, domain: &str, attributes: &Value, times: usize) -> usize {
    (0..times).filter(|_| check(cluster, domain, attributes)).count()
}

#[test]
fn the_rules_of_envoyproxy_ratelimit_decide_as_it_does() {
    let rules = is_as_written("envoy", "envoy.yaml");
    let cluster = kit::nodes(1, &rules);
    // A descriptor, and how many of six requests envoyproxy/ratelimit lets through in one window of each unit.
    for (descriptor, expected) in [
        (json!({ "remote_address": "203.0.113.1" }), 3),
        (json!({ "remote_address": "203.0.113.2" }), 3),
        (json!({ "remote_address": "10.0.0.1" }), 6),
        (json!({ "remote_address": "10.0.0.2" }), 1),
        // No limit at this depth, though there are some deeper.
        (json!({ "path": "/login" }), 6),
        (json!({ "path": "/login", "remote_address": "203.0.113.3" }), 2),
        (json!({ "path": "/login", "remote_address": "203.0.113.4" }), 2),
        // In shadow mode nothing is denied.
        (json!({ "path": "/login", "tenant": "gold" }), 6),
        (json!({ "path": "/login", "tenant": "silver" }), 6),
        // A prefix: each value by itself. The exact value goes before it, and has no limit.
        (json!({ "path": "/api/a" }), 2),
        (json!({ "path": "/api/b" }), 2),
        (json!({ "path": "/api/free" }), 6),
        // All values together.
        (json!({ "path": "/shared/a" }), 2),
        (json!({ "path": "/shared/b" }), 0),
        // Without value: all others.
        (json!({ "path": "/else" }), 4),
        (json!({ "path": "/other" }), 4),
        (json!({ "path": "/else", "path.2": "twice" }), 1),
        (json!({ "path": "/more", "path.2": "thrice" }), 6),
        (json!({ "unknown": "x" }), 6),
        // A limit of nothing, and its key is limited elsewhere too.
        (json!({ "never": "x" }), 0),
        // A text that begins with ! is itself.
        (json!({ "odd": "!x" }), 1),
        (json!({ "odd": "y" }), 6),
        // As they are written, whatever YAML makes of them.
        (json!({ "version": "1.10" }), 2),
        (json!({ "version": "1.1" }), 6),
        (json!({ "country": "NO" }), 1),
        (json!({ "country": "false" }), 3),
        // A text, not a network.
        (json!({ "masked_remote_address": "192.168.0.0/16" }), 2),
        (json!({ "masked_remote_address": "192.168.1.1" }), 6),
        (json!({ "file": "/api/7/download", "file.2": "a" }), 2),
        (json!({ "file": "/api/a/b/download", "file.2": "a" }), 2),
        (json!({ "file": "/api/7/upload", "file.2": "a" }), 6),
    ] {
        // Windows can end meanwhile, all but that of the week seldom: then once more.
        let found = allowed(&cluster, "shop", &descriptor, 6);
        assert!(found == expected || found == (2 * expected).min(6), "{descriptor}: {found}, not {expected}");
    }
}

/// As `kubectl get configmap -o yaml` shows what a chart or Envoy Gateway made; two files of one domain are put together.
#[test]
fn configurations_in_objects_of_kubernetes_are_imported_and_read_again_as_the_same_rules() {
    let directory = tempfile::tempdir().unwrap();
    let limit = "{ unit: HOUR, requests_per_unit: 2, unlimited: false, name: '', replaces: [] }";
    let first = format!(
        "apiVersion: v1\nkind: ConfigMap\ndata:\n  eg.yaml: |\n    name: eg\n    domain: eg\n    descriptors:\n    - key: address\n      value: 10.0.0.0/8\n      rate_limit: {limit}\n---\napiVersion: v1\nkind: Service\n"
    );
    let second = format!(
        "domain: eg\ndescriptors:\n- key: file\n  value: '!*/x'\n  colour: red\n  rate_limit: {limit}\n"
    );
    let (first_path, second_path) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    fs::write(&first_path, first).unwrap();
    fs::write(&second_path, second).unwrap();
    let second_name = second_path.display().to_string();
    let (code, rules, told) = import(&["--from", "envoy", &first_path.display().to_string()], &second_path);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains(&format!("{second_name}:1: note: the domain eg again")), "{told}");
    assert!(told.contains(&format!("{second_name}:5: not carried over: the field colour")), "{told}");
    assert!(rules.contains("{ address: { is: \"10.0.0.0/8\" } }"), "{rules}");
    assert!(rules.contains("{ file: { like: \"!*/x\" } }"), "{rules}");

    let cluster = kit::nodes(1, "rules: []\n");
    let file = directory.path().join("rules.yaml");
    fs::write(&file, &rules).unwrap();
    let url = format!("http://{}", cluster.nodes[0].http);
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(kit::binary());
        let output = command
            .arg("rules")
            .args(arguments)
            .args(["--node", &url])
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let path = file.to_str().unwrap();
    assert_eq!(ask(&["apply", "-f", path, "--wait"]).0, 0);
    for (attributes, expected) in [
        (json!({ "address": "10.0.0.0/8" }), 2),
        (json!({ "address": "10.1.2.3" }), 3),
        (json!({ "file": "!a/b/x" }), 2),
        (json!({ "file": "a/x" }), 3),
    ] {
        assert_eq!(allowed(&cluster, "eg", &attributes, 3), expected, "{attributes}");
    }
    assert_eq!(ask(&["diff", "-f", path]).0, 0, "nothing would change");
    assert!(ask(&["get", "--domain", "eg"]).1.contains(rules.trim_end()), "as they were written");
    // The rules as JSON, with the values that say how they are read, are a rule file too.
    let seen = cluster.nodes[0].client(PATIENCE).get("/v1/rules/eg").unwrap().json();
    let mut listed = seen["rules"].clone();
    for rule in listed.as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().remove("worst_case");
    }
    assert_eq!(listed[0]["when"]["address"], json!([{ "is": "10.0.0.0/8" }]));
    fs::write(&file, json!({ "domain": "eg", "rules": listed }).to_string()).unwrap();
    let (code, told) = ask(&["diff", "-f", path]);
    assert!(told.contains("the same rules in other words"), "{code}: {told}");
    // Another way to read the same text is a change.
    fs::write(&file, rules.replace("{ is: \"10.0.0.0/8\" }", "10.0.0.0/8")).unwrap();
    let (code, told) = ask(&["diff", "-f", path]);
    assert!(
        code == 1 && told.contains("when address={ is: \"10.0.0.0/8\" } -> address=10.0.0.0/8"),
        "{told}"
    );
}

#[test]
fn the_rules_of_nginx_decide_as_it_does() {
    let rules = is_as_written("nginx", "nginx.conf");
    let cluster = kit::nodes(1, &rules);
    let shop =
        |path: &str, ip: &str| json!({ "host": "shop.example", "path": path, "ip": ip, "x-api-key": "k" });
    for (request, expected) in [
        // A burst of two and the one at the rate.
        (shop("/", "203.0.113.1"), 3),
        (shop("/cart", "203.0.113.1"), 0),
        (shop("/cart", "203.0.113.2"), 3),
        // Two zones: the stricter one decides.
        (shop("/login", "203.0.113.3"), 1),
        (shop("/loginx", "203.0.113.4"), 3),
        // A part of the key may be empty.
        (json!({ "host": "shop.example", "path": "/login", "ip": "203.0.113.9" }), 1),
        // A location of its own has its own limits, and no others.
        (shop("/search", "203.0.113.5"), 2),
        (shop("/search/deep/er", "203.0.113.6"), 0),
        (shop("/static/a", "203.0.113.7"), 6),
        // A dry run.
        (json!({ "host": "admin.example", "path": "/", "ip": "203.0.113.8" }), 6),
        // By a named location, for those that are not listed.
        (json!({ "host": "api.example", "path": "/", "ip": "203.0.113.10" }), 2),
        (json!({ "host": "www.api.example", "path": "/", "ip": "10.1.0.1" }), 2),
        (json!({ "host": "api.example", "path": "/", "ip": "10.2.0.1" }), 6),
        // The redirect answers on the other port.
        (json!({ "host": "api.example", "path": "/", "ip": "203.0.113.11", "scheme": "http" }), 6),
        (json!({ "host": "api.example", "path": "/", "ip": "203.0.113.11", "scheme": "https" }), 2),
        // Both names are one server.
        (json!({ "host": "api.example", "path": "/a.png", "ip": "203.0.113.12" }), 3),
        (json!({ "host": "www.api.example", "path": "/a.jpeg", "ip": "203.0.113.13" }), 0),
    ] {
        assert_eq!(allowed(&cluster, "default", &request, 6), expected, "{request}");
    }
}

#[test]
fn what_is_not_carried_over_is_told_and_can_be_a_failure() {
    let (code, rules, told) = import(&["--from", "nginx", "--strict"], &file("nginx.conf"));
    assert_eq!(code, 1, "{told}");
    assert!(rules.starts_with("domain: default"), "{rules}");
    assert!(told.contains("nginx.conf:7: not carried over: limit_req_zone: $limit_key"), "{told}");
    let (code, json, _) = import(&["--from", "envoy", "--output", "json"], &file("envoy.yaml"));
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["yaml"].as_str().unwrap().starts_with("domain: shop\n"));
    assert_eq!(json["domains"][0]["domain"], "shop");
    let remarks = json["remarks"].as_array().unwrap();
    assert!(remarks.iter().any(|remark| remark["line"] == 41 && remark["lost"] == true), "{remarks:?}");

    let (code, _, told) = import(&["--from", "gubernator"], &file("envoy.yaml"));
    assert!(code == 2 && told.contains("Gubernator has no rules"), "{told}");
    let (code, _, told) = import(&["--from", "envoy"], &file("nginx.conf"));
    assert!(code == 1 && told.contains("nginx.conf: line "), "{told}");
    let (code, _, told) = import(&["--from", "nginx"], &file("nowhere"));
    assert!(code == 1 && told.contains("cannot read"), "{told}");
    // What is included and cannot be read is missing.
    assert!(
        import(&["--from", "nginx"], &file("nginx.conf"))
            .2
            .contains("include api.d/*.conf: cannot read the directory")
    );
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), "http {\n  limit_req_zone $binary_remote_addr zone=a:1m\n}\n").unwrap();
    let (code, _, told) = import(&["--from", "nginx"], broken.path());
    assert!(code == 1 && told.contains("line 3"), "{told}");
}

#[test]
fn several_files_directories_and_the_standard_input_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "a.yaml",
        "domain: a\ndescriptors: [{ key: x, rate_limit: { unit: hour, requests_per_unit: 1 } }]\n",
    );
    write(
        "b.yml",
        "domain: b\ndescriptors: [{ key: y, rate_limit: { unit: hour, requests_per_unit: 2 }, odd: 1 }]\n",
    );
    write("c.conf", "limit_req_zone $binary_remote_addr zone=c:1m rate=1r/s;\n");
    write("d.conf", "server { limit_req zone=c; }\n");
    write("e.txt", "}");
    let path = directory.path().display().to_string();

    let (code, rules, told) = import(&["--from", "envoy"], directory.path());
    assert_eq!(code, 0, "{told}");
    assert!(rules.contains("domain: a\n") && rules.contains("---\ndomain: b\n"), "{rules}");
    assert!(rules.contains(&format!("# {path}/b.yml:2\n")), "{rules}");
    assert!(told.contains(&format!("{path}/b.yml:2: not carried over")), "{told}");
    let files = [format!("{path}/c.conf"), format!("{path}/c.conf")];
    let all = import(&["--from", "nginx", &files[0], &files[1]], &directory.path().join("d.conf"));
    assert_eq!((all.0, all.1.matches("- name: c ").count()), (0, 1), "{all:?}");
    assert!(all.2.contains("1 rule from 3 files; 0 not carried over"), "{}", all.2);
    assert_eq!(import(&["--from", "nginx", "--strict"], directory.path()).1, all.1);
    let (code, json, _) = import(&["--from", "envoy", "--output", "json"], directory.path());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["remarks"][0]["file"].as_str()), (0, Some(&*format!("{path}/b.yml"))));

    let piped = |kind: &str, text: &[u8]| {
        let mut child = Command::new(kit::binary())
            .args(["rules", "import", "--from", kind, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, rules, _) = piped("envoy", &fs::read(directory.path().join("a.yaml")).unwrap());
    assert!(code == 0 && rules.contains("# line 2\n"), "{rules}");
    let dump = b"# configuration file /etc/nginx/nginx.conf:\n# caf\xe9\nhttp { include c.d/*; }\n
# configuration file /etc/nginx/c.d/c:\nlimit_req_zone $binary_remote_addr zone=c:1m rate=1r/s;
server { location / { limit_req zone=c; limit_req zone=d; } }\n";
    let (code, rules, told) = piped("nginx", dump);
    assert!(code == 0 && rules.contains("# /etc/nginx/c.d/c:2\n"), "{rules}");
    assert!(told.contains("/etc/nginx/c.d/c:2: not carried over: limit_req: there is no zone d"), "{told}");
    let (code, _, told) = piped("envoy", b"domain: a\n# caf\xe9\n");
    assert!(code == 1 && told.contains("(standard input): line 2: this is not UTF-8"), "{told}");
    let nothing = tempfile::tempdir().unwrap();
    let (code, _, told) = import(&["--from", "envoy"], nothing.path());
    assert!(code == 1 && told.contains("*.yaml, *.yml"), "{told}");
}
