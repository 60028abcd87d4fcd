//! The promise: the software bill of materials names all that is in the program, and each of them with its licence and checksum.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

#[test]
fn the_bill_of_materials_is_that_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let written = match Command::new("python3").arg(root.join(".ci/sbom")).output() {
        Ok(written) => written,
        Err(error) => {
            println!("NOT TESTED: python3 cannot be started ({error})");
            return;
        }
    };
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let bill: Value = serde_json::from_slice(&written.stdout).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let program = &bill["metadata"]["component"];
    assert_eq!(program["version"], env!("CARGO_PKG_VERSION"));

    let components = bill["components"].as_array().unwrap();
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    let scopes: BTreeMap<String, &Value> = components.iter().map(|one| (name(one), &one["scope"])).collect();
    for linked in ["rustls", "ring", "redb", "openraft", "bincode", "tidegate-cluster"] {
        assert_eq!(scopes.get(linked), Some(&&Value::from("required")), "{linked}");
    }
    for only_built_with in ["serde_derive", "cc", "protox"] {
        assert_eq!(scopes.get(only_built_with), Some(&&Value::from("excluded")), "{only_built_with}");
    }
    for of_tests in ["proptest", "jepsen", "turmoil", "governor"] {
        assert_eq!(scopes.get(of_tests), None, "{of_tests}");
    }
    let is_ours = |one: &Value| name(one).starts_with("tidegate");
    for one in components {
        assert!(one["licenses"][0]["expression"].is_string(), "{one}");
        let checksum = one["hashes"][0]["content"].as_str().unwrap_or_default();
        assert!(checksum.len() == 64 || is_ours(one), "{one}");
    }
    // Each reference leads to one component, and from the program each is reached.
    let key = |one: &Value| one.as_str().unwrap().to_owned();
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in bill["dependencies"].as_array().unwrap() {
        let on = one["dependsOn"].as_array().unwrap().iter().map(key).collect();
        assert_eq!(needs.insert(key(&one["ref"]), on), None);
    }
    let mut open = vec![key(&program["bom-ref"])];
    let mut reached: BTreeSet<String> = open.iter().cloned().collect();
    while let Some(one) = open.pop() {
        let news = needs[&one].iter().filter(|on| reached.insert((*on).clone())).cloned();
        open.extend(news.collect::<Vec<_>>());
    }
    let all: BTreeSet<String> = components.iter().chain([program]).map(|one| key(&one["bom-ref"])).collect();
    assert_eq!(reached, all);
}
