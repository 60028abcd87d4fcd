//! What `fuzz/` calls with arbitrary bytes, for all that nodes read of each other and of their disks. Each target asserts more than
//! that nothing panics.
//!
//! - `stream`: greetings, records and frames. `messages`: what is in the frames. `disk`: what is in files.
//! - Gossip and the file of floors have theirs where they can see their insides.

mod disk;
mod messages;
mod stream;

use serde::{Serialize, de::DeserializeOwned};
use tidegate_proto::codec;

use crate::{gossip, ownership::floor_file};

/// What a target is called, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; `fuzz/corpus` has a directory for each.
pub const TARGETS: &[Target] = &[
    ("peer_stream", stream::stream),
    ("peer_messages", messages::messages),
    ("gossip", gossip::fuzzing::intake),
    ("disk", disk::disk),
    ("floor_file", floor_file::fuzzing::floors),
];

/// As much as any message may have.
const MAX_BYTES: usize = 1 << 24;

/// The message in some bytes, if there is one: written again, it is the same bytes.
fn exact<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let message: M = codec::decode(bytes).ok()?;
    assert_eq!(written(&message), bytes);
    Some(message)
}

/// The same of a message with a map or a duration, which have several spellings: written again, it stays the same.
fn stable<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let message: M = codec::decode(bytes).ok()?;
    let once = written(&message);
    assert!(once.len() <= bytes.len(), "it grows");
    let again: M = codec::decode(&once).expect("what was written can be read");
    assert_eq!(written(&again), once);
    Some(message)
}

fn written<M: Serialize>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes, MAX_BYTES).expect("what was read can be written");
    bytes
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn all_that_fuzzing_has_found_and_kept_is_taken() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(corpus.join(name)).expect(name).collect();
            assert!(!files.is_empty(), "{name}: there are no inputs");
            for file in files {
                let path = file.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                std::panic::catch_unwind(|| target(&bytes))
                    .unwrap_or_else(|_| panic!("{name}: {}", path.display()));
            }
        }
    }
}
