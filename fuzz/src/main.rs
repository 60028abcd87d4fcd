//! The fuzzer: libFuzzer, and one target of all that the crates have, by the name in `TIDEGATE_FUZZ_TARGET`. One program for all of
//! them, because linking it takes longer than anything else. `fuzz/run` builds and starts it.

#![no_main]

mod memory;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

static TARGET: OnceLock<Target> = OnceLock::new();

/// More than any target needs for an input of this length; what takes more could be made to take all that there is.
fn allowance(input: usize) -> usize {
    (64 << 20) + 256 * input
}

fn choose() {
    let known = || tidegate::fuzzing::TARGETS.iter().chain(tidegate_cluster::fuzzing::TARGETS);
    let name = std::env::var("TIDEGATE_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = known().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = known().map(|(name, _)| *name).collect();
        eprintln!("there is no target {name:?}; there are: {}", names.join(", "));
        std::process::exit(2);
    };
    TARGET.set(*target).expect("it is chosen once");
}

fuzz_target!(
    init: choose(),
    |data: &[u8]| {
        let target = TARGET.get().expect("it was chosen");
        let most = memory::most_during(|| target(data));
        assert!(most <= allowance(data.len()), "{most} bytes of memory for an input of {}", data.len());
    }
);
