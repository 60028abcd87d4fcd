//! Which program is run as a node.

use std::{path::PathBuf, process::Command};

/// The one that was named; else the one beside this program, built first if cargo runs us.
pub(super) fn node(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let path = match named {
        Some(path) => path,
        None => beside_us()?,
    };
    match path.is_file() {
        // Nodes run in other places.
        true => path.canonicalize().map_err(|error| format!("{}: {error}", path.display())),
        false => Err(format!("there is no {} (--binary); `cargo build --release` makes it", path.display())),
    }
}

fn beside_us() -> Result<PathBuf, String> {
    let us = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let directory = us.parent().ok_or("this program is in no directory")?.to_owned();
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate"]);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().map_err(|error| format!("cargo can not be run: {error}"))?;
        if !built.success() {
            return Err("the node's program could not be built".to_owned());
        }
    }
    Ok(directory.join("tidegate"))
}
