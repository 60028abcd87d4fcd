//! Bytes of a connection that speaks the Redis protocol.

use bytes::BytesMut;

use super::{
    command::Command,
    identity::Identity,
    reply::{Replies, Version},
    request::{MAX_COMMAND_BYTES, Malformed, Unquoted, first},
    throttle::LastLimit,
};
use crate::check::Subject;

/// Commands as their words, and what is wrong behind the last one.
type Read = (Vec<Vec<Vec<u8>>>, Option<Malformed>);

/// The first byte says into how many bytes the others are cut.
pub(crate) fn commands(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let whole = read(bytes, bytes.len());
    assert_eq!(read(bytes, 1 + usize::from(*piece)), whole, "how it is cut counts");
    let mut last = LastLimit::default();
    for words in whole.0.iter().filter(|words| !words.is_empty()) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        comes_again(&words);
        answer(&words, &mut last);
    }
}

/// Reads as a connection does whose client sends so many bytes at a time.
fn read(bytes: &[u8], piece: usize) -> Read {
    let (mut commands, mut at, mut end) = (Vec::new(), 0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + piece.max(1));
        loop {
            let unquoted = Unquoted::default();
            match first(&bytes[at..end], &unquoted) {
                Ok(Some((words, used))) => {
                    assert!(used > 0 && at + used <= end);
                    assert!(words.len() <= 64 && words.iter().all(|word| word.len() <= MAX_COMMAND_BYTES));
                    commands.push(words.iter().map(|word| word.to_vec()).collect());
                    at += used;
                }
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

/// As an array of bulk strings they are the same words, if that is not too long.
fn comes_again(words: &[&[u8]]) {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    if bytes.len() <= MAX_COMMAND_BYTES {
        let unquoted = Unquoted::default();
        let (again, used) = first(&bytes, &unquoted).expect("it is an array").expect("it is whole");
        assert_eq!((again.as_slice(), used), (words, bytes.len()));
    }
}

/// A command is understood, or refused in one line; and what is answered is one answer.
fn answer(words: &[&[u8]], last: &mut LastLimit) {
    for version in [Version::Two, Version::Three] {
        let mut out = BytesMut::new();
        let mut to = Replies { out: &mut out, version };
        match Command::read(words, last) {
            Command::Throttle(throttle) => {
                let Subject::Inline { limit, .. } = throttle.check().subject else {
                    panic!("it brings its limit");
                };
                assert!(limit.count() > 0 && limit.burst_size() > 0);
            }
            Command::Plain(plain) => plain.answer(&mut Identity::default(), &mut to),
            Command::Refused(error) => {
                to.error(&error);
                assert_eq!(out.iter().filter(|byte| byte.is_ascii_control()).count(), 2, "{error:?}");
            }
            Command::Control(_) | Command::About(_) | Command::Auth(_) | Command::CrossProtocol => {}
        }
        assert!(out.is_empty() || skip(&out).is_some_and(<[u8]>::is_empty), "{}", out.escape_ascii());
    }
}

/// What is behind the first answer, as a client reads it; `None`: it is none.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = (bytes.get(1..end)?, &bytes[end + 2..]);
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'+' | b'-' => Some(rest),
        b':' => number().map(|_| rest),
        b'_' => line.is_empty().then_some(rest),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Some(rest),
            Ok(length) => rest.get(length..)?.strip_prefix(b"\r\n"),
        },
        kind @ (b'*' | b'%') => {
            let count = number()?.max(0) * if kind == b'%' { 2 } else { 1 };
            (0..count).try_fold(rest, |rest, _| skip(rest))
        }
        _ => None,
    }
}
