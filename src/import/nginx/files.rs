//! The files of a configuration: what `include` names, and the output of `nginx -T`, which has all of them in one text.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    super::{
        imported::{Imported, NotRead},
        sources::{SourceError, Sources},
    },
    glob,
    syntax::{self, Directive},
};

/// Files that include each other.
const MAX_DEPTH: usize = 32;
/// Directives, each time that an `include` brings them in.
const MAX_DIRECTIVES: usize = 200_000;

/// How `nginx -T` announces a file.
const MARK: &str = "# configuration file ";

/// Where the files of a configuration are looked for.
enum Base {
    /// On this machine, beginning with the directory of the main file.
    Disk(PathBuf),
    /// Among the files of this dump of another machine.
    Dump { directory: PathBuf, files: Vec<(String, Rc<Vec<Directive>>)> },
    /// The text has no directory.
    Nowhere,
}

/// Reads each file with all that it includes.
pub(super) fn read(sources: &mut Sources, imported: &mut Imported) -> Result<Vec<Directive>, NotRead> {
    let whole = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let given: HashMap<PathBuf, usize> = sources
        .iter()
        .enumerate()
        .filter_map(|(index, source)| Some((whole(source.path.as_ref()?), index)))
        .collect();
    let mut reader =
        Reader { sources, imported, given, known: HashMap::new(), included: HashSet::new(), count: 0 };
    let mut roots = Vec::new();
    for index in 0..reader.sources.len() {
        let Some(source) = reader.sources.iter().nth(index) else { continue };
        let text = source.lossy().into_owned();
        let sections = sections(&text);
        if sections.is_empty() {
            let (path, before) = (source.path.clone(), source.before);
            let directives = syntax::read(&text, before)?;
            let base = path.as_deref().map_or(Base::Nowhere, |path| Base::Disk(prefix(path, &directives)));
            let path = path.map(|path| fs::canonicalize(&path).unwrap_or(path));
            let mut open: Vec<PathBuf> = path.iter().cloned().collect();
            let directives = reader.expand(&directives, &base, &mut open)?;
            roots.push((path, directives));
        } else {
            let directives = reader.dump(&sections)?;
            roots.push((None, directives));
        }
    }
    // One that another one includes is a part of that one.
    let included = reader.included;
    roots.retain(|(path, _)| path.as_ref().is_none_or(|path| !included.contains(path)));
    Ok(roots.into_iter().flat_map(|(_, directives)| directives).collect())
}

/// The files in the output of `nginx -T`; none: it is no such output.
fn sections(text: &str) -> Vec<(String, String)> {
    let mark = |line: &str| {
        line.strip_prefix(MARK).and_then(|rest| rest.trim_end().strip_suffix(':')).map(str::to_owned)
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (mark(line), found.last_mut()) {
            (Some(name), _) => found.push((name, String::new())),
            (None, Some((_, section))) => section.push_str(line),
            // What nginx says of the test itself.
            (None, None) if line.trim().is_empty() || line.starts_with("nginx:") => {}
            (None, None) => return Vec::new(),
        }
    }
    found
}

/// What names of files are relative to: the directory of the main file. A file without `http` is a part of a configuration whose
/// main file is in a directory around it.
fn prefix(path: &Path, directives: &[Directive]) -> PathBuf {
    let own = path.parent().unwrap_or(Path::new("")).to_owned();
    if directives.iter().any(|one| one.name == "http") {
        return own;
    }
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let main = whole.ancestors().skip(1).find(|directory| directory.join("nginx.conf").is_file());
    main.map_or(own, Path::to_owned)
}

/// A file with what it has, or why it cannot be had.
type Included = Result<(PathBuf, Rc<Vec<Directive>>), String>;

struct Reader<'s> {
    sources: &'s mut Sources,
    imported: &'s mut Imported,
    /// The files that were named, by their places among the sources.
    given: HashMap<PathBuf, usize>,
    /// Each file is read once.
    known: HashMap<PathBuf, Rc<Vec<Directive>>>,
    included: HashSet<PathBuf>,
    count: usize,
}

impl Reader<'_> {
    fn dump(&mut self, sections: &[(String, String)]) -> Result<Vec<Directive>, NotRead> {
        let mut files = Vec::new();
        for (name, text) in sections {
            let added = self.sources.add(name.clone(), text.clone().into_bytes());
            added.map_err(|error| NotRead { line: 0, message: error.to_string() })?;
            let before = self.sources.iter().last().map_or(0, |source| source.before);
            files.push((name.clone(), Rc::new(syntax::read(text, before)?)));
        }
        let Some((name, main)) = files.first().cloned() else { return Ok(Vec::new()) };
        let directory = Path::new(&name).parent().unwrap_or(Path::new("")).to_owned();
        let base = Base::Dump { directory, files };
        self.expand(&main, &base, &mut vec![PathBuf::from(name)])
    }

    fn expand(
        &mut self,
        directives: &[Directive],
        base: &Base,
        open: &mut Vec<PathBuf>,
    ) -> Result<Vec<Directive>, NotRead> {
        let mut expanded = Vec::new();
        for one in directives {
            self.count += 1;
            if self.count > MAX_DIRECTIVES {
                let message =
                    format!("more than {MAX_DIRECTIVES} directives, those of included files counted");
                return Err(NotRead { line: one.line, message });
            }
            if one.name == "include" && one.block.is_none() {
                for pattern in &one.arguments {
                    self.include(one.line, pattern, base, open, &mut expanded)?;
                }
                continue;
            }
            let block = one.block.as_ref().map(|block| self.expand(block, base, open)).transpose()?;
            expanded.push(Directive { block, ..one.clone() });
        }
        Ok(expanded)
    }

    fn include(
        &mut self,
        line: u64,
        pattern: &str,
        base: &Base,
        open: &mut Vec<PathBuf>,
        expanded: &mut Vec<Directive>,
    ) -> Result<(), NotRead> {
        for found in self.files(line, pattern, base)? {
            let (path, directives) = match found {
                Ok(found) => found,
                Err(why) => {
                    if !is_harmless(pattern) {
                        self.imported.lost(line, format!("include {pattern}: {why}"));
                    }
                    continue;
                }
            };
            if open.contains(&path) || open.len() > MAX_DEPTH {
                self.imported.lost(
                    line,
                    format!(
                        "include {pattern}: {} includes itself, or more than {MAX_DEPTH} files include each other",
                        path.display()
                    ),
                );
                continue;
            }
            self.included.insert(path.clone());
            open.push(path);
            expanded.extend(self.expand(&directives, base, open)?);
            open.pop();
        }
        Ok(())
    }

    /// The files that an `include` means, each with its directives, or why it cannot be had.
    fn files(&mut self, line: u64, pattern: &str, base: &Base) -> Result<Vec<Included>, NotRead> {
        match base {
            Base::Nowhere => Ok(vec![Err(
                "a text of the standard input has no other files; give the path of the file, or the output of nginx -T"
                    .to_owned(),
            )]),
            Base::Dump { directory, files } => {
                let whole = directory.join(pattern).to_string_lossy().into_owned();
                let mut found: Vec<_> = files.iter().filter(|(name, _)| glob::fits(&whole, name)).collect();
                found.sort_by(|a, b| a.0.cmp(&b.0));
                if found.is_empty() && !glob::is_pattern(pattern) {
                    return Ok(vec![Err("the file is not in this output of nginx -T".to_owned())]);
                }
                Ok(found.into_iter().map(|(name, file)| Ok((PathBuf::from(name), Rc::clone(file)))).collect())
            }
            Base::Disk(directory) => {
                let paths = match glob::files(&directory.join(pattern)) {
                    Ok(paths) => paths,
                    Err(error) => return Ok(vec![Err(error)]),
                };
                let mut files = Vec::new();
                for path in paths {
                    files.push(self.file(line, &path)?);
                }
                Ok(files)
            }
        }
    }

    fn file(&mut self, line: u64, path: &Path) -> Result<Included, NotRead> {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Some(known) = self.known.get(&whole) {
            return Ok(Ok((whole, Rc::clone(known))));
        }
        let given = self.given.get(&whole).and_then(|index| self.sources.iter().nth(*index));
        let given = given.map(|source| (source.lossy().into_owned(), source.before));
        let (text, before) = match given {
            Some(given) => given,
            // A pipe may never end.
            None if fs::metadata(&whole).is_ok_and(|known| !known.is_file()) => {
                return Ok(Err(format!("cannot read {}: it is no file", path.display())));
            }
            None => match self.sources.read_file(path) {
                Ok(()) => {
                    let read = self.sources.iter().last();
                    read.map(|source| (source.lossy().into_owned(), source.before)).unwrap_or_default()
                }
                Err(SourceError::Io(error)) => {
                    return Ok(Err(format!("cannot read {}: {error}", path.display())));
                }
                Err(error) => return Err(NotRead { line, message: error.to_string() }),
            },
        };
        let directives = Rc::new(syntax::read(&text, before)?);
        self.known.insert(whole.clone(), Rc::clone(&directives));
        Ok(Ok((whole, directives)))
    }
}

/// Files that come with nginx and limit nothing.
fn is_harmless(name: &str) -> bool {
    [
        "mime.types",
        "fastcgi_params",
        "fastcgi.conf",
        "proxy_params",
        "uwsgi_params",
        "scgi_params",
        "modules-enabled/*.conf",
    ]
    .iter()
    .any(|known| name.ends_with(known))
}
