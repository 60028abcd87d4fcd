//! The promise: the OpenAPI document is true. schemathesis makes requests of it, right and wrong ones, and holds each answer
//! against it: no failure of the server, no status, type or shape that is not declared. And it is of use: clients that others'
//! generators make of it can be loaded, and ask a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

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
    // As soon as it has made a token, nothing else is open: tests/e2e/access.rs asks for tokens.
    let others = ["--exclude-path", "/v1/auth", "--exclude-path", "/v1/tokens"];
    for (which, checks) in
        [(&others[..], format!("{CHECKS},{methods}")), (&["--include-path", "/v1/auth"], CHECKS.to_owned())]
    {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("schemathesis.toml"), CONFIG).unwrap();
        let run = Command::new(&program)
            .args(["run", &format!("http://{}/openapi.json", node.http)])
            .args(which)
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

/// A program of `.ci/tools-openapi`, if it is there.
fn tool(path: &str) -> Option<PathBuf> {
    let program = root().join("target/tools").join(path);
    if program.exists() {
        return Some(program);
    }
    println!("NOT TESTED: {path} is not installed (bash .ci/tools-openapi)");
    None
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a command says, when it has done its work.
fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {told}");
    told
}

/// The document of a node, as a file.
fn document(cluster: &tidegate_jepsen::cluster::Cluster, directory: &Path) -> PathBuf {
    let file = directory.join("openapi.json");
    fs::write(&file, cluster.nodes[0].client(PATIENCE).get("/openapi.json").unwrap().body).unwrap();
    file
}

#[test]
fn a_client_that_is_generated_for_python_asks_a_node() {
    let Some(generator) = tool("openapi-py/bin/openapi-python-client") else { return };
    let (cluster, directory) = (kit::nodes(1, RULES), tempfile::tempdir().unwrap());
    let made = directory.path().join("made");
    let binaries = generator.parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths([binaries.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    // It leaves out what it does not understand, and warns.
    told(
        Command::new(&generator)
            .args(["generate", "--fail-on-warning", "--path"])
            .arg(document(&cluster, directory.path()))
            .arg("--output-path")
            .arg(&made)
            .env("PATH", path),
    );
    let said = told(
        Command::new(binaries.join("python"))
            .arg(root().join("tests/python/ask_by_openapi.py"))
            .arg(&made)
            .arg(format!("http://{}", cluster.nodes[0].http)),
    );
    assert_eq!(said.trim(), "fine");
}

#[test]
fn a_client_that_is_generated_for_typescript_asks_a_node() {
    let Some(generator) = tool("openapi-ts/node_modules/.bin/openapi-typescript") else { return };
    let (cluster, directory) = (kit::nodes(1, RULES), tempfile::tempdir().unwrap());
    let directory = directory.path();
    let modules = generator.ancestors().nth(2).unwrap();
    std::os::unix::fs::symlink(modules, directory.join("node_modules")).unwrap();
    fs::write(directory.join("package.json"), "{\"type\": \"module\"}").unwrap();
    fs::copy(root().join("tests/typescript/ask_by_openapi.ts"), directory.join("ask.ts")).unwrap();
    told(
        Command::new(&generator)
            .arg(document(&cluster, directory))
            .arg("-o")
            .arg(directory.join("schema.d.ts")),
    );
    told(
        Command::new(modules.join(".bin/tsc"))
            .args([
                "--strict",
                "--target",
                "es2022",
                "--module",
                "nodenext",
                "--moduleResolution",
                "nodenext",
            ])
            .args(["--lib", "es2022,dom", "--exactOptionalPropertyTypes", "ask.ts"])
            .current_dir(directory),
    );
    let said = told(
        Command::new("node")
            .arg("ask.js")
            .arg(format!("http://{}", cluster.nodes[0].http))
            .current_dir(directory),
    );
    assert_eq!(said.trim(), "fine");
}
