//! How a request goes through a server until something limits it: rewriting, its location, and where that sends it on, because
//! of a directory, of a file that is not there, or of an error. nginx limits a request once: where the first limits are.
//!
//! Where files, headers or errors decide that no rule knows, one way is taken, and the other one is a [`Doubt`] if it has other
//! limits.

use std::cell::Cell;

use super::{
    condition::{self, Condition},
    index,
    late::{Late, Path},
    location::{Find, Location, Locations},
    pages::{Page, Pages, Target},
    pattern::{Conditions, Pattern},
    reached::{Doubt, Limited, Reached},
    step::{Flow, IfBlock, Step, Then},
    zone::Zones,
};

/// Locations that lead to each other: nginx gives up after as many.
const MAX_STEPS: usize = 10;
/// Ways on which one kind of requests is followed.
const MAX_WORK: usize = 500;

#[derive(Clone, Default)]
struct Request<'l> {
    late: Late,
    when: Conditions,
    /// nginx itself asks, or has rewritten the path: not the client.
    is_internal: bool,
    /// An error has been sent on, so the next one is not.
    after_error: bool,
    /// Where errors have been sent on to.
    error_targets: Vec<(Target, Path)>,
    /// It was rewritten to another path.
    is_rewritten: bool,
    /// What holds instead of its location: nginx has entered this block.
    within: Option<&'l IfBlock>,
    steps: usize,
}

impl Request<'_> {
    fn to(&self, path: Path) -> Self {
        let late = Late { path, ..self.late };
        Self { late, is_internal: true, steps: self.steps + 1, ..self.clone() }
    }
}

/// What is still to be done in blocks within each other.
#[derive(Clone, Copy)]
struct Rest<'r, 'l> {
    steps: &'l [Step],
    after: Option<&'r Rest<'r, 'l>>,
}

/// A walk of requests whose paths fit the same patterns.
pub(super) struct Walk<'w, 'l> {
    locations: &'l Locations,
    /// Whether the path that the client asked for fits a pattern.
    fits: &'w dyn Fn(&Pattern) -> bool,
    zones: &'w Zones,
    /// Whether it matters which location a request is in, or which path it has there.
    differ: bool,
    work: Cell<usize>,
}

impl<'w, 'l> Walk<'w, 'l> {
    /// Of requests of one server.
    pub(super) fn new(
        locations: &'l Locations,
        fits: &'w dyn Fn(&Pattern) -> bool,
        zones: &'w Zones,
    ) -> Self {
        let differ = locations.tell_paths_apart() || locations.uses().any(|way| zones.ask_path(way));
        Self { locations, fits, zones, differ, work: Cell::new(0) }
    }

    /// The limits of a request of a client.
    pub(super) fn reached(&self) -> Reached<'l> {
        self.serve(&Request::default())
    }

    fn fits(&self, path: &Path, pattern: &Pattern) -> bool {
        match path {
            Path::Asked => (self.fits)(pattern),
            Path::File(file) => index::without_file(pattern, file).iter().any(|one| (self.fits)(one)),
            Path::Exact(path) => pattern.contains(&Pattern::Exact(path.clone())),
            Path::Unknown => false,
        }
    }

    fn serve(&self, request: &Request<'l>) -> Reached<'l> {
        let steps = &self.locations.root.steps;
        let request = Request { is_rewritten: false, within: None, ..request.clone() };
        self.run(Rest { steps, after: None }, None, &request)
    }

    /// `at`: the location that the request is in, `None`: in none yet.
    fn run(&self, rest: Rest<'_, 'l>, at: Option<&'l Location>, request: &Request<'l>) -> Reached<'l> {
        self.work.set(self.work.get() + 1);
        if self.work.get() > MAX_WORK {
            let line = self.locations.root.line;
            return Reached { ways: Vec::new(), doubts: vec![(line, Doubt::TooMuch)] };
        }
        let mut others = Vec::new();
        let reached = self.run_on(rest, at, request, &mut others);
        others.into_iter().fold(reached, |reached, (line, doubt, other)| match doubt {
            Doubt::RewrittenTo => reached.and(other),
            doubt => reached.unless(line, doubt, &other),
        })
    }

    /// With what becomes of requests if something is so that no rule knows.
    fn run_on(
        &self,
        mut rest: Rest<'_, 'l>,
        at: Option<&'l Location>,
        request: &Request<'l>,
        others: &mut Vec<(u64, Doubt, Reached<'l>)>,
    ) -> Reached<'l> {
        let fits = |paths: &[Pattern]| paths.iter().any(|one| self.fits(&request.late.path, one));
        let is_known = request.late.path != Path::Unknown;
        loop {
            let Some((first, steps)) = rest.steps.split_first() else {
                match rest.after {
                    Some(after) => rest = *after,
                    None => return self.leave(at, request),
                }
                continue;
            };
            rest = Rest { steps, after: rest.after };
            match first {
                Step::Break => return self.leave(at, &Request { is_rewritten: false, ..request.clone() }),
                Step::Return { code } => {
                    let pages = self.pages(at, request);
                    let error = |code: &String| self.error(pages, code, request);
                    return code.as_ref().map_or_else(Reached::default, error);
                }
                Step::If(block) => {
                    let inside = Rest { steps: &block.steps, after: Some(&rest) };
                    let entered =
                        Request { within: if at.is_some() { Some(block) } else { None }, ..request.clone() };
                    match &block.condition {
                        Condition::Path { paths, negated } if is_known => {
                            if fits(paths) != *negated {
                                return self.run(inside, at, &entered);
                            }
                        }
                        Condition::Attribute { name, values, negated } => {
                            let (yes, no) = condition::either(name, values, *negated, &request.late);
                            let of = |rest: Rest<'_, 'l>, when: Option<Conditions>, request: &Request<'l>| {
                                match when.and_then(|when| request.when.and(&when)) {
                                    Some(when) => self.run(rest, at, &Request { when, ..request.clone() }),
                                    None => Reached::default(),
                                }
                            };
                            return of(inside, yes, &entered).and(of(rest, no, request));
                        }
                        Condition::Path { .. } | Condition::Unknown => {
                            others.push((block.line, Doubt::If, self.run(inside, at, &entered)));
                        }
                    }
                }
                Step::Rewrite { paths: Some(paths), .. } if is_known && !fits(paths) => {}
                Step::Rewrite { line, paths: Some(_), then } if is_known => {
                    return self.rewrite(*line, then, rest, at, request);
                }
                Step::Rewrite { line, then: Then::Path { path: None, flow }, .. }
                    if *flow != Flow::Break || at.is_none() =>
                {
                    others.push((*line, Doubt::RewrittenTo, self.new_path(*line)));
                }
                Step::Rewrite { line, then, .. } => {
                    others.push((*line, Doubt::Rewrite, self.rewrite(*line, then, rest, at, request)));
                }
            }
        }
    }

    /// A new path that is not known.
    fn new_path(&self, line: u64) -> Reached<'l> {
        let doubt = self.differ.then_some((line, Doubt::RewrittenTo));
        Reached { ways: Vec::new(), doubts: doubt.into_iter().collect() }
    }

    fn rewrite(
        &self,
        line: u64,
        then: &'l Then,
        rest: Rest<'_, 'l>,
        at: Option<&'l Location>,
        request: &Request<'l>,
    ) -> Reached<'l> {
        let Then::Path { path, flow } = then else { return Reached::default() };
        let is_rewritten = *flow != Flow::Break;
        let path = match path {
            Some(path) => Path::Exact(path.clone()),
            // A location that is not left has its limits whatever the path is.
            None if at.is_some() && !is_rewritten => Path::Unknown,
            None => return self.run(rest, at, request).and(self.new_path(line)),
        };
        let late = Late { path, ..request.late };
        let request = Request { late, is_rewritten, is_internal: true, ..request.clone() };
        match flow {
            Flow::GoOn => self.run(rest, at, &request),
            Flow::Last | Flow::Break => self.leave(at, &request),
        }
    }

    /// After the directives of a server or of a location.
    fn leave(&self, at: Option<&'l Location>, request: &Request<'l>) -> Reached<'l> {
        match at {
            Some(location) if !request.is_rewritten => self.limits(location, request),
            Some(_) => self.find(&Request { steps: request.steps + 1, ..request.clone() }),
            None => self.find(request),
        }
    }

    fn find(&self, request: &Request<'l>) -> Reached<'l> {
        if request.steps > MAX_STEPS {
            return Reached::default();
        }
        let request = Request { is_rewritten: false, within: None, ..request.clone() };
        match self.locations.find(&|pattern| self.fits(&request.late.path, pattern)) {
            Find::Location(found) => self.enter(found, &request),
            Find::Redirect => Reached::default(),
            // The directives of the server have been done.
            Find::Server => self.limits(&self.locations.root, &request),
        }
    }

    fn enter(&self, location: &'l Location, request: &Request<'l>) -> Reached<'l> {
        let request = Request { within: None, ..request.clone() };
        if location.internal && !request.is_internal {
            return self.error(&location.pages, "404", &request);
        }
        self.run(Rest { steps: &location.steps, after: None }, Some(location), &request)
    }

    fn limits(&self, location: &'l Location, request: &Request<'l>) -> Reached<'l> {
        let uses = &location.scope.uses[..];
        if uses.is_empty() {
            return self.content(location, request);
        }
        let limited =
            Limited { when: request.when.clone(), late: self.zones.asked_late(uses, &request.late), uses };
        let reached = Reached { ways: vec![limited], doubts: Vec::new() };
        if self.zones.may_skip(uses) {
            let next = self.content(location, request);
            // nginx has asked a map once, so an empty key stays empty.
            if next.limits() && !next.has_limits_of(&reached) {
                return reached.unless(uses[0].0, Doubt::EmptyKey, &next);
            }
        }
        reached
    }

    /// What comes after the limits, where there were none.
    fn content(&self, location: &'l Location, request: &Request<'l>) -> Reached<'l> {
        let none = Reached::default();
        let pages = self.pages(Some(location), request);
        // A block of `if` does not have those of the location around it.
        let mut reached = match location.try_files.as_ref().filter(|_| request.within.is_none()) {
            Some(files) => {
                let last = match &files.last {
                    Target::Unknown if self.differ => {
                        Reached { ways: Vec::new(), doubts: vec![(files.line, Doubt::VariablePath)] }
                    }
                    Target::Status(code) => self.error(pages, code, request),
                    last => self.follow(last, request),
                };
                let directory = if files.directories { self.index(location, request) } else { none.clone() };
                let main =
                    if last.limits() || !directory.limits() { last.clone() } else { directory.clone() };
                // A file, a directory, or neither.
                let main = main.unless(files.line, Doubt::Files, &none);
                main.unless(files.line, Doubt::Files, &directory).unless(files.line, Doubt::Files, &last)
            }
            None => self.index(location, request),
        };
        for (line, path) in &location.subrequests {
            let subrequest = self.serve(&request.to(Path::Exact(path.clone())));
            if subrequest.limits() {
                reached = reached.unless(*line, Doubt::Subrequest, &subrequest);
            }
        }
        if !request.after_error {
            for page in pages.of_errors() {
                let page_reached = self.follow_error(pages, page, request);
                if page_reached.limits() {
                    reached = reached.unless(page.line, Doubt::Error, &page_reached);
                } else if page.target == Target::Unknown {
                    reached = reached.and(page_reached);
                }
            }
        }
        reached
    }

    fn index(&self, location: &'l Location, request: &Request<'l>) -> Reached<'l> {
        let none = Reached::default();
        let line = location.index.line.unwrap_or(location.line);
        if location.has_handler || request.within.is_some_and(|own| own.has_handler) {
            return none;
        }
        if request.late.path == Path::Unknown {
            let doubt = self.differ.then_some((line, Doubt::Index));
            return Reached { ways: Vec::new(), doubts: doubt.into_iter().collect() };
        }
        if !self.fits(&request.late.path, &Pattern::suffix("/")) {
            return none;
        }
        let all: Vec<Reached<'l>> = location
            .index
            .files
            .iter()
            .filter(|file| !file.contains('$'))
            .map(|file| {
                let path = match (&request.late.path, file.starts_with('/')) {
                    (_, true) => Path::Exact(file.clone()),
                    (Path::Exact(path), _) => Path::Exact(format!("{path}{file}")),
                    (Path::Asked | Path::File(_) | Path::Unknown, _) => Path::File(file.clone()),
                };
                self.serve(&request.to(path))
            })
            .collect();
        let chosen = all.iter().find(|one| one.limits()).cloned().unwrap_or_default();
        let chosen = chosen.unless(line, Doubt::Index, &none);
        all.iter().fold(chosen, |chosen, one| chosen.unless(line, Doubt::Index, one))
    }

    fn error(&self, pages: &'l Pages, code: &str, request: &Request<'l>) -> Reached<'l> {
        match pages.of(code).filter(|_| !request.after_error) {
            Some(page) => self.follow_error(pages, page, request),
            None => Reached::default(),
        }
    }

    fn follow_error(&self, pages: &Pages, page: &Page, request: &Request<'l>) -> Reached<'l> {
        let is_path = matches!(page.target, Target::Path(_) | Target::Unknown);
        let late = Late { is_get: request.late.is_get || is_path, path: request.late.path.clone() };
        let mut request =
            Request { late, after_error: request.after_error || !pages.recursive, ..request.clone() };
        // Where it has been before, it finds nothing else.
        let path = match &page.target {
            Target::Path(path) => Path::Exact(path.clone()),
            _ => request.late.path.clone(),
        };
        let target = (page.target.clone(), path);
        if request.error_targets.contains(&target) {
            return Reached::default();
        }
        request.error_targets.push(target);
        if page.target == Target::Unknown && self.differ {
            return Reached { ways: Vec::new(), doubts: vec![(page.line, Doubt::VariablePath)] };
        }
        self.follow(&page.target, &request)
    }

    fn pages(&self, at: Option<&'l Location>, request: &Request<'l>) -> &'l Pages {
        request.within.map_or(&at.unwrap_or(&self.locations.root).pages, |own| &own.pages)
    }

    fn follow(&self, target: &Target, request: &Request<'l>) -> Reached<'l> {
        if request.steps > MAX_STEPS {
            return Reached::default();
        }
        match target {
            Target::Named(name) => match self.locations.named(name) {
                Some(found) => self.enter(found, &request.to(request.late.path.clone())),
                None => Reached::default(),
            },
            Target::Path(path) => self.serve(&request.to(Path::Exact(path.clone()))),
            Target::Unknown | Target::Status(_) => Reached::default(),
        }
    }
}
