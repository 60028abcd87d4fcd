//! What becomes of whole configurations: which rules a request matches, as nginx would limit it.

mod files;
mod flow;
mod hosts;
mod keys;
mod late;
mod locations;
mod zones;

use smallvec::SmallVec;
use tidegate_limiter::{cluster::Rules, rules::HashSecret};

use super::*;

struct Made {
    imported: Imported,
    sources: Sources,
    rules: Rules,
}

fn import(text: &str) -> Made {
    made(|sources| sources.add("nginx.conf", text.as_bytes().to_vec()).unwrap())
}

fn made(add: impl FnOnce(&mut Sources)) -> Made {
    let mut sources = Sources::default();
    add(&mut sources);
    let imported = read(&mut sources).unwrap();
    let yaml = imported.to_yaml(&sources);
    let rules = Rules::from_yaml(&yaml, &HashSecret::new([0; 16])).unwrap_or_else(|_| panic!("{yaml}"));
    Made { imported, sources, rules }
}

impl Made {
    /// The rules that are about a request, by name without number and by burst: `a:3`.
    fn of(&self, attributes: &[(&str, &str)]) -> String {
        let mut found = SmallVec::new();
        self.rules.matching("default", attributes, &mut found);
        let mut names: Vec<String> = found
            .iter()
            .filter_map(|one| {
                let zone = one.rule.name().split('-').next().unwrap().to_owned();
                Some(format!("{zone}:{}", one.limit?.burst_size()))
            })
            .collect();
        names.sort();
        names.join(" ")
    }

    fn at(&self, host: &str, path: &str) -> String {
        self.of(&[("ip", "203.0.113.1"), ("host", host), ("path", path)])
    }

    fn lost(&self) -> Vec<(u64, &str)> {
        let lost = self.imported.remarks.iter().filter(|remark| remark.lost);
        lost.map(|remark| (remark.line, remark.message.as_str())).collect()
    }

    /// Without those of zones with several bursts: here they tell apart what is asked.
    fn lost_but_counts(&self) -> Vec<(u64, &str)> {
        self.lost().into_iter().filter(|(_, message)| !message.contains("counts them together")).collect()
    }

    fn notes(&self) -> Vec<(u64, &str)> {
        let notes = self.imported.remarks.iter().filter(|remark| !remark.lost);
        notes.map(|remark| (remark.line, remark.message.as_str())).collect()
    }
}

/// Zones `a` and `b`, by the client's address.
const ZONES: &str = "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
limit_req_zone $binary_remote_addr zone=b:1m rate=1r/m;
";

fn with_zones(text: &str) -> Made {
    import(&format!("{ZONES}{text}"))
}
