//! The promise: the OpenAPI document is true. schemathesis makes requests of it, right and wrong ones, and holds each answer
//! against it: no failure of the server, no status, type or shape that is not declared.

use std::{fs, path::Path, process::Command};

use crate::kit::{self, rules::PATIENCE};

const RULES: &str = "
rules:
  - { name: per-ip, key: [ip], limit: 10/1m }
  - { name: login, when: { path: /login, method: POST }, key: [ip], limit: 3/10m, algorithm: sliding_window }
";

#[test]
fn the_document_is_served_and_schemathesis_finds_nothing_that_is_not_in_it() {
    let cluster = kit::nodes(1, RULES);
    let node = &cluster.nodes[0];
    let served = node.client(PATIENCE).get("/openapi.json").unwrap();
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")));
    assert_eq!(served.json()["openapi"], "3.1.0");

    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/schemathesis");
    if !program.exists() {
        println!("NOT TESTED: schemathesis is not installed (bash .ci/tools-schemathesis)");
        return;
    }
    // A proxy asks by whatever method its client has used, and OpenAPI cannot say "any".
    let methods = "unsupported_method,allow_header_conformance";
    for (which, checks) in
        [("--exclude-path", format!("{CHECKS},{methods}")), ("--include-path", CHECKS.to_owned())]
    {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("schemathesis.toml"), CONFIG).unwrap();
        let run = Command::new(&program)
            .args(["run", &format!("http://{}/openapi.json", node.http), which, "/v1/auth"])
            .args(["--checks", &checks, "--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", "12", "--seed", "7", "--no-color", "--warnings", "off"])
            .args(["--suppress-health-check", "all", "--request-timeout", "10"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{told}\n{}", String::from_utf8_lossy(&run.stderr));
        assert!(told.contains("No issues found"), "{told}");
    }
    assert_eq!(node.client(PATIENCE).get("/healthz").unwrap().status, 200);
}

/// Who allows a read of the rules no time at all may be told that the voters did not decide in time: an answer, where the
/// document declares it, and no failure.
const CONFIG: &str = r#"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
"#;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
response_headers_conformance,response_schema_conformance";
