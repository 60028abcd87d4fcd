//! nginx: `limit_req_zone` says by what, at which rate; `limit_req` says where, with which burst.
//!
//! A zone with a burst of b admits b + 1 requests at once and then its rate: a token bucket, or without `nodelay` a leaky
//! bucket, whose requests wait for their turn.
//!
//! - `files` follows includes, `syntax` reads them;
//! - `definition`, `variables`, `zone` and `key`: what the key of a zone is for which requests; `kept`: what they say too early;
//! - `server`, `location` and `scope`: which server and which location a request reaches, and which limits hold there;
//! - `flow`: the way of a request through a server, by `step` (`condition`), `pages` and `index`; `late`: what it is then;
//! - `rules` turns that round, from limits to conditions. Requests are divided into cells (`space`) by all the patterns of
//!   the configuration; for each cell it is asked what nginx would do, as nginx asks.

mod condition;
mod definition;
mod files;
mod flow;
mod glob;
mod index;
mod kept;
mod key;
mod late;
mod location;
mod matcher;
mod pages;
mod pattern;
mod reached;
mod regex;
mod rules;
mod scope;
mod server;
mod space;
mod step;
mod syntax;
mod variables;
mod written;
mod zone;

use self::{
    location::Outer, rules::Rules, server::Server, syntax::Directive, variables::Variables, zone::Zones,
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
    for stream in directives.iter().filter(|one| one.name == "stream") {
        tell_stream(stream.inside(), &mut imported);
    }
    let inside: Vec<Directive> = directives
        .into_iter()
        .flat_map(|one| match &*one.name {
            "http" => one.block.unwrap_or_default(),
            _ => vec![one],
        })
        .collect();
    let variables = Variables::read(&inside, &mut imported);
    kept::tell(&inside, &variables, &mut imported);
    let zones = Zones::read(&inside, &variables, &mut imported);
    let outer = Outer::of(&inside, &mut imported);
    let is_server = |one: &&Directive| one.name == "server" && one.block.is_some();
    let mut servers: Vec<Server> =
        inside.iter().filter(is_server).map(|one| Server::read(one, &outer, &mut imported)).collect();
    let is_limit = |one: &&Directive| ["limit_req", "location"].contains(&&*one.name);
    let line = inside.iter().find(is_limit).map(|one| one.line);
    if zones.is_empty() && servers.is_empty() && line.is_none() {
        imported.lost(0, "there is neither limit_req_zone nor a server in what was read");
    }
    if let Some(line) = line.filter(|_| servers.is_empty()) {
        // A part of a server, or what holds for all of them.
        imported.note(line, "there is no server in what was read: this is for all hosts");
        let all = Directive { line, name: "server".to_owned(), arguments: Vec::new(), block: Some(inside) };
        servers.push(Server::read(&all, &Outer::default(), &mut imported));
    } else {
        for one in inside.iter().filter(|one| one.name == "location") {
            imported.lost(one.line, "location: it is in no server, so it is not known whose it is");
        }
    }
    let ports = server::ports(&servers);
    server::tell_conflicts(&servers, &ports, &mut imported);
    let rules = match rules::spaces(&servers) {
        Some((hosts, paths)) => Rules::new(&zones, &servers, &ports, &hosts, &paths).make(&mut imported),
        None => {
            let message = format!("more than {} names or locations", space::MAX_PATTERNS);
            return Err(NotRead { line: servers.first().map_or(0, |server| server.line), message });
        }
    };
    imported.domains.push(Domain { name: "default".to_owned(), rules });
    imported.sort();
    Ok(imported)
}

/// TCP and UDP, where nginx can limit no requests.
fn tell_stream(block: &[Directive], imported: &mut Imported) {
    for one in block {
        if one.name.starts_with("limit_conn") {
            imported.lost(one.line, format!("{} of stream: connections are not limited here", one.name));
        }
        tell_stream(one.inside(), imported);
    }
}

#[cfg(test)]
mod tests;
