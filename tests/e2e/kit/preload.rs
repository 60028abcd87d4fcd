//! Systems whose calls take long or fail.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A library that a node loads before its own: what it does with calls of the system that are named in its source.
pub fn preloaded(directory: &Path, source: &str) -> PathBuf {
    let (text, library) = (directory.join("preloaded.c"), directory.join("preloaded.so"));
    fs::write(&text, source).unwrap();
    let ended = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &text])
        .arg("-ldl")
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    library
}
