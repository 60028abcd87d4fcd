//! Regular expressions that say no more than patterns can: texts, alternatives, and `.*` at an end.

use super::pattern::Pattern;

/// Patterns that one expression becomes.
const MAX_PATTERNS: usize = 64;
/// Groups within groups.
const MAX_DEPTH: usize = 8;

/// Patterns for the same values; `None`: they cannot say it.
pub(super) fn patterns(regex: &str) -> Option<Vec<Pattern>> {
    // It stands for bytes that are no letters.
    if regex.contains('\u{fffd}') {
        return None;
    }
    let (regex, is_at_start) = match regex.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (regex, false),
    };
    let (regex, is_at_end) = match regex.strip_suffix('$') {
        Some(rest) if !ends_escaped(rest) => (rest, true),
        _ => (regex, false),
    };
    // A group around it only keeps what it was.
    let (regex, opens) = match regex.strip_prefix("(.*)").or_else(|| regex.strip_prefix(".*")) {
        Some(rest) => (rest, true),
        None => (regex, !is_at_start),
    };
    let (regex, is_open) = match regex.strip_suffix("(.*)").or_else(|| regex.strip_suffix(".*")) {
        Some(rest) if !ends_escaped(rest) => (rest, true),
        _ => (regex, !is_at_end),
    };
    let letters: Vec<char> = regex.chars().collect();
    let mut reader = Reader { letters: &letters, at: 0 };
    // Without a group around it, `^a|b$` binds the anchors to one alternative each.
    let is_anchored = is_at_start || is_at_end;
    let texts = reader.alternatives(0)?;
    if reader.at < letters.len() || is_anchored && reader.has_bare_alternatives() {
        return None;
    }
    texts
        .into_iter()
        .map(|text| match (opens, is_open) {
            (false, false) => Some(Pattern::Exact(text)),
            (false, true) => Some(Pattern::prefix(text)),
            (true, false) => Some(Pattern::suffix(text)),
            (true, true) => text.is_empty().then(Pattern::any),
        })
        .map(|pattern| pattern.filter(Pattern::can_be_written))
        .collect()
}

fn ends_escaped(text: &str) -> bool {
    text.chars().rev().take_while(|letter| *letter == '\\').count() % 2 == 1
}

struct Reader<'l> {
    letters: &'l [char],
    at: usize,
}

impl Reader<'_> {
    /// Whether there is a `|` outside of all groups.
    fn has_bare_alternatives(&self) -> bool {
        let (mut depth, mut escaped) = (0, false);
        for letter in self.letters {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '(' => depth += 1,
                ')' => depth -= 1,
                '|' if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }

    fn alternatives(&mut self, depth: usize) -> Option<Vec<String>> {
        let mut all = self.sequence(depth)?;
        while self.letters.get(self.at) == Some(&'|') {
            self.at += 1;
            all.extend(self.sequence(depth)?);
        }
        (all.len() <= MAX_PATTERNS).then_some(all)
    }

    fn sequence(&mut self, depth: usize) -> Option<Vec<String>> {
        let mut texts = vec![String::new()];
        while let Some(letter) = self.letters.get(self.at).copied() {
            let mut next = match letter {
                '|' | ')' => break,
                '(' if depth < MAX_DEPTH => {
                    self.at += 1;
                    if self.letters[self.at..].starts_with(&['?', ':']) {
                        self.at += 2;
                    }
                    let inside = self.alternatives(depth + 1)?;
                    (self.letters.get(self.at) == Some(&')')).then_some(inside)?
                }
                '\\' => {
                    self.at += 1;
                    let escaped = self.letters.get(self.at)?;
                    (!escaped.is_alphanumeric()).then(|| vec![escaped.to_string()])?
                }
                '[' => {
                    let length = self.letters[self.at..].iter().position(|one| *one == ']')?;
                    let set = &self.letters[self.at + 1..self.at + length];
                    self.at += length;
                    if set.is_empty() || set.iter().any(|one| ['^', '-', '\\', '['].contains(one)) {
                        return None;
                    }
                    set.iter().map(char::to_string).collect()
                }
                '.' | '*' | '+' | '?' | '{' | '}' | '^' | '$' | '(' => return None,
                letter => vec![letter.to_string()],
            };
            self.at += 1;
            if self.letters.get(self.at) == Some(&'?') {
                self.at += 1;
                next.push(String::new());
            }
            if matches!(self.letters.get(self.at), Some('*' | '+' | '{' | '?')) {
                return None;
            }
            texts =
                texts.iter().flat_map(|text| next.iter().map(move |more| format!("{text}{more}"))).collect();
            if texts.len() > MAX_PATTERNS {
                return None;
            }
        }
        Some(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patterns_can_say_becomes_patterns() {
        let suffixes =
            |texts: &[&str]| Some(texts.iter().map(|text| Pattern::suffix(*text)).collect::<Vec<_>>());
        let prefixes =
            |texts: &[&str]| Some(texts.iter().map(|text| Pattern::prefix(*text)).collect::<Vec<_>>());
        let exact = |texts: &[&str]| {
            Some(texts.iter().map(|text| Pattern::Exact((*text).to_owned())).collect::<Vec<_>>())
        };
        for (regex, expected) in [
            (r"\.php$", suffixes(&[".php"])),
            (
                r"\.(jpe?g|png)$",
                suffixes(&[".jpg", ".jpeg", ".png"]).map(|mut all| {
                    all.swap(0, 1);
                    all
                }),
            ),
            ("^/api/", prefixes(&["/api/"])),
            ("^/(api|v2)/.*$", prefixes(&["/api/", "/v2/"])),
            ("^/(?:a|b)$", exact(&["/a", "/b"])),
            (r"^/login/?$", exact(&["/login/", "/login"])),
            (r"^www\.(a|b)\.example$", exact(&["www.a.example", "www.b.example"])),
            (r"^.*\.example$", suffixes(&[".example"])),
            ("^/[ab]c", prefixes(&["/ac", "/bc"])),
            (".*", Some(vec![Pattern::any()])),
            ("^(.*)$", Some(vec![Pattern::any()])),
            ("^", Some(vec![Pattern::any()])),
            ("^/old/(.*)$", prefixes(&["/old/"])),
            (r"^(.*)\.php$", suffixes(&[".php"])),
            ("^/a(.*)*$", None),
            ("^/", prefixes(&["/"])),
            ("^/a|/b$", None),
            ("a|b", None),
            ("^/v[0-9]+/", None),
            (r"^/\d", None),
            ("^/a.b", None),
            ("/middle/", None),
            ("^/a+", None),
            ("^(a", None),
            ("^a)", None),
            ("^a(?!b)", None),
            (r"^a\$", None),
            // A star is a wildcard in a rule.
            (r"^/a\*", None),
            (r"\*a$", None),
            (r"^/[*]", None),
            (r"^/a\*b$", exact(&["/a*b"])),
        ] {
            let expected = if regex == r"^a\$" { prefixes(&["a$"]) } else { expected };
            assert_eq!(patterns(regex), expected, "{regex}");
        }
        assert_eq!(patterns(&format!("^{}$", "(a|b)".repeat(20))), None);
    }

    proptest::proptest! {
        #[test]
        fn any_expression_is_read_or_not(regex in "[a.*+?|()\\[\\]^$\\\\-]{0,20}") {
            patterns(&regex);
        }
    }
}
