//! The variables of the environment that options are read from: an empty one is none, and one that no option has is named.

use std::{collections::BTreeSet, ffi::OsStr};

use clap::{Command, builder::Resettable};

const PREFIX: &str = "TIDEGATE_";
/// How like a known name another one must be to be taken for it, mistyped; both without the prefix.
const LIKE: f64 = 0.85;
/// What is read besides: by commands, so that a token is no flag; by test builds and `jepsen`.
const OTHERS: [&str; 3] = ["TIDEGATE_TOKEN", "TIDEGATE_PLANTED_BUG", "TIDEGATE_FAULTS"];

/// The same command line, whose options read no variable that is empty: templates write one for what is not given.
pub(super) fn without_empty(command: Command) -> Command {
    without(command, &|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
}

fn without(command: Command, is_empty: &impl Fn(&OsStr) -> bool) -> Command {
    let mut command = command.mut_args(|argument| match argument.get_env().map(is_empty) {
        Some(true) => argument.env(Resettable::Reset),
        _ => argument,
    });
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |one| without(one, is_empty));
    }
    command
}

/// A variable that looks like one of Tidegate's, and that nothing reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) name: String,
    /// What may have been meant.
    pub(super) meant: Option<String>,
}

/// The variables of this process's environment that nothing reads.
pub(super) fn unknown(command: &Command) -> Vec<Unknown> {
    let utf8 = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    unknown_of(command, std::env::vars_os().map(|(name, value)| (utf8(name), utf8(value))))
}

fn unknown_of(command: &Command, variables: impl Iterator<Item = (String, String)>) -> Vec<Unknown> {
    let mut known: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    collect(command, &mut known);
    let is_unknown = |(name, value): &(String, String)| {
        name.starts_with(PREFIX) && !known.contains(name) && !is_of_kubernetes(name, value)
    };
    let mut unknown: Vec<Unknown> = variables
        .filter(is_unknown)
        .map(|(name, _)| {
            let likeness = |other: &String| match (name.strip_prefix(PREFIX), other.strip_prefix(PREFIX)) {
                (Some(one), Some(other)) => strsim::jaro_winkler(one, other),
                _ => 0.0,
            };
            let nearest = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
            let meant = nearest.filter(|other| likeness(other) >= LIKE).cloned();
            Unknown { name, meant }
        })
        .collect();
    unknown.sort_by(|one, other| one.name.cmp(&other.name));
    unknown
}

/// Kubernetes tells each container of services by such variables: of one called `tidegate` too.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT") && is_address
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    known.extend(variables.map(str::to_owned));
    command.get_subcommands().for_each(|one| collect(one, known));
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::{super::CommandLine, *};

    #[test]
    fn a_variable_that_nothing_reads_is_named_with_what_may_have_been_meant() {
        let names = [
            "TIDEGATE_BOOTSTRAP_EXEPCT",
            "TIDEGATE_SOMETHING_OF_MINE",
            "TIDEGATE_ZONE",
            "TIDEGATE_NODE",
            "TIDEGATE_SERVICE_HOST",
            "TIDEGATE_PORT_7800_TCP",
            "TIDEGATE_BSE_PORT",
            "PATH",
        ];
        let of_kubernetes = ("TIDEGATE_PORT".to_owned(), "tcp://10.0.0.1:7800".to_owned());
        let variables = names.map(|name| (name.to_owned(), "3".to_owned())).into_iter();
        let found = unknown_of(&CommandLine::command(), variables.chain([of_kubernetes]));
        let meant = |name: &str, meant: Option<&str>| Unknown {
            name: name.to_owned(),
            meant: meant.map(str::to_owned),
        };
        assert_eq!(
            found,
            [
                meant("TIDEGATE_BOOTSTRAP_EXEPCT", Some("TIDEGATE_BOOTSTRAP_EXPECT")),
                meant("TIDEGATE_BSE_PORT", Some("TIDEGATE_BASE_PORT")),
                meant("TIDEGATE_SOMETHING_OF_MINE", None)
            ]
        );
    }

    #[test]
    fn an_empty_variable_is_none() {
        let command = without(CommandLine::command(), &|name| name == "TIDEGATE_WEIGHT");
        let serve = command.find_subcommand("serve").unwrap();
        let read = |long: &str| {
            let found = serve.get_arguments().find(|argument| argument.get_long() == Some(long));
            found.unwrap().get_env().is_some()
        };
        assert_eq!((read("weight"), read("zone")), (false, true));
        let matches = command.try_get_matches_from(["tidegate", "serve", "--weight", "7"]).unwrap();
        CommandLine::from_arg_matches(&matches).unwrap();
    }
}
