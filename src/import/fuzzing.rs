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
    let is_in_it = |sources: &Sources, line, from: u64| (from..=lines).contains(&sources.place(line).line);
    match read(&mut sources) {
        Ok(imported) => {
            let faults = imported.check(&sources).err().unwrap_or_default();
            assert!(faults.is_empty(), "{faults:?}\n{}", imported.to_yaml(&sources));
            let strays = imported.remarks.iter().find(|remark| !is_in_it(&sources, remark.line, 0));
            assert!(strays.is_none(), "{strays:?}");
            let mut rules = imported.domains.iter().flat_map(|domain| &domain.rules);
            let stray = rules.find(|rule| !is_in_it(&sources, rule.line, 1));
            assert!(stray.is_none(), "{stray:?}");
        }
        Err(NotRead { line, .. }) => assert!(is_in_it(&sources, line, 0), "line {line} of {lines}"),
    }
}
