//! The log of a node, by a pipe that can be left unread: as it is when what collects logs hangs.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// As small as a pipe can be: it is to be full soon.
const PIPE_BYTES: usize = 4096;
/// A line may not fit any more though there is room for less.
const LONGEST_LINE: u64 = 512;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Copies what a node logs to a file, while it is let.
#[derive(Debug)]
pub(crate) struct LogPipe {
    reader: Arc<PipeReader>,
    is_unread: Arc<AtomicBool>,
    copies: Option<JoinHandle<()>>,
}

impl LogPipe {
    /// The end for the node, and the other one.
    pub(crate) fn to(mut log: File) -> io::Result<(PipeWriter, Self)> {
        let (reader, writer) = io::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES)?;
        let (reader, is_unread) = (Arc::new(reader), Arc::<AtomicBool>::default());
        let (from, waits) = (Arc::clone(&reader), Arc::clone(&is_unread));
        let copies = thread::spawn(move || {
            let mut bytes = [0; PIPE_BYTES];
            loop {
                while waits.load(Relaxed) {
                    thread::sleep(LOOK_EVERY);
                }
                match (&*from).read(&mut bytes) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => log.write_all(&bytes[..length]).expect("the log can be written"),
                }
            }
        });
        Ok((writer, Self { reader, is_unread, copies: Some(copies) }))
    }

    /// Nobody reads from now on, or somebody does again.
    pub(crate) fn leave_unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Relaxed);
    }

    /// Whether no further line fits.
    pub(crate) fn is_full(&self) -> bool {
        rustix::io::ioctl_fionread(&*self.reader).is_ok_and(|waits| waits + LONGEST_LINE > PIPE_BYTES as u64)
    }
}

impl Drop for LogPipe {
    /// The process has ended: what it has written is read to its end.
    fn drop(&mut self) {
        self.leave_unread(false);
        if let Some(copies) = self.copies.take() {
            let _ = copies.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_unread_fills_the_pipe_and_is_in_the_log_in_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut writer, pipe) = LogPipe::to(file.reopen().unwrap()).unwrap();
        writer.write_all(b"first\n").unwrap();
        while file.as_file().metadata().unwrap().len() == 0 {
            thread::sleep(LOOK_EVERY);
        }
        pipe.leave_unread(true);
        // What was being read already is read.
        writer.write_all(b"second\n").unwrap();
        thread::sleep(5 * LOOK_EVERY);
        assert!(!pipe.is_full());
        writer.write_all(&[b'x'; PIPE_BYTES - 100]).unwrap();
        assert!(pipe.is_full());
        drop(writer);
        drop(pipe);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("first\nsecond\nxxx") && text.len() == 13 + PIPE_BYTES - 100);
    }
}
