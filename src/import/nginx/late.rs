//! What nginx reads when it limits a request, and not when the request comes: `$uri` is another path after a `rewrite`, an
//! `error_page`, `try_files` or `index`, and `$request_method` is GET after an `error_page`. Rules are about the path and the
//! method that the client sent.

use super::{
    index,
    key::Key,
    pattern::{Conditions, Pattern, Test},
};

/// In keys, until it is known which path nginx has where it limits.
pub(super) const URI: &str = "$uri";
/// In keys, until it is known which method nginx has where it limits.
pub(super) const METHOD: &str = "$request_method";

/// The path of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Path {
    /// What the client asked for.
    #[default]
    Asked,
    /// That, and the name of a file behind it.
    File(String),
    Exact(String),
    /// One that is made of variables.
    Unknown,
}

/// A request where nginx limits it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) path: Path,
    /// An `error_page` has made it a GET, unless it is a HEAD.
    pub(super) is_get: bool,
}

/// A key, by what the client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyAsked {
    pub(super) when: Conditions,
    pub(super) attributes: Vec<String>,
    pub(super) texts: Vec<String>,
    /// Why nginx may count or limit otherwise.
    pub(super) lost: Option<&'static str>,
}

impl Late {
    /// `None`: no such request has this key.
    pub(super) fn key(&self, key: &Key) -> Option<KeyAsked> {
        let (when, path) = key.when.split(URI);
        let (when, method) = when.split(METHOD);
        let when = when.and(&self.path(&path)?)?.and(&self.method(&method)?)?;
        let is_path_lost = self.path == Path::Unknown && path != Test::default();
        let mut lost = is_path_lost.then_some(PATH);
        let (mut attributes, mut texts): (Vec<String>, _) = (Vec::new(), key.texts.clone());
        for written in &key.attributes {
            let name = match &**written {
                URI => {
                    if self.path != Path::Asked {
                        lost = Some(PATH);
                    }
                    if let Path::Exact(path) = &self.path {
                        texts.push(path.clone());
                        continue;
                    }
                    "path"
                }
                METHOD => {
                    if self.is_get {
                        lost = Some(GET);
                    }
                    "method"
                }
                other => other,
            };
            if attributes.iter().all(|known| known != name) {
                attributes.push(name.to_owned());
            }
        }
        Some(KeyAsked { when, attributes, texts, lost })
    }

    /// Where the path fits a test; `None`: nowhere.
    fn path(&self, test: &Test) -> Option<Conditions> {
        let test = match &self.path {
            Path::Asked | Path::Unknown => test.clone(),
            Path::Exact(path) => return test.fits(path).then(Conditions::default),
            Path::File(file) => {
                let of_directories = |all: &[Pattern]| -> Vec<Pattern> {
                    all.iter().flat_map(|one| index::without_file(one, file)).collect()
                };
                let changed =
                    Test { any_of: of_directories(&test.any_of), none_of: of_directories(&test.none_of) };
                if changed.any_of.is_empty() && !test.any_of.is_empty() {
                    return None;
                }
                changed
            }
        };
        Some(Conditions::of("path", test))
    }

    /// Where the method fits a test; `None`: nowhere.
    pub(super) fn method(&self, test: &Test) -> Option<Conditions> {
        if !self.is_get {
            return Some(Conditions::of("method", test.clone()));
        }
        let head = vec![Pattern::Exact("HEAD".to_owned())];
        match (test.fits("HEAD"), test.fits("GET")) {
            (true, true) => Some(Conditions::default()),
            (true, false) => Some(Conditions::of("method", Test { any_of: head, none_of: Vec::new() })),
            (false, true) => Some(Conditions::of("method", Test { any_of: Vec::new(), none_of: head })),
            (false, false) => None,
        }
    }
}

const PATH: &str = "limit_req: the key has $uri, which is not the path that the client asked for here: it was rewritten or sent on before";
const GET: &str = "limit_req: the key has $request_method, which is GET here, whatever the client sent: an error_page has sent the request on before";
