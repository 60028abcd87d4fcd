//! One connection: commands come in, answers go out in their order.

use std::{
    future::poll_fn,
    io, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use super::{
    about::Detail,
    command::{Command, Plain},
    identity::Identity,
    permission::{Peer, error_of},
    reply::{Replies, Version},
    request,
    room::Room,
    session::{Session, Step},
    stopping::{Stopping, Told},
    throttle::{Deed, Five, LastLimit, Throttle},
};
use crate::{
    check::{CheckAnswer, FirstLook, Prepared, Problem, amend_as_check, check, check_here_at},
    node::Node,
    noise::Noise,
    tls::{Port, Socket, looks_like_tls, note_tls},
};
use bytes::{Buf as _, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tidegate_cluster::Amendment;
use tidegate_limiter::Nanos;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes of each buffer that a connection keeps while it is idle.
const KEPT_BYTES: usize = 16 << 10;
/// Answers are written when so many bytes are there, though commands are left: who does not read does not fill the memory.
const WRITE_BYTES: usize = 64 << 10;
/// Checks of one connection that wait for other nodes at the same time.
const MAX_WAITING: usize = 64;
/// Commands that are run without a pause for others.
const COMMANDS_AT_ONCE: u32 = 128;
/// From the first byte of a command to its last.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection of a client to the first byte that it sends.
const SPEAKS_WITHIN: Duration = Duration::from_secs(60);
/// For the first command of a client that has connected while the server stops, and for the rest of a transaction.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// For a client that does not take its answers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For what comes after the last answer; see `Connection::end`.
const LINGER: Duration = Duration::from_millis(500);

/// Serves a connection until either side ends it. While the server closes, it ends behind an answer; told to stop, it answers what
/// has come. A client that has just connected is about to ask.
pub(super) async fn serve_connection(
    stream: Socket,
    node: Arc<Node>,
    worker: usize,
    room: Room,
    stopping: Stopping,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    let room = room.of(node.client(peer.ip()));
    let connection = Connection {
        peer: Peer::new(peer.ip(), stream.certificate().cloned()),
        stream,
        node,
        worker,
        version: Version::default(),
        limit: LastLimit::default(),
        session: Session::new(room),
        noise: Noise::new(),
        identity: Identity::new(),
        out: BytesMut::new(),
        has_asked: false,
    };
    // Why a client has gone is its own affair.
    let _ = connection.run(&stopping).await;
}

struct Connection {
    peer: Peer,
    stream: Socket,
    node: Arc<Node>,
    worker: usize,
    version: Version,
    limit: LastLimit,
    session: Session,
    noise: Noise,
    identity: Identity,
    out: BytesMut,
    /// A check was asked.
    has_asked: bool,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    /// With the commands behind those that were answered.
    Again,
    /// With the commands of the transaction, and then with what comes behind.
    Execute,
    End,
}

impl Connection {
    async fn run(mut self, stopping: &Stopping) -> io::Result<()> {
        let (mut input, mut is_large) = (BytesMut::new(), false);
        let mut told = pin!(stopping.told());
        // When the command at the beginning of the input began to come; before the first one, when the client connected.
        let mut begun = Instant::now();
        let mut has_spoken = false;
        loop {
            input.reserve(READ_BYTES);
            // Seen here, because a buffer does not count what it has advanced over.
            is_large |= input.capacity() > KEPT_BYTES;
            let until = match (input.is_empty(), has_spoken) {
                (false, _) => Some(begun + COMMAND_TIMEOUT),
                (true, false) => Some(begun + SPEAKS_WITHIN),
                (true, true) => None,
            };
            let is_between = input.is_empty();
            let read = match self.read(&mut input, until, told.as_mut()).await {
                // The open transaction has been given up, and its memory back.
                Some(Ok(None)) => continue,
                Some(Ok(Some(read))) => read,
                Some(Err(error)) => return Err(error),
                // It has just connected, or is in the middle of a command or a transaction.
                None if !self.has_asked || !input.is_empty() || self.session.is_queueing() => {
                    timeout(BEGINS_WITHIN, self.stream.read_buf(&mut input)).await??
                }
                None => return self.end().await,
            };
            if read == 0 {
                return Ok(());
            }
            has_spoken = true;
            if is_between {
                begun = Instant::now();
            }
            // No command begins so, and none of its lines may ever end.
            if looks_like_tls(&input) {
                note_tls(Port::Redis, self.stream.peer_addr().ok());
                return Ok(());
            }
            let (used, after) = self.answer(&input).await?;
            self.write().await?;
            // A client that greets, or looks whether the connection works, is about to ask.
            let is_between = used == input.len() && !self.session.is_queueing();
            let is_last = told.has_come() && self.has_asked && is_between && !self.stream.has_more();
            if after == After::End || is_last {
                return self.end().await;
            }
            if used == input.len() {
                // Without a trace, so that its memory is used from the start again.
                if mem::take(&mut is_large) {
                    input = BytesMut::new();
                } else {
                    input.clear();
                }
            } else {
                if used > 0 {
                    begun = Instant::now();
                }
                input.advance(used);
            }
        }
    }

    /// Reads what has come, or waits for it; `None` if the server stops first. Nothing is read when the time of an open transaction
    /// ends.
    async fn read(
        &mut self,
        input: &mut BytesMut,
        until: Option<Instant>,
        mut told: Pin<&mut Told<'_>>,
    ) -> Option<io::Result<Option<usize>>> {
        let left = if self.session.is_queueing() { self.session.time_left(Instant::now()) } else { None };
        let mut read = pin!(async {
            let read = self.stream.read_buf(input);
            match (until, left) {
                (Some(until), _) => timeout_at(until, read).await?.map(Some),
                (None, Some(left)) => timeout(left, read).await.map_or(Ok(None), |read| read.map(Some)),
                // A pool keeps connections for later; those of hosts that are gone end by keepalive.
                (None, None) => read.await.map(Some),
            }
        });
        poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if told.as_mut().poll(context) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Answers all whole commands. Returns how many bytes they had.
    async fn answer(&mut self, input: &[u8]) -> io::Result<(usize, After)> {
        let mut at = 0;
        loop {
            let (used, after) = self.answer_commands(&input[at..]).await?;
            at += used;
            match after {
                After::Again => continue,
                After::Execute => {}
                After::GoOn | After::End => return Ok((at, after)),
            }
            let transaction = self.session.begin_execution();
            self.say(|to| to.array(transaction.count));
            let mut rest = transaction.commands.bytes();
            while let (used, After::Again) = self.answer_commands(rest).await? {
                rest = &rest[used..];
            }
            self.session.end_execution();
        }
    }

    /// The same, up to an `EXEC`.
    async fn answer_commands(&mut self, input: &[u8]) -> io::Result<(usize, After)> {
        let (mut at, mut after) = (0, After::GoOn);
        let unquoted = request::Unquoted::default();
        let node = Arc::clone(&self.node);
        // It is made when it is needed, which is seldom: it allocates.
        let mut waiting = None;
        let (mut count, mut empty) = (0_u32, 0);
        // When the check before was decided, if nothing was waited for since.
        let mut now = None;
        while after == After::GoOn {
            if unquoted.is_used() {
                // Of one line; what is waited for may still look at it.
                after = After::Again;
                break;
            }
            let (words, bytes) = match request::first(&input[at..], &unquoted) {
                Ok(Some((words, length))) => (words, &input[at..at + length]),
                Ok(None) => break,
                Err(malformed) => {
                    self.gather(&mut waiting).await;
                    self.say(|to| to.error(&format!("ERR {malformed}")));
                    after = After::End;
                    break;
                }
            };
            at += bytes.len();
            count = count.wrapping_add(1);
            if count.is_multiple_of(COMMANDS_AT_ONCE) {
                // Answers of commands that wait for nothing: other connections of the worker have their turn between.
                tokio::task::yield_now().await;
                now = None;
            }
            if words.is_empty() {
                empty += 1;
                if self.noise.spend(1) {
                    continue;
                }
                self.node.resp.count_noisy("the Redis protocol", self.peer.address());
                self.gather(&mut waiting).await;
                self.say(|to| to.error("ERR Protocol error: too many empty commands"));
                after = After::End;
                break;
            }
            let command = Command::read(&words, &mut self.limit);
            let command = self.peer.permitted(&node, self.worker, command);
            match self.session.take(command, bytes) {
                Step::Run(Command::Throttle(throttle)) => {
                    self.has_asked = true;
                    let mut found = None;
                    // The order of answers is that of commands, so those behind one that waits wait too.
                    let is_told = waiting.is_none() && self.tell_here(&node, &throttle, &mut now, &mut found);
                    if !is_told {
                        now = None;
                        let is_silent = self.session.is_silent();
                        let decided = decide(&node, self.worker, throttle, found, is_silent);
                        let waiting_now = waiting.get_or_insert_with(FuturesOrdered::new);
                        waiting_now.push_back(decided);
                        if waiting_now.len() >= MAX_WAITING {
                            self.gather(&mut waiting).await;
                        }
                    }
                }
                step => {
                    now = None;
                    self.gather(&mut waiting).await;
                    after = self.plain(step);
                }
            }
            if self.out.len() >= WRITE_BYTES {
                self.gather(&mut waiting).await;
                self.write().await?;
                now = None;
            }
        }
        self.noise.earn(count - empty);
        self.gather(&mut waiting).await;
        Ok((at, after))
    }

    /// Answers a check if this node owns its slots. If not, `found` takes what the way on to their owners needs.
    fn tell_here(
        &mut self,
        node: &Node,
        throttle: &Throttle<'_>,
        now: &mut Option<Nanos>,
        found: &mut Option<Box<Prepared>>,
    ) -> bool {
        if throttle.deed == Deed::Reset {
            return false;
        }
        let now = now.get_or_insert_with(|| node.clock.now());
        match check_here_at(node, self.worker, &throttle.check(), now, |answer| throttle.five(&answer)) {
            FirstLook::Decided(decided) => self.tell(decided, self.session.is_silent()),
            FirstLook::Elsewhere(prepared) => *found = Some(prepared),
        }
        found.is_none()
    }

    async fn gather<F: Future<Output = (Result<Five, Problem>, bool)>>(
        &mut self,
        waiting: &mut Option<FuturesOrdered<F>>,
    ) {
        let Some(mut waiting) = waiting.take() else { return };
        while let Some((decided, is_silent)) = waiting.next().await {
            self.tell(decided, is_silent);
        }
    }

    /// Everything but what is decided.
    fn plain(&mut self, step: Step<'_>) -> After {
        match step {
            Step::Run(Command::Auth(auth)) => {
                let node = Arc::clone(&self.node);
                match self.peer.authenticate(&node, self.worker, &auth) {
                    Err(error) => self.say(|to| to.error(&error)),
                    Ok(()) => match auth.hello {
                        Some(hello) => self.say_plain(&Plain::Hello(hello)),
                        None => self.say(|to| to.status("OK")),
                    },
                }
            }
            Step::Run(Command::Plain(plain)) => {
                if plain == Plain::Reset {
                    self.peer.forget();
                }
                self.say_plain(&plain);
                return if plain == Plain::Quit { After::End } else { After::GoOn };
            }
            Step::Run(Command::About(about)) => {
                let (node, address) = (Arc::clone(&self.node), self.stream.local_addr());
                let detail = if self.peer.may_read(&node) { Detail::All } else { Detail::Greeting };
                match address {
                    Ok(address) => self.say(|to| about.answer(&node, address, detail, to)),
                    // The client is gone.
                    Err(_) => return After::End,
                }
            }
            Step::Run(Command::Refused(error)) => self.say(|to| to.error(&error)),
            Step::Run(Command::CrossProtocol) => return After::End,
            Step::Run(Command::Throttle(_) | Command::Control(_)) => {
                unreachable!("the one is decided, the other one taken by the session")
            }
            Step::Status(status) => self.say(|to| to.status(status)),
            Step::Error(error) => self.say(|to| to.error(&error)),
            Step::Nothing => {}
            Step::Execute => return After::Execute,
        }
        After::GoOn
    }

    fn tell(&mut self, decided: Result<Five, Problem>, is_silent: bool) {
        let told = match decided {
            Ok(five) => Ok(five),
            Err(problem) => {
                self.node.metrics[self.worker].count_problem(problem.kind);
                Err(error_of(&problem))
            }
        };
        match told {
            _ if is_silent => {}
            Ok(five) => five.write(&mut self.replies()),
            Err(error) => self.replies().error(&error),
        }
    }

    /// Writes the answer of the present command, and keeps it back where the client wants none.
    fn say_plain(&mut self, plain: &Plain<'_>) {
        let mut identity = std::mem::take(&mut self.identity);
        self.say(|to| plain.answer(&mut identity, to));
        self.identity = identity;
    }

    fn say(&mut self, write: impl FnOnce(&mut Replies<'_>)) {
        let before = self.out.len();
        let mut replies = self.replies();
        write(&mut replies);
        self.version = replies.version;
        if self.session.is_silent() {
            self.out.truncate(before);
        }
    }

    fn replies(&mut self) -> Replies<'_> {
        Replies { out: &mut self.out, version: self.version }
    }

    async fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        // Nearly always there is room for all of it, and nothing to wait for.
        match self.stream.try_write(&self.out) {
            Ok(written) if written == self.out.len() => {
                if self.out.capacity() > KEPT_BYTES {
                    self.out = BytesMut::new();
                } else {
                    self.out.clear();
                }
                return Ok(());
            }
            Ok(written) => self.out.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let writing = async {
            self.stream.write_all_buf(&mut self.out).await?;
            self.stream.flush().await
        };
        timeout(WRITE_TIMEOUT, writing).await??;
        self.out = BytesMut::new();
        Ok(())
    }

    /// Ends the connection so that the client gets what was written: closing a socket with unread bytes makes the kernel reset
    /// the connection.
    async fn end(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut waste = [0; 4096];
        let lingering = async { while matches!(self.stream.read(&mut waste).await, Ok(1..)) {} };
        let _ = timeout(LINGER, lingering).await;
        Ok(())
    }
}

/// The answer of a check, and whether the client does not want it.
async fn decide(
    node: &Node,
    worker: usize,
    throttle: Throttle<'_>,
    found: Option<Box<Prepared>>,
    is_silent: bool,
) -> (Result<Five, Problem>, bool) {
    let (request, render) = (throttle.check(), |answer: CheckAnswer<'_>| throttle.five(&answer));
    let decided = match throttle.deed {
        Deed::Check => check(node, worker, &request, found, render).await,
        Deed::Reset => amend_as_check(node, worker, Amendment::Reset, &request, render).await,
    };
    (decided, is_silent)
}
