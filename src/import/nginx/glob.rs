//! Patterns of file names, as `include` takes them: `*` and `?` within a name, `[a-z]`.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// Entries of a directory that are looked at, and files that are found.
const MAX_ENTRIES: usize = 10_000;

pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a whole path fits.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let (patterns, names) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == names.clone().count()
        && patterns.zip(names).all(|(one, name)| name_fits(one, name))
}

/// The files that fit, by name. A pattern that fits none is no error, unless its directory is not there.
pub(super) fn files(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str().to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !is_pattern(&name) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut deeper = Vec::new();
        for directory in found {
            let of = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
            let cannot = |error| format!("cannot read the directory {}: {error}", of.display());
            for entry in fs::read_dir(of).map_err(cannot)?.take(MAX_ENTRIES) {
                let entry = entry.map_err(cannot)?;
                if name_fits(&name, &entry.file_name().to_string_lossy()) {
                    deeper.push(directory.join(entry.file_name()));
                }
            }
        }
        deeper.sort();
        deeper.truncate(MAX_ENTRIES);
        found = deeper;
    }
    if is_pattern(&pattern.to_string_lossy()) {
        found.retain(|path| path.exists());
    }
    Ok(found)
}

fn name_fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return pattern.is_empty() && name.is_empty();
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where to go on if what follows the last `*` does not fit here.
    let (mut at, mut place, mut retry) = (0, 0, None);
    while place < name.len() {
        let end = match pattern.get(at) {
            Some('*') => {
                retry = Some((at, place));
                at += 1;
                continue;
            }
            Some('?') => Some(at + 1),
            Some('[') => match set_fits(&pattern[at..], name[place]) {
                Some((true, length)) => Some(at + length),
                Some((false, _)) => None,
                None => (name[place] == '[').then_some(at + 1),
            },
            Some('\\') => (pattern.get(at + 1) == Some(&name[place])).then_some(at + 2),
            Some(letter) => (*letter == name[place]).then_some(at + 1),
            None => None,
        };
        match (end, retry) {
            (Some(end), _) => (at, place) = (end, place + 1),
            (None, Some((star, from))) => {
                retry = Some((star, from + 1));
                (at, place) = (star + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// Whether a letter is in the set that begins there, and how long that is; `None`: it does not end.
fn set_fits(pattern: &[char], letter: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|one| *one == ']')?;
    let (mut at, mut found) = (first, false);
    while at < end {
        if pattern[at + 1] == '-' && at + 2 < end {
            found |= (pattern[at]..=pattern[at + 2]).contains(&letter);
            at += 3;
        } else {
            found |= pattern[at] == letter;
            at += 1;
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_as_a_shell_would_say() {
        for (pattern, name, expected) in [
            ("/etc/*.conf", "/etc/a.conf", true),
            ("/etc/*.conf", "/etc/a.conf.off", false),
            ("/etc/*", "/etc/a/b", false),
            ("/etc/*", "/etc/.a", false),
            ("/etc/.*", "/etc/.a", true),
            ("/etc/?.c*f", "/etc/a.conf", true),
            ("/etc/*a*b", "/etc/xaxbxab", true),
            ("/etc/[a-c]1", "/etc/b1", true),
            ("/etc/[!a-c]1", "/etc/b1", false),
            ("/etc/[]x]", "/etc/]", true),
            ("/etc/\\*", "/etc/*", true),
            ("/etc/\\*", "/etc/a", false),
            ("/etc/a", "/etc/a", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b/x.conf", "a/y.conf", "a/x.conf", "a/z.off"] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = files(&directory.path().join("*/*.conf")).unwrap();
        let expected = ["a/x.conf", "a/y.conf", "b/x.conf"].map(|name| directory.path().join(name));
        assert_eq!(found, expected);
        assert_eq!(files(&directory.path().join("c*/*.conf")).unwrap(), [""; 0].map(PathBuf::from));
        assert!(files(&directory.path().join("c/*.conf")).unwrap_err().contains("cannot read the directory"));
        assert_eq!(files(&directory.path().join("c/d.conf")).unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_compared(pattern in "[a*?\\[\\]!^\\\\-]{0,12}", name in "[ab\\]-]{0,12}") {
            name_fits(&pattern, &name);
        }
    }
}
