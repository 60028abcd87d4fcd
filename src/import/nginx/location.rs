//! The locations of a server, and which of them a path is in.

use super::{
    super::imported::Imported,
    index::{self, Index},
    matcher::Matcher,
    pages::{Pages, Target},
    pattern::Pattern,
    scope::{Scope, Way},
    space::Space,
    step::{Around, Step, is_handler},
    syntax::Directive,
};

/// The locations of a server.
#[derive(Debug)]
pub(super) struct Locations {
    /// The server itself, where no location fits.
    pub(super) root: Location,
    /// Whether locations differ in their limits.
    differ: bool,
    /// Whether it matters for limits which location a request is in: some differ, or answer before the limits.
    matter: bool,
}

/// A location, or a server.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) line: u64,
    matcher: Matcher,
    pub(super) scope: Scope,
    /// Clients do not reach it.
    pub(super) internal: bool,
    /// What comes before the limits.
    pub(super) steps: Vec<Step>,
    /// Its `limit_except`, where methods that it is not for skip what comes before the limits, or the files.
    except: Option<u64>,
    pub(super) try_files: Option<TryFiles>,
    pub(super) pages: Pages,
    pub(super) index: Index,
    /// Another server or module answers, so files are not looked for.
    pub(super) has_handler: bool,
    /// A path without the slash at its end is answered with a redirect.
    adds_slash: bool,
    /// What `auth_request` and `mirror` ask, with their lines.
    pub(super) subrequests: Vec<(u64, String)>,
    inside: Vec<Location>,
}

/// `try_files`.
#[derive(Debug)]
pub(super) struct TryFiles {
    pub(super) line: u64,
    /// Whether a directory is looked for, too.
    pub(super) directories: bool,
    pub(super) last: Target,
}

/// What a location has of the block around it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outer {
    pub(super) scope: Scope,
    pub(super) pages: Pages,
    pub(super) index: Index,
    /// What is in such a location is internal, too.
    internal: bool,
    subrequests: Vec<(u64, String)>,
}

impl Outer {
    /// What the block of `http` says for all servers.
    pub(super) fn of(http: &[Directive], imported: &mut Imported) -> Self {
        Self::default().within(http, imported)
    }

    fn within(&self, block: &[Directive], imported: &mut Imported) -> Self {
        let subrequests: Vec<(u64, String)> = block
            .iter()
            .filter(|one| ["auth_request", "mirror"].contains(&&*one.name))
            .filter_map(|one| Some((one.line, one.arguments.first()?.clone())))
            .collect();
        Self {
            scope: Scope::of(block, &self.scope, imported),
            pages: Pages::read(block, &self.pages),
            index: Index::read(block, &self.index),
            internal: self.internal || block.iter().any(|one| one.name == "internal"),
            subrequests: if subrequests.is_empty() { self.subrequests.clone() } else { subrequests },
        }
    }
}

impl Locations {
    /// Of the block of a server.
    pub(super) fn read(server: &Directive, outer: &Outer, imported: &mut Imported) -> Self {
        let matcher = Matcher::Prefix { path: String::new(), before_regexes: false };
        let root = Location::read(server, matcher, outer, imported);
        let mut locations = Self { root, differ: false, matter: false };
        let all = locations.all();
        let root = &all[0].scope;
        let differ = all.iter().any(|one| !one.scope.limits_as(root));
        let answer = || all[1..].iter().any(|one| one.internal || !one.steps.is_empty());
        let limit = all.iter().any(|one| !one.scope.uses.is_empty());
        let matter = limit && (differ || answer());
        (locations.differ, locations.matter) = (differ, matter);
        locations.tell(server, imported);
        locations
    }

    fn all(&self) -> Vec<&Location> {
        let mut all = Vec::new();
        self.root.all(&mut all);
        all
    }

    /// All patterns that tell requests apart; `None`: too many.
    pub(super) fn space(&self) -> Option<Space> {
        let all = self.all();
        let mut patterns = Vec::new();
        all.iter().for_each(|one| one.patterns(&mut patterns));
        patterns.retain(Pattern::can_be_path);
        // Only such a location sends a request on that nothing has limited.
        if self.differ {
            let without = all.iter().filter(|one| !one.has_handler);
            let mut files: Vec<&String> = without.flat_map(|one| &one.index.files).collect();
            files.sort();
            files.dedup();
            for file in &files {
                let more: Vec<Pattern> =
                    patterns.iter().flat_map(|one| index::without_file(one, file)).collect();
                patterns.extend(more.into_iter().filter(|one| *one != Pattern::any()));
                patterns.push(Pattern::suffix("/"));
                if patterns.len() > super::space::MAX_PATTERNS {
                    return None;
                }
            }
        }
        Space::new(&patterns)
    }

    /// Whether it matters for limits which path a request has been rewritten to.
    pub(super) fn tell_paths_apart(&self) -> bool {
        let redirect = || self.all().iter().any(|one| one.without_slash().is_some());
        self.matter || self.uses().next().is_some() && redirect()
    }

    /// All uses of zones that hold somewhere, whether a request gets there or not.
    pub(super) fn uses(&self) -> impl Iterator<Item = &Way> {
        self.all().into_iter().flat_map(|one| &one.scope.uses)
    }

    /// Those of locations that requests reach in ways which no rule can say.
    pub(super) fn hidden_uses(&self) -> impl Iterator<Item = &Way> {
        let is_hidden = |one: &&Location| {
            one.internal || matches!(one.matcher, Matcher::Named(_) | Matcher::Regex { patterns: None, .. })
        };
        self.all().into_iter().filter(is_hidden).flat_map(|one| &one.scope.uses)
    }

    /// The one with a name of its own.
    pub(super) fn named(&self, name: &str) -> Option<&Location> {
        self.root.inside.iter().find(|one| matches!(&one.matcher, Matcher::Named(own) if own == name))
    }

    /// The one that paths are in.
    pub(super) fn find(&self, fits: &dyn Fn(&Pattern) -> bool) -> Find<'_> {
        find(&self.root.inside, fits).0
    }

    /// What no rule can say of the locations.
    fn tell(&self, server: &Directive, imported: &mut Imported) {
        for one in self.all() {
            if let Matcher::Regex { text, patterns: None, .. } = &one.matcher {
                let message = format!(
                    "location {text}: rules know no such regular expression; what the prefixes around it say holds for it too"
                );
                if self.matter { imported.lost(one.line, message) } else { imported.note(one.line, message) }
            }
            if let Matcher::Regex { text, patterns: Some(_), ignores_case: true } = &one.matcher
                && self.matter
            {
                let message = format!("location {text}: only as it is written, not in other case");
                imported.lost(one.line, message);
            }
        }
        for line in self.all().iter().filter_map(|one| one.except).filter(|_| self.matter) {
            imported.lost(
                line,
                "limit_except: other methods are answered without the if, rewrite, return and try_files of the location in nginx; here these hold for all methods",
            );
        }
        let merges = server.inside().iter().find(|one| one.name == "merge_slashes");
        if let Some(merges) = merges.filter(|one| self.matter && one.arguments == ["off"]) {
            imported.lost(merges.line, "merge_slashes off: doubled slashes of a path are one here");
        }
    }
}

/// Where a path leads.
pub(super) enum Find<'l> {
    Location(&'l Location),
    /// To the same path with a slash behind it.
    Redirect,
    /// To no location.
    Server,
}

/// As nginx looks: an exact path; else the longest prefix, and what is in it; then, unless that prefix forbids it, the first
/// regular expression. With whether nothing else is looked for.
fn find<'l>(level: &'l [Location], fits: &dyn Fn(&Pattern) -> bool) -> (Find<'l>, bool) {
    let mut longest: Option<(&Location, &String, bool)> = None;
    for one in level {
        match &one.matcher {
            Matcher::Exact(path) if fits(&Pattern::Exact(path.clone())) => {
                return (Find::Location(one), true);
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
    let bare = level.iter().filter_map(Location::without_slash);
    let mut without_slash = bare.filter(|path| fits(&Pattern::Exact((*path).to_owned())));
    // One that has this very path is found before.
    if without_slash.any(|bare| longest.is_none_or(|(_, path, _)| path != bare)) {
        return (Find::Redirect, true);
    }
    let mut found = Find::Server;
    if let Some((longest, ..)) = longest {
        found = Find::Location(longest);
        match find(&longest.inside, fits) {
            (Find::Server, _) => {}
            (inner, true) => return (inner, true),
            (inner, false) => found = inner,
        }
    }
    if !longest.is_some_and(|(.., before_regexes)| before_regexes) {
        let regex = level.iter().find(
            |one| matches!(&one.matcher, Matcher::Regex { patterns: Some(patterns), .. } if patterns.iter().any(fits)),
        );
        if let Some(regex) = regex {
            return match find(&regex.inside, fits).0 {
                Find::Server => (Find::Location(regex), true),
                inner => (inner, true),
            };
        }
    }
    (found, false)
}

impl Location {
    fn read(directive: &Directive, matcher: Matcher, outer: &Outer, imported: &mut Imported) -> Self {
        let block = directive.inside();
        let own = outer.within(block, imported);
        // Those of modules that speak to a server.
        let passes = |one: &&Directive| one.name.ends_with("_pass") || one.name == "perl";
        let try_files = block.iter().find(|one| one.name == "try_files").and_then(|one| {
            let (last, files) = one.arguments.split_last()?;
            let directories = files.iter().any(|file| file.ends_with('/'));
            Some(TryFiles { line: one.line, directories, last: Target::read(last) })
        });
        let mut inside = Vec::new();
        for one in block.iter().filter(|one| one.name == "location") {
            if let Some(matcher) = Matcher::read(one, imported) {
                inside.push(Self::read(one, matcher, &own, imported));
            }
        }
        // What a location says of files, or what an `if` says instead, only counts where nothing has limited before.
        let counts_in_ifs = |one: &Directive| is_handler(one) || one.name == "error_page";
        let ifs = || block.iter().filter(|one| one.name == "if");
        let leaves_location = own.scope.uses.is_empty()
            && (try_files.is_some() || ifs().any(|one| one.inside().iter().any(counts_in_ifs)));
        let steps = Step::read(block, Around { pages: &own.pages, leaves_location }, imported);
        let except = block.iter().find(|one| one.name == "limit_except");
        let except = except.filter(|_| !steps.is_empty() || try_files.is_some()).map(|one| one.line);
        Self {
            line: directive.line,
            matcher,
            scope: own.scope,
            internal: own.internal,
            steps,
            except,
            try_files,
            pages: own.pages,
            index: own.index,
            has_handler: block.iter().any(is_handler),
            adds_slash: block.iter().any(|one| passes(&one)),
            subrequests: own.subrequests.into_iter().filter(|(_, path)| path != "off").collect(),
            inside,
        }
    }

    /// Its path without the slash at the end, where nginx answers that with a redirect.
    fn without_slash(&self) -> Option<&str> {
        match &self.matcher {
            Matcher::Exact(path) | Matcher::Prefix { path, .. } if self.adds_slash => {
                path.strip_suffix('/').filter(|path| !path.is_empty())
            }
            _ => None,
        }
    }

    fn patterns(&self, patterns: &mut Vec<Pattern>) {
        match &self.matcher {
            Matcher::Exact(path) => patterns.push(Pattern::Exact(path.clone())),
            Matcher::Prefix { path, .. } => patterns.push(Pattern::prefix(path.clone())),
            Matcher::Regex { patterns: own, .. } => patterns.extend(own.iter().flatten().cloned()),
            Matcher::Named(_) => {}
        }
        patterns.extend(self.without_slash().map(|path| Pattern::Exact(path.to_owned())));
        self.steps.iter().for_each(|one| one.patterns(patterns));
    }

    fn all<'l>(&'l self, all: &mut Vec<&'l Self>) {
        all.push(self);
        self.inside.iter().for_each(|one| one.all(all));
    }
}
