//! How a request goes through a server until something limits it: rewriting, its location, and where that sends it on, because
//! of a directory, of a file that is not there, or of an error. nginx limits a request once: where the first limits are.
//!
//! Where files, headers or errors decide that no rule knows, one way is taken, and the other one is a [`Doubt`] if it has other
//! limits.

use std::cell::Cell;

use super::{
    condition::{self, Condition},
    index,
    location::{Find, Location, Locations},
    pages::{Pages, Target},
    pattern::{Conditions, Pattern},
    reached::{Doubt, Reached},
    scope::Way,
    step::{Flow, Step, Then},
};

/// Locations that lead to each other: nginx gives up after as many.
const MAX_STEPS: usize = 10;
/// Ways on which one kind of requests is followed.
const MAX_WORK: usize = 500;

/// What is known of the path of a request.
#[derive(Clone)]
enum Path {
    /// What the client asked for.
    Asked,
    /// That, and the name of a file behind it.
    File(String),
    Exact(String),
}

#[derive(Clone)]
struct Request {
    path: Path,
    when: Conditions,
    /// nginx itself asks.
    is_internal: bool,
    /// An error has been sent on, so the next one is not.
    after_error: bool,
    /// It was rewritten to another path.
    is_rewritten: bool,
    steps: usize,
}

impl Request {
    fn to(&self, path: Path) -> Self {
        Self { path, is_internal: true, steps: self.steps + 1, ..self.clone() }
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
    /// Whether a request may have an empty key in all of these, so that it is not counted.
    may_skip: &'w dyn Fn(&[Way]) -> bool,
    work: Cell<usize>,
}

impl<'w, 'l> Walk<'w, 'l> {
    /// Of requests of one server.
    pub(super) fn new(
        locations: &'l Locations,
        fits: &'w dyn Fn(&Pattern) -> bool,
        may_skip: &'w dyn Fn(&[Way]) -> bool,
    ) -> Self {
        Self { locations, fits, may_skip, work: Cell::new(0) }
    }

    /// The limits of a request of a client.
    pub(super) fn reached(&self) -> Reached<'l> {
        self.serve(&Request {
            path: Path::Asked,
            when: Conditions::default(),
            is_internal: false,
            after_error: false,
            is_rewritten: false,
            steps: 0,
        })
    }

    fn fits(&self, path: &Path, pattern: &Pattern) -> bool {
        match path {
            Path::Asked => (self.fits)(pattern),
            Path::File(file) => index::without_file(pattern, file).iter().any(|one| (self.fits)(one)),
            Path::Exact(path) => pattern.contains(&Pattern::Exact(path.clone())),
        }
    }

    fn serve(&self, request: &Request) -> Reached<'l> {
        let steps = &self.locations.root.steps;
        self.run(Rest { steps, after: None }, None, &Request { is_rewritten: false, ..request.clone() })
    }

    /// `at`: the location that the request is in, `None`: in none yet.
    fn run(&self, rest: Rest<'_, 'l>, at: Option<&'l Location>, request: &Request) -> Reached<'l> {
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
        request: &Request,
        others: &mut Vec<(u64, Doubt, Reached<'l>)>,
    ) -> Reached<'l> {
        let fits = |paths: &[Pattern]| paths.iter().any(|one| self.fits(&request.path, one));
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
                    let pages = &at.unwrap_or(&self.locations.root).pages;
                    let error = |code: &String| self.error(pages, code, request);
                    return code.as_ref().map_or_else(Reached::default, error);
                }
                Step::If { line, condition, steps } => {
                    let inside = Rest { steps, after: Some(&rest) };
                    match condition {
                        Condition::Path { paths, negated } if fits(paths) == *negated => {}
                        Condition::Path { .. } => return self.run(inside, at, request),
                        Condition::Attribute { name, values, negated } => {
                            let (yes, no) = condition::either(name, values, *negated);
                            let of = |rest: Rest<'_, 'l>, when: &Conditions| match request.when.and(when) {
                                Some(when) => self.run(rest, at, &Request { when, ..request.clone() }),
                                None => Reached::default(),
                            };
                            return of(inside, &yes).and(of(rest, &no));
                        }
                        Condition::Unknown => others.push((*line, Doubt::If, self.run(inside, at, request))),
                    }
                }
                Step::Rewrite { paths: Some(paths), .. } if !fits(paths) => {}
                Step::Rewrite { line, paths: Some(_), then } => {
                    return self.rewrite(*line, then, rest, at, request);
                }
                Step::Rewrite { line, paths: None, then: Then::Path { path: None, flow } }
                    if *flow != Flow::Break || at.is_none() =>
                {
                    others.push((*line, Doubt::RewrittenTo, self.new_path(*line)));
                }
                Step::Rewrite { line, paths: None, then } => {
                    others.push((*line, Doubt::Rewrite, self.rewrite(*line, then, rest, at, request)));
                }
            }
        }
    }

    /// A new path that is not known.
    fn new_path(&self, line: u64) -> Reached<'l> {
        let doubt = self.locations.differ.then_some((line, Doubt::RewrittenTo));
        Reached { ways: Vec::new(), doubts: doubt.into_iter().collect() }
    }

    fn rewrite(
        &self,
        line: u64,
        then: &'l Then,
        rest: Rest<'_, 'l>,
        at: Option<&'l Location>,
        request: &Request,
    ) -> Reached<'l> {
        let Then::Path { path, flow } = then else { return Reached::default() };
        let is_rewritten = *flow != Flow::Break;
        let path = match path {
            Some(path) => Path::Exact(path.clone()),
            // A location that is not left has its limits whatever the path is.
            None if at.is_some() && !is_rewritten => request.path.clone(),
            None => return self.run(rest, at, request).and(self.new_path(line)),
        };
        let request = Request { path, is_rewritten, ..request.clone() };
        match flow {
            Flow::GoOn => self.run(rest, at, &request),
            Flow::Last | Flow::Break => self.leave(at, &request),
        }
    }

    /// After the directives of a server or of a location.
    fn leave(&self, at: Option<&'l Location>, request: &Request) -> Reached<'l> {
        match at {
            Some(location) if !request.is_rewritten => self.limits(location, request),
            Some(_) => self.find(&Request { steps: request.steps + 1, ..request.clone() }),
            None => self.find(request),
        }
    }

    fn find(&self, request: &Request) -> Reached<'l> {
        if request.steps > MAX_STEPS {
            return Reached::default();
        }
        let request = Request { is_rewritten: false, ..request.clone() };
        match self.locations.find(&|pattern| self.fits(&request.path, pattern)) {
            Find::Location(found) => self.enter(found, &request),
            Find::Redirect => Reached::default(),
            // The directives of the server have been done.
            Find::Server => self.limits(&self.locations.root, &request),
        }
    }

    fn enter(&self, location: &'l Location, request: &Request) -> Reached<'l> {
        if location.internal && !request.is_internal {
            return self.error(&location.pages, "404", request);
        }
        self.run(Rest { steps: &location.steps, after: None }, Some(location), request)
    }

    fn limits(&self, location: &'l Location, request: &Request) -> Reached<'l> {
        let uses = &location.scope.uses[..];
        if uses.is_empty() {
            return self.content(location, request);
        }
        let reached = Reached { ways: vec![(request.when.clone(), uses)], doubts: Vec::new() };
        if (self.may_skip)(uses) {
            let next = self.content(location, request);
            if next.limits() && !next.is_as(&reached) {
                return reached.unless(uses[0].0, Doubt::EmptyKey, &next);
            }
        }
        reached
    }

    /// What comes after the limits, where there were none.
    fn content(&self, location: &'l Location, request: &Request) -> Reached<'l> {
        let none = Reached::default();
        let mut reached = match &location.try_files {
            Some(files) => {
                let last = match &files.last {
                    Target::Unknown if self.locations.differ => {
                        Reached { ways: Vec::new(), doubts: vec![(files.line, Doubt::VariablePath)] }
                    }
                    Target::Status(code) => self.error(&location.pages, code, request),
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
            let inner = Request { when: request.when.clone(), ..request.to(Path::Exact(path.clone())) };
            let subrequest = self.serve(&inner);
            if subrequest.limits() {
                reached = reached.unless(*line, Doubt::Subrequest, &subrequest);
            }
        }
        if !request.after_error {
            for page in location.pages.of_errors() {
                let request = Request { after_error: true, ..request.clone() };
                let page_reached = self.follow(&page.target, &request);
                if page_reached.limits() {
                    reached = reached.unless(page.line, Doubt::Error, &page_reached);
                }
            }
        }
        reached
    }

    fn index(&self, location: &'l Location, request: &Request) -> Reached<'l> {
        let none = Reached::default();
        if location.has_handler || !self.fits(&request.path, &Pattern::suffix("/")) {
            return none;
        }
        let all: Vec<Reached<'l>> = location
            .index
            .files
            .iter()
            .filter(|file| !file.contains('$'))
            .map(|file| {
                let path = match (&request.path, file.starts_with('/')) {
                    (_, true) => Path::Exact(file.clone()),
                    (Path::Exact(path), _) => Path::Exact(format!("{path}{file}")),
                    (Path::Asked | Path::File(_), _) => Path::File(file.clone()),
                };
                self.serve(&request.to(path))
            })
            .collect();
        let chosen = all.iter().find(|one| one.limits()).cloned().unwrap_or_default();
        let line = location.index.line.unwrap_or(location.line);
        let chosen = chosen.unless(line, Doubt::Index, &none);
        all.iter().fold(chosen, |chosen, one| chosen.unless(line, Doubt::Index, one))
    }

    fn error(&self, pages: &'l Pages, code: &str, request: &Request) -> Reached<'l> {
        match pages.of(code).filter(|_| !request.after_error) {
            Some(page) => self.follow(&page.target, &Request { after_error: true, ..request.clone() }),
            None => Reached::default(),
        }
    }

    fn follow(&self, target: &Target, request: &Request) -> Reached<'l> {
        if request.steps > MAX_STEPS {
            return Reached::default();
        }
        match target {
            Target::Named(name) => match self.locations.named(name) {
                Some(found) => self.enter(found, &request.to(request.path.clone())),
                None => Reached::default(),
            },
            Target::Path(path) => self.serve(&request.to(Path::Exact(path.clone()))),
            Target::Unknown | Target::Status(_) => Reached::default(),
        }
    }
}
