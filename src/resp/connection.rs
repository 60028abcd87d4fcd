//! One connection: commands come in, answers go out in their order.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use super::{
    command::{Command, Plain},
    reply::{Replies, Version},
    request,
    stopping::{Stopping, Told},
    throttle::{Five, LastLimit, Throttle},
};
use crate::{
    check::{CheckAnswer, FirstLook, Prepared, Problem, ProblemKind, check, check_here},
    node::Node,
};
use bytes::{Buf as _, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Answers are written when so many bytes are there, though commands are left: who does not read does not fill the memory.
const WRITE_BYTES: usize = 64 << 10;
/// Checks of one connection that wait for other nodes at the same time.
const MAX_WAITING: usize = 64;
/// From the first byte of a command to its last.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// For the first command of a client that has connected while the server stops.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// For a client that does not take its answers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For what comes after the last answer; see `Connection::end`.
const LINGER: Duration = Duration::from_millis(500);

/// Serves a connection until either side ends it. While the server closes, it ends behind an answer; told to stop, it answers what
/// has come. A client that has just connected is about to ask.
pub(super) async fn serve_connection(stream: TcpStream, node: Arc<Node>, worker: usize, stopping: Stopping) {
    let connection = Connection {
        stream,
        node,
        worker,
        version: Version::default(),
        limit: LastLimit::default(),
        out: BytesMut::new(),
        has_asked: false,
    };
    // Why a client has gone is its own affair.
    let _ = connection.run(&stopping).await;
}

struct Connection {
    stream: TcpStream,
    node: Arc<Node>,
    worker: usize,
    version: Version,
    limit: LastLimit,
    out: BytesMut,
    /// A check was asked.
    has_asked: bool,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    End,
}

impl Connection {
    async fn run(mut self, stopping: &Stopping) -> io::Result<()> {
        let mut input = BytesMut::new();
        let mut told = pin!(stopping.told());
        loop {
            input.reserve(READ_BYTES);
            let read = match self.read(&mut input, told.as_mut()).await {
                Some(read) => read?,
                // It has just connected, or is in the middle of a command.
                None if !self.has_asked || !input.is_empty() => {
                    timeout(BEGINS_WITHIN, self.stream.read_buf(&mut input)).await??
                }
                None => return self.end().await,
            };
            if read == 0 {
                return Ok(());
            }
            let (used, after) = self.answer(&input).await?;
            self.write().await?;
            // A client that greets, or looks whether the connection works, is about to ask.
            let is_last = told.has_come() && self.has_asked && used == input.len() && !self.has_more();
            if after == After::End || is_last {
                return self.end().await;
            }
            if used == input.len() {
                // Without a trace, so that its memory is used from the start again.
                input.clear();
            } else {
                input.advance(used);
            }
        }
    }

    /// Reads what has come, or waits for it; `None` if the server stops first.
    async fn read(
        &mut self,
        input: &mut BytesMut,
        mut told: Pin<&mut Told<'_>>,
    ) -> Option<io::Result<usize>> {
        let begun = !input.is_empty();
        let mut read = pin!(async {
            let read = self.stream.read_buf(input);
            // A pool keeps connections for later; those of hosts that are gone end by keepalive.
            if begun { timeout(COMMAND_TIMEOUT, read).await? } else { read.await }
        });
        poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if told.as_mut().poll(context) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether the client has sent something that was not read yet.
    fn has_more(&self) -> bool {
        // Not by what the runtime remembers, which says no after each read that did not fill its buffer.
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut [0_u8], flags).is_ok_and(|(bytes, _)| bytes > 0)
    }

    /// Answers all whole commands. Returns how many bytes they had.
    async fn answer(&mut self, input: &[u8]) -> io::Result<(usize, After)> {
        let (mut at, mut after) = (0, After::GoOn);
        let node = Arc::clone(&self.node);
        // It is made when it is needed, which is seldom: it allocates.
        let mut waiting = None;
        while after == After::GoOn {
            let words = match request::first(&input[at..]) {
                Ok(Some((words, length))) => {
                    at += length;
                    words
                }
                Ok(None) => break,
                Err(malformed) => {
                    self.gather(&mut waiting).await;
                    self.replies().error(&format!("ERR {malformed}"));
                    after = After::End;
                    break;
                }
            };
            if words.is_empty() {
                continue;
            }
            let command = Command::read(&words, &mut self.limit);
            if let Command::Throttle(throttle) = command {
                self.has_asked = true;
                let mut found = None;
                // The order of answers is that of commands, so those behind one that waits wait too.
                let is_told = waiting.is_none() && self.tell_here(&node, &throttle, &mut found);
                if !is_told {
                    let decided = decide(&node, self.worker, throttle, found);
                    let waiting_now = waiting.get_or_insert_with(FuturesOrdered::new);
                    waiting_now.push_back(decided);
                    if waiting_now.len() >= MAX_WAITING {
                        self.gather(&mut waiting).await;
                    }
                }
            } else {
                self.gather(&mut waiting).await;
                after = self.plain(command);
            }
            if self.out.len() >= WRITE_BYTES {
                self.gather(&mut waiting).await;
                self.write().await?;
            }
        }
        self.gather(&mut waiting).await;
        Ok((at, after))
    }

    /// Answers a check if this node owns its slots. If not, `found` takes what the way on to their owners needs.
    fn tell_here(&mut self, node: &Node, throttle: &Throttle<'_>, found: &mut Option<Box<Prepared>>) -> bool {
        match check_here(node, self.worker, &throttle.check(), |answer| throttle.five(&answer)) {
            FirstLook::Decided(decided) => self.tell(decided),
            FirstLook::Elsewhere(prepared) => *found = Some(prepared),
        }
        found.is_none()
    }

    async fn gather<F: Future<Output = Result<Five, Problem>>>(
        &mut self,
        waiting: &mut Option<FuturesOrdered<F>>,
    ) {
        let Some(mut waiting) = waiting.take() else { return };
        while let Some(decided) = waiting.next().await {
            self.tell(decided);
        }
    }

    fn plain(&mut self, command: Command<'_>) -> After {
        match command {
            Command::Plain(plain) => {
                let mut replies = self.replies();
                plain.answer(&mut replies);
                self.version = replies.version;
                return if plain == Plain::Quit { After::End } else { After::GoOn };
            }
            Command::Refused(error) => self.replies().error(&error),
            Command::CrossProtocol => return After::End,
            Command::Throttle(_) => unreachable!("it is decided, not answered from what is known"),
        }
        After::GoOn
    }

    fn tell(&mut self, decided: Result<Five, Problem>) {
        match decided {
            Ok(five) => five.write(&mut self.replies()),
            Err(problem) => {
                self.node.metrics[self.worker].count_problem(problem.kind);
                // Clients know this word as one for "later".
                let word = if problem.kind == ProblemKind::NotReady { "LOADING" } else { "ERR" };
                self.replies().error(&format!("{word} {}", problem.detail));
            }
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
                self.out.clear();
                return Ok(());
            }
            Ok(written) => self.out.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        timeout(WRITE_TIMEOUT, self.stream.write_all_buf(&mut self.out)).await??;
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

async fn decide(
    node: &Node,
    worker: usize,
    throttle: Throttle<'_>,
    found: Option<Box<Prepared>>,
) -> Result<Five, Problem> {
    check(node, worker, &throttle.check(), found, |answer: CheckAnswer<'_>| throttle.five(&answer)).await
}
