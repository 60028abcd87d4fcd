use proptest::prelude::*;

use super::*;
use crate::{
    frame::{MAX_CALL_BYTES, MAX_PAYLOAD_BYTES},
    peer::{Ping, Refused},
};

const KEY: [u8; 16] = [9; 16];

fn inbox(bytes: &[u8]) -> Inbox {
    Inbox::new(KEY, BytesMut::from(bytes), MAX_PAYLOAD_BYTES)
}

/// A record for each of the groups.
fn records(groups: &[&[u64]]) -> Vec<Vec<u8>> {
    let mut outbox = Outbox::new(KEY);
    groups
        .iter()
        .map(|ids| {
            ids.iter().for_each(|id| outbox.put(&Ping { id: *id }).unwrap());
            outbox.sealed().split().to_vec()
        })
        .collect()
}

/// The ids of all pings until more is needed.
fn pings(inbox: &mut Inbox) -> Result<Vec<u64>, RecordError> {
    let mut ids = Vec::new();
    while let Some(frame) = inbox.first()? {
        assert_eq!(frame.kind, Kind::Ping);
        let Ping { id } = codec::decode(frame.payload).unwrap();
        let length = frame.length;
        inbox.take(length);
        ids.push(id);
    }
    Ok(ids)
}

#[test]
fn the_seal_is_the_one_that_the_authors_of_siphash_print() {
    // The key 00 01 .. 0f and the input 00 01 .. 0e, of the test vectors of the reference implementation (128 bits): 15 bytes.
    // The number of the record is the first 8 of them.
    let key: [u8; 16] = std::array::from_fn(|i| i as u8);
    let mut seals = Seals::new(key);
    seals.next = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
    let seal = seals.of(&[8, 9, 10, 11, 12, 13, 14]).to_le_bytes();
    let hex: String = seal.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "5493e99933b0a8117e08ec0f97cfc3d9");
}

#[test]
fn frames_come_back_in_their_order_and_each_cut_asks_for_more() {
    let bytes = records(&[&[1, 2], &[3]]).concat();
    assert_eq!(pings(&mut inbox(&bytes)).unwrap(), [1, 2, 3]);
    for end in 0..bytes.len() {
        let mut inbox = inbox(&bytes[..end]);
        let ids = pings(&mut inbox).unwrap();
        assert!([1, 2, 3].starts_with(&ids) && ids.len() != 1, "half a record shows nothing: {ids:?}");
        assert_eq!(inbox.is_empty(), end == 0 || ids.len() == 2 && end == records(&[&[1, 2]])[0].len());
    }
}

#[test]
fn what_is_repeated_left_out_reordered_reflected_or_of_another_stream_does_not_fit() {
    let [one, two, three] = <[Vec<u8>; 3]>::try_from(records(&[&[1], &[2], &[3]])).unwrap();
    let forgeries = [
        ("repeated", [one.clone(), one.clone()].concat(), vec![1]),
        ("left out", [one.clone(), three.clone()].concat(), vec![1]),
        ("reordered", [one.clone(), three.clone(), two.clone()].concat(), vec![1]),
        ("its beginning left out", two.clone(), vec![]),
        ("a record put in", [one.clone(), vec![1, 0, 0, 0], vec![0; 17]].concat(), vec![1]),
    ];
    for (what, bytes, good) in forgeries {
        let mut inbox = inbox(&bytes);
        let mut ids = Vec::new();
        let error = loop {
            match inbox.first() {
                Ok(Some(frame)) => {
                    ids.push(codec::decode::<Ping>(frame.payload).unwrap().id);
                    let length = frame.length;
                    inbox.take(length);
                }
                Ok(None) => panic!("{what}: nothing was noticed"),
                Err(error) => break error,
            }
        };
        assert_eq!((error, ids), (RecordError::Seal, good), "{what}");
        assert_eq!(inbox.first(), Err(RecordError::Seal), "{what}: it stays so");
    }
    // The other direction, or another stream: another key.
    let mut other = Inbox::new([8; 16], BytesMut::from(&one[..]), MAX_PAYLOAD_BYTES);
    assert_eq!(other.first(), Err(RecordError::Seal));
}

#[test]
fn a_claimed_gigabyte_and_frames_that_lie_are_refused() {
    let mut huge = (1u32 << 30).to_le_bytes().to_vec();
    assert!(matches!(inbox(&huge).first(), Err(RecordError::TooLong { .. })), "from four bytes alone");
    huge[..4].fill(0);
    assert_eq!(inbox(&huge).first(), Err(RecordError::Frames));
    // A peer that holds the key, and seals nonsense.
    for (frames, wanted) in [
        (&[8u8, 9, 0, 0, 0, 1][..], RecordError::Frames),
        (&[8, 0], RecordError::Frames),
        (&[99, 0, 0, 0, 0], RecordError::Kind(99)),
        (&[8, 0xff, 0xff, 0xff, 0xff], RecordError::TooLong { length: u32::MAX as usize, limit: 1 << 20 }),
    ] {
        let seal = Seals::new(KEY).of(frames).to_le_bytes();
        let record = [&(frames.len() as u32).to_le_bytes()[..], &seal, frames].concat();
        assert_eq!(inbox(&record).first(), Err(wanted));
    }
}

#[test]
fn a_message_that_is_too_long_leaves_the_record_as_it_was() {
    let mut outbox = Outbox::new(KEY);
    let too_long = Refused { reason: "x".repeat(MAX_PAYLOAD_BYTES) };
    outbox.put(&too_long).unwrap_err();
    assert!(outbox.is_empty());
    outbox.put(&Ping { id: 1 }).unwrap();
    outbox.put(&too_long).unwrap_err();
    outbox.put(&Ping { id: 2 }).unwrap();
    let bytes = outbox.sealed().split();
    assert_eq!(pings(&mut inbox(&bytes)).unwrap(), [1, 2]);
}

#[test]
fn a_long_row_of_frames_is_cut_into_records_and_the_longest_call_fits() {
    let mut outbox = Outbox::new(KEY);
    for id in 0..10_000 {
        outbox.put(&Ping { id }).unwrap();
    }
    let bytes = outbox.sealed().split();
    assert!(bytes.len() < 10_000 * (8 + FRAME_HEADER_BYTES) + 10 * RECORD_HEADER_BYTES, "few records");
    assert_eq!(pings(&mut inbox(&bytes)).unwrap(), (0..10_000).collect::<Vec<_>>());

    struct Long(Vec<u8>);
    impl serde::Serialize for Long {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }
    impl Message for Long {
        const KIND: Kind = Kind::Call;
        const MAX_BYTES: usize = MAX_CALL_BYTES;
    }
    let mut outbox = Outbox::new(KEY);
    outbox.put(&Ping { id: 1 }).unwrap();
    outbox.put(&Long(vec![7; MAX_CALL_BYTES - 8])).unwrap();
    let mut inbox = Inbox::new(KEY, outbox.sealed().split(), MAX_CALL_BYTES);
    let ping = inbox.first().unwrap().unwrap().length;
    inbox.take(ping);
    assert_eq!(inbox.first().unwrap().unwrap().payload.len(), MAX_CALL_BYTES);
}

proptest! {
    /// However the bytes are cut up on the way, the same frames come out.
    #[test]
    fn any_cut_shows_the_same_frames(
        groups in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 1..5), 1..8),
        cuts in proptest::collection::vec(1usize..40, 1..200),
    ) {
        let borrowed: Vec<&[u64]> = groups.iter().map(Vec::as_slice).collect();
        let bytes = records(&borrowed).concat();
        let mut inbox = inbox(b"");
        let (mut rest, mut ids, mut cuts) = (&bytes[..], Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            inbox.unread().extend_from_slice(now);
            ids.extend(pings(&mut inbox).unwrap());
            rest = later;
        }
        prop_assert_eq!(ids, groups.concat());
        prop_assert!(inbox.is_empty());
    }

    /// Whatever is changed on the way: what comes out is a beginning of what was sent, and never anything else.
    #[test]
    fn what_was_changed_on_the_way_is_never_shown(
        groups in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 1..4), 1..6),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..4),
    ) {
        let borrowed: Vec<&[u64]> = groups.iter().map(Vec::as_slice).collect();
        let mut bytes = records(&borrowed).concat();
        let sent = bytes.clone();
        for (place, what, byte) in changes {
            if bytes.is_empty() { break; }
            let place = place.index(bytes.len());
            match what {
                0 => bytes[place] ^= 1 << (byte % 8),
                1 => bytes.truncate(place),
                2 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        let mut inbox = inbox(&bytes);
        let mut ids = Vec::new();
        let clean = loop {
            match inbox.first() {
                Ok(Some(frame)) => {
                    ids.push(codec::decode::<Ping>(frame.payload).unwrap().id);
                    let length = frame.length;
                    inbox.take(length);
                }
                Ok(None) => break inbox.is_empty(),
                Err(_) => break false,
            }
        };
        prop_assert!(groups.concat().starts_with(&ids));
        // All of it, and a clean end: then nothing was changed, or the changes have undone each other.
        if ids.len() == groups.concat().len() && clean {
            prop_assert_eq!(bytes, sent);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = inbox(&bytes).first();
        // Sealed by somebody who holds the key.
        let seal = Seals::new(KEY).of(&bytes).to_le_bytes();
        let record = [&(bytes.len() as u32).to_le_bytes()[..], &seal, &bytes].concat();
        let mut inbox = inbox(&record);
        while let Ok(Some(frame)) = inbox.first() {
            let length = frame.length;
            inbox.take(length);
        }
    }
}
