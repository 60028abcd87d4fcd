//! The bytes of one connection, beneath h2: what was read before h2 is given to it once more, and frames that ask for nothing are
//! counted.
//!
//! h2 answers each PING and each SETTINGS, and looks at each empty DATA, PRIORITY, WINDOW_UPDATE and frame of an unknown kind, as fast
//! as they come. Only the bytes say how many there are. The heads of frames are read as the bytes pass by: nothing is copied but the
//! 9 bytes of a head, and nothing is allocated.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{noise::Noise, tls::Socket};

/// What every connection begins with.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame before its payload.
const HEAD: usize = 9;
/// The type of DATA.
const DATA: u8 = 0;
/// DATA with so many bytes pays for itself: the connection's bandwidth bounds how many there are.
const BULK: usize = 256;
/// Bytes of answers for which a client may say once more how much it takes.
const WRITTEN_FOR_A_REQUEST: usize = 16 << 10;

/// What a connection and the service above h2 tell each other. They run on one thread.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Requests that the connection does not know of yet.
    requests: AtomicU32,
    is_too_noisy: AtomicBool,
}

impl Told {
    /// So many requests came.
    pub(super) fn note_requests(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.requests.store(self.requests.load(Relaxed).saturating_add(count), Relaxed);
    }

    /// Whether the client has sent too much that asks for nothing. Nothing more is read then.
    pub(super) fn is_too_noisy(&self) -> bool {
        self.is_too_noisy.load(Relaxed)
    }
}

/// A connection of which the preface was read already.
pub(super) struct Counted {
    socket: Socket,
    /// Bytes of the preface that h2 has.
    given: usize,
    frames: Frames,
    noise: Noise,
    /// Bytes of answers that nothing was added for yet.
    written: usize,
    told: Arc<Told>,
}

impl Counted {
    pub(super) fn new(socket: Socket, told: Arc<Told>) -> Self {
        Self { socket, given: 0, frames: Frames::default(), noise: Noise::new(), written: 0, told }
    }

    /// Whether these bytes may pass.
    #[inline]
    fn passes(&mut self, bytes: &[u8]) -> bool {
        let units = self.frames.noise_of(bytes);
        self.noise.spend(units) || self.passes_after(units)
    }

    #[cold]
    fn passes_after(&mut self, units: u32) -> bool {
        let requests = self.told.requests.swap(0, Relaxed);
        let answers = self.written / WRITTEN_FOR_A_REQUEST;
        self.written %= WRITTEN_FOR_A_REQUEST;
        self.noise.earn(requests.saturating_add(answers.try_into().unwrap_or(u32::MAX)));
        self.noise.spend(units)
    }
}

/// Where in the frames of a connection the bytes are that come next.
#[derive(Debug, Default)]
struct Frames {
    /// Of the frame that has begun, its first bytes.
    head: [u8; HEAD],
    has: usize,
    /// Bytes of the payload that are to come.
    rest: usize,
}

impl Frames {
    /// How much of what begins in these bytes asks for nothing.
    #[inline]
    fn noise_of(&mut self, mut bytes: &[u8]) -> u32 {
        let mut units = 0;
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.has).min(bytes.len());
            self.head[self.has..self.has + taken].copy_from_slice(&bytes[..taken]);
            self.has += taken;
            bytes = &bytes[taken..];
            if self.has == HEAD {
                let [a, b, c, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                (self.has, self.rest) = (0, length);
                units += u32::from(kind != DATA || length < BULK);
            }
        }
        units
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < PREFACE.len() {
            let length = buf.remaining().min(PREFACE.len() - self.given);
            buf.put_slice(&PREFACE[self.given..self.given + length]);
            self.given += length;
            return Poll::Ready(Ok(()));
        }
        if self.told.is_too_noisy() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if !self.passes(&buf.filled()[before..]) {
            // h2 does not see it, so it goes on to what the service has to say.
            buf.set_filled(before);
            self.told.is_too_noisy.store(true, Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.written = self.written.saturating_add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.written = self.written.saturating_add(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        if !self.told.is_too_noisy() {
            return Poll::Ready(Ok(()));
        }
        // Closed with bytes that nobody has read, the connection would be reset, and the client would not see why.
        let mut waste = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        // What looks like heads of frames.
        bytes.resize(HEAD + length, 6);
        bytes
    }

    #[test]
    fn frames_are_counted_wherever_reads_end() {
        const HEADERS: u8 = 1;
        const PING: u8 = 6;
        const UNKNOWN: u8 = 0xfa;
        let frames = [
            (PING, 8, 1),
            (HEADERS, 200, 1),
            (DATA, 0, 1),
            (DATA, 255, 1),
            (DATA, 256, 0),
            (DATA, 16_384, 0),
            (UNKNOWN, 0, 1),
            (UNKNOWN, 70_000, 1),
            (PING, 8, 1),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, length, _)| frame(*kind, *length)).collect();
        let units: u32 = frames.iter().map(|(_, _, units)| units).sum();
        for at_once in [1, 2, 8, 9, 10, 17, 4096, bytes.len()] {
            let mut scanned = Frames::default();
            let found: u32 = bytes.chunks(at_once).map(|part| scanned.noise_of(part)).sum();
            assert_eq!((found, scanned.has, scanned.rest), (units, 0, 0), "{at_once} bytes at once");
        }
    }

    #[test]
    fn a_head_counts_when_it_is_there() {
        let mut scanned = Frames::default();
        let ping = frame(6, 8);
        assert_eq!((scanned.noise_of(&ping[..8]), scanned.noise_of(&ping[8..9])), (0, 1));
        assert_eq!(scanned.noise_of(&ping[9..]), 0);
    }
}
