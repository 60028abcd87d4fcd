//! Which program is run as a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a build for tests has more than another one: bugs that can be switched on, a clock and a disk that can fail.
const FEATURES: &str = "tidegate-cluster/fault-injection,tidegate-cluster/planted-bugs";
/// Its name, beside the node's own.
const FOR_TESTS: &str = "tidegate-for-tests";

/// The one that was named; else the one for tests beside this program, built first if cargo runs us; else the node itself.
///
/// # Errors
/// When there is none, and none can be built.
pub fn for_tests(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let path = match named {
        Some(path) => path,
        None => beside_us()?,
    };
    existing(&path, "--binary")
}

/// The whole name of a program that is there: nodes run in other places.
///
/// # Errors
/// When it is not there; `option` is how it was named.
pub fn existing(path: &Path, option: &str) -> Result<PathBuf, String> {
    match path.is_file() {
        true => path.canonicalize().map_err(|error| format!("{}: {error}", path.display())),
        false => Err(format!("there is no {} ({option}); `cargo build --release` makes one", path.display())),
    }
}

fn beside_us() -> Result<PathBuf, String> {
    let us = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let directory = us.parent().ok_or("this program is in no directory")?.to_owned();
    match std::env::var_os("CARGO") {
        Some(cargo) => build(Path::new(&cargo), &directory),
        None => {
            let built = [FOR_TESTS, "tidegate"].map(|name| directory.join(name));
            let [_, node] = &built;
            Ok(built.iter().find(|path| path.is_file()).unwrap_or(node).clone())
        }
    }
}

/// Builds the node for tests, under another name: what is called `tidegate` stays what it was.
fn build(cargo: &Path, directory: &Path) -> Result<PathBuf, String> {
    let [node, kept, copy] = ["tidegate", "tidegate.kept", FOR_TESTS].map(|name| directory.join(name));
    let within = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let is_kept = node.exists();
    if is_kept {
        // One that was left by somebody who was stopped half-way is of no use.
        let _ = fs::remove_file(&kept);
        fs::hard_link(&node, &kept).map_err(|error| within(&kept, error))?;
    }
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate", "--features", FEATURES]);
    if directory.ends_with("release") {
        build.arg("--release");
    }
    let built = build.status().map_err(|error| format!("cargo cannot be run: {error}"));
    let copied = match &built {
        Ok(status) if status.success() => {
            fs::copy(&node, &copy).map_err(|error| within(&copy, error)).map(drop)
        }
        _ => Err("the node's program could not be built".to_owned()),
    };
    // Also after a failure: nobody should find a build for tests where a release is expected.
    match is_kept {
        true => fs::rename(&kept, &node).map_err(|error| within(&node, error))?,
        false => drop(fs::remove_file(&node)),
    }
    built?;
    copied.map(|()| copy)
}
