//! The syntax of nginx's configuration: directives with arguments, ended by a semicolon or followed by a block.

use super::super::imported::NotRead;

/// Blocks within blocks.
const MAX_DEPTH: usize = 32;

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) line: u64,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    /// What its block has.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// Reads a text, whose lines come after `before` others.
pub(super) fn read(text: &str, before: u64) -> Result<Vec<Directive>, NotRead> {
    let mut reader =
        Reader { text: text.as_bytes(), at: 0, line: before + 1, tokens: Vec::new(), first_word: None };
    reader.read()?;
    let mut tokens = reader.tokens;
    tokens.reverse();
    let directives = block(&mut tokens, 0)?;
    match tokens.pop() {
        None => Ok(directives),
        Some((line, _)) => Err(NotRead { line, message: "a block ends here that did not begin".to_owned() }),
    }
}

fn block(rest: &mut Vec<(u64, Token)>, depth: usize) -> Result<Vec<Directive>, NotRead> {
    let mut directives = Vec::new();
    while let Some((line, token)) = rest.pop() {
        let name = match token {
            Token::Word(name) => name,
            Token::Close => {
                rest.push((line, Token::Close));
                break;
            }
            Token::End => continue,
            Token::Open => return Err(NotRead { line, message: "a block without a name".to_owned() }),
        };
        let mut directive = Directive { line, name, arguments: Vec::new(), block: None };
        loop {
            match rest.pop() {
                Some((_, Token::Word(word))) => directive.arguments.push(word),
                Some((_, Token::End)) => break,
                Some((line, Token::Open)) if depth < MAX_DEPTH => {
                    directive.block = Some(block(rest, depth + 1)?);
                    if rest.pop().is_none() {
                        return Err(NotRead { line, message: "this block does not end".to_owned() });
                    }
                    break;
                }
                Some((line, _)) => {
                    return Err(NotRead {
                        line,
                        message: format!("{} does not end with a semicolon", directive.name),
                    });
                }
                None => return Err(NotRead { line, message: format!("{} does not end", directive.name) }),
            }
        }
        directives.push(directive);
    }
    Ok(directives)
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    line: u64,
    tokens: Vec<(u64, Token)>,
    /// Of the directive that has begun, which token its name is.
    first_word: Option<usize>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += u64::from(byte == b'\n');
        Some(byte)
    }

    fn error(line: u64, message: &str) -> NotRead {
        NotRead { line, message: message.to_owned() }
    }

    fn read(&mut self) -> Result<(), NotRead> {
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                b';' | b'}' => {
                    self.at += 1;
                    self.first_word = None;
                    self.tokens.push((self.line, if byte == b';' { Token::End } else { Token::Close }));
                }
                b'{' => {
                    let line = self.line;
                    self.at += 1;
                    let name = self.first_word.take().map(|index| &self.tokens[index].1);
                    // The text of a program: it has braces of its own, and is not looked into.
                    if matches!(name, Some(Token::Word(name)) if name.ends_with("_by_lua_block")) {
                        self.skip_lua(line)?;
                        self.tokens.push((line, Token::End));
                    } else {
                        self.tokens.push((line, Token::Open));
                    }
                }
                byte if byte.is_ascii_whitespace() => _ = self.next(),
                _ => self.word(byte)?,
            }
        }
        Ok(())
    }

    fn word(&mut self, first: u8) -> Result<(), NotRead> {
        let line = self.line;
        let quote = matches!(first, b'"' | b'\'').then_some(first);
        self.at += usize::from(quote.is_some());
        let mut word = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                if quote.is_some() {
                    return Err(Self::error(line, "a quoted text does not end"));
                }
                break;
            };
            let ends = match quote {
                Some(quote) => byte == quote,
                // `${name}` has braces that are no block.
                None => {
                    byte.is_ascii_whitespace()
                        || byte == b';'
                        || byte == b'{' && word.last() != Some(&b'$')
                        || byte == b'}' && !word.contains(&b'{')
                }
            };
            if ends {
                self.at += usize::from(quote.is_some());
                break;
            }
            _ = self.next();
            if byte != b'\\' {
                word.push(byte);
                continue;
            }
            // A backslash stays before all that it does not stand for, e.g. in regular expressions.
            match self.next() {
                Some(escaped @ (b'"' | b'\'' | b'\\')) => word.push(escaped),
                Some(b't') => word.push(b'\t'),
                Some(b'r') => word.push(b'\r'),
                Some(b'n') => word.push(b'\n'),
                Some(other) => word.extend([b'\\', other]),
                None => word.push(b'\\'),
            }
        }
        self.first_word.get_or_insert(self.tokens.len());
        self.tokens.push((line, Token::Word(String::from_utf8_lossy(&word).into_owned())));
        Ok(())
    }

    /// To the brace that ends a block of Lua: those in its texts and comments do not count.
    fn skip_lua(&mut self, line: u64) -> Result<(), NotRead> {
        let mut depth = 1;
        while depth > 0 {
            let Some(byte) = self.next() else {
                return Err(Self::error(line, "a block of Lua does not end"));
            };
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'"' | b'\'' => {
                    while let Some(inside) = self.next().filter(|inside| *inside != byte) {
                        if inside == b'\\' {
                            _ = self.next();
                        }
                    }
                }
                b'-' if self.peek() == Some(b'-') => {
                    self.at += 1;
                    if !(self.peek() == Some(b'[') && self.skip_long_text(self.at + 1)) {
                        while self.next().is_some_and(|byte| byte != b'\n') {}
                    }
                }
                b'[' => _ = self.skip_long_text(self.at),
                _ => {}
            }
        }
        Ok(())
    }

    /// `[[...]]` or `[==[...]==]`, whose first bracket has been read; `false`: it is none.
    fn skip_long_text(&mut self, after_bracket: usize) -> bool {
        let level = self.text[after_bracket..].iter().take_while(|byte| **byte == b'=').count();
        if self.text.get(after_bracket + level) != Some(&b'[') {
            return false;
        }
        let end = [&b"]"[..], &vec![b'='; level], b"]"].concat();
        while self.at < self.text.len() && !self.text[self.at..].starts_with(&end) {
            _ = self.next();
        }
        self.at = (self.at + end.len()).min(self.text.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_lines_arguments_and_blocks() {
        let text = "# a comment; {\nhttp {\n  a \"b c\" 'd;e' ${f}g;\n  location ~ \\.php$ { x; }\n content_by_lua_block { if { } }\n}\n";
        let http = &read(text, 0).unwrap()[0];
        assert_eq!((http.line, &*http.name, http.inside().len()), (2, "http", 3));
        assert_eq!(http.inside()[0].arguments, ["b c", "d;e", "${f}g"]);
        assert_eq!(http.inside()[1].arguments, ["~", "\\.php$"]);
        assert_eq!((http.inside()[1].inside()[0].line, http.inside()[2].line), (4, 5));
    }

    #[test]
    fn what_does_not_end_is_told_with_its_line() {
        for (text, line) in
            [("http {\n a;\n", 1), ("a;\n}\n", 2), ("a b", 1), ("\na 'b;", 2), ("a\n}", 2), ("{ }", 1)]
        {
            assert_eq!(read(text, 0).unwrap_err().line, line, "{text}");
        }
        let deep = "a {".repeat(100);
        assert!(read(&deep, 0).is_err());
    }

    #[test]
    fn programs_are_read_over_whatever_their_texts_hold() {
        for lua in [
            "set_by_lua_block $x { return 1 }",
            "content_by_lua_block { say(\"}\") }",
            "content_by_lua_block { say('{\\'') -- }\n }",
            "content_by_lua_block { a = [[ } ]] --[==[ }\n ]] ]==] b = t[1] }",
            "content_by_lua_block { }",
        ] {
            let text = format!("{lua}\nafter it;");
            let read = read(&text, 0).unwrap_or_else(|error| panic!("{lua}: {error:?}"));
            assert_eq!((read.len(), &*read[1].name), (2, "after"), "{lua}");
        }
        assert_eq!(read("\na_by_lua_block {\n '}'", 0).unwrap_err().line, 2);
    }

    #[test]
    fn words_are_as_nginx_reads_them() {
        let read = read(r#"map "$a\"b" '' { "~*^/a\.b{2}" "}"; \default x\\y; } e "";"#, 0).unwrap();
        assert_eq!(read[0].arguments, ["$a\"b", ""]);
        assert_eq!(read[0].inside()[0].name, "~*^/a\\.b{2}");
        assert_eq!(read[0].inside()[0].arguments, ["}"]);
        assert_eq!((&*read[0].inside()[1].name, &*read[0].inside()[1].arguments[0]), ("\\default", "x\\y"));
        assert_eq!(read[1].arguments, [""]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a{};$'\"\\\\# \n]{0,60}|\\PC{0,60}|a_by_lua_block \\{[-\\[\\]={}'\"\n]{0,40}") {
            let lines = text.lines().count() as u64 + 1;
            if let Err(error) = read(&text, 5) {
                proptest::prop_assert!((6..=5 + lines).contains(&error.line), "{error:?}");
            }
        }
    }
}
