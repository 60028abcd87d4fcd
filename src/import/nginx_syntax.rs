//! The syntax of nginx's configuration: directives with arguments, ended by a semicolon or followed by a block.

use super::imported::NotRead;

/// Blocks within blocks.
const MAX_DEPTH: usize = 32;

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) line: u64,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Vec<Directive>,
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
    let mut tokens = tokens(text, before)?;
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
        let mut directive = Directive { line, name, arguments: Vec::new(), block: Vec::new() };
        loop {
            match rest.pop() {
                Some((_, Token::Word(word))) => directive.arguments.push(word),
                Some((_, Token::End)) => break,
                Some((line, Token::Open)) if depth < MAX_DEPTH => {
                    directive.block = block(rest, depth + 1)?;
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

fn tokens(text: &str, before: u64) -> Result<Vec<(u64, Token)>, NotRead> {
    let mut tokens: Vec<(u64, Token)> = Vec::new();
    let mut line = before + 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => line += 1,
            character if character.is_whitespace() => {}
            '#' => while characters.next_if(|next| *next != '\n').is_some() {},
            ';' => tokens.push((line, Token::End)),
            '}' => tokens.push((line, Token::Close)),
            '{' => {
                // The text of a program: it has braces of its own, and is nobody's business here.
                let of_lua =
                    matches!(tokens.last(), Some((_, Token::Word(word))) if word.ends_with("_by_lua_block"));
                if !of_lua {
                    tokens.push((line, Token::Open));
                    continue;
                }
                let mut depth = 1;
                while depth > 0 {
                    match characters.next() {
                        Some('{') => depth += 1,
                        Some('}') => depth -= 1,
                        Some('\n') => line += 1,
                        Some(_) => {}
                        None => {
                            return Err(NotRead { line, message: "a block of Lua does not end".to_owned() });
                        }
                    }
                }
                tokens.push((line, Token::End));
            }
            quote @ ('"' | '\'') => {
                let (start, mut word) = (line, String::new());
                loop {
                    match characters.next() {
                        Some('\\') => word.extend(characters.next()),
                        Some(next) if next == quote => break,
                        Some(next) => {
                            line += u64::from(next == '\n');
                            word.push(next);
                        }
                        None => {
                            return Err(NotRead {
                                line: start,
                                message: "a quoted text does not end".to_owned(),
                            });
                        }
                    }
                }
                tokens.push((start, Token::Word(word)));
            }
            first => {
                let mut word = String::from(first);
                // `${name}` has braces that are no block.
                let mut in_variable = first == '$' && characters.peek() == Some(&'{');
                while let Some(next) = characters
                    .next_if(|next| in_variable || !(next.is_whitespace() || matches!(next, ';' | '{' | '}')))
                {
                    if next == '\\' {
                        word.push(next);
                        word.extend(characters.next());
                        continue;
                    }
                    word.push(next);
                    in_variable = match next {
                        '$' => characters.peek() == Some(&'{'),
                        '}' => false,
                        _ => in_variable,
                    };
                }
                tokens.push((line, Token::Word(word)));
            }
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_lines_arguments_and_blocks() {
        let text = "# a comment; {\nhttp {\n  a \"b c\" 'd;e' ${f}g;\n  location ~ \\.php$ { x; }\n content_by_lua_block { if { } }\n}\n";
        let http = &read(text, 0).unwrap()[0];
        assert_eq!((http.line, &*http.name, http.block.len()), (2, "http", 3));
        assert_eq!(http.block[0].arguments, ["b c", "d;e", "${f}g"]);
        assert_eq!(http.block[1].arguments, ["~", "\\.php$"]);
        assert_eq!((http.block[1].block[0].line, http.block[2].line), (4, 5));
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
}
