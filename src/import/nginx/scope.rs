//! `limit_req`: where, and with which burst. A block has the ones of the block around it, unless it has some of its own.

use super::{super::imported::Imported, syntax::Directive};

/// A use of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Use {
    pub(super) zone: String,
    pub(super) burst: u64,
    pub(super) delays: bool,
    pub(super) shadow: bool,
}

/// That, with its line.
pub(super) type Way = (u64, Use);

/// What holds in a block, unless something deeper says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) uses: Vec<Way>,
    dry_run: bool,
}

impl Scope {
    /// Whether the same is limited in the same way.
    pub(super) fn limits_as(&self, other: &Self) -> bool {
        let (own, others) = (self.uses.iter(), other.uses.iter());
        own.map(|(_, used)| used).eq(others.map(|(_, used)| used))
    }

    /// What a block says of limits, on top of what is around it.
    pub(super) fn of(block: &[Directive], outer: &Self, imported: &mut Imported) -> Self {
        let mut scope = Self { dry_run: outer.dry_run, uses: Vec::new() };
        if let Some(dry_run) = block.iter().find(|one| one.name == "limit_req_dry_run") {
            scope.dry_run = dry_run.arguments.iter().any(|argument| argument == "on");
        }
        for one in block {
            match &*one.name {
                "limit_req" => {
                    if let Some(found) = used(one, scope.dry_run, imported) {
                        scope.uses.push((one.line, found));
                    }
                }
                "limit_conn" | "limit_conn_zone" | "limit_rate" => {
                    imported
                        .lost(one.line, format!("{}: connections and bytes are not limited here", one.name));
                }
                "limit_req_status" if one.arguments != ["429"] => {
                    let status = one.arguments.join(" ");
                    imported.note(one.line, format!("limit_req_status {status}: a denial is answered 429 (?deny_status= of /v1/auth says another)"));
                }
                _ => {}
            }
        }
        if scope.uses.is_empty() {
            scope.uses = outer.uses.clone();
            for (_, used) in &mut scope.uses {
                used.shadow = scope.dry_run;
            }
        }
        scope
    }
}

fn used(directive: &Directive, shadow: bool, imported: &mut Imported) -> Option<Use> {
    let mut found = Use { zone: String::new(), burst: 0, delays: true, shadow };
    for argument in &directive.arguments {
        match argument.split_once('=') {
            Some(("zone", zone)) => found.zone = zone.to_owned(),
            Some(("burst", burst)) => match burst.parse::<u32>() {
                Ok(burst) => found.burst = burst.into(),
                Err(_) => {
                    imported.lost(directive.line, format!("limit_req: burst={burst} is no whole number"));
                    return None;
                }
            },
            Some(("delay", _)) => {
                imported.note(
                    directive.line,
                    format!("limit_req: {argument}: as many are admitted, but none of them waits"),
                );
                found.delays = false;
            }
            _ if argument == "nodelay" => found.delays = false,
            _ => imported.lost(directive.line, format!("limit_req: {argument} is not known")),
        }
    }
    if found.burst == 0 {
        found.delays = false;
    }
    if found.delays {
        imported.note(
            directive.line,
            "limit_req without nodelay: requests that exceed the rate wait in nginx; here delay_ms says how long they should, and /v1/auth lets them through at once",
        );
    }
    Some(found)
}
