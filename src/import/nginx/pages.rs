//! Where a request goes on after an answer: `error_page`, and the last argument of `try_files`.

use super::syntax::Directive;

/// Where a request goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Named(String),
    Path(String),
    /// A path that is made of variables.
    Unknown,
    /// An answer with this status.
    Status(String),
}

impl Target {
    pub(super) fn read(text: &str) -> Self {
        let path = text.split('?').next().unwrap_or(text);
        match text.strip_prefix('@') {
            Some(name) => Self::Named(name.to_owned()),
            None if path.starts_with('/') && !path.contains('$') => Self::Path(path.to_owned()),
            None if path.starts_with('/') || path.starts_with('$') && !path.starts_with("$scheme") => {
                Self::Unknown
            }
            None => Self::Status(text.trim_start_matches('=').to_owned()),
        }
    }
}

/// Which answers of a block send a request on: those that it says, or else those of the block around it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    pages: Vec<Page>,
    /// An error of a page is sent on, too.
    pub(super) recursive: bool,
}

/// With the line that says so.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) line: u64,
    code: String,
    pub(super) target: Target,
}

impl Pages {
    pub(super) fn read(block: &[Directive], outer: &Self) -> Self {
        let mut pages = Vec::new();
        for one in block.iter().filter(|one| one.name == "error_page") {
            let Some((last, codes)) = one.arguments.split_last() else { continue };
            let codes = codes.iter().filter(|code| !code.starts_with('='));
            let target = Target::read(last);
            pages.extend(codes.map(|code| Page {
                line: one.line,
                code: code.clone(),
                target: target.clone(),
            }));
        }
        let own = block.iter().find(|one| one.name == "recursive_error_pages");
        let recursive = own.map_or(outer.recursive, |own| own.arguments == ["on"]);
        Self { pages: if pages.is_empty() { outer.pages.clone() } else { pages }, recursive }
    }

    pub(super) fn of(&self, code: &str) -> Option<&Page> {
        self.pages.iter().find(|page| page.code == code)
    }

    /// Those of errors that can come from a file, a server behind, or nginx itself, rather than only from `return`.
    pub(super) fn of_errors(&self) -> impl Iterator<Item = &Page> {
        const ERRORS: [&str; 25] = [
            "400", "401", "402", "403", "404", "405", "406", "408", "409", "410", "411", "412", "413", "414",
            "415", "416", "421", "429", "500", "501", "502", "503", "504", "505", "507",
        ];
        self.pages.iter().filter(|page| ERRORS.contains(&&*page.code))
    }
}
