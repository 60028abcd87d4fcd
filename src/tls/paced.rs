//! A socket that lets others have their turn: a client that always has something to say, or to take, would else be read and written for
//! as long as the runtime lets a task run, which is a megabyte, or 300 ms of small frames.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that are read of one connection before others have their turn. A read may be longer by as much as its buffer has room.
const READ_BYTES: usize = 8 << 10;
/// The same of bytes that are written.
const WRITTEN_BYTES: usize = 128 << 10;

/// A socket that is read and written in turn.
#[derive(Debug)]
pub(crate) struct Paced {
    tcp: TcpStream,
    /// Since it had nothing to read, or others had their turn.
    read: usize,
    written: usize,
}

impl Paced {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, read: 0, written: 0 }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// Pending once, and woken at once, when so much has been moved. Answers to what was read are written before that.
    fn poll_turn(&mut self, reads: bool, cx: &mut Context<'_>) -> Poll<()> {
        if self.written < WRITTEN_BYTES && !(reads && self.read >= READ_BYTES) {
            return Poll::Ready(());
        }
        (self.read, self.written) = (0, 0);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn note_written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.written += bytes,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.written = 0,
        }
        written
    }
}

impl AsyncRead for Paced {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(true, cx));
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.read += buf.filled().len() - before,
            Poll::Pending => (self.read, self.written) = (0, 0),
        }
        read
    }
}

impl AsyncWrite for Paced {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(false, cx));
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.note_written(written)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(false, cx));
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn others_have_their_turn_after_each_few_kilobytes() {
        // All of it is there before the first read: the system takes so much of one sender.
        let bytes = 10 * READ_BYTES;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Paced::new(listener.accept().await.unwrap().0);
        client.write_all(&vec![7; bytes]).await.unwrap();
        let mut reading = pin!(async {
            let mut buffer = vec![0; READ_BYTES];
            let mut left = bytes;
            while left > 0 {
                left -= socket.read(&mut buffer).await.unwrap();
            }
        });
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            reading.as_mut().poll(cx)
        })
        .await;
        assert!(polls >= bytes / READ_BYTES, "{polls}");
    }

    #[tokio::test]
    async fn a_client_that_takes_everything_is_written_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Paced::new(listener.accept().await.unwrap().0);
        let all = vec![7; 10 * WRITTEN_BYTES];
        let bytes = all.len();
        let writing = tokio::spawn(async move { socket.write_all(&all).await });
        let mut taken = vec![0; bytes];
        client.read_exact(&mut taken).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(taken.iter().all(|byte| *byte == 7), "nothing is lost or sent twice");
    }
}
