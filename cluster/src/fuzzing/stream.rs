//! The bytes of a stream between nodes: a greeting, then records with frames in them.

use std::hash::Hasher as _;

use bytes::BytesMut;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tidegate_proto::{
    Greeting, GreetingError, Inbox, RecordError,
    greeting::GREETING_BYTES,
    record::{RECORD_HEADER_BYTES, SEAL_KEY_BYTES},
};

const KEY: [u8; SEAL_KEY_BYTES] = *b"fuzz, fuzz, fuzz";
/// Longest payload that is accepted.
const LIMIT: usize = 512;

/// The bytes as a greeting; as records that nobody has sealed; and as what records hold that a node with the key has sealed.
pub(super) fn stream(data: &[u8]) {
    greeting(data);
    let (frames, _) = read(data, data.len());
    assert!(frames.is_empty(), "frames without a seal are shown");

    let Some((&[piece, low, high], rest)) = data.split_first_chunk() else { return };
    let contents = contents(rest);
    let sealed = sealed(&contents);
    let whole = read(&sealed, sealed.len());
    assert_eq!(read(&sealed, 1 + usize::from(piece)), whole, "how it is cut counts");
    let all = contents.concat();
    assert!(all.starts_with(&whole.0), "frames are shown that were not sent");
    assert!(whole.1.is_some() || whole.0 == all, "frames are missing");

    let mut damaged = sealed;
    let place = usize::from(u16::from_le_bytes([low, high]));
    if let Some(byte) = damaged.get_mut(place) {
        *byte ^= 1 << (piece % 8);
        let (frames, _) = read(&damaged, damaged.len());
        let untouched: usize =
            ends(&contents).take_while(|(end, _)| *end <= place).map(|(_, length)| length).sum();
        assert!(whole.0.starts_with(&frames) && frames.len() <= untouched, "a changed record is shown");
    }
}

fn greeting(bytes: &[u8]) {
    let whole = Greeting::first(bytes);
    for end in 0..bytes.len().min(GREETING_BYTES + 1) {
        match Greeting::first(&bytes[..end]) {
            Ok(None) => {}
            // It repeats as much as has come.
            Err(GreetingError::Magic(_)) => assert!(matches!(whole, Err(GreetingError::Magic(_)))),
            decided => assert_eq!(decided, whole),
        }
    }
    if let Ok(Some((greeting, length))) = whole {
        let again = greeting.to_bytes();
        assert_eq!(Greeting::first(&again), Ok(Some((greeting, length))));
        assert!(again.len() == length && length <= bytes.len());
    }
}

/// What each record holds: a byte says how long it is.
fn contents(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut contents = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let (record, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        contents.push(record);
        rest = behind;
    }
    contents
}

/// As `docs/decisions/012-sealed-peer-streams.md` has it, and not by the code that is tested.
fn sealed(contents: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (number, frames) in contents.iter().enumerate() {
        let mut seal = SipHasher24::new_with_key(&KEY);
        seal.write(&(number as u64).to_le_bytes());
        seal.write(frames);
        stream.extend_from_slice(&(frames.len() as u32).to_le_bytes());
        stream.extend_from_slice(&seal.finish128().as_u128().to_le_bytes());
        stream.extend_from_slice(frames);
    }
    stream
}

/// Where each record ends in the stream, and how long its frames are.
fn ends(contents: &[&[u8]]) -> impl Iterator<Item = (usize, usize)> {
    contents.iter().scan(0, |end, frames| {
        *end += RECORD_HEADER_BYTES + frames.len();
        Some((*end, frames.len()))
    })
}

/// The frames that are shown, as bytes, and what is wrong behind them.
fn read(stream: &[u8], piece: usize) -> (Vec<u8>, Option<RecordError>) {
    let mut inbox = Inbox::new(KEY, BytesMut::new(), LIMIT);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        inbox.unread().extend_from_slice(piece);
        loop {
            match inbox.first() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= LIMIT);
                    frames.push(frame.kind as u8);
                    frames.extend_from_slice(&(frame.payload.len() as u32).to_le_bytes());
                    frames.extend_from_slice(frame.payload);
                    let length = frame.length;
                    inbox.take(length);
                }
                Err(error) => {
                    assert_eq!(inbox.first().map(|_| ()), Err(error), "it comes again");
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}
