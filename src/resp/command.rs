//! What each command does. Besides the one that decides there are those that clients send before and around it.

use std::fmt;

use super::{
    about::About,
    identity::{Identity, checked_name},
    reply::{Replies, Version},
    table::Listing,
    throttle::{LastLimit, Throttle},
};

/// Bytes of a name in an error.
const SHOWN: usize = 64;
/// What to do instead of `DEL`.
const HOW_TO_RESET: &str = "To fill one again, say which: CL.RESET key max_burst count period (after CL.THROTTLE), or THROTTLE.RESET (after THROTTLE)";
/// What to do instead of `EXISTS`, `TTL`.
const HOW_TO_LOOK: &str = "To look at one, ask for nothing: CL.THROTTLE key max_burst count period 0; its last number is the time until it is full, and forgotten";

/// What a command is.
pub(super) enum Command<'a> {
    /// To be decided.
    Throttle(Throttle<'a>),
    /// About the connection itself.
    Control(Control),
    /// Answered from what is known.
    Plain(Plain<'a>),
    /// Answered from what the node knows of itself.
    About(About<'a>),
    /// A token is presented.
    Auth(Auth<'a>),
    /// Not to be served.
    Refused(String),
    /// Not our protocol: somebody makes a browser talk to us.
    CrossProtocol,
}

/// A command that decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plain<'a> {
    Ping(Option<&'a [u8]>),
    Echo(&'a [u8]),
    Hello(Hello<'a>),
    SetName(&'a [u8]),
    GetName,
    Id,
    Ok,
    /// An empty map.
    NoSettings,
    Listing(Listing<'a>),
    Reset,
    Quit,
}

/// What a client says of itself. What it leaves out stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hello<'a> {
    pub(super) version: Option<Version>,
    pub(super) name: Option<&'a [u8]>,
}

/// What presents a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Auth<'a> {
    pub(super) token: &'a [u8],
    /// `HELLO` does so too.
    pub(super) hello: Option<Hello<'a>>,
}

/// Without the token, which is a secret.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// A command about the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Multi,
    Exec,
    Discard,
    Watch,
    Reply(ReplyMode),
}

/// What a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    Skip,
}

impl<'a> Command<'a> {
    /// Reads the words of a command, of which there is at least one.
    pub(super) fn read(words: &[&'a [u8]], limit: &mut LastLimit) -> Self {
        if let Some(read) = Throttle::read(words, limit) {
            return read.map_or_else(Self::Refused, Self::Throttle);
        }
        let [name, arguments @ ..] = words else { return Self::Refused("ERR no command".to_owned()) };
        let name = name.to_ascii_lowercase();
        let plain = match (name.as_slice(), arguments) {
            (b"post" | b"host:", _) => return Self::CrossProtocol,
            (b"multi", []) => return Self::Control(Control::Multi),
            (b"exec", []) => return Self::Control(Control::Exec),
            (b"discard", []) => return Self::Control(Control::Discard),
            (b"watch", [_, ..]) => return Self::Control(Control::Watch),
            (b"ping", []) => Plain::Ping(None),
            (b"ping", [text]) => Plain::Ping(Some(text)),
            (b"echo", [text]) => Plain::Echo(text),
            (b"hello", _) => return Self::hello(arguments),
            // The name is whatever clients call the user; a token says whose it is.
            (b"auth", [token] | [_, token]) => return Self::Auth(Auth { token, hello: None }),
            (b"select", [b"0"]) | (b"unwatch" | b"readonly" | b"readwrite" | b"asking", []) => Plain::Ok,
            (b"select", [_]) => {
                return Self::Refused("ERR DB index is out of range: there is only 0".to_owned());
            }
            (b"client", [first, rest @ ..]) => return Self::client(first, rest),
            (b"command", []) => Plain::Listing(Listing::All),
            (b"command", [first, rest @ ..]) => match first.to_ascii_lowercase().as_slice() {
                b"count" => Plain::Listing(Listing::Count),
                b"list" => Plain::Listing(Listing::Names),
                b"info" if rest.is_empty() => Plain::Listing(Listing::All),
                b"info" => Plain::Listing(Listing::Of(rest.to_vec())),
                b"docs" => Plain::NoSettings,
                _ => return Self::unknown_subcommand("COMMAND", first),
            },
            // What redis-benchmark asks before it begins.
            (b"config", [first, ..]) if first.eq_ignore_ascii_case(b"get") => Plain::NoSettings,
            (b"config", [first, ..]) => return Self::unknown_subcommand("CONFIG", first),
            (b"info", sections) => return Self::About(About::Info(sections.to_vec())),
            (b"role", []) => return Self::About(About::Role),
            (b"cluster", [first, ..]) => {
                return About::cluster(first)
                    .map_or_else(|| Self::unknown_subcommand("CLUSTER", first), Self::About);
            }
            (b"del" | b"unlink", [_, ..]) => return Self::of_key(&name, HOW_TO_RESET),
            (b"exists", [_, ..]) | (b"ttl" | b"pttl" | b"type", [_]) => {
                return Self::of_key(&name, HOW_TO_LOOK);
            }
            (b"reset", []) => Plain::Reset,
            (b"quit", _) => Plain::Quit,
            (
                b"multi" | b"exec" | b"discard" | b"watch" | b"unwatch" | b"ping" | b"echo" | b"auth"
                | b"select" | b"client" | b"config" | b"role" | b"cluster" | b"readonly" | b"readwrite"
                | b"asking" | b"del" | b"unlink" | b"exists" | b"ttl" | b"pttl" | b"type" | b"reset",
                _,
            ) => {
                return Self::Refused(format!("ERR wrong number of arguments for '{}'", shown(&name)));
            }
            _ => {
                return Self::Refused(format!(
                    "ERR unknown command '{}': this is a rate limiter; it has CL.THROTTLE, THROTTLE, CL.RESET, THROTTLE.RESET, and what COMMAND LIST names",
                    shown(&name)
                ));
            }
        };
        Self::Plain(plain)
    }

    fn client(subcommand: &[u8], rest: &[&'a [u8]]) -> Self {
        let plain = match (subcommand.to_ascii_lowercase().as_slice(), rest) {
            (b"reply", [mode]) => match mode.to_ascii_lowercase().as_slice() {
                b"on" => return Self::Control(Control::Reply(ReplyMode::On)),
                b"off" => return Self::Control(Control::Reply(ReplyMode::Off)),
                b"skip" => return Self::Control(Control::Reply(ReplyMode::Skip)),
                _ => {
                    return Self::Refused(format!(
                        "ERR syntax error in CLIENT REPLY at '{}': it takes ON, OFF or SKIP",
                        shown(mode)
                    ));
                }
            },
            (b"reply", _) => {
                return Self::Refused("ERR wrong number of arguments for 'client|reply'".to_owned());
            }
            (b"setname", [name]) => match checked_name(name) {
                Ok(name) => Plain::SetName(name),
                Err(error) => return Self::Refused(error),
            },
            (b"setinfo" | b"no-evict" | b"no-touch", _) => Plain::Ok,
            (b"getname", []) => Plain::GetName,
            (b"id", []) => Plain::Id,
            (b"setname" | b"getname" | b"id", _) => {
                let name = shown(subcommand).to_ascii_lowercase();
                return Self::Refused(format!("ERR wrong number of arguments for 'client|{name}'"));
            }
            _ => return Self::unknown_subcommand("CLIENT", subcommand),
        };
        Self::Plain(plain)
    }

    fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Self {
        Self::Refused(format!("ERR unknown subcommand '{}' of {command}", shown(subcommand)))
    }

    /// A command about a key alone. The limit comes with each check, so a key has as many buckets as it was asked with limits,
    /// and no node knows with which.
    fn of_key(name: &[u8], what_to_do: &str) -> Self {
        let name = shown(name).to_ascii_uppercase();
        Self::Refused(format!(
            "ERR {name}: a key has a bucket for each limit that it is asked with. {what_to_do}"
        ))
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`
    fn hello(arguments: &[&'a [u8]]) -> Self {
        let (version, mut options) = match arguments {
            [] => return Self::Plain(Plain::Hello(Hello::default())),
            [b"2", options @ ..] => (Version::Two, options),
            [b"3", options @ ..] => (Version::Three, options),
            _ => return Self::Refused("NOPROTO unsupported protocol version: there are 2 and 3".to_owned()),
        };
        let (mut token, mut hello) = (None, Hello { version: Some(version), name: None });
        loop {
            options = match options {
                [] => {
                    return match token {
                        None => Self::Plain(Plain::Hello(hello)),
                        Some(token) => Self::Auth(Auth { token, hello: Some(hello) }),
                    };
                }
                [word, name, rest @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                    match checked_name(name) {
                        Ok(name) => hello.name = Some(name),
                        Err(error) => return Self::Refused(error),
                    }
                    rest
                }
                [word, _, password, rest @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    token = Some(*password);
                    rest
                }
                [word, ..] => {
                    return Self::Refused(format!("ERR syntax error in HELLO at '{}'", shown(word)));
                }
            };
        }
    }
}

impl Plain<'_> {
    pub(super) fn answer(&self, identity: &mut Identity, to: &mut Replies<'_>) {
        match self {
            Self::Ping(None) => to.status("PONG"),
            Self::Ping(Some(text)) | Self::Echo(text) => to.bulk(text),
            Self::Hello(Hello { version, name }) => {
                to.version = version.unwrap_or(to.version);
                if let Some(name) = name {
                    identity.name = name.to_vec();
                }
                let texts = [("server", "tidegate"), ("version", env!("CARGO_PKG_VERSION"))];
                to.map(7);
                for (name, value) in texts {
                    to.bulk(name.as_bytes());
                    to.bulk(value.as_bytes());
                }
                to.bulk(b"proto");
                to.integer(to.version.number());
                to.bulk(b"id");
                to.integer(identity.id);
                for (name, value) in [("mode", "cluster"), ("role", "master")] {
                    to.bulk(name.as_bytes());
                    to.bulk(value.as_bytes());
                }
                to.bulk(b"modules");
                to.array(0);
            }
            Self::Ok | Self::Quit => to.status("OK"),
            Self::NoSettings => to.map(0),
            Self::SetName(name) => {
                identity.name = name.to_vec();
                to.status("OK");
            }
            Self::GetName if identity.name.is_empty() => to.null(),
            Self::GetName => to.bulk(&identity.name),
            Self::Id => to.integer(identity.id),
            Self::Listing(listing) => listing.answer(to),
            Self::Reset => {
                to.version = Version::Two;
                identity.name.clear();
                to.status("RESET");
            }
        }
    }
}

fn shown(name: &[u8]) -> String {
    name.iter().take(SHOWN).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn answer(words: &[&str]) -> String {
        answer_to(&mut Identity { id: 7, name: Vec::new() }, words)
    }

    fn answer_to(identity: &mut Identity, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut out = BytesMut::new();
        let mut to = Replies { out: &mut out, version: Version::Two };
        match Command::read(&words, &mut LastLimit::default()) {
            Command::Plain(plain) => plain.answer(identity, &mut to),
            Command::Refused(error) => to.error(&error),
            _ => panic!("{words:?}"),
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_clients_send_around_a_check_is_answered() {
        assert_eq!(answer(&["PING"]), "+PONG\r\n");
        assert_eq!(answer(&["ping", "x"]), "$1\r\nx\r\n");
        assert_eq!(answer(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"]), "+OK\r\n");
        assert_eq!(answer(&["SELECT", "0"]), "+OK\r\n");
        assert!(answer(&["SELECT", "1"]).starts_with("-ERR"));
        assert!(answer(&["HELLO", "3"]).starts_with("%7\r\n$6\r\nserver\r\n"));
        assert!(answer(&["HELLO", "2", "SETNAME", "me"]).starts_with("*14\r\n"));
        assert!(answer(&["HELLO", "4"]).starts_with("-NOPROTO"));
        assert!(answer(&["GET", "x"]).starts_with("-ERR unknown command 'get'"));
        assert_eq!(answer(&["COMMAND", "DOCS"]), "*0\r\n");
        assert_eq!(answer(&["COMMAND", "INFO", "get"]), "*1\r\n*-1\r\n");
        let throttle = "*10\r\n$11\r\ncl.throttle\r\n:-5\r\n*2\r\n+write\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n";
        assert_eq!(answer(&["COMMAND", "INFO", "CL.THROTTLE"]), format!("*1\r\n{throttle}"));
        assert!(answer(&["CLIENT", "REPLY", "MAYBE"]).starts_with("-ERR syntax error"));
        assert!(answer(&["CLIENT", "REPLY"]).starts_with("-ERR wrong number"));
    }

    #[test]
    fn a_connection_has_a_number_and_the_name_that_its_client_gave_it() {
        let mut identity = Identity { id: 7, name: Vec::new() };
        let mut ask = |words: &[&str]| answer_to(&mut identity, words);
        assert_eq!(
            (ask(&["CLIENT", "ID"]), ask(&["CLIENT", "GETNAME"])),
            (":7\r\n".to_owned(), "$-1\r\n".to_owned())
        );
        assert_eq!(ask(&["CLIENT", "SETNAME", "foo"]), "+OK\r\n");
        assert_eq!(ask(&["CLIENT", "GETNAME"]), "$3\r\nfoo\r\n");
        assert!(ask(&["CLIENT", "SETNAME", "a b"]).starts_with("-ERR Client names cannot"));
        assert!(ask(&["HELLO", "2", "SETNAME", "me"]).contains("$2\r\nid\r\n:7\r\n"));
        assert!(ask(&["HELLO", "2", "SETNAME", "a b"]).starts_with("-ERR Client names cannot"));
        assert_eq!(ask(&["HELLO"]).len(), ask(&["HELLO", "2"]).len());
        assert_eq!(ask(&["CLIENT", "GETNAME"]), "$2\r\nme\r\n", "what is left out stays");
        assert_eq!(ask(&["RESET"]), "+RESET\r\n");
        assert_eq!(ask(&["CLIENT", "GETNAME"]), "$-1\r\n");
        assert!(
            ask(&["CLIENT", "GETNAME", "x"])
                .starts_with("-ERR wrong number of arguments for 'client|getname'")
        );
    }

    #[test]
    fn a_token_is_presented_in_all_ways_that_clients_have() {
        let read = |words: &[&'static str]| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            match Command::read(&words, &mut LastLimit::default()) {
                Command::Auth(auth) => Some((auth.token, auth.hello)),
                _ => None,
            }
        };
        let token = &b"tg_a"[..];
        let hello = |version, name: Option<&'static [u8]>| Hello { version: Some(version), name };
        assert_eq!(read(&["AUTH", "tg_a"]), Some((token, None)));
        assert_eq!(read(&["auth", "default", "tg_a"]), Some((token, None)));
        assert_eq!(
            read(&["HELLO", "3", "AUTH", "default", "tg_a"]),
            Some((token, Some(hello(Version::Three, None))))
        );
        let named = ["HELLO", "2", "SETNAME", "me", "auth", "u", "tg_a"];
        assert_eq!(read(&named), Some((token, Some(hello(Version::Two, Some(b"me"))))));
        for wrong in [&["AUTH"][..], &["AUTH", "a", "b", "c"], &["HELLO", "3", "AUTH", "tg_a"]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_that_is_presented_is_not_printed() {
        let told = format!("{:?}", Auth { token: b"0123", hello: None });
        assert!(told.starts_with("Auth") && !told.contains("0123") && !told.contains("48"), "{told}");
    }

    #[test]
    fn a_command_about_a_key_alone_says_what_to_ask_instead() {
        for (command, instead) in [
            (&["DEL", "k"][..], "CL.RESET key max_burst count period"),
            (&["UNLINK", "k", "l"], "CL.RESET key max_burst count period"),
            (&["TTL", "k"], "CL.THROTTLE key max_burst count period 0"),
            (&["EXISTS", "k"], "CL.THROTTLE key max_burst count period 0"),
            (&["DEL"], "wrong number of arguments for 'del'"),
        ] {
            let answer = answer(command);
            assert!(answer.starts_with("-ERR ") && answer.contains(instead), "{answer}");
        }
    }
}
