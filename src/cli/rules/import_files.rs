//! What `tidegate rules import` reads: files, directories and the standard input.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::import::{SourceError, Sources};

/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Which files of a directory are meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    /// The file that stands for all of them, if it is there.
    pub(super) main: Option<&'static str>,
    /// How their names end.
    pub(super) endings: &'static [&'static str],
    /// Whether all files are meant where none ends like that.
    pub(super) or_all: bool,
}

/// Why the files cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: String, reason: SourceError },
    #[error(
        "there is no file to read in the directory {path}: files are looked for by their endings ({endings}), not in directories below"
    )]
    Nothing { path: PathBuf, endings: String },
}

/// Reads all that was named: `-` is the standard input; of a directory, its files by name. What is named twice is read once.
pub(super) fn read(paths: &[PathBuf], naming: Naming) -> Result<Sources, FilesError> {
    let mut sources = Sources::default();
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in paths {
        let unreadable =
            |path: &Path, reason| FilesError::Unreadable { path: path.display().to_string(), reason };
        let files = if path.as_os_str() == "-" {
            vec![path.clone()]
        } else if path.is_dir() {
            files_in(path, naming).map_err(|reason| unreadable(path, reason.into()))?
        } else {
            vec![path.clone()]
        };
        if files.is_empty() {
            let endings = naming.endings.iter().map(|ending| format!("*{ending}")).collect::<Vec<_>>();
            return Err(FilesError::Nothing { path: path.clone(), endings: endings.join(", ") });
        }
        for file in files {
            let known = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if seen.contains(&known) {
                continue;
            }
            seen.push(known);
            let read = if file.as_os_str() == "-" {
                sources.read("(standard input)", io::stdin().lock())
            } else {
                sources.read_file(&file)
            };
            read.map_err(|reason| unreadable(&file, reason))?;
        }
    }
    Ok(sources)
}

/// By name. Hidden files, and copies that editors leave behind, are nobody's configuration; links to files are followed.
fn files_in(directory: &Path, naming: Naming) -> io::Result<Vec<PathBuf>> {
    if let Some(main) = naming.main.map(|name| directory.join(name)).filter(|main| main.is_file()) {
        return Ok(vec![main]);
    }
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(directory)?.take(MAX_ENTRIES) {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && !name.ends_with('~')
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    let meant = |name: &&String| naming.endings.iter().any(|ending| name.ends_with(ending));
    let found: Vec<&String> = names.iter().filter(meant).collect();
    let found = if found.is_empty() && naming.or_all { names.iter().collect() } else { found };
    Ok(found.into_iter().map(|name| directory.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NGINX: Naming = Naming { main: Some("nginx.conf"), endings: &[".conf"], or_all: true };
    const YAML: Naming = Naming { main: None, endings: &[".yaml", ".yml"], or_all: false };

    fn names(directory: &Path, naming: Naming) -> Vec<String> {
        let files = files_in(directory, naming).unwrap();
        files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn of_a_directory_the_files_are_read_that_are_meant() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let write = |name: &str| fs::write(path.join(name), "").unwrap();
        ["shop", "admin", ".hidden", "old~"].iter().for_each(|name| write(name));
        fs::create_dir(path.join("below")).unwrap();
        assert_eq!(names(path, NGINX), ["admin", "shop"]);
        assert!(names(path, YAML).is_empty());
        ["b.conf", "a.conf", "c.yaml", "d.yml"].iter().for_each(|name| write(name));
        assert_eq!(names(path, NGINX), ["a.conf", "b.conf"]);
        assert_eq!(names(path, YAML), ["c.yaml", "d.yml"]);
        write("nginx.conf");
        assert_eq!(names(path, NGINX), ["nginx.conf"]);
        let read = read(&[path.to_owned(), path.join("nginx.conf"), path.join("a.conf")], NGINX).unwrap();
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(&[directory.path().to_owned()], YAML).unwrap_err().to_string();
        assert!(error.contains("*.yaml, *.yml"), "{error}");
        let error = read(&[directory.path().join("nowhere")], YAML).unwrap_err().to_string();
        assert!(error.contains("nowhere: No such file"), "{error}");
    }
}
