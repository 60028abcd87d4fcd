//! The commands, as `COMMAND` lists them: clients of clusters look up there which word of a command is its key.

use super::reply::Replies;

/// A command: its name, its number of words (negative: at least so many), and whether the word after the name is a key.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: &'static str,
    words: i64,
    has_key: bool,
}

const fn entry(name: &'static str, words: i64, has_key: bool) -> Entry {
    Entry { name, words, has_key }
}

const ENTRIES: [Entry; 31] = [
    entry("cl.throttle", -5, true),
    entry("cl.reset", 5, true),
    entry("throttle", -5, true),
    entry("throttle.reset", 5, true),
    entry("multi", 1, false),
    entry("exec", 1, false),
    entry("discard", 1, false),
    entry("watch", -2, true),
    entry("unwatch", 1, false),
    entry("ping", -1, false),
    entry("echo", 2, false),
    entry("hello", -1, false),
    entry("auth", -2, false),
    entry("select", 2, false),
    entry("client", -2, false),
    entry("command", -1, false),
    entry("config", -2, false),
    entry("info", -1, false),
    entry("role", 1, false),
    entry("cluster", -2, false),
    entry("readonly", 1, false),
    entry("readwrite", 1, false),
    entry("asking", 1, false),
    entry("del", -2, true),
    entry("unlink", -2, true),
    entry("exists", -2, true),
    entry("ttl", 2, true),
    entry("pttl", 2, true),
    entry("type", 2, true),
    entry("reset", 1, false),
    entry("quit", -1, false),
];

/// What of the table is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listing<'a> {
    All,
    Count,
    Names,
    /// Of these commands.
    Of(Vec<&'a [u8]>),
}

impl Listing<'_> {
    pub(super) fn answer(&self, to: &mut Replies<'_>) {
        match self {
            Self::Count => to.integer(ENTRIES.len() as i64),
            Self::Names => {
                to.array(ENTRIES.len());
                ENTRIES.iter().for_each(|entry| to.bulk(entry.name.as_bytes()));
            }
            Self::All => {
                to.array(ENTRIES.len());
                ENTRIES.iter().for_each(|entry| entry.write(to));
            }
            Self::Of(names) => {
                to.array(names.len());
                for name in names {
                    match ENTRIES.iter().find(|entry| name.eq_ignore_ascii_case(entry.name.as_bytes())) {
                        Some(entry) => entry.write(to),
                        None => to.null_array(),
                    }
                }
            }
        }
    }
}

impl Entry {
    fn write(&self, to: &mut Replies<'_>) {
        to.array(10);
        to.bulk(self.name.as_bytes());
        to.integer(self.words);
        let flags: &[&str] = if self.has_key { &["write", "fast"] } else { &["loading", "stale", "fast"] };
        to.array(flags.len());
        flags.iter().for_each(|flag| to.status(flag));
        // Of the first key, of the last one, and from one to the next.
        (0..3).for_each(|_| to.integer(i64::from(self.has_key)));
        // Categories of access, tips, specifications of keys, subcommands: there are none.
        (0..4).for_each(|_| to.array(0));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{command::Command, throttle::LastLimit},
        *,
    };

    #[test]
    fn each_command_of_the_table_is_known() {
        for Entry { name, words, .. } in ENTRIES {
            let mut command: Vec<&[u8]> = vec![b"0"; words.unsigned_abs() as usize];
            command[0] = name.as_bytes();
            if let Command::Refused(error) = Command::read(&command, &mut LastLimit::default()) {
                assert!(
                    !error.contains("unknown command") && !error.contains("number of arguments"),
                    "{error}"
                );
            }
        }
    }
}
