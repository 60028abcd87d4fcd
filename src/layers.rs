//! What no file of this crate may import: the front ends know nothing of each other, and what they share knows nothing of them.

use std::{fs, path::Path};

const FRONT_ENDS: [&str; 4] = ["http", "grpc", "resp", "gubernator"];

/// Whether a file may name something of a module of the crate.
fn may(file: &str, module: &str) -> bool {
    let room = file.split(['/', '.']).next().unwrap_or_default();
    match room {
        "check" => ["check", "node"].contains(&module),
        "http" if file.starts_with("http/transport/") => {
            ["http", "accept", "ending", "parts", "tls", "turns"].contains(&module)
        }
        // Two front ends read for Gubernator's.
        "http" | "grpc" => !FRONT_ENDS.contains(&module) || [room, "gubernator"].contains(&module),
        "resp" | "gubernator" => !FRONT_ENDS.contains(&module) || module == room,
        "metrics" => !FRONT_ENDS.contains(&module) && module != "node",
        "tls" => ["tls", "accept", "ending", "secret_file"].contains(&module),
        "node" | "accept" | "connections" | "turns" | "desk" | "ending" | "client_address" | "config"
        | "rate_limit_headers" => !FRONT_ENDS.contains(&module),
        _ => true,
    }
}

/// The modules of the crate that a text names, by `crate::a::b` or in a list behind `use crate::{`.
fn named(text: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut modules = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            modules.push(word(rest));
            continue;
        };
        let (mut depth, mut is_first) = (1, true);
        for (place, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => is_first = true,
                _ if depth == 1 && is_first && !character.is_whitespace() => {
                    modules.push(word(&list[place..]));
                    is_first = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

fn look(folder: &Path, root: &Path, wrong: &mut Vec<String>, files: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, root, wrong, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *files += 1;
            let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            wrong
                .extend(named(&code).iter().filter(|to| !may(&file, to)).map(|to| format!("{file} -> {to}")));
        }
    }
}

#[test]
fn names_behind_crate_are_found() {
    assert_eq!(named("use crate::{a::{b, c}, d, e::f}; crate::g::h()"), ["a", "d", "e", "g"]);
}

#[test]
fn no_front_end_imports_another_and_what_they_share_imports_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut wrong, mut files) = (Vec::new(), 0);
    look(&root, &root, &mut wrong, &mut files);
    assert!(files > 50, "{files}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
