//! One thread writes the log, from a queue with a bound: who reads standard error may be slow, or stop reading, and no thread that
//! answers checks or takes signals waits for that. Lines for which there is no room are dropped and counted.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
    panic::PanicHookInfo,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that wait to be written.
const MAX_LINES: usize = 8192;
/// And their bytes.
const MAX_BYTES: usize = 2 << 20;
/// How long the end of a process waits for the last lines, in steps.
const FLUSH_STEPS: u32 = 50;
const FLUSH_STEP: Duration = Duration::from_millis(20);

/// Those of this process's log.
static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();

/// How many lines were dropped because nobody read those before them, or because they could not be written.
pub(crate) fn dropped_lines() -> u64 {
    COUNTS.get().map_or(0, |counts| counts.dropped.load(Relaxed))
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Lines.
    dropped: AtomicU64,
}

enum Job {
    Line(Vec<u8>),
    /// Says when all before it is written.
    Flush(Sender<()>),
}

/// Takes lines, one with each write.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Job>,
    counts: Arc<Counts>,
}

/// Has what waits written when it is dropped.
pub(crate) struct Flush(SyncSender<Job>);

impl Lines {
    /// Starts the thread that writes to standard error.
    pub(super) fn start() -> io::Result<(Self, Flush)> {
        // A descriptor of its own: the thread must not hold the lock of the standard library's while it waits.
        let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (lines, flush) = Self::start_writing(file)?;
        // Only a test starts twice.
        let _ = COUNTS.set(Arc::clone(&lines.counts));
        Ok((lines, flush))
    }

    fn start_writing(to: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let (queue, jobs) = sync_channel(MAX_LINES);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        thread::Builder::new().name("log".to_owned()).spawn(move || write(jobs, to, &shared))?;
        Ok((Self { queue: queue.clone(), counts }, Flush(queue)))
    }

    fn put(&self, line: &[u8]) {
        let bytes = line.len();
        // Several threads may add at the same time, so it is counted first and looked at then.
        let is_over = self.counts.waiting.fetch_add(bytes, Relaxed).saturating_add(bytes) > MAX_BYTES;
        if is_over || self.queue.try_send(Job::Line(line.to_owned())).is_err() {
            self.counts.waiting.fetch_sub(bytes, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// As the standard library says it, which would wait where nobody reads.
    pub(super) fn put_panic(&self, panic: &PanicHookInfo<'_>) {
        let thread = thread::current();
        let mut text = format!("\nthread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text = format!("{text}{backtrace}\n");
        }
        self.put(text.as_bytes());
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = channel();
        for _ in 0..FLUSH_STEPS {
            // Where the queue is full for as long as that, nobody reads.
            if self.0.try_send(Job::Flush(done.clone())).is_ok() {
                let _ = written.recv_timeout(FLUSH_STEPS * FLUSH_STEP);
                return;
            }
            thread::sleep(FLUSH_STEP);
        }
    }
}

/// Writes all of a line. Others that share standard error may have set it not to wait: then this thread does.
fn write_line(to: &mut impl Write, line: &[u8], is_torn: &mut bool) -> io::Result<()> {
    if *is_torn {
        // What is left of a line that failed in its middle stays a line of its own.
        write_whole(to, b"\n", is_torn)?;
    }
    write_whole(to, line, is_torn)
}

fn write_whole(to: &mut impl Write, line: &[u8], is_torn: &mut bool) -> io::Result<()> {
    let mut written = 0;
    while written < line.len() {
        match to.write(&line[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                written += bytes;
                *is_torn = written < line.len();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FLUSH_STEP),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write(jobs: Receiver<Job>, mut to: impl Write, counts: &Counts) {
    let mut is_torn = false;
    for job in jobs {
        match job {
            Job::Line(line) => {
                if write_line(&mut to, &line, &mut is_torn).is_err() {
                    counts.dropped.fetch_add(1, Relaxed);
                }
                counts.waiting.fetch_sub(line.len(), Relaxed);
            }
            Job::Flush(done) => {
                let _ = to.flush();
                // Whoever asked may have waited for too long.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    /// What was written, by a writer that waits until it may.
    #[derive(Clone, Default)]
    struct Slow {
        text: Arc<Mutex<Vec<u8>>>,
        may: Arc<Mutex<()>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _may = self.may.lock().unwrap_or_else(PoisonError::into_inner);
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted_and_all_others_are_written_in_order() {
        let slow = Slow::default();
        let (mut lines, flush) = Lines::start_writing(slow.clone()).unwrap();
        let stopped = slow.may.lock().unwrap();
        let line = [b'x'; 1023];
        for number in 0..3_000_u32 {
            lines.write_all(&[&number.to_be_bytes()[..], &line[..1019], b"\n"].concat()).unwrap();
        }
        let dropped = lines.counts.dropped.load(Relaxed);
        assert!((900..=1_000).contains(&dropped), "{dropped} of 3,000 lines of 1 KiB, where 2 MiB may wait");
        drop(stopped);
        drop(flush);
        let text = slow.text.lock().unwrap();
        let numbers: Vec<u32> =
            text.chunks(1024).map(|line| u32::from_be_bytes(line[..4].try_into().unwrap())).collect();
        assert_eq!(numbers.len() as u64, 3_000 - dropped);
        assert!(numbers.is_sorted());
    }

    /// Takes a few bytes at a time, and now and then none; or, from some byte on, fails.
    struct Moody {
        text: Arc<Mutex<Vec<u8>>>,
        turn: usize,
        fails_at: Option<usize>,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn += 1;
            let mut text = self.text.lock().unwrap();
            if self.fails_at.take_if(|at| text.len() >= *at).is_some() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if self.turn.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(4);
            text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_whole_where_it_does_not_wait_and_what_fails_in_its_middle_tears_no_other() {
        for (fails_at, expected) in
            [(None, "first line\nsecond line\n"), (Some(5), "first li\nsecond line\n")]
        {
            let text = Arc::default();
            let moody = Moody { text: Arc::clone(&text), turn: 0, fails_at };
            let (mut lines, flush) = Lines::start_writing(moody).unwrap();
            lines.write_all(b"first line\n").unwrap();
            lines.write_all(b"second line\n").unwrap();
            drop(flush);
            assert_eq!(String::from_utf8(text.lock().unwrap().clone()).unwrap(), expected);
        }
    }

    #[test]
    fn an_end_waits_for_nobody_who_does_not_read() {
        let (mut unread, pipe) = io::pipe().unwrap();
        let (mut lines, flush) = Lines::start_writing(pipe).unwrap();
        for _ in 0..20_000 {
            lines.write_all(&[b'y'; 200]).unwrap();
        }
        // It comes back within two seconds.
        drop(flush);
        drop(lines);
        let mut text = Vec::new();
        unread.read_to_end(&mut text).unwrap();
        assert!(text.len() > 1 << 20);
    }
}
