//! The words of a command: an array of bulk strings, or a line typed by hand.
//!
//! Our own, because a server only ever reads these two forms and does so for every check: nothing is allocated, what a client
//! announces is compared with a limit before it is waited for, and lines by hand are read too. Crates that parse the protocol
//! read all that a *client* may get, nested without a limit, into a tree.

use smallvec::SmallVec;

/// Words of a command.
const MAX_WORDS: usize = 64;
/// Bytes of a command.
pub(super) const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Bytes of a line with a number, and of a command typed by hand.
const MAX_LINE_BYTES: usize = 4 << 10;

/// The words of a command, in the buffer.
pub(super) type Words<'b> = SmallVec<[&'b [u8]; 8]>;

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
pub(super) fn first(bytes: &[u8]) -> Result<Option<(Words<'_>, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'*') => array(bytes),
        Some(_) => by_hand(bytes),
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

/// Words with blanks between them, some in quotes.
fn by_hand(bytes: &[u8]) -> Result<Option<(Words<'_>, usize)>, Malformed> {
    let Some(end) = bytes.iter().take(MAX_LINE_BYTES + 1).position(|byte| *byte == b'\n') else {
        return if bytes.len() > MAX_LINE_BYTES { Err(Malformed::Line) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = Words::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let (word, behind) = match first {
            b'"' | b'\'' => {
                let close = rest[1..].iter().position(|byte| byte == first).ok_or(Malformed::Quotes)?;
                (&rest[1..=close], &rest[close + 2..])
            }
            _ => rest.split_at(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len())),
        };
        if words.len() == MAX_WORDS {
            return Err(Malformed::Words);
        }
        words.push(word);
        rest = behind.trim_ascii_start();
    }
    Ok(Some((words, end + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
        let (words, used) = first(bytes).unwrap().unwrap();
        (words.to_vec(), used)
    }

    #[test]
    fn both_forms_give_the_words() {
        assert_eq!(words(b"*2\r\n$4\r\nPING\r\n$2\r\na\n\r\nrest"), (vec![&b"PING"[..], b"a\n"], 22));
        assert_eq!(words(b"PING  \"a b\" 'c'\r\nrest"), (vec![&b"PING"[..], b"a b", b"c"], 17));
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
