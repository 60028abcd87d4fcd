//! What a connection remembers between commands: whether answers are wanted, and the transaction that is open. No I/O.
//!
//! - `CLIENT REPLY`: `OFF` keeps back all answers until `ON`, `SKIP` its own and that of the next command.
//! - `MULTI` queues commands until `EXEC`, as their bytes. A command that cannot be run is refused when it is queued, and `EXEC`
//!   then runs none of them: nothing has been charged.

use std::{borrow::Cow, time::Duration};

use tokio::time::Instant;

use super::{
    command::{Command, Control, Plain, ReplyMode},
    room::{MAX_BYTES_OF_ALL, MAX_BYTES_OF_CLIENT, Queued, Room},
};

/// Bytes of the commands in a transaction. About 2,800 checks fit.
pub(super) const MAX_QUEUED_BYTES: usize = 256 << 10;
/// From `MULTI` to `EXEC`: until then the node keeps what was queued.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be done about a command.
pub(super) enum Step<'a> {
    Run(Command<'a>),
    /// Only this is answered.
    Status(&'static str),
    Error(Cow<'static, str>),
    /// Not even that.
    Nothing,
    /// The commands of the transaction are run; see [`Session::begin_execution`].
    Execute,
}

#[derive(Debug)]
pub(super) struct Session {
    room: Room,
    off: bool,
    skips_next: bool,
    /// The answer of the present command is not wanted.
    skips: bool,
    transaction: Option<Transaction>,
    /// The commands are those of a transaction.
    executing: bool,
}

/// Commands that were queued.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) commands: Queued,
    pub(super) count: usize,
    /// One of them was refused.
    aborted: bool,
    /// When it is given up; none until somebody looks.
    deadline: Option<Instant>,
    /// It was open for too long.
    expired: bool,
}

impl Session {
    /// `room` is that of all sessions of the client.
    pub(super) fn new(room: Room) -> Self {
        Self { room, off: false, skips_next: false, skips: false, transaction: None, executing: false }
    }

    /// Takes the next command, which came as `bytes`.
    #[inline]
    pub(super) fn take<'a>(&mut self, command: Command<'a>, bytes: &[u8]) -> Step<'a> {
        if self.executing {
            return Step::Run(command);
        }
        self.skips = std::mem::take(&mut self.skips_next);
        match command {
            Command::Plain(Plain::Reset) => {
                *self = Self { skips: self.skips, ..Self::new(self.room.clone()) };
                Step::Run(command)
            }
            Command::Plain(Plain::Quit) | Command::CrossProtocol => Step::Run(command),
            Command::Control(control) => self.control(control),
            command => match &mut self.transaction {
                None => Step::Run(command),
                Some(open) => open.queue(command, bytes),
            },
        }
    }

    fn control(&mut self, control: Control) -> Step<'static> {
        match (control, &mut self.transaction) {
            (Control::Multi, None) => {
                self.transaction =
                    Some(Transaction { commands: self.room.queue(), ..Transaction::default() });
                Step::Status("OK")
            }
            // Redis's own words, which our spelling would have otherwise.
            (Control::Multi, Some(_)) => Step::Error("ERR MULTI calls can\u{20}not be nested".into()),
            (Control::Exec, None) => Step::Error("ERR EXEC without MULTI".into()),
            (Control::Exec, Some(open)) if open.aborted => {
                let why: Cow<'static, str> = if open.expired {
                    format!(
                        "EXECABORT Transaction discarded because EXEC came more than {} s after MULTI",
                        TRANSACTION_TIMEOUT.as_secs()
                    )
                    .into()
                } else {
                    "EXECABORT Transaction discarded because of previous errors.".into()
                };
                self.transaction = None;
                Step::Error(why)
            }
            (Control::Exec, Some(_)) => Step::Execute,
            (Control::Discard, None) => Step::Error("ERR DISCARD without MULTI".into()),
            (Control::Discard, Some(_)) => {
                self.transaction = None;
                Step::Status("OK")
            }
            // There is nothing to watch: a check reads and charges its bucket at once.
            (Control::Watch, None) => Step::Status("OK"),
            (Control::Watch, Some(_)) => Step::Error("ERR WATCH inside MULTI is not allowed".into()),
            (Control::Reply(mode), None) => self.reply(mode),
            (Control::Reply(_), Some(open)) => {
                open.abort("ERR CLIENT REPLY is not allowed in a transaction: send it before MULTI".into())
            }
        }
    }

    fn reply(&mut self, mode: ReplyMode) -> Step<'static> {
        match mode {
            ReplyMode::On => {
                (self.off, self.skips) = (false, false);
                return Step::Status("OK");
            }
            ReplyMode::Off => self.off = true,
            ReplyMode::Skip => self.skips_next = !self.off,
        }
        Step::Nothing
    }

    /// Whether the client does not want the answer of the present command.
    pub(super) fn is_silent(&self) -> bool {
        self.off || self.skips
    }

    /// Whether a transaction is open.
    pub(super) fn is_queueing(&self) -> bool {
        self.transaction.is_some()
    }

    /// How much time the open transaction still has; none if there is none, or it was given up. One whose time is over is given up:
    /// its commands are forgotten, and `EXEC` runs none of them.
    pub(super) fn time_left(&mut self, now: Instant) -> Option<Duration> {
        let open = self.transaction.as_mut().filter(|open| !open.expired)?;
        let deadline = *open.deadline.get_or_insert(now + TRANSACTION_TIMEOUT);
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            open.give_up();
            open.expired = true;
            return None;
        }
        Some(left)
    }

    /// The commands to be run, after [`Step::Execute`]. Until [`Session::end_execution`] all that is taken is one of them.
    pub(super) fn begin_execution(&mut self) -> Transaction {
        self.executing = true;
        self.transaction.take().unwrap_or_default()
    }

    pub(super) fn end_execution(&mut self) {
        self.executing = false;
    }
}

impl Transaction {
    fn queue(&mut self, command: Command<'_>, bytes: &[u8]) -> Step<'static> {
        if let Command::Refused(error) = command {
            return self.abort(error.into());
        }
        if self.aborted {
            return Step::Status("QUEUED");
        }
        if self.commands.bytes().len() + bytes.len() > MAX_QUEUED_BYTES {
            let error = format!(
                "ERR the commands of a transaction have at most {MAX_QUEUED_BYTES} bytes; send fewer, or a pipeline without MULTI"
            );
            return self.abort(error.into());
        }
        if self.commands.add(bytes).is_err() {
            let error = format!(
                "ERR all open transactions of this node have at most {MAX_BYTES_OF_ALL} bytes together, those of one client {MAX_BYTES_OF_CLIENT}; send it again later, or a pipeline without MULTI"
            );
            return self.abort(error.into());
        }
        self.count += 1;
        Step::Status("QUEUED")
    }

    fn abort(&mut self, error: Cow<'static, str>) -> Step<'static> {
        self.give_up();
        Step::Error(error)
    }

    /// What was queued is forgotten.
    fn give_up(&mut self) {
        *self = Self { aborted: true, deadline: self.deadline, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{request, throttle::LastLimit},
        *,
    };

    /// A connection without a network: what is answered, in one word for each answer.
    fn answers(pipeline: &[&str]) -> Vec<String> {
        let (mut session, mut told) = (Session::new(Room::default()), Vec::new());
        for line in pipeline {
            answer(&mut session, format!("{line}\r\n").as_bytes(), &mut told);
        }
        told
    }

    fn answer(session: &mut Session, bytes: &[u8], told: &mut Vec<String>) {
        let mut rest = bytes;
        let unquoted = request::Unquoted::default();
        while let Some((words, length)) = request::first(rest, &unquoted).unwrap() {
            let command = Command::read(&words, &mut LastLimit::default());
            let answer = match session.take(command, &rest[..length]) {
                Step::Run(Command::Refused(error)) => Some(error),
                Step::Run(_) => Some(String::from_utf8_lossy(words[words.len() - 1]).into_owned()),
                Step::Status(status) => Some(status.to_owned()),
                Step::Error(error) => Some(error.into_owned()),
                Step::Nothing => None,
                Step::Execute => {
                    let open = session.begin_execution();
                    let mut inner = Vec::new();
                    answer(session, open.commands.bytes(), &mut inner);
                    assert!(session.is_silent() || inner.len() == open.count);
                    session.end_execution();
                    Some(format!("[{}]", inner.join(" ")))
                }
            };
            told.extend(answer.filter(|_| !session.is_silent()));
            rest = &rest[length..];
        }
    }

    #[test]
    fn a_transaction_is_queued_and_answered_as_one() {
        let told = answers(&["ECHO a", "MULTI", "ECHO b", "PING c", "EXEC", "ECHO d"]);
        assert_eq!(told, ["a", "OK", "QUEUED", "QUEUED", "[b c]", "d"]);
        assert_eq!(answers(&["MULTI", "EXEC"]), ["OK", "[]"]);
        assert_eq!(answers(&["MULTI", "ECHO a", "DISCARD", "ECHO b"]), ["OK", "QUEUED", "OK", "b"]);
        assert_eq!(answers(&["WATCH k", "MULTI", "UNWATCH", "EXEC"]), ["OK", "OK", "QUEUED", "[UNWATCH]"]);
    }

    #[test]
    fn an_error_at_queueing_aborts_all_of_it() {
        for wrong in ["CL.THROTTLE k 1 1", "CL.THROTTLE k 1 x 60", "GET k", "CLIENT REPLY OFF"] {
            let told = answers(&["MULTI", "CL.THROTTLE k 1 1 60", wrong, "ECHO a", "EXEC", "ECHO b"]);
            assert!(told[2].starts_with("ERR "), "{told:?}");
            assert!(told[4].starts_with("EXECABORT "), "{told:?}");
            assert_eq!(told[5], "b");
        }
        let told = answers(&["EXEC", "DISCARD", "MULTI", "MULTI", "WATCH k", "ECHO a", "EXEC"]);
        assert!(told[..2].iter().all(|one| one.ends_with("without MULTI")), "{told:?}");
        assert!(told[3].contains("nested") && told[4].contains("inside MULTI"), "{told:?}");
        assert_eq!(told[6], "[a]", "these two abort nothing, as in Redis");
    }

    #[test]
    fn a_transaction_that_is_too_large_is_aborted() {
        let mut session = Session::new(Room::default());
        let mut told = Vec::new();
        answer(&mut session, b"MULTI\r\n", &mut told);
        let echo = format!("ECHO {}\r\n", "x".repeat(4_000));
        for _ in 0..2 * MAX_QUEUED_BYTES / echo.len() {
            answer(&mut session, echo.as_bytes(), &mut told);
        }
        let refused = told.iter().filter(|one| one.contains("at most 262144 bytes")).count();
        assert_eq!(refused, 1, "the queue is given up at once");
        answer(&mut session, b"EXEC\r\n", &mut told);
        assert!(told.last().unwrap().starts_with("EXECABORT "));
    }

    #[test]
    fn a_transaction_that_is_open_for_too_long_is_given_up_and_exec_says_why() {
        let begun = Instant::now();
        let mut session = Session::new(Room::default());
        let mut told = Vec::new();
        assert_eq!(session.time_left(begun), None);
        answer(&mut session, b"MULTI\r\nECHO a\r\n", &mut told);
        assert_eq!(session.time_left(begun), Some(TRANSACTION_TIMEOUT));
        // From `MULTI` on, whatever comes meanwhile.
        answer(&mut session, b"ECHO b\r\n", &mut told);
        let later = begun + TRANSACTION_TIMEOUT - Duration::from_secs(1);
        assert_eq!(session.time_left(later), Some(Duration::from_secs(1)));
        assert_eq!(session.time_left(begun + TRANSACTION_TIMEOUT), None);
        answer(&mut session, b"ECHO c\r\nEXEC\r\nMULTI\r\nECHO d\r\nEXEC\r\n", &mut told);
        assert_eq!(told[..4], ["OK", "QUEUED", "QUEUED", "QUEUED"]);
        assert!(told[4].starts_with("EXECABORT ") && told[4].contains("60 s after MULTI"), "{told:?}");
        assert_eq!(told[5..], ["OK", "QUEUED", "[d]"], "the next one has its own time");
    }

    #[test]
    fn a_transaction_for_which_there_is_no_room_is_refused_and_the_next_one_is_not() {
        let room = Room::default();
        let mut others: Vec<_> = (0..128).map(|_| room.queue()).collect();
        assert!(others.iter_mut().all(|other| other.add(&[0; MAX_QUEUED_BYTES]).is_ok()));
        let mut session = Session::new(room);
        let mut told = Vec::new();
        answer(&mut session, b"MULTI\r\nECHO a\r\nECHO b\r\nEXEC\r\n", &mut told);
        assert!(
            told[1].starts_with("ERR all open transactions of this node have at most 33554432"),
            "{told:?}"
        );
        assert!(told[2] == "QUEUED" && told[3].starts_with("EXECABORT "), "{told:?}");
        others.pop();
        answer(&mut session, b"MULTI\r\nECHO a\r\nRESET\r\nMULTI\r\nECHO b\r\nEXEC\r\n", &mut told);
        assert_eq!(told[4..], ["OK", "QUEUED", "RESET", "OK", "QUEUED", "[b]"]);
    }

    #[test]
    fn answers_that_are_not_wanted_are_kept_back() {
        let off =
            ["CLIENT REPLY OFF", "ECHO a", "NONSENSE", "CLIENT REPLY SKIP", "CLIENT REPLY ON", "ECHO b"];
        assert_eq!(answers(&off), ["OK", "b"]);
        assert_eq!(answers(&["CLIENT REPLY SKIP", "ECHO a", "ECHO b"]), ["b"]);
        assert_eq!(answers(&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "ECHO a", "ECHO b"]), ["b"]);
        assert_eq!(answers(&["CLIENT REPLY SKIP", "CLIENT REPLY ON", "ECHO a"]), ["OK", "a"]);
        assert_eq!(
            answers(&["MULTI", "ECHO a", "DISCARD", "CLIENT REPLY SKIP", "MULTI", "ECHO b", "EXEC"]),
            ["OK", "QUEUED", "OK", "QUEUED", "[b]"]
        );
        assert_eq!(answers(&["CLIENT REPLY OFF", "MULTI", "ECHO a", "RESET", "ECHO b"]), ["RESET", "b"]);
        assert_eq!(answers(&["CLIENT REPLY SKIP", "RESET", "ECHO b"]), ["b"]);
    }

    proptest! {
        /// Whatever is asked: one answer for each command, in order, unless the client wants none.
        #[test]
        fn each_command_of_a_pipeline_has_one_answer(
            commands in proptest::collection::vec(
                prop::sample::select(vec![
                    "ECHO", "ECHO", "ECHO", "CL.THROTTLE k 1 1 60", "NONSENSE", "CL.THROTTLE", "MULTI", "EXEC",
                    "DISCARD", "WATCH k", "UNWATCH", "RESET", "HELLO 3", "CLIENT REPLY ON",
                ]),
                0..40,
            ),
        ) {
            let numbered: Vec<String> = commands
                .iter()
                .enumerate()
                .map(|(at, line)| if *line == "ECHO" { format!("ECHO {at}") } else { (*line).to_owned() })
                .collect();
            let told = answers(&numbered.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(told.len(), commands.len());
            for (at, (line, answer)) in commands.iter().zip(&told).enumerate() {
                if *line == "ECHO" {
                    prop_assert!(*answer == at.to_string() || answer == "QUEUED");
                }
                if *line == "EXEC" {
                    prop_assert!(answer.starts_with('[') || answer.contains("EXEC"));
                }
            }
        }
    }
}
