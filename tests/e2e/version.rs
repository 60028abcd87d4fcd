//! The promise: what is tested here is the program that ships.

use std::process::Command;

use crate::kit;

/// Another package that turns on a feature of the cluster crate would turn it on in this program too: cargo unites the features
/// of all that it builds at once.
#[test]
fn the_program_under_test_has_the_features_of_a_release() {
    if std::env::var_os("TIDEGATE_TEST_BINARY").is_some() {
        // Whoever names another program wants that one.
        return;
    }
    let told = Command::new(kit::binary()).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.trim_end(), format!("tidegate {}", env!("CARGO_PKG_VERSION")));
}
