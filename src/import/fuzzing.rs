//! Configurations of other limiters.

use super::{
    envoy,
    imported::Imported,
    nginx,
    sources::{NotRead, Sources},
};

/// The bytes as a configuration of nginx, or the output of `nginx -T`.
pub(crate) fn from_nginx(data: &[u8]) {
    import(data, nginx::read);
}

/// The bytes as one of envoyproxy/ratelimit.
pub(crate) fn from_envoy(data: &[u8]) {
    import(data, envoy::read);
}

/// Whatever is made of a configuration, a node takes it, and each remark is about one of its lines.
fn import(data: &[u8], read: fn(&mut Sources) -> Result<Imported, NotRead>) {
    let mut sources = Sources::default();
    if sources.add("fuzz", data.to_vec()).is_err() {
        return;
    }
    let lines = data.split(|byte| *byte == b'\n').count() as u64;
    match read(&mut sources) {
        Ok(imported) => {
            let faults = imported.check(&sources).err().unwrap_or_default();
            assert!(faults.is_empty(), "{faults:?}\n{}", imported.to_yaml(&sources));
            assert!(imported.remarks.iter().all(|remark| remark.line <= lines), "{:?}", imported.remarks);
            let rules = imported.domains.iter().flat_map(|domain| &domain.rules);
            rules.for_each(|rule| assert!((1..=lines).contains(&rule.line), "{rule:?}"));
        }
        Err(NotRead { line, .. }) => assert!(line <= lines, "line {line} of {lines}"),
    }
}
