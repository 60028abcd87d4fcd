//! What each command does. Besides the one that decides there are those that clients send before and around it.

use super::{
    reply::{Replies, Version},
    throttle::{LastLimit, Throttle},
};

/// Bytes of a name in an error.
const SHOWN: usize = 64;

/// What a command is.
pub(super) enum Command<'a> {
    /// To be decided.
    Throttle(Throttle<'a>),
    /// Answered from what is known.
    Plain(Plain<'a>),
    /// Not to be served.
    Refused(String),
    /// Not our protocol: somebody makes a browser talk to us.
    CrossProtocol,
}

/// A command that decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain<'a> {
    Ping(Option<&'a [u8]>),
    Echo(&'a [u8]),
    Hello(Option<Version>),
    Ok,
    /// An empty list.
    Nothing,
    /// An empty map.
    NoSettings,
    Zero,
    Null,
    Info,
    Reset,
    Quit,
}

impl<'a> Command<'a> {
    /// Reads the words of a command, of which there is at least one.
    pub(super) fn read(words: &[&'a [u8]], limit: &mut LastLimit) -> Self {
        let [name, arguments @ ..] = words else { return Self::Refused("ERR no command".to_owned()) };
        for throttle in ["cl.throttle", "throttle"] {
            if name.eq_ignore_ascii_case(throttle.as_bytes()) {
                let read = Throttle::read(throttle, arguments, limit);
                return read.map_or_else(Self::Refused, Self::Throttle);
            }
        }
        let name = name.to_ascii_lowercase();
        let plain = match (name.as_slice(), arguments) {
            (b"post" | b"host:", _) => return Self::CrossProtocol,
            (b"ping", []) => Plain::Ping(None),
            (b"ping", [text]) => Plain::Ping(Some(text)),
            (b"echo", [text]) => Plain::Echo(text),
            (b"hello", _) => return Self::hello(arguments),
            (b"auth", [_] | [_, _]) => {
                return Self::Refused("ERR AUTH: this node asks for no password".to_owned());
            }
            (b"select", [b"0"]) => Plain::Ok,
            (b"select", [_]) => {
                return Self::Refused("ERR DB index is out of range: there is only 0".to_owned());
            }
            (b"client", [first, ..]) => match first.to_ascii_lowercase().as_slice() {
                b"setinfo" | b"setname" | b"no-evict" | b"no-touch" | b"reply" => Plain::Ok,
                b"getname" => Plain::Null,
                b"id" => Plain::Zero,
                _ => return Self::Refused(format!("ERR unknown subcommand '{}' of CLIENT", shown(first))),
            },
            (b"command", [first, ..]) if first.eq_ignore_ascii_case(b"count") => Plain::Zero,
            (b"command", [first, ..]) if first.eq_ignore_ascii_case(b"docs") => Plain::NoSettings,
            (b"command", _) => Plain::Nothing,
            // What redis-benchmark asks before it begins.
            (b"config", [first, ..]) if first.eq_ignore_ascii_case(b"get") => Plain::NoSettings,
            (b"info", _) => Plain::Info,
            (b"reset", []) => Plain::Reset,
            (b"quit", _) => Plain::Quit,
            (b"ping" | b"echo" | b"auth" | b"select" | b"client" | b"reset", _) => {
                return Self::Refused(format!("ERR wrong number of arguments for '{}'", shown(&name)));
            }
            _ => {
                return Self::Refused(format!(
                    "ERR unknown command '{}': there are CL.THROTTLE, THROTTLE, PING, ECHO, HELLO, INFO, QUIT",
                    shown(&name)
                ));
            }
        };
        Self::Plain(plain)
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`
    fn hello(arguments: &[&'a [u8]]) -> Self {
        let (version, mut options) = match arguments {
            [] => return Self::Plain(Plain::Hello(None)),
            [b"2", options @ ..] => (Version::Two, options),
            [b"3", options @ ..] => (Version::Three, options),
            _ => return Self::Refused("NOPROTO unsupported protocol version: there are 2 and 3".to_owned()),
        };
        loop {
            options = match options {
                [] => return Self::Plain(Plain::Hello(Some(version))),
                [word, _, rest @ ..] if word.eq_ignore_ascii_case(b"setname") => rest,
                [word, ..] if word.eq_ignore_ascii_case(b"auth") => {
                    return Self::Refused("ERR AUTH: this node asks for no password".to_owned());
                }
                [word, ..] => {
                    return Self::Refused(format!("ERR syntax error in HELLO at '{}'", shown(word)));
                }
            };
        }
    }
}

impl Plain<'_> {
    pub(super) fn answer(self, to: &mut Replies<'_>) {
        match self {
            Self::Ping(None) => to.status("PONG"),
            Self::Ping(Some(text)) | Self::Echo(text) => to.bulk(text),
            Self::Hello(version) => {
                to.version = version.unwrap_or(to.version);
                let texts = [("server", "tidegate"), ("version", env!("CARGO_PKG_VERSION"))];
                to.map(7);
                for (name, value) in texts {
                    to.bulk(name.as_bytes());
                    to.bulk(value.as_bytes());
                }
                to.bulk(b"proto");
                to.integer(to.version.number());
                to.bulk(b"id");
                to.integer(0);
                for (name, value) in [("mode", "standalone"), ("role", "master")] {
                    to.bulk(name.as_bytes());
                    to.bulk(value.as_bytes());
                }
                to.bulk(b"modules");
                to.array(0);
            }
            Self::Ok | Self::Quit => to.status("OK"),
            Self::Nothing => to.array(0),
            Self::NoSettings => to.map(0),
            Self::Zero => to.integer(0),
            Self::Null => to.null(),
            Self::Info => {
                let info = format!(
                    "# Server\r\nserver_name:tidegate\r\ntidegate_version:{}\r\nprocess_id:{}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    std::process::id()
                );
                to.bulk(info.as_bytes());
            }
            Self::Reset => {
                to.version = Version::Two;
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
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut out = BytesMut::new();
        let mut to = Replies { out: &mut out, version: Version::Two };
        match Command::read(&words, &mut LastLimit::default()) {
            Command::Plain(plain) => plain.answer(&mut to),
            Command::Refused(error) => to.error(&error),
            Command::Throttle(_) | Command::CrossProtocol => panic!(),
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
        assert!(answer(&["AUTH", "secret"]).starts_with("-ERR AUTH"));
        assert_eq!(answer(&["COMMAND", "DOCS"]), "*0\r\n");
    }
}
