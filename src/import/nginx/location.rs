//! Which location of a server a request reaches, and so which limits it has.

use super::{
    super::imported::Imported,
    pattern::Pattern,
    regex,
    scope::{Scope, Use},
    space::Space,
    syntax::Directive,
};

/// Locations that lead to each other.
const MAX_STEPS: usize = 10;

/// The locations of a server.
#[derive(Debug)]
pub(super) struct Locations {
    /// The server itself, where no location fits.
    root: Location,
}

#[derive(Debug)]
struct Location {
    line: u64,
    matcher: Matcher,
    scope: Scope,
    /// Clients do not reach it.
    internal: bool,
    /// It always answers by itself, before anything is limited; or goes on there.
    returns: Option<Target>,
    /// Where a request goes for which there is no file, with the line that says so.
    fallback: Option<(u64, Target)>,
    /// Lines of `rewrite` that send requests to other locations.
    rewrites: Vec<u64>,
    inside: Vec<Location>,
}

#[derive(Debug, PartialEq, Eq)]
enum Matcher {
    Exact(String),
    Prefix {
        path: String,
        before_regexes: bool,
    },
    Regex {
        text: String,
        /// `None`: none say it.
        patterns: Option<Vec<Pattern>>,
        ignores_case: bool,
    },
    Named(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Named(String),
    Path(String),
    /// A path that is made of variables.
    Unknown,
    /// An answer.
    Status,
}

/// The limits of some requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reached<'l> {
    pub(super) uses: &'l [(u64, Use)],
    /// The `try_files` that leads there, unless a file answers.
    pub(super) unless_file: Option<u64>,
}

impl Locations {
    /// Of the block of a server.
    pub(super) fn read(server: &Directive, scope: &Scope, imported: &mut Imported) -> Self {
        let matcher = Matcher::Prefix { path: String::new(), before_regexes: false };
        let root = Location::read(server, matcher, scope, (&[], false), imported);
        let locations = Self { root };
        locations.tell(imported);
        locations
    }

    /// All patterns that tell requests apart; `None`: too many.
    pub(super) fn space(&self) -> Option<Space> {
        let mut patterns = Vec::new();
        self.root.patterns(&mut patterns);
        Space::new(&patterns)
    }

    /// All uses of zones that hold somewhere, whether a request gets there or not.
    pub(super) fn uses(&self) -> impl Iterator<Item = &(u64, Use)> {
        let mut all = Vec::new();
        self.root.all(&mut all);
        all.into_iter().flat_map(|one| &one.scope.uses)
    }

    /// Those of locations that requests reach in ways which no rule can say.
    pub(super) fn hidden_uses(&self) -> impl Iterator<Item = &(u64, Use)> {
        let mut all = Vec::new();
        self.root.all(&mut all);
        let is_hidden = |one: &&Location| {
            one.internal || matches!(one.matcher, Matcher::Named(_) | Matcher::Regex { patterns: None, .. })
        };
        all.into_iter().filter(is_hidden).flat_map(|one| &one.scope.uses)
    }

    /// The limits of the requests whose paths fit these patterns.
    pub(super) fn reached(&self, fits: &dyn Fn(&Pattern) -> bool) -> Reached<'_> {
        if let Some(target) = &self.root.returns {
            return self.follow_target(target, 0);
        }
        let found = find(&self.root.inside, fits).location.unwrap_or(&self.root);
        if found.internal { Reached::default() } else { self.follow(found, 0) }
    }

    fn follow<'l>(&'l self, location: &'l Location, step: usize) -> Reached<'l> {
        if let Some(target) = &location.returns {
            return self.follow_target(target, step + 1);
        }
        if !location.scope.uses.is_empty() {
            return Reached { uses: &location.scope.uses, unless_file: None };
        }
        match &location.fallback {
            Some((line, target)) => {
                let reached = self.follow_target(target, step + 1);
                let unless_file = (!reached.uses.is_empty()).then_some(*line);
                Reached { unless_file, ..reached }
            }
            None => Reached::default(),
        }
    }

    fn follow_target(&self, target: &Target, step: usize) -> Reached<'_> {
        let found = match target {
            _ if step > MAX_STEPS => None,
            Target::Named(name) => {
                self.root.inside.iter().find(|one| matches!(&one.matcher, Matcher::Named(own) if own == name))
            }
            Target::Path(path) => {
                let path = Pattern::Exact(path.clone());
                find(&self.root.inside, &|pattern| pattern.contains(&path)).location
            }
            Target::Unknown | Target::Status => None,
        };
        found.map_or_else(Reached::default, |found| self.follow(found, step))
    }

    /// What no rule can say of the locations.
    fn tell(&self, imported: &mut Imported) {
        let mut all = Vec::new();
        self.root.all(&mut all);
        let uses = |location: &Location| {
            location.scope.uses.iter().map(|(_, used)| used.clone()).collect::<Vec<_>>()
        };
        let differs = all.iter().any(|one| uses(one) != uses(&self.root));
        for one in all {
            if let Matcher::Regex { text, patterns: None, .. } = &one.matcher {
                let message = format!(
                    "location {text}: rules know no such regular expression; what the prefixes around it say holds for it too"
                );
                if differs { imported.lost(one.line, message) } else { imported.note(one.line, message) }
            }
            if let Matcher::Regex { text, patterns: Some(_), ignores_case: true } = &one.matcher
                && uses(one) != uses(&self.root)
            {
                let message = format!("location {text}: only as it is written, not in other case");
                // Where it limits nothing, a rule is stricter than nginx.
                if one.scope.uses.is_empty() {
                    imported.note(one.line, message);
                } else {
                    imported.lost(one.line, message);
                }
            }
            if !differs {
                continue;
            }
            for line in &one.rewrites {
                imported.lost(*line, "rewrite: a rule is about the path that the client asked for, and not about what becomes of it");
            }
            if let Some((line, Target::Unknown)) = &one.fallback {
                imported.lost(*line, "try_files: its last path is made of variables, so it is not followed");
            }
        }
    }
}

struct Found<'l> {
    location: Option<&'l Location>,
    /// Nothing else is looked for.
    is_final: bool,
}

/// As nginx looks: an exact path; else the longest prefix, and what is in it; then, unless that prefix forbids it, the first
/// regular expression.
fn find<'l>(level: &'l [Location], fits: &dyn Fn(&Pattern) -> bool) -> Found<'l> {
    let mut longest: Option<(&Location, &String, bool)> = None;
    for one in level {
        match &one.matcher {
            Matcher::Exact(path) if fits(&Pattern::Exact(path.clone())) => {
                return Found { location: Some(one), is_final: true };
            }
            Matcher::Prefix { path, before_regexes }
                if longest.is_none_or(|(_, known, _)| path.len() > known.len())
                    && fits(&Pattern::prefix(path.clone())) =>
            {
                longest = Some((one, path, *before_regexes));
            }
            _ => {}
        }
    }
    let mut location = None;
    if let Some((found, ..)) = longest {
        let inner = find(&found.inside, fits);
        location = inner.location.or(Some(found));
        if inner.is_final {
            return Found { location, is_final: true };
        }
    }
    if !longest.is_some_and(|(.., before_regexes)| before_regexes) {
        let regex = level.iter().find(
            |one| matches!(&one.matcher, Matcher::Regex { patterns: Some(patterns), .. } if patterns.iter().any(fits)),
        );
        if let Some(found) = regex {
            let inner = find(&found.inside, fits);
            return Found { location: inner.location.or(Some(found)), is_final: true };
        }
    }
    Found { location, is_final: false }
}

impl Location {
    fn read(
        directive: &Directive,
        matcher: Matcher,
        scope: &Scope,
        (outer_pages, is_internal_around): (&[(String, Target)], bool),
        imported: &mut Imported,
    ) -> Self {
        let block = directive.inside();
        let own_pages = error_pages(block);
        let pages = if own_pages.is_empty() { outer_pages } else { &own_pages };
        let mut location = Self {
            line: directive.line,
            matcher,
            scope: scope.clone(),
            // What is in such a location is internal, too.
            internal: is_internal_around || block.iter().any(|one| one.name == "internal"),
            returns: None,
            fallback: None,
            rewrites: Vec::new(),
            inside: Vec::new(),
        };
        for one in block {
            match &*one.name {
                "return" if location.returns.is_none() => {
                    let code = one.arguments.first().map_or("", String::as_str);
                    let page =
                        pages.iter().find(|(known, _)| known == code).map(|(_, target)| target.clone());
                    location.returns = Some(page.unwrap_or(Target::Status));
                }
                "try_files" => {
                    location.fallback = one.arguments.last().map(|last| (one.line, target(last)));
                }
                "rewrite" if location.returns.is_none() && is_internal(one) => {
                    location.rewrites.push(one.line)
                }
                "if" => {
                    let inside = one.inside().iter().filter(|one| one.name == "rewrite" && is_internal(one));
                    location.rewrites.extend(inside.map(|one| one.line));
                }
                "location" => {
                    let scope = Scope::of(one.inside(), scope, imported);
                    if let Some(matcher) = matcher_of(one, imported) {
                        let outer = (pages, location.internal);
                        location.inside.push(Self::read(one, matcher, &scope, outer, imported));
                    }
                }
                _ => {}
            }
        }
        location
    }

    fn patterns(&self, patterns: &mut Vec<Pattern>) {
        match &self.matcher {
            Matcher::Exact(path) => patterns.push(Pattern::Exact(path.clone())),
            Matcher::Prefix { path, .. } => patterns.push(Pattern::prefix(path.clone())),
            Matcher::Regex { patterns: own, .. } => patterns.extend(own.iter().flatten().cloned()),
            Matcher::Named(_) => {}
        }
        self.inside.iter().for_each(|one| one.patterns(patterns));
    }

    fn all<'l>(&'l self, all: &mut Vec<&'l Self>) {
        all.push(self);
        self.inside.iter().for_each(|one| one.all(all));
    }
}

/// `None`: no rule can say which paths that are, which is reported.
fn matcher_of(directive: &Directive, imported: &mut Imported) -> Option<Matcher> {
    let line = directive.line;
    let (modifier, path) = match &directive.arguments[..] {
        [modifier, path] => (modifier.as_str(), path.as_str()),
        [both] => {
            let modifier =
                ["=", "^~", "~*", "~", "@"].into_iter().find(|one| both.starts_with(one)).unwrap_or("");
            (modifier, &both[modifier.len()..])
        }
        _ => {
            imported.lost(line, format!("location {}: this has one path", directive.arguments.join(" ")));
            return None;
        }
    };
    let unsayable = path.contains('\u{fffd}') || path.contains('*') && !modifier.starts_with(['~', '=']);
    if unsayable {
        imported.lost(
            line,
            format!("location {path}: no pattern says this path; what holds around it holds for it too"),
        );
        return None;
    }
    let path = path.to_owned();
    match modifier {
        "=" => Some(Matcher::Exact(path)),
        "@" => Some(Matcher::Named(path)),
        "" => Some(Matcher::Prefix { path, before_regexes: false }),
        "^~" => Some(Matcher::Prefix { path, before_regexes: true }),
        "~" | "~*" => {
            let patterns = regex::patterns(&path);
            let ignores_case = modifier == "~*" && path.chars().any(char::is_alphabetic);
            Some(Matcher::Regex { text: format!("{modifier} {path}"), patterns, ignores_case })
        }
        other => {
            imported.lost(line, format!("location {other}: this modifier is not known"));
            None
        }
    }
}

/// Whether a `rewrite` leads to another location.
fn is_internal(rewrite: &Directive) -> bool {
    let (target, flag) = (rewrite.arguments.get(1), rewrite.arguments.get(2).map(String::as_str));
    let is_url = target.is_some_and(|target| {
        ["http://", "https://", "$scheme"].iter().any(|start| target.starts_with(start))
    });
    !is_url && !matches!(flag, Some("break" | "redirect" | "permanent"))
}

fn error_pages(block: &[Directive]) -> Vec<(String, Target)> {
    let mut pages = Vec::new();
    for one in block.iter().filter(|one| one.name == "error_page") {
        let Some((last, codes)) = one.arguments.split_last() else { continue };
        let codes = codes.iter().filter(|code| !code.starts_with('='));
        pages.extend(codes.map(|code| (code.clone(), target(last))));
    }
    pages
}

fn target(text: &str) -> Target {
    let path = text.split('?').next().unwrap_or(text);
    match text.strip_prefix('@') {
        Some(name) => Target::Named(name.to_owned()),
        None if path.contains('$') => Target::Unknown,
        None if path.starts_with('/') => Target::Path(path.to_owned()),
        None => Target::Status,
    }
}
