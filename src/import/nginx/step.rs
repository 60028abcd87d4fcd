//! What a block does with a request before anything is limited: `return`, `rewrite`, `break` and `if`, in their order.

use super::{
    super::imported::Imported, condition::Condition, pages::Pages, pattern::Pattern, regex, syntax::Directive,
};

/// One of these directives.
#[derive(Debug)]
pub(super) enum Step {
    /// An answer.
    Return {
        /// An `error_page` can be for it.
        code: Option<String>,
    },
    If(IfBlock),
    Rewrite {
        line: u64,
        /// Which paths; `None`: rules cannot say it.
        paths: Option<Vec<Pattern>>,
        then: Then,
    },
    Break,
}

/// An `if`.
#[derive(Debug)]
pub(super) struct IfBlock {
    pub(super) line: u64,
    pub(super) condition: Condition,
    pub(super) steps: Vec<Step>,
    /// Those of the block around it, or its own.
    pub(super) pages: Pages,
    /// Something in it answers, as in a location.
    pub(super) has_handler: bool,
}

/// Whether another server or a module answers, rather than a file.
pub(super) fn is_handler(one: &Directive) -> bool {
    one.name.ends_with("_pass")
        || ["stub_status", "empty_gif", "flv", "mp4", "perl"].contains(&&*one.name)
        || one.name.starts_with("content_by_")
        || one.name == "js_content"
}

/// What a block means for the `if`s in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'p> {
    pub(super) pages: &'p Pages,
    /// Whether it matters that nginx enters an `if` which does nothing: what the location says of files does not hold in it.
    pub(super) leaves_location: bool,
}

/// What a `rewrite` does with a path that fits.
#[derive(Debug)]
pub(super) enum Then {
    /// Answers with a redirect.
    Redirect,
    /// Another path; `None`: one that is made of variables.
    Path { path: Option<String>, flow: Flow },
}

/// What comes after a path was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The next directive, and at the end the location of the new path.
    GoOn,
    /// At once the location of the new path.
    Last,
    /// The request stays in this location.
    Break,
}

impl Step {
    /// Those of a block.
    pub(super) fn read(block: &[Directive], around: Around<'_>, imported: &mut Imported) -> Vec<Self> {
        let mut steps = Vec::new();
        for one in block {
            match &*one.name {
                "return" => steps.push(Self::Return { code: returned(&one.arguments) }),
                "rewrite" => steps.extend(rewrite(one)),
                "break" => steps.push(Self::Break),
                "if" => {
                    let pages = Pages::read(one.inside(), around.pages);
                    let around = Around { pages: &pages, ..around };
                    let inside = Self::read(one.inside(), around, imported);
                    // Otherwise, one that only sets something changes nothing here.
                    if !inside.is_empty() || around.leaves_location {
                        let condition = Condition::read(one, imported);
                        let has_handler = one.inside().iter().any(is_handler);
                        let line = one.line;
                        steps.push(Self::If(IfBlock { line, condition, steps: inside, pages, has_handler }));
                    }
                }
                _ => {}
            }
        }
        steps
    }

    /// The patterns of paths that it asks for.
    pub(super) fn patterns(&self, patterns: &mut Vec<Pattern>) {
        match self {
            Self::If(block) => {
                patterns.extend(block.condition.paths().iter().cloned());
                block.steps.iter().for_each(|one| one.patterns(patterns));
            }
            Self::Rewrite { paths, .. } => patterns.extend(paths.iter().flatten().cloned()),
            Self::Return { .. } | Self::Break => {}
        }
    }
}

/// Of an error with a text of its own, no `error_page` is asked.
fn returned(arguments: &[String]) -> Option<String> {
    match arguments {
        [code] => Some(code.clone()),
        [code, _] if !code.starts_with(['4', '5']) => Some(code.clone()),
        _ => None,
    }
}

fn rewrite(directive: &Directive) -> Option<Step> {
    let (regex, target) = (directive.arguments.first()?, directive.arguments.get(1)?);
    let is_url = ["http://", "https://", "$scheme"].iter().any(|start| target.starts_with(start));
    let flow = match directive.arguments.get(2).map(String::as_str) {
        Some("last") => Flow::Last,
        Some("break") => Flow::Break,
        _ => Flow::GoOn,
    };
    let is_redirect =
        matches!(directive.arguments.get(2).map(String::as_str), Some("redirect" | "permanent"));
    let then = if is_url || is_redirect {
        Then::Redirect
    } else {
        let path = target.split('?').next().unwrap_or(target);
        Then::Path { path: (!path.contains('$')).then(|| path.to_owned()), flow }
    };
    Some(Step::Rewrite { line: directive.line, paths: regex::patterns(regex), then })
}
