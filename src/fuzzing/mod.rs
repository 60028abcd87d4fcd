//! What `fuzz/` calls with arbitrary bytes, for all that clients and files say. Each target asserts more than that nothing panics; it
//! stands beside what it looks at.

mod rules;

use crate::{client_address, grpc, gubernator, http, import, resp};

/// What a target is called, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; `fuzz/corpus` has a directory for each.
pub const TARGETS: &[Target] = &[
    ("resp", resp::fuzzing::commands),
    ("http_fast_path", http::fuzzing::requests),
    ("http_check", http::fuzzing::checks),
    ("http_auth", http::fuzzing::proxies),
    ("forwarded", client_address::fuzzing::forwarded),
    ("proxy_protocol", client_address::fuzzing::proxy_headers),
    ("grpc_envoy", grpc::fuzzing::descriptors),
    ("gubernator", gubernator::fuzzing::batches),
    ("rules", rules::files),
    ("limits", rules::limits),
    ("import_nginx", import::fuzzing::from_nginx),
    ("import_envoy", import::fuzzing::from_envoy),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn all_that_fuzzing_has_found_and_kept_is_taken() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
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

    /// An input in a directory of another name would be replayed by nobody.
    #[test]
    fn each_directory_of_inputs_is_one_of_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cluster = fs::read_to_string(root.join("cluster/src/fuzzing/mod.rs")).unwrap();
        let own: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        for directory in fs::read_dir(root.join("fuzz/corpus")).unwrap() {
            let name = directory.unwrap().file_name().into_string().unwrap();
            assert!(own.contains(&name) || cluster.contains(&format!("(\"{name}\", ")), "{name}");
        }
    }
}
