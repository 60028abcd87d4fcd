//! The structure that the code promises: no files that import each other in a circle, no import against the layers, and few
//! names where other people look first.
//! `docs/architecture.md` draws it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type ModulePath = Vec<String>;

/// The files of a crate, and what each imports.
struct Crate {
    /// By module: its file, with what stands in it outside of tests.
    files: BTreeMap<ModulePath, (PathBuf, String)>,
    /// By module: names that it only has by `use`, and where they come from. Others find them there: all where it is a `pub use`,
    /// and those below the module where it is not.
    handed_on: BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, without its tests and comments.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The single paths of a `use` tree.
fn paths_of(tree: &str, prefix: &[String], out: &mut Vec<ModulePath>) {
    let (mut depth, mut start) = (0_i32, 0);
    let mut parts = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        let segments = |text: &str| {
            let names = text.split("::").map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| name.split(" as ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        match part.split_once('{') {
            Some((head, rest)) => {
                let inner = &rest[..rest.rfind('}').unwrap()];
                paths_of(inner, &[prefix, &segments(head)].concat(), out);
            }
            None => out.push([prefix, &segments(part)].concat()),
        }
    }
}

/// From the root of the crate; `None`: it is of another crate.
fn absolute(path: &[String], module: &[String]) -> Option<ModulePath> {
    let mut from = module.to_vec();
    match path[0].as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            from.truncate(module.len().checked_sub(ups)?);
            Some([from, path[ups..].to_vec()].concat())
        }
        _ => None,
    }
}

/// The `use` statements of some code: what they name, and whether they hand it on.
fn uses(code: &str, module: &[String]) -> Vec<(ModulePath, bool)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let line_start = rest[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = rest[line_start..at].trim();
        let statement = &rest[at + 4..];
        let end = statement.find(';').unwrap_or(statement.len());
        if before.is_empty() || before.starts_with("pub") {
            let mut paths = Vec::new();
            paths_of(&statement[..end].replace('\n', " "), &[], &mut paths);
            let absolute = paths.iter().filter_map(|path| absolute(path, module));
            found.extend(absolute.map(|path| (path, before.starts_with("pub"))));
        }
        rest = &statement[end..];
    }
    found
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        rust_files(root, &mut paths);
        let mut files = BTreeMap::new();
        for path in paths {
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let mut module: ModulePath =
                relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                module.pop();
            }
            // The program's own file imports nothing but its library.
            if !(path.ends_with("main.rs") || is_of_tests(&module)) {
                files.insert(module, (path.clone(), code_of(&path)));
            }
        }
        let mut handed_on: BTreeMap<ModulePath, BTreeMap<String, ModulePath>> = BTreeMap::new();
        for (module, (_, code)) in &files {
            let names = handed_on.entry(module.clone()).or_default();
            for (mut path, _) in uses(code, module) {
                path.pop_if(|last| last == "self");
                if let Some(name) = path.last() {
                    names.insert(name.clone(), path);
                }
            }
        }
        Self { files, handed_on }
    }

    /// The module in whose file a path is defined.
    fn home_of(&self, path: &[String], depth: u32) -> Option<ModulePath> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let handed_on = rest.first().and_then(|name| self.handed_on[module].get(name));
        match handed_on {
            Some(from) if depth > 0 && from != path => self.home_of(from, depth - 1),
            _ => Some(module.to_vec()),
        }
    }

    /// Which module imports which.
    fn imports(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let of = |(module, (_, code)): (&ModulePath, &(PathBuf, String))| {
            let named = uses(code, module).into_iter().filter(|(_, is_handed_on)| !is_handed_on);
            let homes = named.filter_map(|(path, _)| self.home_of(&path, 4));
            (module.clone(), homes.filter(|home| home != module).collect())
        };
        self.files.iter().map(of).collect()
    }
}

fn is_of_tests(module: &[String]) -> bool {
    let named =
        |name: &String| matches!(name.as_str(), "tests" | "suite" | "floor_suite" | "golden" | "adoption");
    module.iter().any(named)
}

fn name(module: &[String]) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("/") }
}

/// The modules that reach themselves by imports.
fn in_circles(imports: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Vec<String> {
    let reaches_itself = |start: &ModulePath| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(module) = open.pop() {
            for next in imports.get(module).into_iter().flatten() {
                if next == start {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    imports.keys().filter(|module| reaches_itself(module)).map(|module| name(module)).collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The crates whose files do not import each other in a circle.
const WITHOUT_CIRCLES: [&str; 7] =
    ["limiter/src", "tls/src", "cluster/src", "src", "tower/src", "jepsen/src", "jepsen/sim/src"];

#[test]
fn no_files_import_each_other_in_a_circle() {
    for sources in WITHOUT_CIRCLES {
        assert_eq!(in_circles(&Crate::read(&root(sources)).imports()), [""; 0], "{sources}");
    }
}

/// What the first may not import, directly.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    ("owner", &["state", "rpc", "raft", "rules", "ownership", "router", "link", "controller", "node"]),
    ("state", &["rpc", "raft", "rules", "ownership", "router", "link", "controller", "node"]),
    ("rpc", &["raft", "rules", "ownership", "router", "controller", "node"]),
    ("raft", &["rules", "ownership", "router", "controller", "node"]),
    ("rules", &["ownership", "router", "controller", "node"]),
];

#[test]
fn no_room_of_the_cluster_imports_one_above_it() {
    let imports = Crate::read(&root("cluster/src")).imports();
    let mut wrong = Vec::new();
    for (module, imported) in &imports {
        for (room, above) in FORBIDDEN {
            if module.first().is_some_and(|first| first == room) {
                let is_above = |one: &&ModulePath| one.first().is_some_and(|first| above.contains(&&**first));
                wrong.extend(imported.iter().filter(is_above).map(|one| (name(module), name(one))));
            }
        }
    }
    assert_eq!(wrong, []);
}

/// A user of the limiter alone reads all of them before the first line is written.
const MOST_NAMES: usize = 15;

#[test]
fn the_root_of_the_limiter_has_what_an_application_names_and_no_more() {
    let code = code_of(&root("limiter/src/lib.rs"));
    let handed_on = uses(&code, &[]).into_iter().filter(|(_, is_handed_on)| *is_handed_on);
    let mut names: BTreeSet<String> = handed_on.filter_map(|(path, _)| path.last().cloned()).collect();
    for line in code.lines().filter(|line| line.starts_with("pub ") && !line.starts_with("pub use ")) {
        let module = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
        names.insert(module.unwrap_or_else(|| panic!("defined at the root: {line}")).to_owned());
    }
    assert!(names.contains("Limiter") && names.contains("cluster"), "not all are seen: {names:?}");
    assert!(names.len() <= MOST_NAMES, "{} names, the rest belongs into a module: {names:?}", names.len());
}

#[test]
fn a_circle_is_found_through_a_name_that_is_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = directory.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a;\nmod b;\nmod d;\nuse self::d::Four;\n");
    write("a.rs", "use crate::b::{One, Two};\npub struct Three;\n");
    // What the root has for itself, those below it find there; it is still of the file that defines it.
    write("d.rs", "use crate::e;\npub struct Four;\n");
    write("e.rs", "use crate::Four;\n");
    write("b/mod.rs", "mod one;\npub use self::one::One;\npub struct Two;\n");
    write(
        "b/one.rs",
        "use crate::{\n    a::Three,\n};\npub struct One;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n",
    );
    let imports = Crate::read(directory.path()).imports();
    assert_eq!(in_circles(&imports), ["a", "b/one", "d", "e"]);
}

/// The texts in a call of a macro that begins there, after its parenthesis.
fn texts_in(call: &str) -> Vec<String> {
    let (mut depth, mut texts, mut letters) = (1, Vec::new(), call.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    text.push(if letter == '\\' { letters.next().unwrap() } else { letter });
                }
                texts.push(text);
            }
            _ => {}
        }
    }
    texts
}

/// Whoever looks for a message, or counts it, needs it to be the same each time: what differs is a field.
#[test]
fn messages_of_the_log_are_fixed() {
    let mut files = Vec::new();
    for directory in ["src", "cluster/src", "proto/src", "limiter/src", "tower/src"] {
        rust_files(&root(directory), &mut files);
    }
    let mut count = 0;
    let mut written_anew = Vec::new();
    for file in files {
        let code = code_of(&file);
        for level in ["trace", "debug", "info", "warn", "error"] {
            for (at, found) in code.match_indices(&format!("{level}!(")) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                    continue;
                }
                count += 1;
                let texts = texts_in(&code[at + found.len()..]);
                // The format of a field alone is none.
                let differing = texts.into_iter().filter(|text| text.contains('{') && text.contains(' '));
                written_anew.extend(differing.map(|text| format!("{}: {text:?}", file.display())));
            }
        }
    }
    assert!(count > 50, "{count} lines of the log");
    assert!(written_anew.is_empty(), "{written_anew:#?}");
}

/// Decision 17: who speaks h2 without tonic stands in few files.
#[test]
fn few_files_know_h2() {
    let mut files = Vec::new();
    rust_files(&root("src"), &mut files);
    let knows = |file: &&PathBuf| code_of(file).contains("h2::");
    let mut found: Vec<String> = files
        .iter()
        .filter(knows)
        .map(|file| file.strip_prefix(root("src")).unwrap().display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, ["grpc/connection.rs", "grpc/front.rs", "grpc/stream.rs", "grpc/unary.rs"]);
}

/// A page that names a file which was moved sends its reader astray. What was found in earlier versions names theirs.
#[test]
fn pages_name_files_that_are_there() {
    let mut code = Vec::new();
    for directory in ["src", "tests", "benches", "cluster", "limiter", "proto", "tls", "tower", "jepsen"] {
        rust_files(&root(directory), &mut code);
    }
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "jepsen/README.md"].map(root).to_vec();
    for directory in ["docs", "docs/decisions"] {
        pages.extend(fs::read_dir(root(directory)).unwrap().map(|entry| entry.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|kind| kind == "md") && !page.ends_with("findings.md"));
    let (mut named, mut missing) = (0, Vec::new());
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let file = word.split(':').next().unwrap();
            if file.ends_with(".rs") && !file.contains(char::is_whitespace) && !file.contains(['*', '{']) {
                named += 1;
                if !code.iter().any(|path| path.ends_with(file)) {
                    missing.push(format!("{}: {file}", page.display()));
                }
            }
        }
    }
    assert!(named > 100, "{named} names in {} pages", pages.len());
    assert!(missing.is_empty(), "{missing:#?}");
}
