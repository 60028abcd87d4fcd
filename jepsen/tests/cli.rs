//! The program itself: what it says of itself, and what it refuses before anything is started.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

use tidegate_jepsen::nemesis::Kind;

fn jepsen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-jepsen")).args(arguments).output().unwrap()
}

#[test]
fn help_names_every_fault() {
    let help = String::from_utf8(jepsen(&["run", "--help"]).stdout).unwrap();
    for kind in Kind::parse_list("all").unwrap() {
        assert!(help.contains(kind.name()), "{}", kind.name());
    }
}

#[test]
fn what_cannot_be_tested_is_said_and_exits_with_2() {
    for arguments in
        [&["run", "--time", "20s", "--binary", "/nowhere/tidegate"][..], &["run", "--nemesis", "earthquake"]]
    {
        let refused = jepsen(arguments);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("/nowhere/tidegate") || said.contains("earthquake"), "{said}");
    }
}
