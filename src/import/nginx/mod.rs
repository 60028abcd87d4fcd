//! nginx: `limit_req_zone` says by what, at which rate; `limit_req` says where, with which burst.
//!
//! A zone with a burst of b admits b + 1 requests at once and then its rate: a token bucket, or without `nodelay` a leaky
//! bucket, whose requests wait for their turn.
//!
//! - `files` follows includes, `syntax` reads them;
//! - `definition`, `variables` and `zone`: what the key of a zone is for which requests;
//! - `server`, `location` and `scope`: which server and which location a request reaches, and which limits hold there;
//! - `rules` turns that round, from limits to conditions. Requests are divided into cells (`space`) by all the patterns of
//!   the configuration; for each cell it is asked what nginx would do, as nginx asks.

mod definition;
mod files;
mod glob;
mod location;
mod pattern;
mod regex;
mod rules;
mod scope;
mod server;
mod space;
mod syntax;
mod variables;
mod zone;

use self::{
    rules::Rules, scope::Scope, server::Server, syntax::Directive, variables::Variables, zone::Zones,
};
use super::{
    imported::{Domain, Imported, NotRead},
    sources::Sources,
};

/// Reads a configuration, or a part of one.
pub(crate) fn read(sources: &mut Sources) -> Result<Imported, NotRead> {
    let mut imported = Imported::default();
    let directives = files::read(sources, &mut imported)?;
    // A file of `sites-enabled` has no block for http.
    let inside: Vec<Directive> = directives
        .into_iter()
        .flat_map(|one| match &*one.name {
            "http" => one.block.unwrap_or_default(),
            _ => vec![one],
        })
        .collect();
    let variables = Variables::read(&inside, &mut imported);
    let zones = Zones::read(&inside, &variables, &mut imported);
    let outer = Scope::of(&inside, &Scope::default(), &mut imported);
    let servers: Vec<Server> = inside
        .iter()
        .filter(|one| one.name == "server" && one.block.is_some())
        .map(|one| Server::read(one, &outer, &mut imported))
        .collect();
    if zones.is_empty() && servers.is_empty() {
        imported.lost(0, "there is neither limit_req_zone nor a server in what was read");
    }
    let ports = server::ports(&servers, &mut imported);
    let rules = match rules::spaces(&servers) {
        Some((hosts, paths)) => {
            Rules::new(&zones, &servers, &ports, &hosts, &paths).make(&mut imported)
        }
        None => {
            let message = format!("more than {} names or locations", space::MAX_PATTERNS);
            return Err(NotRead { line: servers.first().map_or(0, |server| server.line), message });
        }
    };
    imported.domains.push(Domain { name: "default".to_owned(), rules });
    imported.sort();
    Ok(imported)
}

#[cfg(test)]
mod tests;
