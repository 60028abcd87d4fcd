//! The words of a command: an array of bulk strings, or a line typed by hand.
//!
//! Our own, because a server only ever reads these two forms and does so for every check: nothing is allocated, what a client
//! announces is compared with a limit before it is waited for, and lines by hand are read too. Crates that parse the protocol
//! read all that a *client* may get, nested without a limit, into a tree.

use std::cell::OnceCell;

use smallvec::SmallVec;

/// Words of a command.
const MAX_WORDS: usize = 64;
/// Bytes of a command.
pub(super) const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Bytes of a line with a number, and of a command typed by hand.
const MAX_LINE_BYTES: usize = 4 << 10;

/// The words of a command, in the buffer.
pub(super) type Words<'b> = SmallVec<[&'b [u8]; 8]>;

/// Where the words of a line lie that has quotes in it, without them. Of one command.
#[derive(Debug, Default)]
pub(super) struct Unquoted(OnceCell<Vec<u8>>);

impl Unquoted {
    pub(super) fn is_used(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Bytes that are not the protocol; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("Protocol error: expected '{expected}', got '{got}'", expected = char::from(*expected), got = got.escape_ascii())]
    Expected { expected: u8, got: u8 },
    #[error("Protocol error: invalid length")]
    Length,
    #[error("Protocol error: a command has at most {MAX_WORDS} words")]
    Words,
    #[error("Protocol error: a command has at most {MAX_COMMAND_BYTES} bytes")]
    Bytes,
    #[error("Protocol error: too long a line")]
    Line,
    #[error("Protocol error: unbalanced quotes")]
    Quotes,
}

/// The first command in `bytes` and how many bytes it has; `None`: more must come. No words at all are no command.
pub(super) fn first<'b>(
    bytes: &'b [u8],
    unquoted: &'b Unquoted,
) -> Result<Option<(Words<'b>, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'*') => array(bytes),
        Some(_) => by_hand(bytes, unquoted),
    }
}

fn array(bytes: &[u8]) -> Result<Option<(Words<'_>, usize)>, Malformed> {
    let mut words = Words::new();
    let Some((count, mut at)) = number(bytes, 0, b'*')? else { return Ok(None) };
    // No words, or null: Redis takes both for nothing.
    let Ok(count) = usize::try_from(count) else { return Ok(Some((words, at))) };
    if count > MAX_WORDS {
        return Err(Malformed::Words);
    }
    for _ in 0..count {
        let Some((length, start)) = number(bytes, at, b'$')? else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Malformed::Length)?;
        // Before it is waited for.
        if length > MAX_COMMAND_BYTES || start + length > MAX_COMMAND_BYTES {
            return Err(Malformed::Bytes);
        }
        let end = start + length;
        let Some(close) = bytes.get(end..end + 2) else { return Ok(None) };
        if close != b"\r\n" {
            return Err(Malformed::Expected { expected: b'\r', got: close[0] });
        }
        words.push(&bytes[start..end]);
        at = end + 2;
    }
    Ok(Some((words, at)))
}

/// The number in a line that begins with `kind`, and where the next line begins.
fn number(bytes: &[u8], at: usize, kind: u8) -> Result<Option<(i64, usize)>, Malformed> {
    /// A sign and all digits of 64 bits.
    const MAX_DIGITS: usize = 20;
    let line = &bytes[at..];
    match line.first() {
        None => return Ok(None),
        Some(first) if *first != kind => return Err(Malformed::Expected { expected: kind, got: *first }),
        Some(_) => {}
    }
    let digits = &line[1..];
    // As nearly all are: a digit or two.
    match digits {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => return Ok(Some((i64::from(a - b'0'), at + 4))),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            return Ok(Some((i64::from(a - b'0') * 10 + i64::from(b - b'0'), at + 5)));
        }
        _ => {}
    }
    let Some(length) = digits.iter().take(MAX_DIGITS + 1).position(|byte| *byte == b'\r') else {
        return if digits.len() > MAX_DIGITS { Err(Malformed::Length) } else { Ok(None) };
    };
    let number = std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse().ok());
    let number = number.ok_or(Malformed::Length)?;
    match digits.get(length + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((number, at + 1 + length + 2))),
        Some(other) => Err(Malformed::Expected { expected: b'\n', got: *other }),
    }
}

/// Words with blanks between them; in quotes there may be blanks and escapes, as redis-cli writes what it shows.
fn by_hand<'b>(bytes: &'b [u8], unquoted: &'b Unquoted) -> Result<Option<(Words<'b>, usize)>, Malformed> {
    let Some(end) = bytes.iter().take(MAX_LINE_BYTES + 1).position(|byte| *byte == b'\n') else {
        return if bytes.len() > MAX_LINE_BYTES { Err(Malformed::Line) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let has_quotes = line.iter().any(|byte| b"\"'".contains(byte));
    let words = if has_quotes { in_quotes(line, unquoted)? } else { split(line) };
    if words.len() > MAX_WORDS { Err(Malformed::Words) } else { Ok(Some((words, end + 1))) }
}

fn split(line: &[u8]) -> Words<'_> {
    line.split(|byte| is_blank(*byte)).filter(|word| !word.is_empty()).collect()
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// A quote may begin in a word, and ends it.
fn in_quotes<'b>(line: &[u8], unquoted: &'b Unquoted) -> Result<Words<'b>, Malformed> {
    let (mut text, mut ends): (Vec<u8>, SmallVec<[usize; 8]>) =
        (Vec::with_capacity(line.len()), SmallVec::new());
    let mut rest = line.iter().copied().peekable();
    while rest.by_ref().next_if(|byte| is_blank(*byte)).is_some() || rest.peek().is_some() {
        if rest.peek().is_none_or(|byte| is_blank(*byte)) {
            continue;
        }
        loop {
            match rest.next() {
                Some(quote @ (b'"' | b'\'')) => {
                    quoted(quote, &mut rest, &mut text)?;
                    if rest.peek().is_some_and(|byte| !is_blank(*byte)) {
                        return Err(Malformed::Quotes);
                    }
                    break;
                }
                Some(byte) if !is_blank(byte) => text.push(byte),
                _ => break,
            }
        }
        ends.push(text.len());
    }
    let text = unquoted.0.get_or_init(|| text);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    Ok(starts.zip(&ends).map(|(start, end)| &text[start..*end]).collect())
}

/// What stands in quotes; the first one has been read.
fn quoted(
    quote: u8,
    rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
    text: &mut Vec<u8>,
) -> Result<(), Malformed> {
    loop {
        match rest.next().ok_or(Malformed::Quotes)? {
            byte if byte == quote => return Ok(()),
            b'\\' if quote == b'"' => {
                let byte = match rest.next().ok_or(Malformed::Quotes)? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    b'x' => hexadecimal(rest).unwrap_or(b'x'),
                    other => other,
                };
                text.push(byte);
            }
            b'\\' if rest.peek() == Some(&quote) => text.extend(rest.next()),
            byte => text.push(byte),
        }
    }
}

/// Two digits, if there are two.
fn hexadecimal(rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> Option<u8> {
    let mut ahead = rest.clone();
    let mut digit = || ahead.next().and_then(|byte| char::from(byte).to_digit(16));
    let (high, low) = (digit()?, digit()?);
    *rest = ahead;
    u8::try_from(high << 4 | low).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The words of a command, and how many bytes it has.
    type Found = (Vec<Vec<u8>>, usize);

    fn first(bytes: &[u8]) -> Result<Option<Found>, Malformed> {
        let unquoted = Unquoted::default();
        let found = super::first(bytes, &unquoted)?;
        Ok(found.map(|(words, used)| (words.iter().map(|word| word.to_vec()).collect(), used)))
    }

    fn words(bytes: &[u8]) -> Found {
        first(bytes).unwrap().unwrap()
    }

    #[test]
    fn what_stands_in_quotes_is_read_as_redis_reads_it() {
        for (line, expected) in [
            (r#"ECHO "a\"b""#, &b"a\"b"[..]),
            (r"ECHO 'a\'b'", b"a'b"),
            (r#"ECHO "\x41\xzz""#, b"Axzz"),
            (r#"ECHO "a\n\r\t\b\a""#, b"a\n\r\t\x08\x07"),
            (r#"ECHO "\\""#, b"\\"),
            (r"ECHO 'a\nb'", br"a\nb"),
            (r#"ECHO a"b c""#, b"ab c"),
            (r#"ECHO """#, b""),
        ] {
            let (found, _) = words(format!("{line}\n").as_bytes());
            assert_eq!(found, [b"ECHO", expected], "{line}");
        }
        for line in [r#"ECHO "a"b"#, r#"ECHO "a"#, r#"ECHO "a\""#, "ECHO 'a'b", r#"ECHO "\"#] {
            assert_eq!(first(format!("{line}\n").as_bytes()), Err(Malformed::Quotes), "{line}");
        }
    }

    #[test]
    fn both_forms_give_the_words() {
        assert_eq!(
            words(b"*2\r\n$4\r\nPING\r\n$2\r\na\n\r\nrest"),
            (vec![b"PING".to_vec(), b"a\n".to_vec()], 22)
        );
        assert_eq!(
            words(b"PING  \"a b\" 'c'\r\nrest"),
            (vec![b"PING".to_vec(), b"a b".to_vec(), b"c".to_vec()], 17)
        );
        assert_eq!(words(b"\r\n"), (vec![], 2));
        assert_eq!(words(b"*0\r\n"), (vec![], 4));
        assert_eq!(words(b"*-1\r\n"), (vec![], 5));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_has_come() {
        assert_eq!(first(b"*65\r\n"), Err(Malformed::Words));
        assert_eq!(first(b"*1\r\n$99999999\r\n"), Err(Malformed::Bytes));
        assert_eq!(first(b"*1\r\n$-5\r\n"), Err(Malformed::Length));
        assert_eq!(first(b"*123456789012345678901234"), Err(Malformed::Length));
        assert_eq!(first(&[b'x'; MAX_LINE_BYTES + 1]), Err(Malformed::Line));
        assert_eq!(first(b"*1\r\n:5\r\n"), Err(Malformed::Expected { expected: b'$', got: b':' }));
        assert_eq!(first(b"*1\r\n$1\r\nabc"), Err(Malformed::Expected { expected: b'\r', got: b'b' }));
        assert_eq!(first(b"GET \"x\r\n"), Err(Malformed::Quotes));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some((_, used))) = first(&bytes) {
                prop_assert!(used > 0 && used <= bytes.len());
            }
        }

        #[test]
        fn a_command_is_the_same_however_it_is_cut(texts in proptest::collection::vec("[ -~]{0,40}", 1..10)) {
            let mut bytes = format!("*{}\r\n", texts.len()).into_bytes();
            for text in &texts {
                bytes.extend_from_slice(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
            }
            for end in 0..bytes.len() {
                prop_assert_eq!(first(&bytes[..end]), Ok(None));
            }
            let (found, used) = words(&bytes);
            prop_assert_eq!(used, bytes.len());
            prop_assert!(found.iter().zip(&texts).all(|(word, text)| *word == text.as_bytes()));
        }
    }
}
