//! `index`: a request for a directory goes on as one for a file in it. What nginx finds for the longer path is said of the
//! path that the client asked for.

use super::{pattern::Pattern, syntax::Directive};

/// The files that stand for a directory, with the line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) line: Option<u64>,
    pub(super) files: Vec<String>,
}

impl Default for Index {
    fn default() -> Self {
        Self { line: None, files: vec!["index.html".to_owned()] }
    }
}

impl Index {
    /// What a block says, or else the block around it.
    pub(super) fn read(block: &[Directive], outer: &Self) -> Self {
        let own: Vec<&Directive> = block.iter().filter(|one| one.name == "index").collect();
        let Some(first) = own.first() else { return outer.clone() };
        let files = own.iter().flat_map(|one| one.arguments.iter().cloned());
        Self { line: Some(first.line), files: files.collect() }
    }
}

/// The paths that fit a pattern once a file is put behind them; they end with a slash.
pub(super) fn without_file(pattern: &Pattern, file: &str) -> Vec<Pattern> {
    match pattern {
        Pattern::Exact(path) => {
            let directory = path.strip_suffix(file).filter(|directory| directory.ends_with('/'));
            directory.map(|directory| Pattern::Exact(directory.to_owned())).into_iter().collect()
        }
        Pattern::Like { start, end } if end.is_empty() => {
            let mut found = vec![pattern.clone()];
            // The pattern begins within the name of the file.
            for (place, _) in start.match_indices('/') {
                let (directory, rest) = start.split_at(place + 1);
                if !rest.is_empty() && file.starts_with(rest) {
                    found.push(Pattern::Exact(directory.to_owned()));
                }
            }
            found
        }
        Pattern::Like { start, end } => {
            let directory = match end.strip_suffix(file) {
                Some("") => Some("/"),
                Some(directory) => directory.ends_with('/').then_some(directory),
                None => file.ends_with(&**end).then_some("/"),
            };
            let like = |directory: &str| Pattern::Like { start: start.clone(), end: directory.to_owned() };
            directory.map(like).into_iter().collect()
        }
        Pattern::Network(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_directory_fits_where_its_file_fits(
            start in "(/[ai]?){0,3}",
            end in "(/?[ai]?){0,2}",
            exact in "/([ai]?/?){0,4}",
            value in "/([ai]{0,2}/){0,3}",
        ) {
            for pattern in [Pattern::Exact(exact.clone()), Pattern::prefix(start), Pattern::suffix(end)] {
                let longer = Pattern::Exact(format!("{value}ai"));
                let value = Pattern::Exact(value.clone());
                let found = without_file(&pattern, "ai").iter().any(|one| one.contains(&value));
                proptest::prop_assert_eq!(found, pattern.contains(&longer), "{:?} {:?}", pattern, value);
            }
        }
    }
}
